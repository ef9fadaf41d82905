package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/state"
)

// Buckets of state.db, and the keys of the first.
const (
	storeBucket     = "logs.store"
	catalogueBucket = "logs.catalogue" // number of a chunk (uint32, big endian) → its segments
	cursorBucket    = "logs.cursors"   // key → cursor

	headKey    = "head"
	originsKey = "origins"
	holdsKey   = "holds"
)

// chunkSize is how many ids share a value of the catalogue: few enough that
// adding a segment writes little, and enough that reading all of them is quick.
const chunkSize = 256

const catalogueVersion = 1

// head is what the store is at, beside its segments.
type head struct {
	store    storeID
	nextID   uint64
	consumed uint64 // generations of the write-ahead log up to this are in segments
	bytes    int64  // of the Merkle log
	tree     tree
	seal     *Seal // the last one; nil: none yet
	doomed   []doomed
}

// doomed is a segment that is no longer part of the store, and whose file is
// removed as soon as no reader can need it.
type doomed struct {
	id    uint64
	since int64 // ns
}

// entry is a segment in the catalogue.
type entry struct {
	SegmentRecord
	added  int64  // ns
	leaf   uint64 // its number in the Merkle log
	number int32  // of its origin
}

// index is the catalogue in memory: all that state.db holds for the store,
// without the cursors.
type index struct {
	head
	origins []event.Origin
	numbers map[event.Origin]int
	entries []entry // in order of their ids
	holds   []Hold  // in order of their names

	// What apply changed, for save.
	chunks     map[uint32]bool
	newOrigins bool
	newHolds   bool
}

func (x *index) number(o event.Origin) int {
	if n, ok := x.numbers[o]; ok {
		return n
	}
	if x.numbers == nil {
		x.numbers = map[event.Origin]int{}
		for i, have := range x.origins {
			x.numbers[have] = i
		}
		if n, ok := x.numbers[o]; ok {
			return n
		}
	}
	x.origins = append(x.origins, o)
	x.numbers[o] = len(x.origins) - 1
	x.newOrigins = true
	return len(x.origins) - 1
}

func (x *index) find(id uint64) (int, bool) {
	return slices.BinarySearchFunc(x.entries, id, func(e entry, id uint64) int {
		switch {
		case e.ID < id:
			return -1
		case e.ID > id:
			return 1
		}
		return 0
	})
}

func (x *index) touch(id uint64) {
	if x.chunks == nil {
		x.chunks = map[uint32]bool{}
	}
	x.chunks[uint32(id/chunkSize)] = true
}

// apply makes the change that an operation describes. It fails for one that
// does not fit, and may have been applied in part then.
func (x *index) apply(op *operation, frameBytes int64) error {
	for i, r := range op.records {
		if err := x.applyRecord(r, x.tree.size); err != nil {
			return fmt.Errorf("record %d of the Merkle log: %w", x.tree.size, err)
		}
		x.tree.add(leafHash(op.leaves[i]))
	}
	if op.generation > 0 {
		if op.generation < x.consumed {
			return fmt.Errorf("generation %d after %d", op.generation, x.consumed)
		}
		x.consumed = op.generation
	}
	x.bytes += frameBytes
	return nil
}

func (x *index) applyRecord(r *Record, leaf uint64) error {
	switch r.Kind {
	case KindAdded, KindMerged:
		if r.Segment.ID < x.nextID {
			return fmt.Errorf("segment %d appears again", r.Segment.ID)
		}
		var records int64
		for _, id := range r.From {
			i, ok := x.find(id)
			if !ok {
				return fmt.Errorf("segment %d, which is not there, was merged", id)
			}
			records += x.entries[i].Records
			x.drop(i, r.Time)
		}
		if r.Kind == KindMerged && records != r.Segment.Records {
			return fmt.Errorf("%d records were merged to %d", records, r.Segment.Records)
		}
		n := x.number(r.Segment.Origin)
		r.Segment.Origin = x.origins[n] // the same strings for all
		x.entries = append(x.entries, entry{SegmentRecord: *r.Segment, added: r.Time, leaf: leaf, number: int32(n)})
		x.nextID = r.Segment.ID + 1
		x.touch(r.Segment.ID)
	case KindRemoved:
		i, ok := x.find(r.ID)
		if !ok {
			return fmt.Errorf("segment %d, which is not there, was removed", r.ID)
		}
		x.drop(i, r.Time)
	case KindSealed:
		r.Seal.Store = x.store.String()
		x.seal = r.Seal
	case KindHeld:
		i, ok := x.hold(r.Hold.Name)
		if ok {
			return fmt.Errorf("a second hold %q", r.Hold.Name)
		}
		x.holds = slices.Insert(x.holds, i, *r.Hold)
		x.newHolds = true
	case KindReleased:
		i, ok := x.hold(r.Name)
		if !ok {
			return fmt.Errorf("hold %q, which is not there, was released", r.Name)
		}
		x.holds = slices.Delete(x.holds, i, i+1)
		x.newHolds = true
	}
	return nil
}

func (x *index) drop(i int, now int64) {
	x.touch(x.entries[i].ID)
	x.doomed = append(x.doomed, doomed{x.entries[i].ID, now})
	x.entries = slices.Delete(x.entries, i, i+1)
}

func (x *index) hold(name string) (int, bool) {
	return slices.BinarySearchFunc(x.holds, name, func(h Hold, name string) int {
		switch {
		case h.Name < name:
			return -1
		case h.Name > name:
			return 1
		}
		return 0
	})
}

// encode returns the value of "head": byte version, id of the store, next id,
// consumed generations, bytes and leaves of the Merkle log (uvarint), the roots
// of the tree's full subtrees, length of the last seal as a record and its
// bytes, number of doomed segments and for each id uvarint, time varint.
func (h *head) encode() []byte {
	b := append([]byte{catalogueVersion}, h.store[:]...)
	b = binary.AppendUvarint(b, h.nextID)
	b = binary.AppendUvarint(b, h.consumed)
	b = binary.AppendUvarint(b, uint64(h.bytes))
	b = binary.AppendUvarint(b, h.tree.size)
	for _, r := range h.tree.roots {
		b = append(b, r[:]...)
	}
	var seal []byte
	if h.seal != nil {
		seal = (&Record{Kind: KindSealed, Seal: h.seal}).encode()
	}
	b = appendBytes(b, seal)
	b = binary.AppendUvarint(b, uint64(len(h.doomed)))
	for _, d := range h.doomed {
		b = binary.AppendUvarint(b, d.id)
		b = binary.AppendVarint(b, d.since)
	}
	return b
}

func decodeHead(b []byte) (h head, err error) {
	d := &decoder{what: "head of the log store", b: b}
	if v := d.byte(); v != catalogueVersion {
		return h, &FormatError{What: d.what, Reason: fmt.Sprintf("its version is %d, and this program knows %d", v, catalogueVersion)}
	}
	copy(h.store[:], d.take(len(h.store)))
	h.nextID, h.consumed, h.bytes = d.uvarint(), d.uvarint(), d.nonNegative()
	h.tree.size = d.uvarint()
	for n := h.tree.size; n > 0 && d.err == nil; n &= n - 1 {
		h.tree.roots = append(h.tree.roots, d.hash())
	}
	if seal := d.bytes(maxRecord); len(seal) > 0 {
		r, err := decodeRecord(seal)
		if err != nil {
			return h, err
		}
		if r.Seal == nil {
			return h, &FormatError{What: d.what, Reason: "its seal is none"}
		}
		h.seal = r.Seal
		h.seal.Store = h.store.String()
	}
	for range d.count(2) {
		h.doomed = append(h.doomed, doomed{d.uvarint(), d.varint()})
	}
	return h, d.end()
}

// encodeChunk returns a value of the catalogue: byte version, and for each
// segment id, number of its origin, number of its leaf (uvarint), time of
// adding varint, and the rest as in a record of the Merkle log.
func (x *index) encodeChunk(chunk uint32) []byte {
	from, _ := x.find(uint64(chunk) * chunkSize)
	to, _ := x.find((uint64(chunk) + 1) * chunkSize)
	if from == to {
		return nil
	}
	b := []byte{catalogueVersion}
	for i := from; i < to; i++ {
		e := &x.entries[i]
		b = binary.AppendUvarint(b, e.ID)
		b = binary.AppendUvarint(b, uint64(e.number))
		b = binary.AppendUvarint(b, e.leaf)
		b = binary.AppendVarint(b, e.added)
		b = e.encodeRest(b)
	}
	return b
}

// usualEntry is about the length of a segment in the catalogue, in bytes.
const usualEntry = 64

// decodeChunk appends the segments in a value of the catalogue.
func (x *index) decodeChunk(b []byte) error {
	d := &decoder{what: "catalogue", b: b}
	if v := d.byte(); v != catalogueVersion {
		return &FormatError{What: d.what, Reason: fmt.Sprintf("its version is %d, and this program knows %d", v, catalogueVersion)}
	}
	for d.rest() > 0 && d.err == nil {
		x.entries = append(x.entries, entry{})
		e := &x.entries[len(x.entries)-1]
		e.ID = d.uvarint()
		origin := d.uvarint()
		e.leaf, e.added = d.uvarint(), d.varint()
		e.decodeRest(d)
		if origin >= uint64(len(x.origins)) || len(x.entries) > 1 && x.entries[len(x.entries)-2].ID >= e.ID {
			d.fail("a segment that does not fit")
			return d.err
		}
		e.Origin, e.number = x.origins[origin], int32(origin)
	}
	return d.end()
}

func encodeOrigins(list []event.Origin) []byte {
	b := binary.AppendUvarint([]byte{catalogueVersion}, uint64(len(list)))
	for _, o := range list {
		b = appendOrigin(b, o)
	}
	return b
}

func decodeOrigins(b []byte) (list []event.Origin, err error) {
	d := &decoder{what: "origins", b: b}
	if v := d.byte(); v != catalogueVersion {
		d.fail("an unknown version")
	}
	for range d.count(3) {
		list = append(list, d.origin())
	}
	return list, d.end()
}

func encodeHolds(list []Hold) []byte {
	b := binary.AppendUvarint([]byte{catalogueVersion}, uint64(len(list)))
	for i := range list {
		b = list[i].encode(b)
	}
	return b
}

func decodeHolds(b []byte) (list []Hold, err error) {
	d := &decoder{what: "holds", b: b}
	if v := d.byte(); v != catalogueVersion {
		d.fail("an unknown version")
	}
	for range d.count(6) {
		list = append(list, *decodeHold(d))
	}
	return list, d.end()
}

// load reads the catalogue. With no store yet it returns nil.
func load(tx *state.Tx) (*index, error) {
	b := tx.Bucket([]byte(storeBucket))
	if b == nil {
		return nil, nil
	}
	x := new(index)
	var err error
	if x.head, err = decodeHead(b.Get([]byte(headKey))); err != nil {
		return nil, damagedCatalogue(err)
	}
	if v := b.Get([]byte(originsKey)); v != nil {
		if x.origins, err = decodeOrigins(v); err != nil {
			return nil, damagedCatalogue(err)
		}
	}
	if v := b.Get([]byte(holdsKey)); v != nil {
		if x.holds, err = decodeHolds(v); err != nil {
			return nil, damagedCatalogue(err)
		}
	}
	if c := tx.Bucket([]byte(catalogueBucket)); c != nil {
		size := 0
		_ = c.ForEach(func(_, v []byte) error { size += len(v); return nil })
		x.entries = make([]entry, 0, size/usualEntry+chunkSize)
		err = c.ForEach(func(k, v []byte) error { return x.decodeChunk(v) })
	}
	return x, damagedCatalogue(err)
}

func damagedCatalogue(err error) error {
	if err == nil {
		return nil
	}
	return failure.Hint(failure.Wrap(failure.Untrustworthy, fmt.Errorf("the catalogue of the logs in state.db: %w", err)),
		"put a backup in its place: mobileops state restore FILE")
}

// save writes what apply changed.
func (x *index) save(tx *state.Tx, cursors []cursorChange) error {
	b, err := tx.CreateBucketIfNotExists([]byte(storeBucket))
	if err != nil {
		return err
	}
	c, err := tx.CreateBucketIfNotExists([]byte(catalogueBucket))
	if err != nil {
		return err
	}
	c.FillPercent = 0.9 // keys only grow
	for chunk := range x.chunks {
		k := binary.BigEndian.AppendUint32(nil, chunk)
		if v := x.encodeChunk(chunk); v != nil {
			err = c.Put(k, v)
		} else {
			err = c.Delete(k)
		}
		if err != nil {
			return err
		}
	}
	if x.newOrigins {
		if err := b.Put([]byte(originsKey), encodeOrigins(x.origins)); err != nil {
			return err
		}
	}
	if x.newHolds {
		if err := b.Put([]byte(holdsKey), encodeHolds(x.holds)); err != nil {
			return err
		}
	}
	if err := b.Put([]byte(headKey), x.head.encode()); err != nil {
		return err
	}
	return saveCursors(tx, cursors)
}

func saveCursors(tx *state.Tx, changes []cursorChange) error {
	b, err := tx.CreateBucketIfNotExists([]byte(cursorBucket))
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.cursor == nil {
			err = b.Delete([]byte(c.key))
		} else {
			err = b.Put([]byte(c.key), c.cursor)
		}
		if err != nil {
			return fmt.Errorf("the cursor %q: %w", c.key, err)
		}
	}
	return nil
}
