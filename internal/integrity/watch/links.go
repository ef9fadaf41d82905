package watch

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"golang.org/x/sys/unix"
)

// links knows the files of the baseline that have several names: the kernel
// tells an event by the name that was used, which may be one that nobody
// watches. It also knows the inode numbers of all files of the baseline, 8 bytes
// each, so that a new name of one of them is noticed.
type links struct {
	mu     sync.RWMutex
	byFile map[string][][]byte // handle → paths below the tree
	inodes []uint64            // sorted
}

const (
	maxLinks  = 1 << 16
	maxInodes = 1 << 22 // 32 MiB
)

// newLink is a file that got another name.
type newLink struct {
	self handle
	proc *Process
	at   time.Time
}

func newLinks() *links { return &links{byFile: map[string][][]byte{}} }

// build reads the baseline through.
func (l *links) build(o *integrity.Opened, t *mounts) {
	byFile := map[string][][]byte{}
	var inodes []uint64
	o.Reader.All(func(r *baseline.Record) error {
		if r.Info.Type() != unix.S_IFREG {
			return nil
		}
		if len(inodes) < maxInodes {
			inodes = append(inodes, r.Info.Ino)
		}
		if r.Info.Links > 1 && len(byFile) < maxLinks {
			path := r.Path()
			if h := handleOf(o, t, path); h != nil {
				byFile[string(h)] = append(byFile[string(h)], path)
			}
		}
		return nil
	})
	slices.Sort(inodes)
	l.mu.Lock()
	l.byFile, l.inodes = byFile, slices.Clip(slices.Compact(inodes))
	l.mu.Unlock()
}

// handleOf returns the handle of a path below the tree as events have it, nil
// when there is none.
func handleOf(o *integrity.Opened, t *mounts, path []byte) handle {
	host := o.Outside(path)
	m := t.owner(host)
	if !m.covered {
		return nil
	}
	fh, _, err := unix.NameToHandleAt(unix.AT_FDCWD, string(host), 0)
	if err != nil {
		return nil
	}
	h := append(handle(nil), m.fsid[:]...)
	h = binary.NativeEndian.AppendUint32(h, uint32(fh.Size()))
	h = binary.NativeEndian.AppendUint32(h, uint32(fh.Type()))
	return append(h, fh.Bytes()...)
}

// paths returns the watched names of a file that has several.
func (l *links) paths(h handle) [][]byte {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byFile[string(h)]
}

// maybe tells whether a file can be one of the baseline that is not known to have
// several names.
func (l *links) maybe(h handle, ino uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	_, known := l.byFile[string(h)]
	_, ours := slices.BinarySearch(l.inodes, ino)
	return !known && len(l.byFile) < maxLinks && (ours || len(l.inodes) >= maxInodes)
}

// learn looks whether a file that got another name is one of the baseline, and
// returns its names there.
func (l *links) learn(o *integrity.Opened, t *mounts, h handle) [][]byte {
	m := t.widest(h.fsid())
	if m == nil {
		return nil
	}
	mnt, err := unix.Open(string(m.point), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	fd, err := h.open(mnt, unix.O_PATH)
	unix.Close(mnt)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	unix.Close(fd)
	if err != nil || !l.maybe(h, st.Ino) {
		return nil
	}
	var found [][]byte
	o.Reader.All(func(r *baseline.Record) error {
		if r.Info.Ino == st.Ino && r.Info.Type() == unix.S_IFREG {
			if path := r.Path(); string(handleOf(o, t, path)) == string(h) {
				found = append(found, path)
			}
		}
		return nil
	})
	l.mu.Lock()
	l.byFile[string(h)] = found // none is an answer too
	l.mu.Unlock()
	return found
}
