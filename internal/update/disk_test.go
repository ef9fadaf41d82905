package update_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update"
	"golang.org/x/sys/unix"
)

// bulky is a package for small disks: files of several sizes, one of which is
// written while it is read, configuration, a hook and a health check.
func (s *site) bulky(sequence uint64) (path string, tree files) {
	tree = files{"etc/app.conf": fmt.Sprintf("level = %d\n", sequence), "check 755": "#!/bin/sh\nexit 0\n", "large": strings.Repeat(fmt.Sprintf("%d.", sequence), 800_000)}
	for i := range 20 {
		tree[fmt.Sprintf("d%d/f%d", i%4, i)] = strings.Repeat(fmt.Sprintf("%d %d\n", sequence, i), 800*i)
	}
	all := maps.Clone(tree)
	all[".mobileops/hooks/h 755"] = "#!/bin/sh\nexit 0\n"
	return s.pack(sequence, "kind: full\nconfig: ['etc/**']\nhooks: {after: {command: [.mobileops/hooks/h]}}\nhealth: {command: [check], deadline: 2m}\n", all), tree
}

// outOfRoom proves what holds after an apply that found no room: what is live is
// the old, or the new and nobody was told otherwise.
func (s *site) outOfRoom(what string, err error, old, new files, before []string) (live bool) {
	s.Helper()
	got := s.tree()
	switch {
	case err == nil || strings.Contains(err.Error(), "is current, and the next command writes that down"):
		if !maps.Equal(got, new) {
			s.Errorf("%s: it ended with %v, and live is not the new tree", what, err)
		}
		live = true
	case !maps.Equal(got, old):
		s.Errorf("%s: it failed with %v, and live is not the old tree", what, err)
	}
	if err != nil && (failure.KindOf(err) != failure.Failed || !errors.Is(err, unix.ENOSPC)) {
		s.Errorf("%s: %v, of kind %v", what, err, failure.KindOf(err))
	}
	stamped := func(p string) bool { return strings.HasSuffix(p, "/stamps") } // they only save reading
	if before, after := slices.DeleteFunc(slices.Clone(before), stamped), slices.DeleteFunc(s.store(), stamped); err != nil && !live && !slices.Equal(before, after) && (len(before) > 0 || slices.Contains(after, "generations/2")) {
		s.Errorf("%s: it failed with %v and left behind\n%q, before\n%q", what, err, after, before)
	}
	for _, p := range s.store() {
		if strings.Contains(p, ".partial") || p == "pending" {
			s.Errorf("%s: %s is left behind", what, p)
		}
	}
	return live
}

// TestDiskFull lets the disk run full of content, or of inodes, at each step by
// which something becomes lasting, with something to adopt and without. state.db
// is on the same disk.
func TestDiskFull(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	s := newSite(t)
	s.onDisk(t, "size=24m,nr_inodes=3000")
	results := map[string]int{}
	reached := map[string]bool{}
	for _, adopted := range []bool{false, true} {
		for _, lack := range []string{"bytes", "inodes"} {
			for _, step := range []string{"unpacked", "proved", "made", "adopting", "exchange", "adopted", "synced", "named", "staged", "switch", "linked", "renamed", "switched"} {
				what := fmt.Sprintf("adopting %v, no %s from %q", adopted, lack, step)
				for _, p := range []string{"app", "app.store", "state"} {
					os.RemoveAll(s.dir + "/" + p)
				}
				old := files{"level": "1"}
				if adopted {
					if err := errors.Join(os.Mkdir(s.target(), 0o755), os.WriteFile(s.target()+"/level", []byte("1"), 0o644)); err != nil {
						t.Fatal(err)
					}
				} else {
					s.apply(s.pack(1, "", old))
				}
				p, tree := s.bulky(2)
				before := s.store()
				var room func()
				_, err := s.engineStepping(func(name string) {
					if name == step && room == nil {
						reached[name] = true
						if lack == "bytes" {
							room = fill(t, s.dir, 0)
						} else {
							room = exhaust(t, s.dir, 0)
						}
					}
				}).Apply(context.Background(), update.Request{Path: p}, nil)
				if s.outOfRoom(what, err, old, tree, before) {
					results["live"]++
				} else {
					results["not live"]++
				}
				if room != nil {
					room()
				}
				s.apply(p) // with room it goes on as if nothing had been
				s.is(tree)
				s.verified()
				if list, err := s.engine().Accepted(context.Background()); err != nil || len(list) != 1 || list[0].Sequence != 2 {
					t.Errorf("%s: accepted %+v, %v", what, list, err)
				}
			}
		}
	}
	if len(reached) != 13 || results["live"] == 0 || results["not live"] == 0 {
		t.Errorf("%d steps, %v", len(reached), results)
	}
	t.Logf("%v", results)
}

// TestDiskNearlyFull applies with more and more room, until there is enough: it
// fails while unpacking, writing the manifest, and wherever else it comes to.
func TestDiskNearlyFull(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, lack := range []string{"bytes", "inodes"} {
		s := newSite(t)
		s.onDisk(t, "size=24m,nr_inodes=2000")
		first, old := s.bulky(1)
		s.apply(first)
		p, tree := s.bulky(2)
		failed := map[string]int{}
		// attempt says whether the new tree is live.
		attempt := func(leave int64) bool {
			before := s.store()
			var room func()
			if lack == "bytes" {
				room = fill(t, s.dir, leave)
			} else {
				room = exhaust(t, s.dir, int(leave))
			}
			last := "unpacking"
			_, err := s.engineStepping(func(name string) { last = name }).Apply(context.Background(), update.Request{Path: p}, nil)
			room()
			live := s.outOfRoom(fmt.Sprintf("%d %s", leave, lack), err, old, tree, before)
			if err != nil {
				failed[last]++
			}
			return live
		}
		coarse, fine := int64(256<<10), int64(4<<10)
		if lack == "inodes" {
			coarse, fine = 16, 1
		}
		leave := int64(0)
		for ; !attempt(leave); leave += coarse {
			if leave > 20<<20 {
				t.Fatal("no room is enough")
			}
		}
		// Back, and through the last part in small steps.
		if _, err := s.engine().Rollback(context.Background(), 0, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.engine().Prune(context.Background(), 0, new(update.Notice)); err != nil {
			t.Fatal(err)
		}
		for leave -= coarse; !attempt(leave); leave += fine {
		}
		s.is(tree)
		s.verified()
		if failed["unpacking"] == 0 || len(failed) < 2 {
			t.Errorf("it failed only after %v", failed)
		}
		t.Logf("of %s: failed after %v", lack, failed)
	}
}

// TestReadOnly takes the right to write from the filesystem at each step, as a
// kernel does that finds it damaged, and before.
func TestReadOnly(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, step := range []string{"before", "unpacked", "proved", "adopting", "exchange", "adopted", "synced", "staged", "linked", "renamed"} {
		s := newSite(t)
		d := newExt4(t, "32M")
		s.moveTo(d.at)
		old := files{"level": "1"}
		if err := errors.Join(os.Mkdir(s.target(), 0o755), os.WriteFile(s.target()+"/level", []byte("1"), 0o644)); err != nil {
			t.Fatal(err)
		}
		p, tree := s.bulky(2)
		unix.Sync()
		if step == "before" {
			d.run("mount", "-o", "remount,ro", d.at)
		}
		failed := false
		_, err := s.engineStepping(func(name string) {
			if name == step && !failed {
				failed = true
				d.fail()
			}
		}).Apply(context.Background(), update.Request{Path: p}, nil)
		if err == nil || failure.KindOf(err) != failure.Failed {
			t.Errorf("%s: %v", step, err)
		}
		if got := s.tree(); !maps.Equal(got, old) && !(step == "renamed" && maps.Equal(got, tree)) {
			t.Errorf("%s: live is neither the old nor the new tree: %v", step, got)
		}
		t.Logf("%s: %v", step, err)
		if step == "before" && !strings.Contains(fmt.Sprint(err), "read-only") {
			t.Errorf("%v", err)
		}
		d.again()
		if got := s.tree(); !maps.Equal(got, old) && !maps.Equal(got, tree) {
			t.Errorf("%s, repaired: live is neither the old nor the new tree: %v", step, got)
		}
		s.apply(p)
		s.is(tree)
		s.verified()
		if step == "before" { // now there is a store, whose lock cannot be taken
			d.run("mount", "-o", "remount,ro", d.at)
			if _, err := s.engine().Apply(context.Background(), update.Request{Path: p}, nil); failure.KindOf(err) != failure.Failed || strings.Count(fmt.Sprint(err), "nothing was changed") != 1 {
				t.Errorf("not one thing to do is said: %v", err)
			}
			d.run("mount", "-o", "remount,rw", d.at)
		}
	}
}
