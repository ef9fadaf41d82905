package segment

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// section is a compressed part of a file.
type section struct {
	at     int64 // from the beginning of its block, in bytes
	packed int64 // bytes in the file
	size   int64 // bytes when unpacked
	sum    uint32
}

func (s *section) encode(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.at))
	dst = binary.AppendUvarint(dst, uint64(s.packed))
	dst = binary.AppendUvarint(dst, uint64(s.size))
	return binary.LittleEndian.AppendUint32(dst, s.sum)
}

// blockInfo is what the index of a segment says of a block.
type blockInfo struct {
	offset           int64 // in the file
	length           int64
	records, raw     int64
	minTime, maxTime int64
	// The dictionary: templates. Columns: what is known of each column. Rows: the
	// template of each record. Times: times, clocks and how they are written.
	// Filter: not compressed.
	dictionary, columns, rows, times, filter section
	// values is what holds of all columns that are not of addresses.
	values stamp
}

func (b *blockInfo) sections() []*section {
	return []*section{&b.dictionary, &b.columns, &b.rows, &b.times, &b.filter}
}

func (b *blockInfo) encode(dst []byte) []byte {
	for _, v := range []int64{b.offset, b.length, b.records, b.raw} {
		dst = binary.AppendUvarint(dst, uint64(v))
	}
	dst = binary.AppendVarint(dst, b.minTime)
	dst = binary.AppendVarint(dst, b.maxTime)
	for _, s := range b.sections() {
		dst = s.encode(dst)
	}
	for _, v := range []int{b.values.max, b.values.run, b.values.dots} {
		dst = binary.AppendUvarint(dst, uint64(v))
	}
	dst = binary.LittleEndian.AppendUint64(dst, b.values.bytes[0])
	return binary.LittleEndian.AppendUint64(dst, b.values.bytes[1])
}

// packer turns the records of a builder into the bytes of a block.
type packer struct {
	enc   *zstd.Encoder
	out   []byte // the block
	buf   []byte
	quick []byte // room for addQuick
}

func (p *packer) init() {
	// The options are right, so that there is no error.
	p.enc, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
}

// add compresses content and appends it to the block.
func (p *packer) add(content []byte) section {
	at := len(p.out)
	p.out = p.enc.EncodeAll(content, p.out)
	return section{int64(at), int64(len(p.out) - at), int64(len(content)), checksum(p.out[at:])}
}

// addQuick is add for what every search unpacks of every block: less is saved,
// and unpacking takes a fraction of the time.
func (p *packer) addQuick(content []byte) section {
	at := len(p.out)
	p.out = append(p.out, s2.EncodeBest(p.quick[:cap(p.quick)], content)...)
	return section{int64(at), int64(len(p.out) - at), int64(len(content)), checksum(p.out[at:])}
}

// block makes the block; its bytes are in p.out.
func (p *packer) block(b *builder) blockInfo {
	p.out = p.out[:0]
	info := blockInfo{records: int64(len(b.rows)), raw: b.raw, minTime: math.MaxInt64, maxTime: math.MinInt64}

	places, frames := p.columns(b)
	info.rows = p.rows(b)
	info.times = p.times(b, &info)

	// The dictionary comes last, with columns and filter: a search reads these
	// first, and often nothing else.
	dict := binary.AppendUvarint(p.buf[:0], uint64(len(b.templates)))
	whole := uint64(0)
	if b.whole != nil {
		whole = uint64(b.whole.id) + 1
	}
	dict = binary.AppendUvarint(dict, whole)
	for _, t := range b.templates {
		dict = binary.AppendUvarint(dict, uint64(len(t.key)))
		dict = binary.AppendUvarint(dict, uint64(t.count))
	}
	for _, t := range b.templates {
		dict = append(dict, t.key...)
	}
	dict = binary.AppendUvarint(dict, uint64(len(frames)))
	for i := range frames {
		dict = frames[i].encode(dict)
	}
	info.dictionary = p.addQuick(dict)
	dict = dict[:0]
	for _, t := range b.templates {
		for i := range t.columns {
			c := &t.columns[i]
			if !c.address && t != b.whole {
				info.values.join(&c.stamp)
			}
			place := places[c]
			for _, v := range []uint32{uint32(place.frame), uint32(place.at), uint32(place.size), uint32(c.min), uint32(c.max), place.flag, uint32(c.run), uint32(c.dots)} {
				dict = binary.LittleEndian.AppendUint32(dict, v)
			}
			dict = binary.LittleEndian.AppendUint64(dict, c.bytes[0])
			dict = binary.LittleEndian.AppendUint64(dict, c.bytes[1])
		}
	}
	if b.whole != nil { // whose records may have anything
		info.values = stamp{max: math.MaxInt32, run: math.MaxInt32, dots: math.MaxInt32, bytes: [2]uint64{math.MaxUint64, math.MaxUint64}}
	}
	info.columns = p.addQuick(dict)
	p.buf = dict

	f := newFilter(b.values.list)
	kept := f.pages()
	info.filter = section{int64(len(p.out)), int64(len(kept)), int64(len(f)), checksum(kept)}
	p.out = append(p.out, kept...)
	info.length = int64(len(p.out))
	return info
}

// place is where a column lies: in which frame, at which byte of it, how many.
type place struct {
	frame, at, size int
	flag            uint32
}

// In the dictionary each column takes columnSize bytes: frame, place in it,
// length, shortest and longest value, how it is packed, longest run, most
// dots in a number, bytes that occur.
const (
	columnSize     = 8*4 + 2*8
	flagAddress    = 1
	flagDictionary = 2
	flagOdd        = 0x100 // beside the others
)

// columns packs the columns in frames, those of a kind together.
func (p *packer) columns(b *builder) (map[*column]place, []section) {
	var all []*column
	for _, t := range b.templates {
		for i := range t.columns {
			all = append(all, &t.columns[i])
		}
	}
	slices.SortStableFunc(all, func(x, y *column) int { return x.kind() - y.kind() })
	places := make(map[*column]place, len(all))
	var frames []section
	frame := p.buf[:0]
	for i, c := range all {
		data, flag := c.packed()
		if c.odd {
			flag |= flagOdd
		}
		// Addresses are looked for most often: they have frames of their own.
		apart := i > 0 && c.address != all[i-1].address
		if len(frame) > targetFrame/4 && (apart || len(frame)+len(data) > targetFrame) {
			frames = append(frames, p.add(frame))
			frame = frame[:0]
		}
		places[c] = place{len(frames), len(frame), len(data), flag}
		frame = append(frame, data...)
	}
	if len(frame) > 0 {
		frames = append(frames, p.add(frame))
	}
	p.buf = frame
	return places, frames
}

// rows packs the number of the template of each record.
func (p *packer) rows(b *builder) section {
	buf := p.buf[:0]
	for i := range b.rows {
		buf = binary.AppendUvarint(buf, uint64(b.rows[i].template))
	}
	s := p.add(buf)
	p.buf = buf
	return s
}

// times packs times as differences, in the largest unit that loses nothing.
func (p *packer) times(b *builder, info *blockInfo) section {
	unit := int64(second)
	for i := range b.rows {
		t := b.rows[i].time
		info.minTime, info.maxTime = min(info.minTime, t), max(info.maxTime, t)
		for t%unit != 0 {
			unit /= 1000
		}
	}
	buf := binary.AppendUvarint(p.buf[:0], uint64(unit))
	last := int64(0)
	for i := range b.rows {
		t := b.rows[i].time / unit
		buf = binary.AppendVarint(buf, t-last)
		last = t
	}
	for i := range b.rows {
		buf = append(buf, byte(b.rows[i].clock))
	}
	last = 0
	for i := range b.rows {
		buf = binary.AppendVarint(buf, b.rows[i].written-last)
		last = b.rows[i].written
	}
	s := p.add(buf)
	p.buf = buf
	return s
}
