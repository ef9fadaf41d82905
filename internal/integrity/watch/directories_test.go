package watch

import (
	"os"
	"testing"
)

// A directory that goes while it is asked where it is, is gone: that it is
// nowhere would mean that nobody watches it, and its events would be dropped.
func TestADirectoryThatGoesWhileItIsLookedUp(t *testing.T) {
	h := newHost(t)
	opened, err := h.e.OpenCurrent(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	table, err := readMounts(opened)
	if err != nil {
		t.Fatal(err)
	}
	find := func(between func()) ([]place, error) {
		t.Helper()
		d := newDirectories(opened, table)
		defer d.settle()
		once := between
		d.raced = func() { once(); once = func() {} }
		return d.find(handleOf(opened, table, []byte(h.dir+"/sub")))
	}
	if p, err := find(func() {}); err != nil || len(p) != 1 || string(p[0].dir) != h.dir+"/sub" {
		t.Errorf("%+v, %v", p, err)
	}
	rename := func(from, to string) func() {
		return func() {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	if p, err := find(rename(h.dir+"/sub", h.dir+"/renamed")); err != nil || len(p) != 1 || string(p[0].dir) != h.dir+"/renamed" {
		t.Errorf("renamed: %+v, %v", p, err)
	}
	rename(h.dir+"/renamed", h.dir+"/sub")()
	if p, err := find(rename(h.dir+"/sub", h.mnt+"/other/sub")); err != nil || len(p) != 0 {
		t.Errorf("moved out: %+v, %v", p, err)
	}
	rename(h.mnt+"/other/sub", h.dir+"/sub")()
	if p, err := find(func() {
		if err := os.RemoveAll(h.dir + "/sub"); err != nil {
			t.Fatal(err)
		}
	}); err != errGone {
		t.Errorf("removed: %+v, %v", p, err)
	}
}
