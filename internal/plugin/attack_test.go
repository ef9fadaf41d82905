package plugin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/state"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: it takes root to run plugins as other accounts")
	}
}

// plan inspects a package, and closes it after the test.
func (w *world) plan(path string) *Plan {
	w.Helper()
	p, err := pack.Open(path)
	if err != nil {
		w.Fatal(err)
	}
	plan, err := w.Inspect(w.Context(), p, Source{Text: path})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { plan.Close() })
	return plan
}

func owner(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

// TestRollbackAccount goes back and forth between a version with an account of
// its own and one that is root: each runs as what was accepted for it.
func TestRollbackAccount(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	const makes = `: > by-$MOBILEOPS_PLUGIN_VERSION-$1`
	first := w.install(w.pack("hello", "1.0.0", 1, "", makes))
	w.install(w.pack("hello", "2.0.0", 2, "permissions: {run_as: root}\n", makes))
	check := func(version, n string, want uint32) {
		t.Helper()
		if status, out, err := w.run("hello", n); err != nil || status != 0 {
			t.Fatalf("%d, %q, %v", status, out, err)
		}
		if got := owner(t, filepath.Join(w.DataDir("hello"), "by-"+version+"-"+n)); got != want {
			t.Errorf("%s ran as %d, not %d", version, got, want)
		}
	}
	check("2.0.0", "a", 0)
	// The account stays taken while there is data of it.
	if other := w.install(w.pack("other", "1.0.0", 1, "", "")); other.Account == first.Account {
		t.Errorf("two plugins are account %d", other.Account)
	}
	for _, n := range []string{"b", "c"} {
		if _, err := w.Rollback(t.Context(), "hello"); err != nil {
			t.Fatal(err)
		}
		check("1.0.0", n, first.Account)
		if _, err := w.Rollback(t.Context(), "hello"); err != nil {
			t.Fatal(err)
		}
		check("2.0.0", n, 0)
	}
}

// TestNotInstalledByRoot lets root start what was installed without an account:
// it must not become root's.
func TestNotInstalledByRoot(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", "echo it runs"))
	if _, err := w.change(t.Context(), "hello", "test", func(_ *state.Tx, r *Record) error { r.Account = 0; return nil }); err != nil {
		t.Fatal(err)
	}
	_, _, err := w.run("hello")
	w.fails(err, failure.Untrustworthy, "no account of its own")
}

// TestPlanIsOld has other commands come between a plan and its installation,
// which waits for somebody to agree.
func TestPlanIsOld(t *testing.T) {
	w := newWorld(t)
	yes := Consent{Permissions: true}
	path := w.pack("hello", "1.0.0", 1, "", "echo one")
	late := w.plan(path)
	other := w.pack("hello", "1.0.0", 1, "", "echo another")
	r := w.install(other)
	before, err := os.Stat(w.packageDir("hello", &r.Release))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Install(t.Context(), late, yes)
	w.fails(err, failure.Busy, "meanwhile")
	after, err := os.Stat(w.packageDir("hello", &r.Release))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("what is installed was replaced: %v", err)
	}
	if _, out, err := w.run("hello"); err != nil || out != "another\n" {
		t.Errorf("%q, %v", out, err)
	}

	// It was no downgrade when somebody agreed.
	if _, err := w.Uninstall(t.Context(), "hello", true); err != nil {
		t.Fatal(err)
	}
	late = w.plan(path)
	w.install(w.pack("hello", "2.0.0", 2, "", "echo two"))
	if _, err := w.Uninstall(t.Context(), "hello", true); err != nil {
		t.Fatal(err)
	}
	_, err = w.Install(t.Context(), late, yes)
	w.fails(err, failure.Busy, "meanwhile")
	if list, err := w.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestTwoOfOneSequence offers a package with the sequence of the version before,
// which would take the place of that.
func TestTwoOfOneSequence(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", "echo one"))
	w.install(w.pack("hello", "2.0.0", 2, "", "echo two"))
	_, _, err := w.try(w.pack("hello", "1.0.0", 1, "", "echo forged"), Consent{Permissions: true, Downgrade: true})
	w.fails(err, failure.Untrustworthy, "two packages")
	if _, err := w.Rollback(t.Context(), "hello"); err != nil {
		t.Fatal(err)
	}
	if _, out, err := w.run("hello"); err != nil || out != "one\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestRepair installs a package again whose files were damaged, as errors say.
func TestRepair(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "0.9.0", 1, "", "echo before"))
	path := w.pack("hello", "1.0.0", 2, "permissions: {read: [/etc/hostname]}\n", "echo whole")
	r := w.install(path)
	dir := w.packageDir("hello", &r.Release)
	for what, damage := range map[string]func() error{
		"program":  func() error { return os.WriteFile(filepath.Join(dir, "mobileops-hello"), nil, 0o755) },
		"manifest": func() error { return os.WriteFile(filepath.Join(dir, "plugin.yaml"), nil, 0o644) },
		"all":      func() error { return os.RemoveAll(dir) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		// What it asked for nobody can tell when its manifest is damaged.
		if _, _, err := w.try(path, Consent{}); what != "program" {
			w.fails(err, failure.Usage, "permissions")
		} else if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if what != "program" {
			w.install(path)
		}
		if _, out, err := w.run("hello"); err != nil || out != "whole\n" {
			t.Errorf("%s: %q, %v", what, out, err)
		}
	}
	if _, err := w.Rollback(t.Context(), "hello"); err != nil {
		t.Fatal(err)
	}
	if _, out, err := w.run("hello"); err != nil || out != "before\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestNothingChanged has an installation fail late: neither record nor files nor
// index are of it.
func TestNothingChanged(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", "echo one"))
	index := readFile(t, indexPath(w.opts.Dir))
	bad := map[string]func() error{
		"a long source": func() error {
			p, err := pack.Open(w.pack("hello", "2.0.0", 2, "", "echo two"))
			if err != nil {
				return err
			}
			plan, err := w.Inspect(t.Context(), p, Source{Text: strings.Repeat("x", maxRecord)})
			if err != nil {
				return err
			}
			defer plan.Close()
			_, err = w.Install(t.Context(), plan, Consent{})
			return err
		},
		"another plugin whose place is taken": func() error {
			if err := os.WriteFile(w.DataDir("fresh"), nil, 0o600); err != nil {
				return err
			}
			_, _, err := w.try(w.pack("fresh", "1.0.0", 1, "", ""), Consent{Permissions: true})
			return err
		},
	}
	if os.Geteuid() == 0 {
		bad["a user that is not there"] = func() error {
			_, _, err := w.try(w.pack("hello", "2.0.1", 3, "permissions: {run_as: nobody-has-this}\n", "echo two"), Consent{Permissions: true})
			return err
		}
	}
	for what, try := range bad {
		if err := try(); err == nil {
			t.Errorf("%s: installed", what)
		}
		list, err := w.List(t.Context())
		left, _ := filepath.Glob(filepath.Join(w.opts.Dir, "installed", "*", "*"))
		if err != nil || len(list) != 1 || list[0].Sequence != 1 || len(left) != 1 || readFile(t, indexPath(w.opts.Dir)) != index {
			t.Errorf("%s: %v, %+v, left %q", what, err, list, left)
		}
		if dirs, _ := filepath.Glob(filepath.Join(w.opts.Dir, "installed", "*")); len(dirs) != 1 {
			t.Errorf("%s: left %q", what, dirs)
		}
		if _, out, err := w.run("hello"); err != nil || out != "one\n" {
			t.Errorf("%s: %q, %v", what, out, err)
		}
	}
}

// TestOthersDirectories has somebody else own, or be able to write to, what
// plugins lie in: they could exchange one between its proof and its start.
func TestOthersDirectories(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", "echo one"))
	upgrade := w.pack("hello", "2.0.0", 2, "", "echo two")
	top := filepath.Join(w.opts.Dir, "installed")
	try := func(t *testing.T, what string) {
		t.Helper()
		_, out, err := w.run("hello")
		w.fails(err, failure.Untrustworthy, "in the place of plugins")
		if out != "" {
			t.Errorf("%s: it ran: %q", what, out)
		}
		_, _, err = w.try(upgrade, Consent{Permissions: true})
		w.fails(err, failure.Untrustworthy, "in the place of plugins")
	}
	for _, dir := range []string{w.opts.Dir, top, w.installedDir("hello"), filepath.Join(w.opts.Dir, "data")} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		try(t, dir)
		if err := os.Chmod(dir, info.Mode()); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() != 0 {
			continue
		}
		if err := os.Chown(dir, 12345, 0); err != nil {
			t.Fatal(err)
		}
		try(t, dir)
		if err := os.Chown(dir, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	// A link on the way is fine when nobody else can change where it leads.
	link := filepath.Join(w.dir, "link")
	if err := os.Symlink(w.opts.Dir, link); err != nil {
		t.Fatal(err)
	}
	w.opts.Dir = link
	if _, out, err := w.run("hello"); err != nil || out != "one\n" {
		t.Errorf("%q, %v", out, err)
	}
	w.install(upgrade)
	if _, out, err := w.run("hello"); err != nil || out != "two\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestData is what a plugin can do to its own directory, where it may do all.
func TestData(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", "echo it runs"))
	tmp := filepath.Join(w.DataDir("hello"), "tmp")
	precious := w.write("precious", "of root", 0o600)
	for what, replace := range map[string]func() error{
		"a hard link":     func() error { return os.Link(precious, tmp) },
		"a symbolic link": func() error { return os.Symlink(w.dir, tmp) },
		"a pipe":          func() error { return syscall.Mkfifo(tmp, 0o600) },
		"nothing":         func() error { return nil },
	} {
		if err := os.RemoveAll(tmp); err != nil {
			t.Fatal(err)
		}
		if err := replace(); err != nil {
			t.Fatal(err)
		}
		if _, out, err := w.run("hello"); err != nil || out != "it runs\n" {
			t.Errorf("%s: %q, %v", what, out, err)
		}
		if os.Geteuid() == 0 && (owner(t, precious) != 0 || owner(t, w.dir) != 0) {
			t.Fatalf("%s: it was given away", what)
		}
		if info, err := os.Lstat(tmp); err != nil || !info.IsDir() {
			t.Errorf("%s: %v, %v", what, info, err)
		}
	}
}

// TestRestoredState forgets plugins, as an older state does that is restored.
// What they kept is there, and must not become that of another.
func TestRestoredState(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	lost := w.install(w.pack("lost", "1.0.0", 1, "", ""))
	if err := os.WriteFile(filepath.Join(w.DataDir("lost"), "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.opts.State = state.New(filepath.Join(w.dir, "restored"), state.Options{})
	if got := w.install(w.pack("fresh", "1.0.0", 1, "", "")); got.Account == lost.Account {
		t.Errorf("the data of one plugin is that of another: both are %d", got.Account)
	}
	if left, _ := os.ReadDir(filepath.Join(w.opts.Dir, "installed")); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	if got := w.install(w.pack("lost", "1.0.0", 1, "", "")); got.Account != lost.Account {
		t.Errorf("its data is of %d, and it is %d", lost.Account, got.Account)
	}
}

func TestTakenAccounts(t *testing.T) {
	w := t.TempDir()
	passwd, group := filepath.Join(w, "passwd"), filepath.Join(w, "group")
	err := errors.Join(os.WriteFile(passwd, []byte("a:x:60700:60701::/:/bin/sh\nbroken\nb:x:nonsense:1::/:\n"), 0o644),
		os.WriteFile(group, []byte("c:x:60702:\nd:x:60703"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	taken, err := takenAccounts(passwd, group)
	if err != nil || !taken[60700] || !taken[60701] || !taken[60702] || !taken[60703] || len(taken) != 5 {
		t.Errorf("%v, %v", taken, err)
	}
	if taken, err := takenAccounts(filepath.Join(w, "none"), group); err != nil || len(taken) != 2 {
		t.Errorf("%v, %v", taken, err)
	}
	if _, err := takenAccounts(w, group); err == nil {
		t.Error("what cannot be read says that nothing is taken")
	}
}

// TestLeft has the next change of any plugin remove what a process left that
// died.
func TestLeft(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", "echo one"))
	gone := w.install(w.pack("gone", "1.0.0", 1, "", ""))
	w.write("plugins/installed/never/.partial-1/plugin.yaml", "", 0o644)
	w.write("plugins/installed/hello/.partial-2/plugin.yaml", "", 0o644)
	w.write("plugins/installed/hello/3.0.0-7/plugin.yaml", "", 0o644)
	w.write("plugins/installed/foreign/notes", "", 0o644) // not ours
	// Uninstall --data that died after its transaction.
	err := w.opts.State.Update(t.Context(), func(tx *state.Tx) error {
		return errors.Join(condemn(tx, "gone"), tx.Bucket([]byte(bucket)).Delete([]byte("gone")))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Enable(t.Context(), "hello", false); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, pattern := range []string{"installed/*", "installed/*/*", "installed/*/.*", "data/*"} {
		found, _ := filepath.Glob(filepath.Join(w.opts.Dir, pattern))
		for _, f := range found {
			rel, _ := filepath.Rel(w.opts.Dir, f)
			left = append(left, rel)
		}
	}
	if got := strings.Join(left, " "); got != "installed/foreign installed/hello installed/foreign/notes installed/hello/1.0.0-1 data/hello" {
		t.Errorf("left: %s", got)
	}
	// Its account is free again.
	if again := w.install(w.pack("next", "1.0.0", 1, "", "")); again.Account != gone.Account {
		t.Errorf("%d is not free", gone.Account)
	}
}

// TestHostileIndex has something else in the place of index.json.
func TestHostileIndex(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", "echo one"))
	path := indexPath(w.opts.Dir)
	good := readFile(t, path)
	for what, replace := range map[string]func() error{
		"a pipe":     func() error { return syscall.Mkfifo(path, 0o644) },
		"a link":     func() error { return os.Symlink(w.write("other.json", good, 0o644), path) },
		"a large":    func() error { return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, maxIndex+1)) },
		"for all":    func() error { return errors.Join(os.WriteFile(path, []byte(good), 0o644), os.Chmod(path, 0o666)) },
		"a part":     func() error { return os.WriteFile(path, []byte(good[:len(good)/2]), 0o644) },
		"an old one": func() error { return os.WriteFile(path, []byte(`{"plugins":[{"name":"evil"}]}`), 0o644) },
	} {
		if err := errors.Join(os.Remove(path), replace()); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { _, err := ReadIndex(w.opts.Dir); done <- err }()
		select {
		case err := <-done:
			if (err == nil) != (what == "an old one") {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: it waits", what)
		}
		if what == "a pipe" { // which is not replaced, whatever it is
			if _, err := w.Reconcile(t.Context()); err == nil {
				t.Error("a pipe was replaced")
			}
			continue
		}
		if changed, err := w.Reconcile(t.Context()); err != nil || !changed && what != "for all" && what != "a link" || readFile(t, path) != good {
			t.Errorf("%s: %v, %v", what, changed, err)
		}
		if _, err := ReadIndex(w.opts.Dir); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
