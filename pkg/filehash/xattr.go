package filehash

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxXattrs bounds the extended attributes kept of one file, in bytes of names
// and values. The kernel's own limit is 64 KiB of names and 64 KiB each value.
const maxXattrs = 256 << 10

// errXattrsTooLarge is reported for a file with more than that.
var errXattrsTooLarge = errors.New("more than 256 KiB of extended attributes")

// errNoProc is reported where extended attributes cannot be reached.
var errNoProc = errors.New("extended attributes cannot be read without /proc")

// xattrs reads the extended attributes of an open file, sorted by name.
func (w *worker) xattrs(fd int, e *Entry) error {
	n, err := unix.Flistxattr(fd, w.scratch)
	if err != nil || n == 0 {
		return noXattrs(err)
	}
	return readXattrs(e, string(w.scratch[:n]), func(name string, buf []byte) (int, error) {
		return unix.Fgetxattr(fd, name, buf)
	})
}

// xattrsAt reads the extended attributes of the i-th entry of d without
// opening or following it. The path goes through the directory's handle.
func (w *worker) xattrsAt(d *dir, i int, e *Entry) error {
	path := "/proc/self/fd/" + strconv.Itoa(d.fd) + "/" + string(d.name(i))
	n, err := unix.Llistxattr(path, w.scratch)
	if errors.Is(err, unix.ENOENT) && unix.Access("/proc/self/fd", unix.F_OK) != nil {
		return errNoProc
	}
	if err != nil || n == 0 {
		return noXattrs(err)
	}
	return readXattrs(e, string(w.scratch[:n]), func(name string, buf []byte) (int, error) {
		return unix.Lgetxattr(path, name, buf)
	})
}

// noXattrs sorts out the errors that mean that there are none.
func noXattrs(err error) error {
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

func readXattrs(e *Entry, list string, get func(string, []byte) (int, error)) error {
	names := strings.Split(strings.TrimSuffix(list, "\x00"), "\x00")
	slices.Sort(names)
	total := 0
	for _, name := range names {
		buf := make([]byte, 256)
		n, err := get(name, buf)
		if errors.Is(err, unix.ERANGE) {
			buf = make([]byte, 64<<10) // XATTR_SIZE_MAX
			n, err = get(name, buf)
		}
		if errors.Is(err, unix.ENODATA) { // removed since it was listed
			continue
		}
		if err != nil {
			return err
		}
		total += len(name) + n
		if total > maxXattrs {
			return errXattrsTooLarge
		}
		e.Xattrs = append(e.Xattrs, Xattr{Name: name, Value: bytes.Clone(buf[:n])})
	}
	return nil
}
