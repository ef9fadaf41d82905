package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// setID are the bits that give whoever runs a program the rights of its owner.
const setID = unix.S_ISUID | unix.S_ISGID

// A generation with set-id programs is closed to all but its owner while it is
// not current. Otherwise everybody could go on to run the program that an update
// has just mended. The file "setid" in it says so. Generations without such
// programs stay open: services may still run from the one before.

// close gives a new generation the mode that it has while it is not current.
func (s *stage) close(dir string, programs int) error {
	if programs == 0 {
		return os.Chmod(dir, 0o755)
	}
	return os.WriteFile(filepath.Join(dir, nameSetID), nil, 0o644)
}

// guardSetID opens the current generation, and closes the others that have set-id
// programs.
func (t *Session) guardSetID(current int) error {
	numbers, err := t.Numbers()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		dir := t.generation(n)
		if _, err := os.Lstat(filepath.Join(dir, nameSetID)); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		mode := fs.FileMode(0o700)
		if n == current {
			mode = 0o755
		}
		if st, err := os.Lstat(dir); err != nil || st.Mode().Perm() == mode {
			continue
		}
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
	}
	return nil
}
