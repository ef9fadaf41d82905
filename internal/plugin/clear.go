package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/durable"
)

// removeTree removes a directory in which a plugin wrote what it liked: however
// deep that is, it takes three descriptors, where os.RemoveAll takes one for
// each level and has none left at some depth. What is further down is moved to
// the top before. It follows no links. What is not there is no error.
func removeTree(ctx context.Context, path string) error {
	const open = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	top, err := unix.Open(path, open, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return os.Remove(path)
	case err != nil:
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(top)
	c := clearing{ctx: ctx, top: top}
	err = c.empty(top, func(name string) error {
		dir, err := enter(top, name)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		if err := c.empty(dir, func(below string) error { return c.lift(dir, below) }); err != nil {
			return err
		}
		return unix.Unlinkat(top, name, unix.AT_REMOVEDIR)
	})
	if err == nil {
		err = unix.Rmdir(path)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}

// clearing is a directory that is being removed.
type clearing struct {
	ctx  context.Context
	top  int
	next uint64 // name of what is moved to the top next
}

// empty removes what is in a directory. Of directories with something in them
// it asks full to see to it that they are gone from here.
func (c *clearing) empty(dir int, full func(name string) error) error {
	for {
		names, err := list(dir)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			err := unix.Unlinkat(dir, name, 0)
			if errors.Is(err, unix.EISDIR) {
				err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
			}
			if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
				err = full(name)
			}
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
}

// lift moves a directory to the top.
func (c *clearing) lift(from int, name string) error {
	for {
		c.next++
		err := unix.Renameat2(from, name, c.top, fmt.Sprint(c.next), unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a filesystem without it
			err = unix.Renameat(from, name, c.top, fmt.Sprint(c.next)) // over an empty one at most
		}
		if errors.Is(err, unix.EACCES) { // who may not write to a directory may not move it
			dir, failed := enter(from, name)
			if failed != nil {
				return failed
			}
			unix.Close(dir)
			err = unix.Renameat(from, name, c.top, fmt.Sprint(c.next))
		}
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		return err
	}
}

// enter opens a directory so that what is in it can be removed: its mode is what
// the plugin made it.
func enter(at int, name string) (int, error) {
	place, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return -1, err
	}
	if st.Mode&0o700 != 0o700 {
		if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", place), 0o700); err != nil {
			return -1, err
		}
	}
	return unix.Openat(place, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// list returns some of the names in a directory, from its beginning.
func list(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	names, err := f.Readdirnames(4096)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}
