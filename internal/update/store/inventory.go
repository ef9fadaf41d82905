package store

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/mobileops/mobileops/pkg/filehash"
)

// inventory keeps what is known of the names of a few trees: what a manifest
// says, what was found, what is being made. An installation has hundreds of
// thousands of names, of which most are the same in all of these trees. So every
// path is kept once, in one piece of text with others, and so is what two names,
// or one name in two trees, have in common; what remains of a name in a tree are
// four bytes. None of it has pointers that a collector would have to follow, and
// most of it need not be in memory. Whoever made it closes it.
//
// Its methods and those of its views may be used by several goroutines at once.
type inventory struct {
	mu     sync.Mutex
	paths  paths
	traits *spill[trait]
	count  int // of traits
	byWhat index
	common []*attributes
	number map[attributes]uint32 // of common
	seen   *spill[seen]          // by name
	order  []uint32              // names in the order of their paths; shorter than paths when one was added since
}

// trait is what an entry is beside its name and its kind: 48 bytes.
type trait struct {
	sum    filehash.Sum
	size   int64
	common uint32 // into inventory.common
	state  uint32 // a name that was found intact with it, from 1, and flags
}

// What is known of the blob that a trait is the content of.
const (
	fresh     = 1 << 31 // this work wrote or compared it
	created   = 1 << 30 // this work added it
	stateBits = fresh | created
)

// attributes are what many entries have in common, and what few have at all.
type attributes struct {
	mode, uid, gid uint32
	hasBase        bool
	base           Delivered
	target         string
}

func (t *trait) encode(b []byte) {
	copy(b, t.sum[:])
	binary.LittleEndian.PutUint64(b[32:], uint64(t.size))
	binary.LittleEndian.PutUint32(b[40:], t.common)
	binary.LittleEndian.PutUint32(b[44:], t.state)
}

func (t *trait) decode(b []byte) {
	copy(t.sum[:], b)
	t.size = int64(binary.LittleEndian.Uint64(b[32:]))
	t.common, t.state = binary.LittleEndian.Uint32(b[40:]), binary.LittleEndian.Uint32(b[44:])
}

// seen says which file a name was when it was found: 32 bytes.
type seen struct {
	ino              uint64
	mtime, ctime     int64 // seconds
	mtimeNs, ctimeNs uint32
}

func (s *seen) encode(b []byte) {
	binary.LittleEndian.PutUint64(b, s.ino)
	binary.LittleEndian.PutUint64(b[8:], uint64(s.mtime))
	binary.LittleEndian.PutUint64(b[16:], uint64(s.ctime))
	binary.LittleEndian.PutUint32(b[24:], s.mtimeNs)
	binary.LittleEndian.PutUint32(b[28:], s.ctimeNs)
}

func (s *seen) decode(b []byte) {
	s.ino = binary.LittleEndian.Uint64(b)
	s.mtime, s.ctime = int64(binary.LittleEndian.Uint64(b[8:])), int64(binary.LittleEndian.Uint64(b[16:]))
	s.mtimeNs, s.ctimeNs = binary.LittleEndian.Uint32(b[24:]), binary.LittleEndian.Uint32(b[28:])
}

func (s *Store) newInventory() *inventory {
	return &inventory{
		paths: paths{seed: maphash.MakeSeed()}, number: map[attributes]uint32{},
		traits: newSpill(48, (*trait).encode, (*trait).decode, s.aside),
		seen:   newSpill(32, (*seen).encode, (*seen).decode, s.aside),
	}
}

func (v *inventory) close() {
	v.traits.close()
	v.seen.close()
}

// sound is an error when something that was said may not be so. It is asked before
// anything lasts.
func (v *inventory) sound() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return errors.Join(v.traits.err, v.seen.err)
}

// view is one tree: for each name of an inventory that it has, 3 bits of the kind
// and 29 of the trait, from 1.
type view struct {
	*inventory
	refs table[uint32]
	n    int
}

const (
	kinds     = "?dfuclD"
	kindShift = 29
)

func (v *inventory) view() *view { return &view{inventory: v} }

// len returns how many names the tree has.
func (v *view) len() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.n
}

// put enters or replaces what a name is, and returns the number of the name.
func (v *view) put(e *Entry) uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	id := v.paths.add(e.Path)
	v.set(id, v.intern(e)+1|uint32(strings.IndexByte(kinds, byte(e.Kind)))<<kindShift)
	return id
}

// set needs the lock.
func (v *view) set(id, ref uint32) {
	at := v.refs.at(int(id))
	if *at == 0 && ref != 0 {
		v.n++
	} else if *at != 0 && ref == 0 {
		v.n--
	}
	*at = ref
}

// drop takes a name out of the tree.
func (v *view) drop(p string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if id, ok := v.paths.find(p); ok {
		v.set(id, 0)
	}
}

// get returns what a name is, nil when the tree does not have it. Changing it
// changes nothing here.
func (v *view) get(p string) *Entry {
	v.mu.Lock()
	defer v.mu.Unlock()
	id, ok := v.paths.find(p)
	if !ok {
		return nil
	}
	return v.entry(id)
}

// by is get by the number of a name.
func (v *view) by(id uint32) *Entry {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.entry(id)
}

// entry needs the lock.
func (v *view) entry(id uint32) *Entry {
	ref := v.refs.get(int(id))
	if ref == 0 {
		return nil
	}
	t := v.traits.look(v.what(ref))
	a := v.common[t.common]
	e := &Entry{Path: v.paths.text(id), Kind: kindOf(ref), Mode: a.mode, UID: a.uid, GID: a.gid, Size: t.size, Sum: t.sum, Target: a.target}
	if a.hasBase {
		e.Base = &a.base
	}
	return e
}

func (*inventory) what(ref uint32) int { return int(ref&(1<<kindShift-1)) - 1 }

func kindOf(ref uint32) Kind { return Kind(kinds[ref>>kindShift]) }

// kind returns what kind of thing a name is, 0 when the tree does not have it.
func (v *view) kind(p string) Kind {
	v.mu.Lock()
	defer v.mu.Unlock()
	id, ok := v.paths.find(p)
	if !ok || v.refs.get(int(id)) == 0 {
		return 0
	}
	return kindOf(v.refs.get(int(id)))
}

// has says whether the tree has a name.
func (v *view) has(p string) bool { return v.kind(p) != 0 }

// all yields the entries in the order of their paths. What is put or dropped
// meanwhile it may yield or not.
func (v *view) all() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for _, id := range v.sorted() {
			if e := v.by(id); e != nil && !yield(e) {
				return
			}
		}
	}
}

// backward is all from the end: what is in a directory comes before it.
func (v *view) backward() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for _, id := range slices.Backward(v.sorted()) {
			if e := v.by(id); e != nil && !yield(e) {
				return
			}
		}
	}
}

// sorted returns the numbers of all names in the order of their paths. Nobody is
// to change it.
func (v *inventory) sorted() []uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.order) != v.paths.count {
		v.order = make([]uint32, v.paths.count)
		for i := range v.order {
			v.order[i] = uint32(i)
		}
		byPath := func(a, b uint32) int { return strings.Compare(v.paths.text(a), v.paths.text(b)) }
		if !slices.IsSortedFunc(v.order, byPath) {
			slices.SortFunc(v.order, byPath)
		}
	}
	return v.order
}

// id returns the number of a path, which is added when it is not there.
func (v *inventory) id(p string) uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.paths.add(p)
}

// path returns the path of a number.
func (v *inventory) path(id uint32) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.paths.text(id)
}

// intern returns the number of what an entry is. It needs the lock.
func (v *inventory) intern(e *Entry) uint32 {
	a := attributes{mode: e.Mode, uid: e.UID, gid: e.GID, target: e.Target}
	if e.Base != nil {
		a.hasBase, a.base = true, *e.Base
	}
	n, ok := v.number[a]
	if !ok {
		n = uint32(len(v.common))
		v.common = append(v.common, &a)
		v.number[a] = n
	}
	h := v.hash(e.Sum)
	i, ok := v.byWhat.find(h, func(i uint32) bool {
		t := v.traits.look(int(i))
		return t.common == n && t.size == e.Size && t.sum == e.Sum
	})
	if !ok {
		i = uint32(v.count)
		v.count++
		*v.traits.at(int(i)) = trait{sum: e.Sum, size: e.Size, common: n}
		v.byWhat.add(h, func(i uint32) uint64 { return v.hash(v.traits.look(int(i)).sum) })
	}
	return i
}

// hash has a seed: nobody is to choose contents that slow it down.
func (v *inventory) hash(s filehash.Sum) uint64 { return maphash.Bytes(v.paths.seed, s[:]) }

// content finds the number of the trait of a blob. It needs the lock.
func (v *inventory) content(k blobKey) (uint32, bool) {
	return v.byWhat.find(v.hash(k.sum), func(i uint32) bool {
		t := v.traits.look(int(i))
		a := v.common[t.common]
		return t.sum == k.sum && a.mode == k.mode && a.uid == k.uid && a.gid == k.gid && !a.hasBase && a.target == ""
	})
}

// proved says whether this work wrote or compared the blob of an entry.
func (v *inventory) proved(e *Entry) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	i, ok := v.content(e.key())
	return ok && v.traits.look(int(i)).state&fresh != 0
}

// mark notes what is known of the blob of an entry, and unmark that it is so no
// longer.
func (v *inventory) mark(e *Entry, state uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	i, ok := v.content(e.key())
	if !ok {
		i = v.intern(&Entry{Mode: e.Mode, UID: e.UID, GID: e.GID, Size: e.Size, Sum: e.Sum})
	}
	v.traits.at(int(i)).state |= state
}

func (v *inventory) unmark(e *Entry, state uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if i, ok := v.content(e.key()); ok {
		v.traits.at(int(i)).state &^= state
	}
}

// created yields the blobs that this work added.
func (v *inventory) created() iter.Seq[blobKey] {
	return func(yield func(blobKey) bool) {
		for i := range v.count {
			if t := v.traits.look(i); t.state&created != 0 {
				a := v.common[t.common]
				if !yield(blobKey{t.sum, a.mode, a.uid, a.gid}) {
					return
				}
			}
		}
	}
}
