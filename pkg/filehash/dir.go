package filehash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxDepth bounds how deeply directories may be nested: each level holds one
// file descriptor while the walk is below it. Deeper ones are reported as
// unreadable, so that nobody can hide a file behind a thousand directories.
const maxDepth = 1000

// maxPath bounds the length of a directory's path in bytes. It is four times
// what a program can give to the kernel at once (PATH_MAX), and keeps what is
// remembered of each entry small: thousands of directories at the end of a path
// of 1000 long names would fill the memory.
const maxPath = 16 << 10

// errTooDeep is reported for a directory below maxDepth, or beyond maxPath.
var errTooDeep = errors.New("nested too deeply: more than 1000 levels, or a path of more than 16 KiB")

// dir is an open directory and its listing.
type dir struct {
	fd    int
	refs  atomic.Int32 // slots that still need fd; the last one closes it
	path  []byte
	sel   Selector
	dev   uint64
	depth int
	few   bool // not listed: only the names that the selector gave

	names []byte   // all names, each with its NUL
	ents  []dirent // sorted by name
	subs  []uint32 // indexes into ents of the directories
}

// dirent is one name in dir.names.
type dirent struct {
	off  uint32
	len  uint16
	kind uint8 // DT_*
}

func (d *dir) name(i int) []byte { return d.text(d.ents[i]) }

func (d *dir) text(e dirent) []byte { return d.names[e.off : e.off+uint32(e.len)] }

// namez returns a pointer to the NUL-terminated name, for the kernel.
func (d *dir) namez(i int) *byte { return &d.names[d.ents[i].off] }

func (d *dir) unref() {
	if d.refs.Add(-1) == 0 {
		unix.Close(d.fd)
		d.fd = -1
	}
}

// join returns the path of a child.
func (d *dir) join(name []byte) []byte {
	p := make([]byte, 0, len(d.path)+1+len(name))
	p = append(p, d.path...)
	if len(p) > 1 {
		p = append(p, '/')
	}
	return append(p, name...)
}

// list fills ents. An error may come with the entries that were read before.
func (d *dir) list(w *worker) error {
	var err error
	if names, few := d.sel.Names(); few {
		d.few = true
		for _, n := range names {
			d.addName([]byte(n), unix.DT_UNKNOWN)
		}
	} else {
		err = d.readNames(w)
	}
	slices.SortFunc(d.ents, func(a, b dirent) int { return bytes.Compare(d.text(a), d.text(b)) })
	// A name that is removed and made anew while the directory is listed can
	// be in it twice (readdir(3), tmpfs, btrfs). Keys are to be unique.
	d.ents = slices.CompactFunc(d.ents, func(a, b dirent) bool { return bytes.Equal(d.text(a), d.text(b)) })
	subs := 0
	for i := range d.ents {
		e := &d.ents[i]
		if e.kind == unix.DT_UNKNOWN {
			var info Info
			switch lstatAt(d.fd, d.namez(i), &info) {
			case 0:
				e.kind = uint8(info.Type() >> 12) // the DT_ values are the S_IF values shifted
			case unix.ENOENT:
			default: // perhaps a directory; then opening it says what is the matter
				e.kind = unix.DT_DIR
			}
		}
		if e.kind == unix.DT_DIR {
			subs++
		}
	}
	if subs > 0 {
		d.subs = make([]uint32, 0, subs)
		for i, e := range d.ents {
			if e.kind == unix.DT_DIR {
				d.subs = append(d.subs, uint32(i))
			}
		}
	}
	return err
}

func (d *dir) addName(name []byte, kind uint8) {
	d.ents = append(d.ents, dirent{off: uint32(len(d.names)), len: uint16(len(name)), kind: kind})
	d.names = append(d.names, name...)
	d.names = append(d.names, 0)
}

// readNames reads the directory with getdents64(2).
func (d *dir) readNames(w *worker) error {
	for {
		n, err := unix.Getdents(d.fd, w.dents)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ENOENT) { // it was removed since it was opened
			return nil
		}
		if err != nil {
			return err
		}
		if n <= 0 {
			return nil
		}
		if d.ents == nil { // most directories fit into the first buffer
			d.names = make([]byte, 0, n/2)
			d.ents = make([]dirent, 0, n/32)
		}
		for b := w.dents[:n]; len(b) >= 19; {
			reclen := int(binary.LittleEndian.Uint16(b[16:]))
			if reclen < 19 || reclen > len(b) {
				break // the kernel never does this
			}
			name := b[19:reclen]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			kind := b[18]
			b = b[reclen:]
			if len(name) == 0 || name[0] == '.' && (len(name) == 1 || len(name) == 2 && name[1] == '.') {
				continue
			}
			d.addName(name, kind)
		}
	}
}

// openChild opens the i-th entry of d as a directory, nil when the walk is not
// to go there.
func (d *dir) openChild(w *worker, i int) (*dir, error) {
	name := d.name(i)
	sel := d.sel.Enter(name)
	if sel == nil {
		return nil, nil
	}
	c := &dir{path: d.join(name), sel: sel, depth: d.depth + 1}
	if c.depth > maxDepth || len(c.path) > maxPath {
		return c, errTooDeep
	}
	// Looking before opening: opening the place of an automount would mount it,
	// and wait for a server that may be dead.
	var info Info
	var e unix.Errno
	if !w.walk.opts.CrossDevice {
		e = lstatAt(d.fd, d.namez(i), &info)
		if e == 0 && info.Dev != d.dev && !d.few {
			return nil, nil
		}
	}
	if e == 0 {
		w.noatimeRefused = false
		c.fd, e = w.openAt(d.fd, d.namez(i), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK)
	}
	switch e {
	case 0:
		c.dev = info.Dev
		return c, nil
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP: // gone, or replaced by something else, since it was listed
		return nil, nil
	}
	return c, e
}
