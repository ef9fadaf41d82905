package segment

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"sync"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// Reader reads a segment. It is safe for concurrent use.
type Reader struct {
	data   Data
	meta   []byte // JSON; most searches know it from the catalogue
	blocks []blockInfo
}

const tailSize = 8 + 8 + 4 + len(trailer)

// maxIndex bounds the index, in bytes.
const maxIndex = 64 << 20

// tails is room for the ends of segments: a search opens hundreds.
var tails = sync.Pool{New: func() any { return new([4 << 10]byte) }}

// Open reads the index of a segment. Damage is a CorruptError.
func Open(data Data) (*Reader, error) {
	size := data.Size()
	if size < int64(len(magic)+tailSize) {
		return nil, corrupt(0, "it has %d bytes, too few for a segment", size)
	}
	// The index of most segments is that short: one read gets all.
	guess := min(size, 4<<10)
	room := tails.Get().(*[4 << 10]byte)
	defer tails.Put(room)
	tail := room[:guess]
	if err := readAt(data, tail, size-guess); err != nil {
		return nil, err
	}
	end := tail[len(tail)-tailSize:]
	if string(end[20:]) != trailer {
		return nil, corrupt(size-int64(len(trailer)), "it does not end as a segment does: it is cut, or no segment")
	}
	at, n := binary.LittleEndian.Uint64(end), binary.LittleEndian.Uint64(end[8:])
	if at < uint64(len(magic)) || n > maxIndex || at > uint64(size) || at+n+uint64(tailSize) != uint64(size) {
		return nil, corrupt(size-int64(tailSize), "the place of its index is wrong")
	}
	var index []byte
	if n+uint64(tailSize) <= uint64(len(tail)) {
		index = tail[len(tail)-tailSize-int(n) : len(tail)-tailSize]
	} else {
		index = make([]byte, n)
		if err := readAt(data, index, int64(at)); err != nil {
			return nil, err
		}
	}
	if checksum(index) != binary.LittleEndian.Uint32(end[16:]) {
		return nil, corrupt(int64(at), "the checksum of the index is wrong")
	}
	r := &Reader{data: data}
	d := decoder{b: index, off: int64(at)}
	r.meta = bytes.Clone(d.bytes(int(d.uvarint(1 << 20))))
	blocks := int(d.uvarint(maxBlocks))
	for range blocks {
		if d.err != nil {
			return nil, d.err
		}
		var b blockInfo
		b.decode(&d)
		if d.err == nil && (b.offset < int64(len(magic)) || b.offset+b.length > int64(at)) {
			return nil, corrupt(int64(at), "a block is beyond the index")
		}
		r.blocks = append(r.blocks, b)
	}
	if d.err == nil && len(d.b) > 0 {
		return nil, corrupt(int64(at), "the index has %d bytes too many", len(d.b))
	}
	return r, d.err
}

func readAt(data Data, b []byte, off int64) error {
	n, err := data.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || n < len(b) && off+int64(len(b)) > data.Size() {
		return corrupt(off+int64(n), "it ends here")
	}
	return err
}

// Meta returns where the records come from.
func (r *Reader) Meta() (m Meta, err error) {
	if err := json.Unmarshal(r.meta, &m); err != nil {
		return m, corrupt(int64(len(magic)), "its origin cannot be read: %v", err)
	}
	return m, nil
}

// Blocks returns how many blocks there are.
func (r *Reader) Blocks() int { return len(r.blocks) }

// BlockInfo describes a block.
type BlockInfo struct {
	Records, RawBytes int64
	MinTime, MaxTime  int64 // nanoseconds since 1970-01-01 UTC, inclusive
}

// Block returns what the index says of block i.
func (r *Reader) Block(i int) BlockInfo {
	b := &r.blocks[i]
	return BlockInfo{b.records, b.raw, b.minTime, b.maxTime}
}

// Scan calls fn with every record whose time is since or later and before
// until, in the order in which they were appended. The record is valid until
// fn returns.
func (r *Reader) Scan(ctx context.Context, since, until int64, fn func(*event.Record) error) error {
	var b Block
	for i, info := range r.blocks {
		if err := ctx.Err(); err != nil {
			return err
		}
		if info.maxTime < since || info.minTime >= until {
			continue
		}
		if err := b.Load(r, i); err != nil {
			return err
		}
		if err := b.Each(b.All(), since, until, func(_ int, rec *event.Record) error { return fn(rec) }); err != nil {
			return err
		}
	}
	return nil
}

// Verify reads every block and holds it against its checksums and the index.
func (r *Reader) Verify(ctx context.Context) error {
	head := make([]byte, len(magic))
	if err := readAt(r.data, head, 0); err != nil {
		return err
	}
	if string(head) != magic {
		return corrupt(0, "it does not begin as a segment does")
	}
	if _, err := r.Meta(); err != nil {
		return err
	}
	var b Block
	for i, info := range r.blocks {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.Load(r, i); err != nil {
			return err
		}
		if err := b.checkFilter(); err != nil {
			return err
		}
		var records, raw int64
		minTime, maxTime := int64(math.MaxInt64), int64(math.MinInt64)
		err := b.Each(b.All(), math.MinInt64, math.MaxInt64, func(_ int, rec *event.Record) error {
			records++
			raw += int64(len(rec.Raw))
			minTime, maxTime = min(minTime, rec.Time), max(maxTime, rec.Time)
			return nil
		})
		if err != nil {
			return err
		}
		if records != info.records || raw != info.raw || minTime != info.minTime || maxTime != info.maxTime {
			return corrupt(info.offset, "the index does not describe block %d", i)
		}
	}
	return nil
}

// decoder reads numbers; after an error it returns zeros.
type decoder struct {
	b   []byte
	off int64 // in the file, for errors
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = corrupt(d.off, "%s", what)
	}
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if d.err != nil || n <= 0 || v > limit {
		d.fail("a number is cut or out of range")
		return 0
	}
	d.b, d.off = d.b[n:], d.off+int64(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if d.err != nil || n <= 0 {
		d.fail("a number is cut")
		return 0
	}
	d.b, d.off = d.b[n:], d.off+int64(n)
	return v
}

func (d *decoder) bytes(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b) {
		d.fail("it is cut")
		return nil
	}
	b := d.b[:n]
	d.b, d.off = d.b[n:], d.off+int64(n)
	return b
}

func (s *section) decode(d *decoder, length int64) {
	s.at = int64(d.uvarint(math.MaxInt64))
	s.packed = int64(d.uvarint(maxSection))
	s.size = int64(d.uvarint(maxSection))
	if b := d.bytes(4); b != nil {
		s.sum = binary.LittleEndian.Uint32(b)
	}
	if d.err == nil && (s.at > length || s.at+s.packed > length) {
		d.fail("a section is beyond its block")
	}
}

func (b *blockInfo) decode(d *decoder) {
	for _, v := range []*int64{&b.offset, &b.length, &b.records, &b.raw} {
		*v = int64(d.uvarint(math.MaxInt64 / 4))
	}
	b.minTime, b.maxTime = d.varint(), d.varint()
	for _, s := range b.sections() {
		s.decode(d, b.length)
	}
	for _, v := range []*int{&b.values.max, &b.values.run, &b.values.dots} {
		*v = int(d.uvarint(math.MaxInt32))
	}
	if v := d.bytes(16); v != nil {
		b.values.bytes = [2]uint64{binary.LittleEndian.Uint64(v), binary.LittleEndian.Uint64(v[8:])}
	}
	f := &b.filter
	if d.err == nil && (f.size%groupSize != 0 || f.packed != f.size+4*((f.size+pageSize-1)/pageSize)) {
		d.fail("the size of a filter is wrong")
	}
	// Each record takes at least a byte of rows and three of times.
	if d.err == nil && (b.records > maxRecords || b.records > b.rows.size || 3*b.records > b.times.size) {
		d.fail("a block has too many records")
	}
}
