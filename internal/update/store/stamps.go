package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// Stamps say which inode each file of a generation was, and when it last changed,
// at a moment at which its content had been proved. A file of which both are
// still so is not read again when a new generation is made from this one: no
// write, by whatever way through the filesystem, leaves the change time as it
// was, and nobody can set it (inode(7)). What changes beneath the filesystem is
// found by Verify, and then the stamps are thrown away.
//
// The file is a cache. It lies beside the manifest, is not synced, and whatever
// does not fit makes files be read: a checksum, the number of entries, and the
// digest of the manifest that it goes with.
//
//	"mobileops.update.stamps/v1\n", digest of the manifest (32 bytes)
//	for each entry of the manifest: inode (8 bytes), seconds (8), nanoseconds (4), little endian; zeros: not known
//	BLAKE3 of all that (32 bytes)
const (
	nameStamps   = "stamps"
	stampsSchema = "mobileops.update.stamps/v1\n"
	stampSize    = 8 + 8 + 4
)

// stamp is one of them.
type stamp struct {
	ino   uint64
	ctime filehash.Time
}

// stamps are those of a generation, as they stand in the file: one for each entry
// of its manifest, in that order.
type stamps []byte

func newStamps(entries int) stamps { return make(stamps, entries*stampSize) }

func (m stamps) at(i int) stamp {
	b := m[i*stampSize:]
	return stamp{binary.LittleEndian.Uint64(b), filehash.Time{Sec: int64(binary.LittleEndian.Uint64(b[8:])), Nsec: binary.LittleEndian.Uint32(b[16:])}}
}

func (m stamps) set(i int, s stamp) {
	b := m[i*stampSize:]
	binary.LittleEndian.PutUint64(b, s.ino)
	binary.LittleEndian.PutUint64(b[8:], uint64(s.ctime.Sec))
	binary.LittleEndian.PutUint32(b[16:], s.ctime.Nsec)
}

// digestOf returns the digest of a manifest.
func digestOf(dir string) (sum filehash.Sum, err error) {
	f, err := os.Open(filepath.Join(dir, nameManifest))
	if err != nil {
		return sum, err
	}
	defer f.Close()
	return hashOf(f)
}

// write puts the stamps beside the manifest. When that fails there are none.
func (m stamps) write(dir string) {
	path := filepath.Join(dir, nameStamps)
	tmp := durable.Temp(path)
	err := func() error {
		sum, err := digestOf(dir)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		h := blake3.New()
		both := io.MultiWriter(f, h)
		for _, part := range [][]byte{[]byte(stampsSchema), sum[:], m} {
			if err == nil {
				_, err = both.Write(part)
			}
		}
		if err == nil {
			_, err = f.Write(h.Sum(nil))
		}
		return errors.Join(err, f.Close())
	}()
	if err != nil || os.Rename(tmp, path) != nil {
		_ = os.Remove(tmp)
		_ = os.Remove(path)
	}
}

// readStamps returns the stamps of generation n, whose manifest has so many
// entries; nil when there are none that fit.
func (s *Store) readStamps(n, entries int) stamps {
	dir := s.generation(n)
	path := filepath.Join(dir, nameStamps)
	head := len(stampsSchema) + 32
	if st, err := os.Lstat(path); err != nil || st.Size() != int64(head+stampSize*entries+32) {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil || len(b) != head+stampSize*entries+32 || string(b[:len(stampsSchema)]) != stampsSchema {
		return nil
	}
	if end := filehash.SumBytes(b[:len(b)-32]); !bytes.Equal(end[:], b[len(b)-32:]) {
		return nil
	}
	if sum, err := digestOf(dir); err != nil || !bytes.Equal(sum[:], b[len(stampsSchema):head]) {
		return nil
	}
	return stamps(b[head : len(b)-32])
}

// expect takes the stamps of the manifest, which nothing was read after: until a
// name is found, what was seen of it is its stamp.
func (c *scan) expect(known stamps) {
	c.names.mu.Lock()
	defer c.names.mu.Unlock()
	for i, id := range c.names.order {
		s := known.at(i)
		*c.names.seen.at(int(id)) = seen{ino: s.ino, ctime: s.ctime.Sec, ctimeNs: s.ctime.Nsec}
	}
}

// stamped is a filehash.Prior that vouches for files by their stamps. Each worker
// of a walk has one.
type stamped struct {
	*scan
	path []byte
}

func (p *stamped) Lookup(dir, name []byte, info *filehash.Info) (a filehash.PriorAnswer) {
	p.path = append(p.path[:0], dir...)
	p.path = append(append(p.path, '/'), name...)
	v := p.manifest
	v.mu.Lock()
	defer v.mu.Unlock()
	id, ok := v.paths.find(string(bytes.TrimLeft(p.path, "/")))
	if !ok {
		return a
	}
	ref := v.refs.get(int(id))
	if k := kindOf(ref); k != File && k != Local {
		return a
	}
	t, was := v.traits.look(v.what(ref)), v.seen.look(int(id))
	if t.sum == (filehash.Sum{}) || t.size != info.Size {
		return a
	}
	if was.ino == info.Ino && was.ctime == info.Ctime.Sec && was.ctimeNs == info.Ctime.Nsec && was.ino != 0 {
		return filehash.PriorAnswer{Known: true, Sum: t.sum}
	}
	return a
}

// stamp reads the inodes and change times of the files of a new tree, which were
// proved a moment ago, and writes them down for it and for the tree it was made
// from: new links have changed the times there, too. It comes after the sync, so
// that a clock that ticks slowly has ticked.
func (s *stage) stamp() {
	names := s.base.names
	var list []uint32 // of the entries, in order
	for _, id := range names.sorted() {
		if s.entries.refs.get(int(id)) != 0 {
			list = append(list, id)
		}
	}
	mine := newStamps(len(list))
	var workers sync.WaitGroup
	part := (len(list) + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0)
	for first := 0; first < len(list); first += max(part, 1) {
		workers.Go(func() {
			for i := first; i < min(first+part, len(list)); i++ {
				if now, ok := s.stampOf(list[i]); ok {
					mine.set(i, now)
				}
			}
		})
	}
	workers.Wait()
	mine.write(s.dir)
	if s.base.gen == nil || s.base.number == 0 {
		return
	}
	s.restamp(list, mine).write(s.generation(s.base.number))
}

// stampOf returns the stamp of a file of the new tree, unless somebody wrote to it
// since.
func (s *stage) stampOf(id uint32) (now stamp, ok bool) {
	e := s.entries.by(id)
	if e.Kind != File && e.Kind != Local {
		return now, false
	}
	var st unix.Stat_t
	if unix.Fstatat(s.tree.fd, e.Path, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Size != e.Size {
		return now, false
	}
	source := s.base.intact(e.key())
	if e.Kind == Local {
		source = s.base.found(e.Path)
	}
	if source != nil && source.ino == st.Ino && source.mtime != (filehash.Time{Sec: int64(st.Mtim.Sec), Nsec: uint32(st.Mtim.Nsec)}) {
		return now, false
	}
	return stampOf(&st), true
}

// restamp returns the stamps of the tree that the new one was made from: of what
// was found as its manifest says, when it changed last, which the new tree tells
// where it has the same file.
func (s *stage) restamp(list []uint32, mine stamps) stamps {
	names := s.base.names
	names.mu.Lock()
	defer names.mu.Unlock()
	same := table[uint32]{} // by trait: which of the list has it, from 1
	for i, id := range list {
		*same.at(names.what(s.entries.refs.get(int(id)))) = uint32(i + 1)
	}
	old := newStamps(s.base.manifest.n)
	next, n := 0, 0 // in the list, and in the manifest
	for _, id := range names.order {
		own := -1
		if next < len(list) && list[next] == id {
			own = next
			next++
		}
		was, is := s.base.manifest.refs.get(int(id)), s.base.present.refs.get(int(id))
		if was == 0 {
			continue
		}
		// What is not as the manifest says must be read again, or it would be taken
		// for what the manifest says.
		if k := kindOf(is); is == was && (k == File || k == Local) && names.traits.look(names.what(is)).sum != (filehash.Sum{}) {
			at := names.seen.look(int(id))
			now := stamp{at.ino, filehash.Time{Sec: at.ctime, Nsec: at.ctimeNs}}
			for _, i := range []int{own, int(same.get(names.what(is))) - 1} {
				if i >= 0 && mine.at(i).ino == now.ino {
					now = mine.at(i)
					break
				}
			}
			old.set(n, now)
		}
		n++
	}
	return old
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{st.Ino, filehash.Time{Sec: int64(st.Ctim.Sec), Nsec: uint32(st.Ctim.Nsec)}}
}

// renew writes the stamps of the current generation anew around something that
// takes links away, which changes times: those that held before hold after.
func (t *Session) renew(current int, fn func() error) error {
	n := 0
	if err := t.Entries(current, func(*Entry) error { n++; return nil }); err != nil {
		return fn() // damaged: that is not for now
	}
	had := t.readStamps(current, n)
	if had == nil {
		return fn()
	}
	tree, err := os.Open(t.Tree(current))
	if err != nil {
		return fn()
	}
	defer tree.Close()
	// each calls fn with every file whose stamp is known, and clears those of which
	// it says no.
	each := func(fn func(i int, st *unix.Stat_t) bool) error {
		i := 0
		return t.Entries(current, func(e *Entry) error {
			var st unix.Stat_t
			if had.at(i).ino != 0 && (unix.Fstatat(int(tree.Fd()), e.Path, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || !fn(i, &st)) {
				had.set(i, stamp{})
			}
			i++
			return nil
		})
	}
	type version struct {
		size  int64
		mtime unix.Timespec
		mode  uint32
	}
	held := table[version]{}
	err = each(func(i int, st *unix.Stat_t) bool {
		*held.at(i) = version{st.Size, st.Mtim, st.Mode}
		return stampOf(st) == had.at(i)
	})
	if err != nil {
		return fn()
	}
	if err := fn(); err != nil {
		return err
	}
	err = each(func(i int, st *unix.Stat_t) bool {
		if st.Ino != had.at(i).ino || held.get(i) != (version{st.Size, st.Mtim, st.Mode}) {
			return false
		}
		had.set(i, stampOf(st))
		return true
	})
	if err != nil {
		return nil // the times have changed, so nothing of it holds
	}
	had.write(t.generation(current))
	return nil
}

// Forget throws stamps away, so that the next generation is made from content
// that is read: Verify has found that some is not what it should be.
func (s *Store) Forget() error {
	numbers, err := s.Numbers()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if err := os.Remove(filepath.Join(s.generation(n), nameStamps)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}
