package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/internal/update/store"
	"golang.org/x/sys/unix"
)

// A service owns a directory of the installation. What is made, changed or
// removed on behalf of that directory must lie in it, whatever the service puts
// there.

// TestStagedTreeLeadsNowhere: between staging and activation a service replaces
// a directory of its own, in the staged tree, by a link.
func TestStagedTreeLeadsNowhere(t *testing.T) {
	for name, change := range map[string]func(h *host, spool string){
		"a file changes":        func(h *host, spool string) { h.write("spool/sub/victim", "evil") },
		"a file comes":          func(h *host, spool string) { h.write("spool/sub/new", "evil") },
		"a file goes":           func(h *host, spool string) { h.must(os.Remove(spool + "/sub/victim")) },
		"a link comes":          func(h *host, spool string) { h.must(os.Symlink("/evil", spool+"/sub/new")) },
		"a directory comes":     func(h *host, spool string) { h.must(os.Mkdir(spool+"/sub/new", 0o777)) },
		"configuration changes": func(h *host, spool string) { h.write("spool/sub/victim.conf", "evil") },
		"configuration comes":   func(h *host, spool string) { h.write("spool/sub/new.conf", "evil") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			outside := t.TempDir()
			for _, f := range []string{"victim", "victim.conf"} {
				h.must(os.WriteFile(filepath.Join(outside, f), []byte("precious"), 0o644))
			}
			h.apply(pkg(t, "config: ['**/*.conf']\n", files{"bin/p": "1"}))
			h.write("spool/sub/victim", "mine")
			h.write("spool/sub/victim.conf", "mine")
			g, err := h.stage(pkg(t, "config: ['**/*.conf']\n", files{"bin/p": "2"}))
			h.must(err)
			staged := filepath.Join(h.Tree(g.Number), "spool", "sub")
			h.must(os.Rename(staged, staged+"~"))
			h.must(os.Symlink(outside, staged))
			change(h, h.Target()+"/spool")
			_, err = h.activate(g.Number)
			t.Logf("activate: %v", err)
			list, _ := os.ReadDir(outside)
			if len(list) != 2 {
				t.Errorf("outside are %v", list)
			}
			for _, f := range []string{"victim", "victim.conf"} {
				if data, err := os.ReadFile(filepath.Join(outside, f)); err != nil || string(data) != "precious" {
					t.Errorf("%s outside is %q, %v", f, data, err)
				}
			}
		})
	}
}

func (h *host) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// TestAnotherFileMeanwhile: after the installation was read, a service puts files
// of its own where others were. Whose they are they stay.
func TestAnotherFileMeanwhile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have files of others")
	}
	for _, kind := range []string{"file", "pipe"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			var at func(step string)
			h := &host{TB: t}
			h.Store = store.New(store.Options{Dir: dir + "/app.store", Target: dir + "/app", Step: func(s string) {
				if at != nil {
					at(s)
				}
			}})
			h.apply(pkg(t, "config: [spool/conf]\n", files{"bin/p": "1"}))
			names := []string{h.Target() + "/spool/helper", h.Target() + "/spool/conf"}
			for _, name := range names {
				h.write("spool/"+filepath.Base(name), "of root")
				h.must(os.Chmod(name, 0o4755|os.ModeSetuid))
			}
			at = func(step string) {
				if step != "proved" {
					return
				}
				for _, name := range names {
					other := name + "~"
					if kind == "pipe" {
						h.must(unix.Mkfifo(other, 0o666))
						h.must(os.Rename(other, name))
						w, err := os.OpenFile(name, os.O_RDWR, 0)
						h.must(err)
						t.Cleanup(func() { w.Close() })
					} else {
						h.must(os.WriteFile(other, []byte("of a service"), 0o755))
						h.must(os.Chown(other, 65534, 65534))
						h.must(os.Rename(other, name))
					}
				}
			}
			g, err := h.stage(pkg(t, "config: [spool/conf]\n", files{"bin/p": "2"}))
			if kind == "pipe" { // the other file went away, and nobody vouches for it
				if err == nil || !strings.Contains(err.Error(), "spool/conf") {
					t.Errorf("configuration that became a pipe: %v", err)
				}
				return
			}
			h.must(err)
			for _, name := range []string{"helper", "conf"} {
				st, err := os.Lstat(filepath.Join(h.Tree(g.Number), "spool", name))
				h.must(err)
				if owner := st.Sys().(*syscall.Stat_t).Uid; owner != 65534 || st.Mode() != 0o755 {
					t.Errorf("what a service wrote in %s is %v of user %d", name, st.Mode(), owner)
				}
			}
			if d := h.verify(g.Number); len(d) > 0 {
				t.Errorf("verify: %v", d)
			}
		})
	}
}

// TestDataIsAsClosedAsItWas: data that nobody could reach in the installation
// cannot be reached in the store.
func TestDataIsAsClosedAsItWas(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have directories of others")
	}
	h := newHost(t)
	h.apply(pkg(t, "", files{"bin/p": "1"}))
	h.write("private/deep/db/pw", "secret")
	h.must(os.Chmod(h.Target()+"/private", 0o700))
	h.must(os.Chown(h.Target()+"/private", 65534, 65534))
	h.must(os.Chmod(h.Target()+"/.", 0o750))
	h.apply(pkg(t, "data: [private/deep/db, var]\n", files{"bin/p": "2", "var/ 700": "", "var/in/ 750": "", "var/in/x": "x"}))
	h.is(files{"bin/p": "2", "private/ 700": "", "private/deep/db": "->../../../../../data/private/deep/db", "var": "->../../../data/var"})
	for name, want := range map[string]struct {
		mode os.FileMode
		uid  uint32
	}{"": {0o750, 0}, "private": {0o700, 65534}, "private/deep": {0o755, 0}, "var": {0o700, 0}, "var/in": {0o750, 0}} {
		st, err := os.Lstat(filepath.Join(h.Dir(), "data", name))
		h.must(err)
		if got := st.Sys().(*syscall.Stat_t).Uid; st.Mode().Perm() != want.mode || got != want.uid {
			t.Errorf("data/%s is %v of user %d, not %v of user %d", name, st.Mode(), got, want.mode, want.uid)
		}
	}
	if data, err := os.ReadFile(h.Target() + "/private/deep/db/pw"); err != nil || string(data) != "secret" {
		t.Errorf("the data is %q, %v", data, err)
	}
}

// TestDataIsMovedFromTheTreeAlone: a service puts a link in the way of what is to
// be moved.
func TestDataIsMovedFromTheTreeAlone(t *testing.T) {
	h := newHost(t)
	outside := t.TempDir()
	h.must(os.Mkdir(outside+"/db", 0o755))
	h.apply(pkg(t, "", files{"bin/p": "1"}))
	h.write("srv/deep/db/x", "x")
	g, err := h.stage(pkg(t, "data: [srv/deep/db]\n", files{"bin/p": "2"}))
	h.must(err)
	h.must(os.Rename(h.Target()+"/srv/deep", h.Target()+"/srv/was"))
	h.must(os.Symlink(outside, h.Target()+"/srv/deep"))
	_, err = h.activate(g.Number)
	t.Logf("activate: %v", err)
	if st, err := os.Lstat(outside + "/db"); err != nil || !st.IsDir() {
		t.Errorf("the directory outside was taken: %v, %v", st, err)
	}
}

// TestStoreOfSomebodyElse: where others may make directories, somebody may have
// made the store first, with hooks in it.
func TestStoreOfSomebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have directories of others")
	}
	for name, spoil := range map[string]func(dir string) error{
		"owner": func(dir string) error { return os.Chown(dir, 65534, 65534) },
		"mode":  func(dir string) error { return os.Chmod(dir, 0o777) },
		"group": func(dir string) error { return errors.Join(os.Chown(dir, 0, 65534), os.Chmod(dir, 0o775)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.must(os.Mkdir(h.Dir(), 0o755))
			h.must(spoil(h.Dir()))
			if _, err := h.stage(pkg(t, "", files{"bin/p": "1"})); failure.KindOf(err) != failure.Untrustworthy {
				t.Errorf("an empty one: %v", err)
			}
			h = newHost(t)
			h.apply(pkg(t, "", files{"bin/p": "1"}))
			h.must(spoil(h.Dir()))
			if s, err := h.Existing(t.Context(), "a test"); failure.KindOf(err) != failure.Untrustworthy {
				t.Errorf("one that was changed: %v, %v", s, err)
			}
		})
	}
}

// TestDataBehindLinkOfAdmin: data that somebody has put elsewhere is not replaced
// by an empty directory.
func TestDataBehindLinkOfAdmin(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"bin/p": "1", "state": "->bin"}))
	h.must(os.Symlink(t.TempDir(), h.Target()+"/var"))
	_, err := h.stage(pkg(t, "data: [var]\n", files{"bin/p": "2"}))
	var refused *archive.Error
	if !errors.As(err, &refused) || refused.Code != pack.CodeDataPath {
		t.Errorf("a link of an admin: %v", err)
	}
	h.must(os.Remove(h.Target() + "/var"))
	h.apply(pkg(t, "data: [var, state]\n", files{"bin/p": "2"})) // state is a link of the package
	h.apply(pkg(t, "data: [var]\n", files{"bin/p": "3"}))
}
