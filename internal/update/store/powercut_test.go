package store_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/update/powercut"
	"github.com/mobileops/mobileops/internal/update/store"
	"golang.org/x/sys/unix"
)

// disk is the environment variable by which the program of the tests is one
// that changes a store on a disk whose power is going to be cut. Its arguments
// are what it is to do, the directory where the disk is mounted, and one with
// packages, where it leaves what the installation was after each act.
const disk = "STORE_POWERCUT_DISK"

func TestMain(m *testing.M) {
	powercut.Enter()
	if path := os.Getenv(disk); path != "" {
		w := &writer{disk: path, packages: os.Args[3]}
		w.Store = store.New(store.Options{Dir: filepath.Join(os.Args[2], "app.store"), Target: filepath.Join(os.Args[2], "app"), Step: w.mark})
		if err := w.run(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writer changes a store, and reports to the disk what it has done.
type writer struct {
	*store.Store
	disk, packages string
	states         []moment
}

// moment is what there was when an act was done.
type moment struct {
	Tree        state // the installation
	Generations []int
}

// state is a whole installation: what is at each path.
type state map[string]string

// snapshot reads an installation. Directories of data look the same whether they
// are in the tree or behind a link to data/ of the store.
func snapshot(target string) (state, error) {
	got := state{}
	root, err := filepath.EvalSymlinks(target)
	if errors.Is(err, fs.ErrNotExist) {
		return got, nil
	} else if err != nil {
		return nil, err
	}
	var walk func(dir, prefix string) error
	walk = func(dir, prefix string) error {
		return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, p)
			if err != nil {
				return err
			}
			rel = filepath.Join(prefix, rel)
			info, err := d.Info()
			if err != nil {
				return err
			}
			what := fmt.Sprintf("%v %d:%d", info.Mode(), info.Sys().(*syscall.Stat_t).Uid, info.Sys().(*syscall.Stat_t).Gid)
			switch {
			case rel == ".":
				return nil
			case rel == "var":
				if d.IsDir() {
					return nil
				}
				real, err := filepath.EvalSymlinks(p)
				if err != nil {
					return err
				}
				return walk(real, "var")
			case info.Mode()&fs.ModeSymlink != 0:
				to, err := os.Readlink(p)
				got[rel] = "-> " + to
				return err
			case info.Mode().IsRegular():
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				what += fmt.Sprintf(" %x", sha256.Sum256(data))
			}
			got[rel] = what
			return nil
		})
	}
	return got, walk(root, "")
}

// differences of two states, a few of them.
func (s state) differences(from state) string {
	var list []string
	for _, p := range slices.Sorted(maps.Keys(s)) {
		if from[p] != s[p] {
			list = append(list, fmt.Sprintf("%s is %q, not %q", p, s[p], from[p]))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(from)) {
		if _, ok := s[p]; !ok {
			list = append(list, p+" is gone")
		}
	}
	return fmt.Sprintf("%d differences: %s", len(list), strings.Join(list[:min(len(list), 4)], "; "))
}

func (w *writer) mark(name string) {
	if err := powercut.Mark(w.disk, name); err != nil {
		panic(err) // the disk is broken
	}
}

// act does one thing. The marks "begin" and "done" are around it.
func (w *writer) act(name string, do func(s *store.Session) error) error {
	w.mark("begin " + name)
	s, err := w.Lock(context.Background(), name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := errors.Join(do(s), s.Release()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w.mark("done " + name)
	return w.remember()
}

func (w *writer) remember() error {
	now, err := snapshot(w.Target())
	if err != nil {
		return err
	}
	numbers, err := w.Numbers()
	w.states = append(w.states, moment{now, numbers})
	return err
}

func (w *writer) apply(name string) error {
	data, err := os.ReadFile(filepath.Join(w.packages, name))
	if err != nil {
		return err
	}
	return w.act("apply "+name, func(s *store.Session) error { return applyIn(s, data) })
}

func applyIn(s *store.Session, data []byte) error {
	g, err := stageIn(s, data)
	if err == nil {
		_, err = s.Activate(context.Background(), g.Number, time.Now())
	}
	return err
}

// back goes to the generation before.
func back(s *store.Session) error {
	n, err := s.Current()
	if err != nil {
		return err
	}
	g, err := s.Generation(n)
	if err != nil {
		return err
	}
	if g, err = s.Previous(g); err != nil {
		return err
	}
	_, err = s.Activate(context.Background(), g.Number, time.Now())
	return err
}

func (w *writer) run(what string) error {
	if err := w.remember(); err != nil {
		return err
	}
	var acts []func() error
	switch what {
	case "history":
		acts = []func() error{
			func() error { return w.apply("first") },
			func() error {
				return w.act("edit", func(s *store.Session) error {
					file := filepath.Join(filepath.Dir(s.Dir()), "edited")
					return errors.Join(durable.WriteFile(file, []byte("edited = yes\n"+conf(1)), 0o644),
						os.Rename(file, filepath.Join(s.Target(), "etc/app.conf")), durable.SyncDir(filepath.Join(s.Target(), "etc")))
				})
			},
			func() error { return w.apply("second") },
			func() error { return w.act("rollback", back) },
			func() error {
				return w.act("backup", func(s *store.Session) error {
					_, err := s.Stage(context.Background(), store.Request{Now: time.Now(), By: "root"})
					return err
				})
			},
			func() error { return w.apply("full") },
			func() error { return w.act("prune", prune) },
			func() error { return w.act("rollback again", back) },
		}
	case "again":
		acts = []func() error{
			func() error { return w.act("recovery", func(*store.Session) error { return nil }) },
			func() error { return w.apply("second") },
			func() error { return w.act("prune", prune) },
		}
	default:
		return fmt.Errorf("nothing is called %q", what)
	}
	for _, act := range acts {
		if err := act(); err != nil {
			return err
		}
	}
	data, err := json.Marshal(w.states)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.packages, what+".states"), data, 0o600)
}

func prune(s *store.Session) error {
	gone, err := s.Removable(0)
	if err != nil {
		return err
	}
	var numbers []int
	for _, g := range gone {
		numbers = append(numbers, g.Number)
	}
	_, err = s.Remove(context.Background(), numbers)
	return err
}

// seed is what packages bring for a directory of data.
var seed = strings.Repeat("seed of data\n", 2000)

// conf is a file of configuration as version v of the package has it.
func conf(v int) string { return fmt.Sprintf("# settings\na = 1\nb = 2\nc = 3\nversion = %d\n", v) }

// release is a tree of 250 files, 2 MB, of which one in three is another one in
// each version. One is written while it is read from the package.
func release(version int) files {
	tree := files{
		"bin/tool 755": fmt.Sprint("program ", version), "bin/priv 4755": "trusted", "current.lib": fmt.Sprint("->lib/", version%3),
		"etc/app.conf": conf(version), "var/seed": seed, "empty/ 700": "", fmt.Sprintf("only/in/%d 600", version): "x",
		"lib/large": strings.Repeat(fmt.Sprintf("version %d\n", version), 120_000),
	}
	for i := range 240 {
		of := 0
		if i%3 == 0 {
			of = version
		}
		r := rand.New(rand.NewPCG(uint64(i), uint64(of)))
		b := make([]byte, 100+r.IntN(7_000))
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		tree[fmt.Sprintf("lib/%d/%03d", i%7, i)] = string(b)
	}
	return tree
}

const rules = "config: [etc/**]\ndata: [var]\nsetuid: [{path: bin/priv, mode: \"4755\"}]\n"

// packages writes the packages into a directory beside the disk.
func packages(t *testing.T) string {
	dir := t.TempDir()
	second := release(2)
	second["etc/new.conf"] = "new = 1\n"
	for name, data := range map[string][]byte{
		"first":  pkg(t, rules, release(1)),
		"second": pkg(t, rules+"remove: [only/in/1, own/dir]\n", second),
		"full":   pkg(t, rules+"kind: full\n", release(3)),
		"next":   pkg(t, "", files{"next/file": "next", "lib/0/000": "next", "bin/tool 755": "next"}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// occupied makes an installation that was there before there was a store.
func occupied(t *testing.T, target string) {
	t.Helper()
	for name, content := range (files{"bin/tool": "old program", "own/dir/x": "mine", "own/y": "mine too", "var/db": "precious", "var/log/z": "log", "etc/app.conf": conf(0)}) {
		p := filepath.Join(target, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("own/y", filepath.Join(target, "link")); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
}

// perform has a writer do something on a mounted disk, unmounts it, and returns
// where it began and what the installation was after each act.
func perform(t *testing.T, d *powercut.Device, what, dir, packages string) (from powercut.Position, states []moment) {
	t.Helper()
	from = d.Mark("the beginning")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, what, dir, packages)
	cmd.Env = append(os.Environ(), disk+"="+d.Path(), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", what, err, out)
	}
	d.Unmount()
	data, err := os.ReadFile(filepath.Join(packages, what+".states"))
	if err == nil {
		err = json.Unmarshal(data, &states)
	}
	if err != nil {
		t.Fatal(err)
	}
	return from, states
}

// whole holds what a cut left against what it may have left: exactly the state
// that was reported last, or the one of the act that had begun.
func whole(t *testing.T, when, target string, reported []string, states []moment) (at int) {
	t.Helper()
	got, err := snapshot(target)
	if err != nil {
		t.Fatalf("%s: the installation cannot be read: %v", when, err)
	}
	done, begun := progress(reported)
	for n := done; n <= begun; n++ {
		if maps.Equal(got, states[n].Tree) {
			return n
		}
	}
	// Data is shared by all generations. What a package brings for it is there
	// before the switch, and is never half of it.
	early := maps.Clone(states[done].Tree)
	early["var/seed"] = sum("-rw-r--r--", seed)
	if begun > done && maps.Equal(got, early) {
		return done
	}
	t.Errorf("%s: after %q the installation is neither old nor new:\nheld against the old: %s\nagainst the new: %s", when,
		reported[max(0, len(reported)-3):], got.differences(states[done].Tree), got.differences(states[begun].Tree))
	t.FailNow()
	return 0
}

// progress counts the acts that were done, and those that had begun.
func progress(reported []string) (done, begun int) {
	for _, mark := range reported {
		if strings.HasPrefix(mark, "begin ") {
			begun++
		} else if strings.HasPrefix(mark, "done ") {
			done++
		}
	}
	return done, begun
}

// kept checks that the generations are those that were reported, and may be ones
// that the act that had begun was making or removing.
func kept(t *testing.T, st *store.Store, reported []string, states []moment) {
	t.Helper()
	numbers, err := st.Numbers()
	if err != nil {
		t.Fatal(err)
	}
	done, begun := progress(reported)
	old, now := states[done].Generations, states[begun].Generations
	for _, n := range old {
		if slices.Contains(now, n) && !slices.Contains(numbers, n) {
			t.Errorf("generation %d of %d is gone", n, old)
		}
	}
	for _, n := range numbers {
		if !slices.Contains(old, n) && !slices.Contains(now, n) {
			t.Errorf("generation %d is neither of %d nor of %d", n, old, now)
		}
	}
}

// survives checks everything that is promised after a cut.
func survives(t *testing.T, im *powercut.Image, packages string, states []moment) {
	t.Helper()
	dir := im.Mount()
	target, ctx := filepath.Join(dir, "app"), context.Background()
	before := whole(t, "before recovery", target, im.Reported, states)

	// Whoever comes next puts things right.
	st := store.New(store.Options{Dir: filepath.Join(dir, "app.store"), Target: target})
	s, err := st.Lock(ctx, "a test")
	if err != nil {
		t.Fatalf("after %q: %v", im.Reported, err)
	}
	defer s.Release() // or the disk stays busy
	if after := whole(t, "after recovery", target, im.Reported, states); after < before {
		t.Errorf("recovery went back from state %d to %d", before, after)
	}
	kept(t, st, im.Reported, states)
	tidy(t, st)
	verified(t, st)

	data, err := os.ReadFile(filepath.Join(packages, "next"))
	if err != nil {
		t.Fatal(err)
	}
	was, err := snapshot(target)
	if err != nil {
		t.Fatal(err)
	}
	if err := applyIn(s, data); err != nil {
		t.Fatalf("after %q and %q the next apply: %v", im.Reported, s.Swept, err)
	}
	want := maps.Clone(was)
	maps.Copy(want, state{"next": was.dir(), "lib": was.dir(), "lib/0": was.dir(), "bin": was.dir(), "next/file": sum("-rw-r--r--", "next"), "lib/0/000": sum("-rw-r--r--", "next"), "bin/tool": sum("-rwxr-xr-x", "next")})
	now, err := snapshot(target)
	if err != nil || !maps.Equal(now, want) {
		t.Errorf("after the next apply: %v, %s", err, now.differences(want))
	}
	tidy(t, st)
	verified(t, st)
	if len(was) > 0 {
		if err := back(s); err != nil {
			t.Errorf("rollback: %v", err)
		}
		if now, err := snapshot(target); err != nil || !maps.Equal(now, was) {
			t.Errorf("after a rollback: %v, %s", err, now.differences(was))
		}
	}
}

// dir is what a directory looks like.
func (s state) dir() string { return fmt.Sprintf("drwxr-xr-x %d:%d", os.Geteuid(), os.Getegid()) }

func sum(mode, content string) string {
	return fmt.Sprintf("%s %d:%d %x", mode, os.Geteuid(), os.Getegid(), sha256.Sum256([]byte(content)))
}

// tidy says what is left behind in a store.
func tidy(t *testing.T, st *store.Store) {
	t.Helper()
	left, _ := filepath.Glob(st.Dir() + "/tmp/*")
	partial, _ := filepath.Glob(st.Dir() + "/generations/*.partial")
	hidden, _ := filepath.Glob(st.Dir() + "/.*")
	left = slices.Concat(left, partial, hidden)
	blobs, _ := filepath.Glob(st.Dir() + "/blobs/*/*")
	for _, b := range blobs {
		if stat(t, b).Nlink == 1 {
			left = append(left, b)
		}
	}
	if len(left) > 0 {
		t.Errorf("%d left behind: %q", len(left), left[:min(len(left), 5)])
	}
}

// verified holds all generations against their manifests.
func verified(t *testing.T, st *store.Store) {
	t.Helper()
	numbers, err := st.Numbers()
	if err != nil {
		t.Fatal(err)
	}
	v, err := st.Verify(context.Background(), numbers, nil)
	if err != nil {
		t.Fatalf("verify %d: %v", numbers, err)
	}
	for _, d := range v.Differences {
		if d.Serious() || d.Kind == store.Unread {
			t.Errorf("verify: %+v", d)
		}
	}
}

// TestPowerCut cuts the power at every flush of a history of updates, and at
// random between them. After each cut the installation is wholly what it was or
// wholly what it was to become, what had been reported is there, and the next
// update finds a store in order.
func TestPowerCut(t *testing.T) {
	packages := packages(t)
	for _, c := range []struct {
		filesystem string
		random     int
		every      int // of how many cuts one is done
		atLeast    int
	}{{"ext4", 60, 1, 100}, {"xfs", 20, 4, 15}, {"btrfs", 20, 4, 15}} {
		t.Run(c.filesystem, func(t *testing.T) {
			d := powercut.Start(t, powercut.Options{Filesystem: c.filesystem})
			dir := d.Mount()
			occupied(t, filepath.Join(dir, "app"))
			from, states := perform(t, d, "history", dir, packages)
			cuts := d.Cuts(from, d.Now(), c.random, 7)
			done, lost := 0, 0
			if testing.Short() { // the race detector is slow
				c.every, c.atLeast = 2*c.every, c.atLeast*6/10
			}
			for i := 0; i < len(cuts); i += c.every {
				done++
				t.Run(cuts[i].String(), func(t *testing.T) {
					im := d.Cut(t, cuts[i])
					lost += im.Lost
					survives(t, im, packages, states)
				})
			}
			t.Logf("%d cuts of %d entries, %d writes lost", done, len(d.Log()), lost)
			if done < c.atLeast || lost < done/2 {
				t.Errorf("only %d cuts in which %d writes were lost", done, lost)
			}
		})
	}
}

// TestPowerCutOfTheFirst is a first installation, where nothing was before.
func TestPowerCutOfTheFirst(t *testing.T) {
	packages := packages(t)
	d := powercut.Start(t, powercut.Options{Sector: 512})
	dir := d.Mount()
	unix.Sync()
	from, states := perform(t, d, "again", dir, packages)
	for _, cut := range d.Cuts(from, d.Now(), 10, 8) {
		t.Run(cut.String(), func(t *testing.T) { survives(t, d.Cut(t, cut), packages, states) })
	}
}

// TestPowerCutTwice cuts the power again while an update finds and clears away
// what the first cut left.
func TestPowerCutTwice(t *testing.T) {
	packages := packages(t)
	d := powercut.Start(t, powercut.Options{})
	dir := d.Mount()
	occupied(t, filepath.Join(dir, "app"))
	from, _ := perform(t, d, "history", dir, packages)
	// In the middle of a switch, of an adoption, and of a removal.
	for i, step := range []string{"exchange", "proved", "renamed", "unnamed"} {
		t.Run(step, func(t *testing.T) {
			at := d.Now()
			for _, e := range d.Log()[from:] {
				if e.Kind == powercut.Marked && e.Name == step {
					at = e.At + 1
					break
				}
			}
			if at == d.Now() {
				t.Fatalf("no step is called %q", step)
			}
			again := d.Cut(t, powercut.Cut{At: at, Fate: powercut.Chance(uint64(i))}).Disk()
			begin, states := perform(t, again, "again", again.Mount(), packages)
			cuts := again.Cuts(begin, again.Now(), 6, uint64(i))
			for i := 0; i < len(cuts); i += 3 {
				t.Run(strconv.Itoa(i)+"-"+cuts[i].String(), func(t *testing.T) { survives(t, again.Cut(t, cuts[i]), packages, states) })
			}
		})
	}
}
