package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// tree opens what is below a root. Links that lead out of it lead to the same
// place below it (openat2(2), RESOLVE_IN_ROOT).
type tree struct {
	root string
	dir  *os.File // nil: the root is "/"
}

// info is what is known of a file without reading it.
type info struct {
	dev, ino   uint64
	born       int64 // nanoseconds since 1970; 0: the file system does not tell
	size       int64
	mod, ctime int64
	mode       uint32
	uid        uint32
	links      uint32
}

func (i *info) regular() bool   { return i.mode&unix.S_IFMT == unix.S_IFREG }
func (i *info) directory() bool { return i.mode&unix.S_IFMT == unix.S_IFDIR }
func (i *info) link() bool      { return i.mode&unix.S_IFMT == unix.S_IFLNK }

// what names the type of something that is no regular file.
func (i *info) what() string {
	switch i.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFIFO:
		return "a named pipe"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	case unix.S_IFLNK:
		return "a link"
	}
	return "no regular file"
}

func newTree(root string) (*tree, error) {
	if root == "" || root == "/" {
		return &tree{root: "/"}, nil
	}
	d, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", d.Fd()))
	if err != nil {
		real = strings.TrimRight(root, "/")
	}
	t := &tree{root: real, dir: d}
	probe, err := t.openFD("/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("open %s as the root of a host: %w", root, err)
	}
	unix.Close(probe)
	return t, nil
}

func (t *tree) close() {
	if t.dir != nil {
		t.dir.Close()
	}
}

func (t *tree) openFD(path string, flags int) (int, error) {
	flags |= unix.O_CLOEXEC
	if flags&unix.O_PATH == 0 { // openat2 refuses what has no meaning
		flags |= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	for {
		var fd int
		var err error
		if t.dir == nil {
			fd, err = unix.Open(path, flags, 0)
		} else {
			rel := strings.TrimLeft(path, "/")
			if rel == "" {
				rel = "."
			}
			fd, err = unix.Openat2(int(t.dir.Fd()), rel, &unix.OpenHow{
				Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
			})
		}
		if err == nil || !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			if err != nil {
				err = &fs.PathError{Op: "open", Path: path, Err: err}
			}
			return fd, err
		}
	}
}

// open opens a file for reading, without a change of its access time where
// that is allowed.
func (t *tree) open(path string) (*os.File, error) {
	fd, err := t.openFD(path, unix.O_RDONLY|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		fd, err = t.openFD(path, unix.O_RDONLY)
	}
	if err != nil {
		return nil, err
	}
	return newFile(fd, path), nil
}

func newFile(fd int, path string) *os.File { return os.NewFile(uintptr(fd), path) }

// openRegular opens a file for reading if it is a regular one. What only
// opening a device would set off does not happen.
func (t *tree) openRegular(path string) (*os.File, *info, error) {
	if st, err := t.stat(path); err != nil {
		return nil, nil, err
	} else if !st.regular() {
		return nil, st, &fs.PathError{Op: "read", Path: path, Err: errors.New(st.what())}
	}
	f, err := t.open(path)
	if err != nil {
		return nil, nil, err
	}
	st, err := statFile(f)
	if err == nil && !st.regular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New(st.what())}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

func (t *tree) stat(path string) (*info, error)  { return t.statFlags(path, 0) }
func (t *tree) lstat(path string) (*info, error) { return t.statFlags(path, unix.O_NOFOLLOW) }

func (t *tree) statFlags(path string, flags int) (*info, error) {
	if t.dir == nil {
		at := 0
		if flags != 0 {
			at = unix.AT_SYMLINK_NOFOLLOW
		}
		return statx(unix.AT_FDCWD, path, at, path)
	}
	fd, err := t.openFD(path, unix.O_PATH|flags)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return statx(fd, "", unix.AT_EMPTY_PATH, path)
}

// real returns the path of what a path leads to, below the root.
func (t *tree) real(path string) (string, error) {
	fd, err := t.openFD(path, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	if t.dir != nil {
		below, ok := strings.CutPrefix(real, t.root)
		if !ok {
			return "", &fs.PathError{Op: "read", Path: path, Err: errors.New("it leads out of the root")}
		}
		real = below
	}
	return real, nil
}

// outside returns the path by which the kernel knows a directory.
func (t *tree) outside(path string) string {
	if t.dir == nil {
		return path
	}
	return t.root + path
}

// list returns the entries of a directory, unsorted.
func (t *tree) list(path string) ([]fs.DirEntry, error) {
	fd, err := t.openFD(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), path)
	defer d.Close()
	return d.ReadDir(-1)
}

func statFile(f *os.File) (*info, error) {
	return statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, f.Name())
}

func statx(fd int, name string, flags int, path string) (*info, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(fd, name, flags|unix.AT_STATX_SYNC_AS_STAT, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
		}
	}
	nano := func(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
	i := &info{
		dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino, size: int64(st.Size),
		mod: nano(st.Mtime), ctime: nano(st.Ctime), mode: uint32(st.Mode), uid: st.Uid, links: st.Nlink,
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		i.born = nano(st.Btime)
	}
	return i, nil
}
