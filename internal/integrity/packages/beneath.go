package packages

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits on the files that are read whole.
const (
	maxDatabase = 256 << 20 // of a status file or an installed file
	maxList     = 64 << 20  // of a package's list of files or digests
	maxSmall    = 4 << 20   // of everything else
)

// tree opens files below a root directory; links lead nowhere else.
type tree struct {
	fd   int // O_PATH
	path string
	root *os.Root // where the kernel has no openat2
}

func openTree(path string) (*tree, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &tree{fd: fd, path: path}, nil
}

func (t *tree) close() error {
	err := unix.Close(t.fd)
	if t.root != nil {
		err = errors.Join(err, t.root.Close())
	}
	return err
}

// open opens a path below the root, with or without a leading slash.
func (t *tree) open(path string, flags int) (int, error) {
	path = strings.TrimPrefix(path, "/")
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(t.fd, path, &how)
		switch {
		case err == nil:
			return fd, nil
		case err == unix.EAGAIN || err == unix.EINTR: // something was renamed on the way
			continue
		case err == unix.ENOSYS || err == unix.EPERM: // an old kernel, or a filter of system calls
			return t.openWithout(path, flags)
		}
		return -1, &fs.PathError{Op: "open", Path: t.name(path), Err: err}
	}
}

// openWithout opens where openat2 is missing. Absolute links in a root other
// than "/" are then an error, not followed.
func (t *tree) openWithout(path string, flags int) (int, error) {
	if t.path == "/" {
		fd, err := unix.Open("/"+path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: "/" + path, Err: err}
		}
		return fd, nil
	}
	if t.root == nil {
		root, err := os.OpenRoot(t.path)
		if err != nil {
			return -1, err
		}
		t.root = root
	}
	f, err := t.root.OpenFile(path, flags, 0)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	runtime.KeepAlive(f)
	return fd, err
}

// name is how messages call a path below the root.
func (t *tree) name(path string) string {
	return strings.TrimSuffix(t.path, "/") + "/" + strings.TrimPrefix(path, "/")
}

// openFile opens a regular file below the root for reading.
func (t *tree) openFile(path string) (*os.File, error) {
	fd, err := t.open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		if err == nil {
			err = &CorruptError{File: t.name(path), Offset: -1, Reason: "not a regular file"}
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), t.name(path)), nil
}

// read returns a whole regular file of at most limit bytes.
func (t *tree) read(path string, limit int64) ([]byte, error) {
	fd, err := t.open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, t.name(path), limit, nil)
}

// dir is a directory below the root, from which many files are read.
type dir struct {
	fd   int
	name string // for messages
}

func (t *tree) dir(path string) (dir, error) {
	fd, err := t.open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOCTTY)
	return dir{fd, t.name(path)}, err
}

func (d dir) close() error { return unix.Close(d.fd) }

// read returns a whole regular file of at most limit bytes that lies in d,
// using the room of buf when it has enough.
func (d dir) read(name string, limit int64, buf []byte) ([]byte, error) {
	fd, err := d.openat(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, d.name+"/"+name, limit, buf)
}

func (d dir) openat(name string) (int, error) {
	for {
		fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, &fs.PathError{Op: "open", Path: d.name + "/" + name, Err: err}
		}
	}
}

// names lists d.
func (d dir) names() ([]string, error) {
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.name, Err: err}
	}
	f := os.NewFile(uintptr(fd), d.name)
	defer f.Close()
	return f.Readdirnames(-1)
}

// listed opens and lists a directory, in order; nil when there is none.
func (t *tree) listed(path string) (*dir, []string, error) {
	d, err := t.dir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	names, err := d.names()
	if err != nil {
		d.close()
		return nil, nil, err
	}
	slices.Sort(names)
	return &d, names, nil
}

// readAll reads an open regular file to its end.
func readAll(fd int, name string, limit int64, buf []byte) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, &CorruptError{File: name, Offset: -1, Reason: "not a regular file"}
	case st.Size > limit:
		return nil, &CorruptError{File: name, Offset: -1, Reason: fmt.Sprintf("it is larger than %d bytes", limit)}
	}
	// One byte more, so that one call of read shows the end as well.
	if need := int(st.Size) + 1; cap(buf) < need {
		buf = make([]byte, 0, max(need, 2*cap(buf)))
	}
	buf = buf[:0]
	for len(buf) < cap(buf) {
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: name, Err: err}
		}
		buf = buf[:len(buf)+n]
		if n == 0 || int64(len(buf)) == st.Size {
			break
		}
	}
	if int64(len(buf)) > limit {
		return nil, &CorruptError{File: name, Offset: -1, Reason: fmt.Sprintf("it is larger than %d bytes", limit)}
	}
	return buf, nil
}
