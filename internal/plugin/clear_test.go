package plugin

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/mobileops/mobileops/internal/osthread"
	"golang.org/x/sys/unix"
)

// TestRemoveTree removes what a plugin made so that it cannot be removed: deeper
// than there are descriptors, and closed to its owner.
func TestRemoveTree(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: 100, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	data, outside := filepath.Join(t.TempDir(), "data"), t.TempDir()
	kept := filepath.Join(outside, "kept")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := unix.Open(data, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range 1000 {
		if err == nil {
			err = unix.Mkdirat(dir, "d", 0o700)
		}
		below := -1
		if err == nil {
			below, err = unix.Openat(dir, "d", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(dir)
		dir = below
	}
	unix.Close(dir)
	if err := os.RemoveAll(data); !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("os.RemoveAll does it, too: %v; this shows nothing", err)
	}
	for _, err := range []error{
		os.WriteFile(kept, nil, 0o600), os.MkdirAll(filepath.Join(data, "closed", "deeper"), 0o700),
		os.MkdirAll(filepath.Join(data, "1", "2"), 0o700), os.WriteFile(filepath.Join(data, "2"), nil, 0), // names that things are moved to
		os.Symlink(outside, filepath.Join(data, "link")), os.Symlink(outside, filepath.Join(data, "closed", "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"closed/deeper", "closed"} {
		if err := os.Chmod(filepath.Join(data, name), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unprivileged(func() error { return removeTree(t.Context(), data) }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Lstat(kept); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if err := removeTree(t.Context(), data); err != nil {
		t.Errorf("what is not there: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := removeTree(over, outside); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// unprivileged runs f without the rights of root over files.
func unprivileged(f func() error) error {
	return osthread.Run(func() error {
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&h, &none[0]); err != nil {
			return err
		}
		return f()
	})
}
