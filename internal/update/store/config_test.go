package store_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/update/merge"
	"github.com/mobileops/mobileops/internal/update/store"
)

const manifestOfConfig = "config: ['etc/**']\n"

const (
	first  = "# settings\nport = 80\n\nname = one\n\nlevel = info\n"
	mine   = "# settings\nport = 8080\n\nname = one\n\nlevel = info\n"
	second = "# settings\nport = 80\n\nname = one\n\nlevel = debug\n"
	both   = "# settings\nport = 8080\n\nname = one\n\nlevel = debug\n"
	third  = "# settings\nport = 443\n\nname = one\n\nlevel = debug\n"
)

func TestConfigurationIsMerged(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, manifestOfConfig, files{"etc/a": first, "etc/b": "x\n", "bin/p": "1"}))
	h.write("etc/a", mine)
	h.write("etc/own", "local\n")
	g := h.apply(pkg(t, manifestOfConfig, files{"etc/a": second, "etc/b": "y\n"}))
	h.is(files{"etc/a": both, "etc/b": "y\n", "etc/own": "local\n", "bin/p": "1"})
	if len(g.Settled) != 1 || g.Settled[0].Outcome != merge.Merged || g.Stats.Conflicts != 0 {
		t.Errorf("%+v", g.Settled)
	}
	// An overlay that says nothing about it keeps it, and knows still what was delivered.
	h.apply(pkg(t, "", files{"bin/q": "1"}))
	g = h.apply(pkg(t, "kind: full\n", files{"etc/a": third, "etc/b": "y\n"}))
	h.is(files{"etc/a": both, "etc/a" + store.Aside: third, "etc/b": "y\n", "etc/own": "local\n"})
	if len(g.Settled) != 1 || g.Settled[0].Outcome != merge.Conflicted || g.Stats.Conflicts != 1 {
		t.Errorf("%+v", g.Settled)
	}
	if d := h.verify(1, 2, 3, 4); len(d) != 2 { // the edit, and the file added, in generation 1
		t.Errorf("verify: %v", d)
	}
	// Each generation has copies of its own.
	h.write("etc/b", "edited\n")
	if f, err := os.OpenFile(h.Target()+"/etc/a", os.O_WRONLY|os.O_TRUNC, 0); err != nil {
		t.Fatal(err)
	} else if _, err := f.WriteString("in place\n"); err != nil {
		t.Fatal(err)
	} else {
		f.Close()
	}
	if _, err := h.activate(2); err != nil {
		t.Fatal(err)
	}
	h.is(files{"etc/a": both, "etc/b": "y\n", "etc/own": "local\n", "bin/p": "1"})
}

func TestConfigurationRemoved(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, manifestOfConfig, files{"etc/same": "1\n", "etc/edited": "1\n", "etc/deleted": "1\n", "etc/changed": "1\n"}))
	h.write("etc/edited", "2\n")
	for _, f := range []string{"etc/deleted", "etc/changed"} {
		if err := os.Remove(h.Target() + "/" + f); err != nil {
			t.Fatal(err)
		}
	}
	g := h.apply(pkg(t, "kind: full\n"+manifestOfConfig, files{"etc/deleted": "1\n", "etc/changed": "2\n"}))
	h.is(files{"etc/edited": "2\n", "etc/changed" + store.Aside: "2\n"})
	if g.Stats.Conflicts != 2 {
		t.Errorf("%+v", g.Settled)
	}
}

// TestConfigurationEditedAfterStaging: what is edited between staging and
// activation is not lost.
func TestConfigurationEditedAfterStaging(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, manifestOfConfig, files{"etc/a": first, "etc/b": "x\n"}))
	g, err := h.stage(pkg(t, manifestOfConfig, files{"etc/a": second, "etc/b": "y\n", "etc/new": "n\n", "bin/p": "2"}))
	if err != nil {
		t.Fatal(err)
	}
	h.write("etc/a", mine)
	h.write("etc/own", "local\n")
	if g, err = h.activate(g.Number); err != nil {
		t.Fatal(err)
	}
	h.is(files{"etc/a": both, "etc/b": "y\n", "etc/own": "local\n", "etc/new": "n\n", "bin/p": "2"})
	if len(g.Settled) != 1 || g.Settled[0].Outcome != merge.Merged {
		t.Errorf("%+v", g.Settled)
	}
	if d := h.verify(2); len(d) > 0 {
		t.Errorf("verify: %v", d)
	}
	h.apply(pkg(t, manifestOfConfig, files{"etc/new": "m\n"}))
	h.is(files{"etc/a": both, "etc/b": "y\n", "etc/own": "local\n", "etc/new": "m\n", "bin/p": "2"})
}

func TestStagedOnAnotherGeneration(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"a": "1"}))
	g, err := h.stage(pkg(t, "", files{"b": "2"}))
	if err != nil {
		t.Fatal(err)
	}
	h.apply(pkg(t, "", files{"c": "3"}))
	if _, err := h.activate(g.Number); err == nil {
		t.Error("it was activated, and c with it lost")
	}
	h.is(files{"a": "1", "c": "3"})
}

func TestBackup(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, manifestOfConfig, files{"a": "1", "etc/x": "1\n"}))
	h.write("a", "edited")
	h.write("own", "mine")
	h.write("etc/x", "2\n")
	want := files{"a": "edited", "own": "mine", "etc/x": "2\n"}
	s, err := h.Lock(context.Background(), "a test")
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.Stage(context.Background(), store.Request{Now: time.Now(), By: "root"})
	s.Release()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.Target()+"/own", []byte("in place"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.apply(pkg(t, "", files{"b": "2"}))
	if _, err := h.activate(g.Number); err != nil {
		t.Fatal(err)
	}
	h.is(want)
}

func TestPrune(t *testing.T) {
	h := newHost(t)
	for _, c := range []string{"1", "2", "3", "4", "5", "6"} {
		h.apply(pkg(t, "", files{"a": c, "same": "x", "only" + c: c + c}))
	}
	s, err := h.Lock(context.Background(), "a test")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	if err := s.Pin(2, &store.Pin{By: "root", Reason: "the last good one"}); err != nil {
		t.Fatal(err)
	}
	gone, err := s.Removable(1)
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int
	for _, g := range gone {
		numbers = append(numbers, g.Number)
	}
	if len(numbers) != 2 || numbers[0] != 1 || numbers[1] != 3 { // 6 is current, 5 its base, 4 the latest other, 2 pinned
		t.Fatalf("removable: %v", numbers)
	}
	p, err := s.Remove(context.Background(), numbers)
	if err != nil || p.Blobs != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	if d := h.verify(2, 4, 5, 6); len(d) > 0 {
		t.Errorf("verify: %v", d)
	}
	h.clean()
}
