package segment

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/logs/event"
)

// Block is a block that was read from a segment; only what is asked for is
// unpacked. It is used again for the next block, to save memory. Only one
// goroutine may use it.
type Block struct {
	r    *Reader
	info *blockInfo

	packed    []byte // what was read from the file last
	dict      []byte
	templates []packedTemplate
	whole     int    // the template of records that are kept whole, or -1
	table     []byte // of columns
	frames    []section
	columns   []packedColumn

	frameData [][]byte
	pageData  []byte // of the filter
	page      int
	failed    error // why the filter could not be asked
	rowData   []byte
	timeData  []byte

	rows   []rowRef
	times  []rowTime
	places []uint32 // room for packedColumn.places
	words  []uint64 // room for bitmaps
	raw    []byte   // the record rendered last
	batch  Batch
	clock  clock
	folded []byte
	key    []byte
	probed map[string]bool // addresses that the filter was asked for
	have   struct{ table, rows, times bool }
}

// packedTemplate is a template in the dictionary of a block.
type packedTemplate struct {
	key     []byte
	count   int
	columns int // the first of its columns
	width   int // how many columns it has
	pieces  []piece
}

// piece is a part of a template: constant text, or a place.
type piece struct {
	text   []byte // constant; nil for a place
	layout layoutID
}

// packedColumn is a column of a block; it is read from the table when needed.
type packedColumn struct {
	stamp
	known      bool
	frame      int
	from, size int
	dictionary bool
	data       []byte   // nil until unpacked; four bytes each of addresses; distinct values of a dictionary
	numbers    []byte   // with a dictionary: which of data each value is, in one byte or two
	wide       bool     // two
	text       []byte   // of addresses: as other columns have it; nil until needed
	places     []uint32 // where its values begin in data, and where the last ends
}

// rowRef says which template a record has, and how many records before it have the same.
type rowRef struct{ template, ordinal uint32 }

// rowTime is what is kept of a record beside its text.
type rowTime struct {
	time, written int64
	clock         event.Clock
}

// decoders unpack; making one is expensive.
var decoders = sync.Pool{New: func() any {
	// The options are right, so that there is no error.
	d, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSection), zstd.WithDecoderLowmem(true))
	return d
}}

// Load reads the dictionary of block i of a segment.
func (b *Block) Load(r *Reader, i int) error {
	b.r, b.info = r, &r.blocks[i]
	b.have.table, b.have.rows, b.have.times = false, false, false
	b.page, b.failed = -1, nil
	b.places, b.words = b.places[:0], b.words[:0]
	if b.probed == nil {
		b.probed = map[string]bool{}
	}
	clear(b.probed)
	var err error
	if b.dict, err = b.unpackQuick(b.dict, &b.info.dictionary); err != nil {
		return err
	}
	return b.parse()
}

// read reads a section and holds it against its checksum.
func (b *Block) read(s *section) error {
	off := b.info.offset + s.at
	b.packed = slices.Grow(b.packed[:0], int(s.packed))[:s.packed]
	if err := readAt(b.r.data, b.packed, off); err != nil {
		return err
	}
	if checksum(b.packed) != s.sum {
		return corrupt(off, "a checksum is wrong")
	}
	return nil
}

func (b *Block) unpack(dst []byte, s *section) ([]byte, error) {
	if err := b.read(s); err != nil {
		return nil, err
	}
	dec := decoders.Get().(*zstd.Decoder)
	defer decoders.Put(dec)
	out, err := dec.DecodeAll(b.packed, slices.Grow(dst[:0], int(s.size)))
	return b.unpacked(out, s, err)
}

// unpackQuick is unpack for what packer.addQuick packed.
func (b *Block) unpackQuick(dst []byte, s *section) ([]byte, error) {
	if err := b.read(s); err != nil {
		return nil, err
	}
	if n, err := s2.DecodedLen(b.packed); err != nil || int64(n) != s.size {
		return nil, corrupt(b.info.offset+s.at, "it does not unpack to %d bytes", s.size)
	}
	out, err := s2.Decode(slices.Grow(dst[:0], int(s.size))[:s.size], b.packed)
	return b.unpacked(out, s, err)
}

func (b *Block) unpacked(out []byte, s *section, err error) ([]byte, error) {
	if err != nil {
		return nil, corrupt(b.info.offset+s.at, "it cannot be unpacked: %v", err)
	}
	if int64(len(out)) != s.size {
		return nil, corrupt(b.info.offset+s.at, "it unpacks to %d bytes instead of %d", len(out), s.size)
	}
	return out, nil
}

// parse reads the dictionary: templates at once, columns when they are needed.
func (b *Block) parse() error {
	d := decoder{b: b.dict, off: b.info.offset + b.info.dictionary.at}
	n := int(d.uvarint(maxTemplates + 1))
	b.whole = int(d.uvarint(uint64(n))) - 1
	b.templates = slices.Grow(b.templates[:0], n)[:n]
	var records int64
	for i := range b.templates {
		t := &b.templates[i]
		size := int(d.uvarint(MaxRecord + maxVariables))
		*t = packedTemplate{count: int(d.uvarint(maxRecords)), width: size, pieces: t.pieces[:0]}
		records += int64(t.count)
	}
	columns := 0
	for i := range b.templates {
		t := &b.templates[i]
		t.key = d.bytes(t.width)
		t.columns, t.width = columns, 1
		if i != b.whole && d.err == nil {
			var ok bool
			if t.width, ok = variables(t.key); !ok {
				d.fail("a template has a time of an unknown layout")
			}
		}
		columns += t.width
	}
	frames := int(d.uvarint(uint64(columns)))
	b.frames = b.frames[:0]
	for range frames {
		var s section
		s.decode(&d, b.info.length)
		if d.err != nil {
			return d.err
		}
		b.frames = append(b.frames, s)
	}
	switch {
	case d.err != nil:
		return d.err
	case len(d.b) > 0:
		return corrupt(d.off, "the dictionary has %d bytes too many", len(d.b))
	case int64(columns)*columnSize != b.info.columns.size:
		return corrupt(d.off, "the dictionary tells %d columns, the index others", columns)
	case records != b.info.records:
		return corrupt(d.off, "the dictionary tells %d records, the index %d", records, b.info.records)
	}
	b.columns = slices.Grow(b.columns[:0], columns)[:columns]
	clear(b.columns)
	b.frameData = slices.Grow(b.frameData[:0], frames)[:frames]
	for i := range b.frameData {
		b.frameData[i] = b.frameData[i][:0]
	}
	return nil
}

// column returns a column with its stamp, not unpacked.
func (b *Block) column(i int) (*packedColumn, error) {
	c := &b.columns[i]
	if c.known {
		return c, nil
	}
	if !b.have.table {
		var err error
		if b.table, err = b.unpackQuick(b.table, &b.info.columns); err != nil {
			return nil, err
		}
		b.have.table = true
	}
	e := b.table[i*columnSize:]
	u := func(k int) int { return int(binary.LittleEndian.Uint32(e[4*k:])) }
	*c = packedColumn{frame: u(0), from: u(1), size: u(2), known: true}
	c.min, c.max, c.run, c.dots = u(3), u(4), u(6), u(7)
	packing := u(5) &^ flagOdd
	c.address, c.dictionary, c.odd = packing == flagAddress, packing == flagDictionary, u(5)&flagOdd != 0
	c.bytes = [2]uint64{binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])}
	if c.frame < 0 || c.frame >= len(b.frames) || c.from < 0 || c.size < 0 || int64(c.from)+int64(c.size) > b.frames[c.frame].size {
		return nil, corrupt(b.info.offset, "a column is beyond its frame")
	}
	return c, nil
}

// values returns a column, unpacked.
func (b *Block) values(i int) (*packedColumn, error) {
	c, err := b.column(i)
	if err != nil || c.data != nil {
		return c, err
	}
	frame := b.frameData[c.frame]
	if len(frame) == 0 {
		if frame, err = b.unpack(frame, &b.frames[c.frame]); err != nil {
			return nil, err
		}
		b.frameData[c.frame] = frame
	}
	c.data = frame[c.from : c.from+c.size : c.from+c.size]
	if c.dictionary {
		return c, b.open(c)
	}
	return c, nil
}

// open takes a dictionary and the numbers of its values apart.
func (b *Block) open(c *packedColumn) error {
	d := c.data
	if len(d) < 8 {
		return corrupt(b.info.offset, "a dictionary is too short")
	}
	n, size := int64(binary.LittleEndian.Uint32(d)), int64(binary.LittleEndian.Uint32(d[4:]))
	if d = d[8:]; size > int64(len(d)) || n > 1<<16 || int64(bytes.Count(d[:size], []byte{'\n'})) != n {
		return corrupt(b.info.offset, "a dictionary has a wrong number of values")
	}
	c.data, c.numbers, c.wide = d[:size:size], d[size:], n > 1<<8
	if c.wide && len(c.numbers)%2 != 0 {
		return corrupt(b.info.offset, "a column has half a value")
	}
	for i := range c.count() {
		if int64(c.number(i)) >= n {
			return corrupt(b.info.offset, "a column has a value that is not in its dictionary")
		}
	}
	return nil
}

// count returns how many values a column with a dictionary has.
func (c *packedColumn) count() int {
	if c.wide {
		return len(c.numbers) / 2
	}
	return len(c.numbers)
}

// number returns which value of the dictionary value i is.
func (c *packedColumn) number(i int) int {
	if c.wide {
		return int(binary.LittleEndian.Uint16(c.numbers[2*i:]))
	}
	return int(c.numbers[i])
}

// text returns the values of a column as text, each followed by a newline.
func (b *Block) text(i int) ([]byte, error) {
	c, err := b.values(i)
	if err != nil || !c.address {
		return c.data, err
	}
	if c.text == nil {
		c.text = make([]byte, 0, 4*len(c.data))
		for a := c.data; len(a) >= 4; a = a[4:] {
			c.text = append(appendAddress(c.text, a), '\n')
		}
	}
	return c.text, nil
}

// indexed returns a column of count values, unpacked, with the places of its values.
func (b *Block) indexed(i, count int, whole bool) (*packedColumn, error) {
	c, err := b.values(i)
	if err != nil || c.places != nil {
		return c, err
	}
	if c.address && !whole {
		if len(c.data) != 4*count {
			return nil, corrupt(b.info.offset, "a column has a wrong number of addresses")
		}
		c.places = []uint32{}
		return c, nil
	}
	if c.dictionary {
		if c.count() != count {
			return nil, corrupt(b.info.offset, "a column has a wrong number of values")
		}
		count = bytes.Count(c.data, []byte{'\n'})
	}
	from := len(b.places)
	at := 0
	for range count {
		b.places = append(b.places, uint32(at))
		if whole {
			n, k := binary.Uvarint(c.data[at:])
			if k <= 0 || n > uint64(len(c.data)-at-k) {
				return nil, corrupt(b.info.offset, "a column is too short")
			}
			at += k + int(n)
			continue
		}
		n := bytes.IndexByte(c.data[at:], '\n')
		if n < 0 {
			return nil, corrupt(b.info.offset, "a column has too few values")
		}
		at += n + 1
	}
	if at != len(c.data) {
		return nil, corrupt(b.info.offset, "a column has too many values")
	}
	b.places = append(b.places, uint32(at))
	c.places = b.places[from:len(b.places):len(b.places)]
	return c, nil
}

func (b *Block) loadRows() (err error) {
	if b.have.rows {
		return nil
	}
	if b.rowData, err = b.unpack(b.rowData, &b.info.rows); err != nil {
		return err
	}
	b.rows = slices.Grow(b.rows[:0], int(b.info.records))
	seen := make([]uint32, len(b.templates))
	d := decoder{b: b.rowData, off: b.info.offset + b.info.rows.at}
	for range b.info.records {
		var id uint64
		if len(d.b) > 0 && d.b[0] < 0x80 {
			id, d.b = uint64(d.b[0]), d.b[1:]
		} else {
			id = d.uvarint(maxTemplates)
		}
		if d.err == nil && id >= uint64(len(b.templates)) {
			d.fail("a record has a template that is not there")
		}
		if d.err != nil {
			return d.err
		}
		b.rows = append(b.rows, rowRef{uint32(id), seen[id]})
		seen[id]++
	}
	for i, n := range seen {
		if int(n) != b.templates[i].count {
			return corrupt(d.off, "the dictionary has wrong numbers of records")
		}
	}
	b.have.rows = true
	return nil
}

func (b *Block) loadTimes() (err error) {
	if b.have.times {
		return nil
	}
	if b.timeData, err = b.unpack(b.timeData, &b.info.times); err != nil {
		return err
	}
	n := int(b.info.records)
	b.times = slices.Grow(b.times[:0], n)[:n]
	d := decoder{b: b.timeData, off: b.info.offset + b.info.times.at}
	unit := int64(d.uvarint(second))
	last := int64(0)
	for i := range b.times {
		last += d.varint()
		b.times[i].time = last * unit
	}
	for i, c := range d.bytes(n) {
		b.times[i].clock = event.Clock(c)
	}
	last = 0
	for i := range b.times {
		if len(d.b) > 0 && d.b[0] == 0 {
			d.b = d.b[1:]
		} else {
			last += d.varint()
		}
		b.times[i].written = last
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("there are more times than records")
	}
	b.have.times = d.err == nil
	return d.err
}
