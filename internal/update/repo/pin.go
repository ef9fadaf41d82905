package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// ReadRoot reads the root metadata that a host pins. Whoever can change that
// file decides what this host installs, so one that others than root or who
// runs this can write or replace is refused: an *Error with CodeRoot. A file
// that is not there is failure.NotReady.
func ReadRoot(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, failure.Hint(failure.Wrap(failure.NotReady, err), "update.repository_root names the root.json of the repository's publisher; bring it there")
	case errors.Is(err, fs.ErrPermission):
		return nil, failure.Wrap(failure.NotAllowed, err)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, refuse(CodeRoot, "", "%s is not a regular file", path)
	}
	if err := onlyOurs(path, st); err != nil {
		return nil, err
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(resolved)} {
		if st, err = os.Stat(dir); err != nil {
			return nil, err
		}
		if st.Mode()&fs.ModeSticky != 0 {
			continue // others cannot rename what is not theirs
		}
		if err := onlyOurs(dir, st); err != nil {
			return nil, err
		}
	}
	return readLimited(f, path, DefaultLimits().Root)
}

// onlyOurs refuses what others than root or who runs this can write.
func onlyOurs(path string, st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: its owner is not known", path)
	}
	if sys.Uid != 0 && int64(sys.Uid) != int64(os.Geteuid()) {
		e := refuse(CodeRoot, "", "%s belongs to user %d, who could replace the trusted root", path, sys.Uid)
		e.Hint = fmt.Sprintf("compare it with the publisher's, then: chown %d %s", os.Geteuid(), path)
		return e
	}
	if perm := st.Mode().Perm(); perm&0o002 != 0 || perm&0o020 != 0 && sys.Gid != 0 {
		e := refuse(CodeRoot, "", "others can replace the trusted root: they may write %s (mode %04o)", path, perm)
		e.Hint = "compare it with the publisher's, then: chmod go-w " + path
		return e
	}
	return nil
}
