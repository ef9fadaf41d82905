package integrity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/state"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// TestDiskFull: a baseline that does not fit is an error of kind Failed, leaves
// nothing, and the old one still works.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("NOT RUN: cannot mount a tmpfs here: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	b := newBench(t, plainPolicy)
	b.Store = state.New(dir, state.Options{})
	b.put("f", "x")
	old := b.take()
	big := newBench(t, plainPolicy)
	for i := range 12000 {
		big.put(fmt.Sprintf("d%d/%x", i%10, rand.Uint64()), "y")
	}
	for _, room := range []int{0, 20 << 10, 100 << 10, 300 << 10} { // bytes left, so that it fails at different places
		filler := filepath.Join(dir, "filler")
		b.must(os.WriteFile(filler, nil, 0o600))
		var fs unix.Statfs_t
		b.must(unix.Statfs(dir, &fs))
		if n := int64(fs.Bavail)*fs.Bsize - int64(room); n > 0 {
			b.must(os.WriteFile(filler, make([]byte, n), 0o600))
		}
		_, err := b.Take(t.Context(), TakeOptions{Name: "default", Policy: b.pol, Scan: Scan{Tree: big.tree}})
		if failure.KindOf(err) != failure.Failed || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%d bytes left: %v", room, err)
		}
		b.must(os.Remove(filler))
		b.onlyCatalogued()
		if r := b.compare(CompareOptions{}); r.Baseline.ID != old.Entry.ID {
			t.Errorf("the baseline is %s, not the old one", r.Baseline.ID)
		}
	}
}

// TestCancelled: whenever it happens, catalogue, files and findings are as
// they were.
func TestCancelled(t *testing.T) {
	b := newBench(t, plainPolicy)
	for i := range 4000 {
		b.put(fmt.Sprintf("d%d/f%d", i%40, i), strings.Repeat("x", i))
	}
	old := b.take()
	start := time.Now()
	b.put("d1/changed", "since")
	b.compare(CompareOptions{Verify: true})
	whole := time.Since(start)
	hits := 0
	// What a whole run takes depends on what else the machine does just then, so
	// there are more rounds until enough were interrupted.
	for i := 0; i < 40 || hits < 10 && i < 1000; i++ {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		timer := time.AfterFunc(whole*time.Duration(i%40)/40, cancel)
		start := time.Now()
		var err error
		if i%2 == 0 {
			_, err = b.Take(ctx, TakeOptions{Name: "default", Policy: b.pol, Scan: Scan{Tree: b.tree}})
		} else {
			_, err = b.Compare(ctx, CompareOptions{Name: "default", Verify: true})
		}
		timer.Stop()
		cancel()
		b.onlyCatalogued()
		c, ferr := b.Find(t.Context(), "default")
		b.must(ferr)
		if err == nil {
			whole = time.Since(start)
			if i%2 == 0 {
				old.Entry = c
			}
			continue
		}
		hits++
		if failure.KindOf(err) != failure.Interrupted || c.ID != old.Entry.ID {
			t.Errorf("%v; the baseline is %s, was %s", err, c.ID, old.Entry.ID)
		}
	}
	if hits < 10 {
		t.Errorf("only %d were interrupted", hits)
	}
}

// TestKeep: the oldest baselines of a name go, with their files; others stay.
func TestKeep(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.Keep = 2
	b.put("f", "x")
	_, err := b.Take(t.Context(), TakeOptions{Name: "other", Policy: b.pol, Scan: Scan{Tree: b.tree}})
	b.must(err)
	var last *Taken
	for range 5 {
		last = b.take()
		b.compare(CompareOptions{})
	}
	list, err := b.List(t.Context())
	b.must(err)
	if len(list) != 3 || list[0].ID != last.Entry.ID || !list[0].Current || list[1].Current || list[2].Name != "other" {
		t.Errorf("%+v", list)
	}
	b.onlyCatalogued()
	gone, err := b.Remove(t.Context(), "default")
	if err != nil || len(gone) != 2 {
		t.Errorf("%d removed, %v", len(gone), err)
	}
	b.onlyCatalogued()
	if _, err := b.Find(t.Context(), "other"); err != nil {
		t.Error(err)
	}
}

// TestTransfer: export and import, and what an import refuses.
func TestTransfer(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("f", "x")
	taken := b.take()
	out := filepath.Join(t.TempDir(), "copy.baseline")
	if _, err := b.Export(t.Context(), "default", out, false); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Export(t.Context(), "default", out, false); failure.KindOf(err) != failure.Usage {
		t.Errorf("over an existing file: %v", err)
	}
	data, err := os.ReadFile(out)
	b.must(err)
	o := newBench(t, plainPolicy)
	if c, err := o.Import(t.Context(), out, ""); err != nil || c.Root != taken.Entry.Root || !c.Imported {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := o.Import(t.Context(), out, "twice"); failure.KindOf(err) != failure.Busy {
		t.Errorf("twice: %v", err)
	}
	b.put("f", "y")
	if r, err := o.Compare(t.Context(), CompareOptions{Name: "default"}); err != nil || len(r.Changes) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	bad := filepath.Join(t.TempDir(), "bad")
	refuse := func(what string) {
		t.Helper()
		n := newBench(t, plainPolicy)
		if c, err := n.Import(t.Context(), bad, ""); failure.KindOf(err) != failure.Untrustworthy && failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: %+v, %v", what, c, err)
		}
		if list, err := n.List(t.Context()); err != nil || len(list) > 0 {
			t.Errorf("%s: %v in the catalogue, %v", what, list, err)
		}
	}
	for what, d := range map[string][]byte{"cut": data[:len(data)/2], "empty": nil, "text": []byte("hello")} {
		b.must(os.WriteFile(bad, d, 0o600))
		refuse(what)
	}
	for _, edit := range [][2]string{
		{taken.Entry.ID, "../../../../../x"}, {taken.Entry.ID, "ABCDEF0123456789"}, {taken.Entry.ID, ""},
		{`"name":"default"`, `"name":"../../x"`}, {`"name":"default"`, `"name":""`},
	} {
		b.must(os.WriteFile(bad, data, 0o600))
		db, err := bolt.Open(bad, 0o600, nil)
		b.must(err)
		b.must(db.Update(func(tx *bolt.Tx) error {
			m := tx.Bucket([]byte("meta"))
			return m.Put([]byte("header"), bytes.Replace(m.Get([]byte("header")), []byte(edit[0]), []byte(edit[1]), 1))
		}))
		b.must(db.Close())
		refuse(edit[1])
	}
}

// TestDamagedBaseline: a check against it fails as untrustworthy, and says so
// when its file is gone.
func TestDamagedBaseline(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("f", "x")
	taken := b.take()
	file := b.file(taken.Entry)
	data, err := os.ReadFile(file)
	b.must(err)
	for i := range 4 {
		d := bytes.Clone(data)
		d[len(d)*(i+1)/5] ^= 4
		b.must(os.WriteFile(file, d, 0o600))
		r, err := b.Compare(t.Context(), CompareOptions{Name: "default"})
		if err == nil && len(r.Changes) > 0 || err != nil && !errors.Is(err, baseline.ErrDamaged) {
			t.Errorf("%v", err)
		}
	}
	b.must(os.Remove(file))
	if _, err := b.Compare(t.Context(), CompareOptions{Name: "default"}); failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("missing: %v", err)
	}
}

// TestTreeChangesWhileCompared: what nobody touches is never reported.
func TestTreeChangesWhileCompared(t *testing.T) {
	b := newBench(t, plainPolicy)
	for i := range 2000 {
		b.put(fmt.Sprintf("d%d/still%d", i%20, i), "still")
		b.put(fmt.Sprintf("d%d/busy%d", i%20, i), "busy")
	}
	b.take()
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			i := rand.IntN(2000)
			p := b.path(fmt.Sprintf("d%d/busy%d", i%20, i))
			os.Remove(p)
			os.WriteFile(p+"x", []byte("new"), 0o600)
			os.Rename(p+"x", p)
			os.Mkdir(p+"d", 0o755)
			os.RemoveAll(p + "d")
			time.Sleep(500 * time.Microsecond)
		}
	})
	for i := range 12 {
		r := b.compare(CompareOptions{Verify: i%2 == 0})
		for _, c := range r.Changes {
			if strings.Contains(string(c.Path), "still") || strings.Contains(string(c.From), "still") {
				t.Errorf("%q", changes(r))
			}
		}
	}
	stop()
	wg.Wait()
}

// TestBlockDevice: content that is changed beneath the filesystem, with every
// attribute as it was, is found by a verify and, as documented, not by a check.
func TestBlockDevice(t *testing.T) {
	for _, tool := range []string{"losetup", "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil || os.Geteuid() != 0 {
			t.Skipf("NOT RUN: needs root and %s (%v)", tool, err)
		}
	}
	const alone = "INTEGRITY_TEST_MOUNTS_ALONE"
	if os.Getenv(alone) == "" {
		// Whoever makes a namespace of mounts while the filesystem is mounted keeps
		// it, and what is cached of it: so it is mounted where nobody copies it from.
		c := exec.Command("/proc/self/exe", "-test.run=^TestBlockDevice$", "-test.v")
		c.Env = append(os.Environ(), alone+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // which makes all mounts private
		out, err := c.CombinedOutput()
		switch ended := new(exec.ExitError); {
		case err != nil && !errors.As(err, &ended):
			t.Skipf("NOT RUN: no namespace of mounts: %v", err)
		case err != nil:
			t.Fatalf("%v\n%s", err, out)
		case bytes.Contains(out, []byte("--- SKIP")):
			t.Skipf("%s", out)
		}
		return
	}
	dir := t.TempDir()
	image, mnt := dir+"/image", dir+"/mnt"
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	b := newBench(t, plainPolicy)
	b.must(os.Mkdir(mnt, 0o755))
	b.must(os.WriteFile(image, nil, 0o600))
	b.must(os.Truncate(image, 8<<20))
	run("mkfs.ext4", "-q", "-O", "^has_journal,^metadata_csum", image)
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		t.Skipf("NOT RUN: no loop device: %v", err)
	}
	dev := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", dev).Run()
	mounted := func(fn func()) {
		t.Helper()
		if err := unix.Mount(dev, mnt, "ext4", unix.MS_NOATIME, ""); err != nil {
			t.Skipf("NOT RUN: cannot mount: %v", err)
		}
		defer func() { b.must(unix.Unmount(mnt, 0)) }()
		fn()
	}
	secret := bytes.Repeat([]byte("the original content, block by block\n"), 300)
	b.tree = mnt
	mounted(func() {
		b.must(os.WriteFile(mnt+"/f", secret, 0o644))
		b.take()
		b.age()
	})
	raw, err := os.OpenFile(dev, os.O_RDWR, 0)
	b.must(err)
	// Whoever else has the device open keeps what was cached of it before.
	b.must(unix.IoctlSetInt(int(raw.Fd()), unix.BLKFLSBUF, 0))
	disk := make([]byte, 8<<20)
	_, err = raw.ReadAt(disk, 0)
	b.must(err)
	at := bytes.Index(disk, secret[:1024])
	if at < 0 {
		t.Fatal("the content is not on the device")
	}
	_, err = raw.WriteAt([]byte("THE"), int64(at))
	b.must(err)
	b.must(raw.Sync())
	b.must(raw.Close())
	mounted(func() {
		b.expect(b.compare(CompareOptions{}))
		b.expect(b.compare(CompareOptions{Verify: true}), "changed /f content")
	})
}

// TestPolicyOfTheBaseline: the policy travels in the baseline.
func TestPolicyOfTheBaseline(t *testing.T) {
	b := newBench(t, "version: 1\npaths: [/]\nrules:\n  - \"!/skip\"\n")
	b.put("skip/f", "x")
	b.put("f", "x")
	b.take()
	b.put("skip/g", "x")
	b.expect(b.compare(CompareOptions{Verify: true}))
	p, err := policy.Parse("x", []byte(plainPolicy))
	b.must(err)
	b.pol = p
	b.expect(b.compare(CompareOptions{})) // that of the baseline counts
}
