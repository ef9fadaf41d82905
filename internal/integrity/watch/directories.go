package watch

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"golang.org/x/sys/unix"
)

// maxDirectories bounds the cache of directories; beyond it the cache begins
// anew, which costs three system calls a directory.
const maxDirectories = 1 << 16

// place is where a directory can be seen, and what the policy says of it there.
type place struct {
	dir   []byte // path below the tree of the baseline
	state *policy.State
}

// child returns the place of a directory in it, and whether anything at or
// below that is covered.
func (p *place) child(name []byte) (place, bool) {
	c := place{childPath(p.dir, name), p.state.Enter(name)}
	return c, !c.state.Prune() || p.state.Rule(name) != nil
}

func childPath(dir, name []byte) []byte {
	out := make([]byte, 0, len(dir)+1+len(name))
	out = append(out, dir...)
	if len(dir) > 1 {
		out = append(out, '/')
	}
	return append(out, name...)
}

// directories turns handles into paths. It belongs to one goroutine.
//
// A directory keeps its handle when it is renamed, so every rename of a
// directory empties the cache. Between two of them an entry is the path that
// the directory had when the event happened, which is better than what asking
// now would give.
type directories struct {
	opened *integrity.Opened
	mounts *mounts
	cache  map[string][]place       // no places: nothing in it is covered
	fds    map[[fsidSize]byte]mntfd // open until settle
	raced  func()                   // for tests: called where others may come between
}

type mntfd struct {
	fd int
	m  *mount
}

func newDirectories(o *integrity.Opened, t *mounts) *directories {
	return &directories{opened: o, mounts: t, cache: map[string][]place{}, fds: map[[fsidSize]byte]mntfd{}}
}

// forget empties the cache.
func (d *directories) forget() { clear(d.cache) }

// settle closes the descriptors on mounts: an open one would keep an admin from
// unmounting the filesystem.
func (d *directories) settle() {
	for id, f := range d.fds {
		unix.Close(f.fd)
		delete(d.fds, id)
	}
}

// errGone says that a directory exists no more and was not known.
var errGone = errors.New("the directory is gone")

// places returns where a directory is. None: nothing in it is covered.
func (d *directories) places(h handle) ([]place, error) {
	if p, ok := d.cache[string(h)]; ok {
		return p, nil
	}
	p, err := d.find(h)
	if err == nil {
		d.learn(h, p)
	}
	return p, err
}

// learn notes where a directory is.
func (d *directories) learn(h handle, p []place) {
	if len(d.cache) >= maxDirectories {
		d.forget()
	}
	d.cache[string(h)] = p
}

// find asks the kernel where a directory is now.
func (d *directories) find(h handle) ([]place, error) {
	fd, m, err := d.open(h, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return d.resolve(fd, m)
}

// open opens what a handle stands for, as a path alone.
func (d *directories) open(h handle, flags int) (int, *mount, error) {
	id := h.fsid()
	mnt, ok := d.fds[id]
	if !ok {
		m := d.mounts.widest(id)
		if m == nil {
			return -1, nil, errGone // unmounted since
		}
		fd, err := unix.Open(string(m.point), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return -1, nil, errGone
		}
		mnt = mntfd{fd, m}
		d.fds[id] = mnt
	}
	fd, err := h.open(mnt.fd, unix.O_PATH|flags)
	if err != nil {
		return -1, nil, errGone
	}
	return fd, mnt.m, nil
}

// inode returns the number of what a handle stands for.
func (d *directories) inode(h handle) (uint64, error) {
	fd, _, err := d.open(h, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return st.Ino, err
}

// resolve returns where an open directory is. It can be removed or renamed
// between any two calls, and "nowhere" is an answer only when it was not.
func (d *directories) resolve(fd int, m *mount) (out []place, err error) {
	buf := make([]byte, unix.PathMax)
	for before, tries := "", 0; tries < 8; tries++ {
		n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), buf)
		var st unix.Stat_t
		if err != nil || n == 0 || n == len(buf) || unix.Fstat(fd, &st) != nil || st.Nlink == 0 {
			return nil, errGone
		}
		if before == string(buf[:n]) {
			return out, nil
		}
		before = string(buf[:n])
		if out = nil; under(buf[:n], m.point) { // else a part of the filesystem that is mounted nowhere
			within := buf[:n]
			if len(m.point) > 1 {
				within = within[len(m.point):]
			}
			if d.raced != nil {
				d.raced()
			}
			out = d.look(m.fsid, joinPaths(m.root, within), &st)
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, errGone // somebody renames it without end
}

// look returns the covered ones of the paths at which a directory can be seen.
func (d *directories) look(id [fsidSize]byte, path []byte, st *unix.Stat_t) []place {
	var out []place
	for _, host := range d.mounts.seenAt(id, path) {
		inside := d.opened.Inside(host)
		if inside == nil {
			continue
		}
		p := place{inside, d.opened.State(inside)}
		if p.state.Prune() && d.opened.Rule(inside) == nil {
			continue
		}
		var now unix.Stat_t
		if unix.Lstat(string(host), &now) != nil || now.Ino != st.Ino || now.Dev != st.Dev {
			continue
		}
		out = append(out, p)
	}
	return out
}

// parent cuts a directory's path into the place that it is in and its name.
func (d *directories) parent(p place) (place, []byte) {
	i := bytes.LastIndexByte(p.dir, '/')
	dir, name := p.dir[:max(i, 1)], p.dir[i+1:]
	return place{dir, d.opened.State(dir)}, name
}
