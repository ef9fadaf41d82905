package plugin

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// TestUmask installs under every umask that matters: nobody else may write what
// there is then, and accounts of plugins get to where they start.
func TestUmask(t *testing.T) {
	for _, mask := range []int{0, 0o077, 0o777} {
		w := newWorld(t)
		path := w.pack("hello", "1.0.0", 1, "", "echo one")
		if os.Geteuid() != 0 && mask == 0o777 {
			continue // no directory that it makes could be used
		}
		before := syscall.Umask(mask)
		_, _, err := w.try(path, Consent{Permissions: true})
		syscall.Umask(before)
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(w.opts.Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Mode().Perm()&0o022 != 0 {
				t.Errorf("umask %03o: %s has mode %s", mask, path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if info, err := os.Stat(w.DataDir("hello")); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("umask %03o: %v, %v", mask, info, err)
		}
		if status, out, err := w.run("hello"); err != nil || status != 0 || out != "one\n" {
			t.Errorf("umask %03o: %d, %q, %v", mask, status, out, err)
		}
	}
}

// TestHalfMade goes on where a process died between making a directory and
// opening it to accounts.
func TestHalfMade(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for _, dir := range []string{w.opts.Dir, filepath.Join(w.opts.Dir, "installed"), filepath.Join(w.opts.Dir, "data"), w.installedDir("hello")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.install(w.pack("hello", "1.0.0", 1, "", "echo one"))
	if status, out, err := w.run("hello"); err != nil || status != 0 || out != "one\n" {
		t.Errorf("%d, %q, %v", status, out, err)
	}
}

// TestAccountsTaken has no account left for another plugin.
func TestAccountsTaken(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	first := w.install(w.pack("first", "1.0.0", 1, "", "echo one"))
	err := w.opts.State.Update(t.Context(), func(tx *state.Tx) error {
		for n := uint32(firstAccount); n <= lastAccount; n++ {
			if n != first.Account {
				if err := remember(tx, fmt.Sprintf("other-%d", n), 1, n); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	path := w.pack("second", "1.0.0", 1, "", "echo two")
	_, _, err = w.try(path, Consent{Permissions: true})
	w.fails(err, failure.Failed, "uninstall a plugin")
	if left, _ := filepath.Glob(filepath.Join(w.opts.Dir, "*", "second")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	if _, err := w.Uninstall(t.Context(), "first", false); err != nil { // its data stays, and so does its account
		t.Fatal(err)
	}
	_, _, err = w.try(path, Consent{Permissions: true})
	w.fails(err, failure.Failed, "uninstall a plugin")
	w.install(w.pack("first", "1.0.1", 2, "", ""))
	if _, err := w.Uninstall(t.Context(), "first", true); err != nil {
		t.Fatal(err)
	}
	if r := w.install(path); r.Account != first.Account {
		t.Errorf("%d", r.Account)
	}
}
