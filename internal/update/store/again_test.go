package store_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/update/merge"
	"github.com/mobileops/mobileops/internal/update/store"
)

func TestConflictAfterConflict(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, manifestOfConfig, files{"etc/a": "1\n"}))
	h.write("etc/a", "mine\n")
	h.apply(pkg(t, manifestOfConfig, files{"etc/a": "2\n"}))
	h.is(files{"etc/a": "mine\n", "etc/a" + store.Aside: "2\n"})
	h.apply(pkg(t, "", files{"bin/p": "1"}))
	h.is(files{"etc/a": "mine\n", "etc/a" + store.Aside: "2\n", "bin/p": "1"})
	h.apply(pkg(t, manifestOfConfig, files{"etc/a": "3\n"}))
	h.is(files{"etc/a": "mine\n", "etc/a" + store.Aside: "3\n", "bin/p": "1"})
}

func TestLinksInConfiguration(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, manifestOfConfig, files{"etc/a": "1\n", "etc/b": "b\n", "etc/l": "->b", "etc/m": "->b"}))
	h.write("etc/a", "mine\n")
	if err := os.Remove(h.Target() + "/etc/m"); err != nil {
		t.Fatal(err)
	}
	h.write("etc/m", "a file now\n")
	g := h.apply(pkg(t, manifestOfConfig, files{"etc/a": "->b", "etc/l": "->a"}))
	h.is(files{"etc/a": "mine\n", "etc/a" + store.Aside: "->b", "etc/b": "b\n", "etc/l": "->a", "etc/m": "a file now\n"})
	if len(g.Settled) != 1 || g.Settled[0].Outcome != merge.Conflicted {
		t.Errorf("%+v", g.Settled)
	}
	g, err := h.stage(pkg(t, manifestOfConfig, files{"etc/l": "->b", "bin/p": "2"}))
	if err != nil {
		t.Fatal(err)
	}
	h.write("etc/b", "edited\n")
	if _, err := h.activate(g.Number); err != nil {
		t.Fatal(err)
	}
	h.is(files{"etc/a": "mine\n", "etc/a" + store.Aside: "->b", "etc/b": "edited\n", "etc/l": "->b", "etc/m": "a file now\n", "bin/p": "2"})
	if d := h.verify(g.Number); len(d) > 0 {
		t.Errorf("verify: %v", d)
	}
}

func TestModeAfterStaging(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, manifestOfConfig, files{"etc/a": "secret\n", "bin/p": "1"}))
	g, err := h.stage(pkg(t, manifestOfConfig, files{"bin/p": "2"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.Target()+"/etc/a", 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.activate(g.Number); err != nil {
		t.Fatal(err)
	}
	h.is(files{"etc/a 600": "secret\n", "bin/p": "2"})
}

// TestLocalFilesAfterStaging: what people do between staging and activation is
// taken over, or told.
func TestLocalFilesAfterStaging(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"bin/p": "1", "bin/q": "1"}))
	h.write("gone", "x")
	h.write("changed", "x")
	g, err := h.stage(pkg(t, "", files{"bin/p": "2"}))
	if err != nil {
		t.Fatal(err)
	}
	h.write("bin/q", "edited")
	h.write("srv/own", "own")
	h.write("changed", "y")
	if err := os.Remove(h.Target() + "/gone"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("srv", h.Target()+"/link"); err != nil {
		t.Fatal(err)
	}
	if g, err = h.activate(g.Number); err != nil {
		t.Fatal(err)
	}
	h.is(files{"bin/p": "2", "bin/q": "1", "srv/own": "own", "changed": "y", "link": "->srv"})
	if !slices.Equal(g.Edited, []string{"bin/q"}) {
		t.Errorf("edited: %q", g.Edited)
	}
	if d := h.verify(g.Number); len(d) > 0 {
		t.Errorf("verify: %v", d)
	}
}

// TestLocalFilesWhileStaging: what people make while an update is applied at once is
// in what becomes live, too.
func TestLocalFilesWhileStaging(t *testing.T) {
	for _, new := range []string{"own", "bin/own", "srv/data/own"} {
		t.Run(new, func(t *testing.T) {
			dir, now := t.TempDir(), false
			h := &host{TB: t}
			h.Store = store.New(store.Options{Dir: dir + "/app.store", Target: dir + "/app", Step: func(s string) {
				if s == "synced" && now {
					h.write(new, "own")
				}
			}})
			h.apply(pkg(t, "", files{"bin/p": "1"}))
			h.write("srv/data/old", "old")
			s, err := h.Lock(t.Context(), "a test")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Release()
			now = true
			g, err := stageIn(s, pkg(t, "", files{"bin/p": "2"}))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Activate(t.Context(), g.Number, time.Now()); err != nil {
				t.Fatal(err)
			}
			h.is(files{"bin/p": "2", "srv/data/old": "old", new: "own"})
		})
	}
}

// TestCatchingUpIsBrokenOff: whatever is done to the configuration afterwards, the
// generation that becomes live is whole.
func TestCatchingUpIsBrokenOff(t *testing.T) {
	for _, at := range []string{"catching up", "caught up"} {
		t.Run(at, func(t *testing.T) {
			dir := t.TempDir()
			stop := ""
			h := &host{TB: t}
			h.Store = store.New(store.Options{Dir: dir + "/app.store", Target: dir + "/app", Step: func(s string) {
				if s == stop {
					panic(stop)
				}
			}})
			h.apply(pkg(t, manifestOfConfig, files{"etc/a": "1\n", "etc/b": "1\n", "l": "->etc"}))
			g, err := h.stage(pkg(t, manifestOfConfig, files{"etc/a": "2\n", "etc/b": "2\n"}))
			if err != nil {
				t.Fatal(err)
			}
			h.write("etc/a", "mine\n")
			h.write("etc/own", "mine\n")
			h.write("own", "mine\n")
			s, err := h.Lock(context.Background(), "a test")
			if err != nil {
				t.Fatal(err)
			}
			func() {
				defer func() { recover() }()
				stop = at
				if _, err := s.Activate(context.Background(), g.Number, time.Now()); err != nil {
					t.Error(err)
				}
				t.Error("it was not broken off")
			}()
			stop = ""
			if err := s.Release(); err != nil {
				t.Fatal(err)
			}
			h.is(files{"etc/a": "mine\n", "etc/b": "1\n", "etc/own": "mine\n", "own": "mine\n", "l": "->etc"})
			h.write("etc/a", "1\n") // taken back
			if err := os.Remove(h.Target() + "/etc/own"); err != nil {
				t.Fatal(err)
			}
			if _, err := h.activate(g.Number); err != nil {
				t.Fatal(err)
			}
			h.is(files{"etc/a": "2\n", "etc/b": "2\n", "own": "mine\n", "l": "->etc"})
			if d := h.verify(g.Number); len(d) > 0 {
				t.Errorf("verify: %v", d)
			}
		})
	}
}
