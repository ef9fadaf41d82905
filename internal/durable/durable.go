// Package durable makes files appear whole or not at all, and stay.
//
// A file is written under a temporary name in the directory it is meant for,
// fsynced, renamed over its final name, and then the directory is fsynced, so
// that after a crash or a power cut a reader finds the old content or the new,
// never a part. Permissions are those asked for, whatever the umask. A rename
// replaces a symbolic link rather than writing through it; a device, a FIFO or
// a socket is never replaced.
//
// Temporary files are called ".NAME.tmp-RANDOM" and are held under flock(2)
// while they are written. What a killed process leaves behind is therefore
// known by nobody holding it, and Clean removes it.
//
// Sources: rename(2), fsync(2), flock(2), renameat2(2).
package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteFile makes data the durable content of path, with exactly the
// permissions perm, replacing what was there. On an error path is as it was.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	_ = Clean(path) // what a killed process left takes room, and does no other harm
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// File is a file being written under a temporary name. It becomes visible by
// Commit or CommitNew, or goes away by Abort.
type File struct {
	*os.File
	path string
	done bool
}

// Create starts a file that is to become path, with exactly the permissions
// perm. The directory must exist.
func Create(path string, perm fs.FileMode) (*File, error) {
	for {
		f, err := os.OpenFile(Temp(path), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) { // the temporary name would only puzzle
			return nil, &fs.PathError{Op: "create", Path: path, Err: pathErr.Err}
		}
		if err != nil {
			return nil, err
		}
		held, err := hold(f)
		if err == nil && !held {
			f.Close() // Clean came between open and flock; its name is gone or about to be
			continue
		}
		if err == nil {
			err = f.Chmod(perm)
		}
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			return nil, fmt.Errorf("create %s: %w", path, err)
		}
		return &File{File: f, path: path}, nil
	}
}

// hold takes the lock that tells a file being written from one left behind,
// and reports whether the file still has its name afterwards.
func hold(f *os.File) (bool, error) {
	err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, err
	}
	return st.Nlink > 0, nil
}

// Commit makes the file durable and visible under its final name, replacing
// what was there, and closes it. On an error the final name is as it was,
// unless the error came from the last step, the fsync of the directory.
func (f *File) Commit() error { return f.commit(false) }

// CommitNew is Commit, but fails with an error that is fs.ErrExist when the
// final name is already taken.
func (f *File) CommitNew() error { return f.commit(true) }

func (f *File) commit(fresh bool) error {
	if f.done {
		return fmt.Errorf("commit %s: %w", f.path, fs.ErrClosed)
	}
	err := f.Sync()
	if err == nil {
		err = rename(f.Name(), f.path, fresh)
	}
	if err != nil {
		f.Abort()
		return err
	}
	f.done = true
	// Closed after the rename: closing drops the lock that protects the
	// temporary name from Clean.
	if err := f.File.Close(); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(f.path))
}

// Abort removes the temporary file. After Commit, or a second time, it does
// nothing, so it can be deferred.
func (f *File) Abort() error {
	if f.done {
		return nil
	}
	f.done = true
	err := os.Remove(f.Name())
	return errors.Join(err, f.File.Close())
}

// Temp returns a new temporary name for a file that is to become path, in the
// same directory. It is for writers that open files by name, such as a
// database; the others use Create.
func Temp(path string) string {
	var b [6]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read
	return tempPrefix(path) + hex.EncodeToString(b[:])
}

func tempPrefix(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
}

// Publish fsyncs the finished file tmp, renames it to path, replacing what was
// there, and fsyncs the directory. Both names must be in one directory.
func Publish(tmp, path string) error { return publish(tmp, path, false) }

// PublishNew is Publish, but fails with an error that is fs.ErrExist when path
// is already taken.
func PublishNew(tmp, path string) error { return publish(tmp, path, true) }

func publish(tmp, path string, fresh bool) error {
	f, err := os.Open(tmp)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	if err := rename(tmp, path, fresh); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

func rename(from, to string, fresh bool) error {
	if !fresh {
		// As root, a file named /dev/null by mistake would take the device away.
		if st, err := os.Lstat(to); err == nil && st.Mode()&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket|fs.ModeIrregular) != 0 {
			return &fs.PathError{Op: "replace", Path: to, Err: errors.New("not a regular file")}
		}
		return os.Rename(from, to)
	}
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// The filesystem has no RENAME_NOREPLACE (NFS, some FUSE): link(2)
		// refuses an existing name as well.
		if err = unix.Link(from, to); err == nil {
			err = unix.Unlink(from)
		}
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// SyncDir makes the names in a directory durable. Filesystems that cannot
// fsync a directory are taken at their word.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// MkdirAll makes dir and the parents that are missing, each durable and with
// exactly the permissions perm. Directories that exist stay as they are.
func MkdirAll(dir string, perm fs.FileMode) error {
	st, err := os.Stat(dir)
	if err == nil {
		if !st.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := MkdirAll(parent, perm); err != nil {
		return err
	}
	if err := os.Mkdir(dir, perm); err != nil {
		if errors.Is(err, fs.ErrExist) { // another process was faster
			return nil
		}
		return err
	}
	if err := os.Chmod(dir, perm); err != nil {
		return err
	}
	return SyncDir(parent)
}

// Clean removes temporary files for path that killed processes left behind,
// and leaves those that somebody still writes.
func Clean(path string) error {
	prefix := filepath.Base(tempPrefix(path))
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || !e.Type().IsRegular() {
			continue
		}
		errs = append(errs, cleanOne(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

func cleanOne(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
