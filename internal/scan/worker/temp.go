package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// temp makes a directory for what a job unpacks when dir names none, and returns
// what removes it. It is below the state directory: /tmp is often in memory. What
// jobs of killed processes left is removed as well: nobody holds the lock of it.
func (w *Worker) temp(dir *string) (release func(), err error) {
	if *dir != "" {
		if st, err := os.Stat(*dir); err != nil || !st.IsDir() {
			return nil, fmt.Errorf("temporary directory: %w", errors.Join(err, notDir(err)))
		}
		return func() {}, nil
	}
	if w.options.StateDir == "" {
		return nil, failure.Errorf(failure.Failed, "there is no state directory, and so no place for what is unpacked")
	}
	parent := filepath.Join(w.options.StateDir, "scan", "temp")
	if err := durable.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	removeAbandoned(parent)
	for {
		made, err := os.MkdirTemp(parent, "job-")
		if err != nil {
			return nil, err
		}
		f, err := holdDir(made)
		if err != nil {
			os.RemoveAll(made)
			return nil, err
		}
		if f == nil {
			continue // somebody took it for abandoned before it was held
		}
		*dir = made
		return func() {
			os.RemoveAll(made)
			f.Close()
		}, nil
	}
}

func notDir(err error) error {
	if err == nil {
		return unix.ENOTDIR
	}
	return nil
}

// holdDir takes the lock of a directory. It returns nil when somebody else has it,
// or had it and removed the directory.
func holdDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		f.Close()
		return nil, nil
	case err != nil:
		f.Close()
		return nil, err
	case st.Nlink == 0:
		f.Close()
		return nil, nil
	}
	return f, nil
}

func removeAbandoned(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		if f, err := holdDir(dir); err == nil && f != nil {
			_ = os.RemoveAll(dir)
			f.Close()
		}
	}
}
