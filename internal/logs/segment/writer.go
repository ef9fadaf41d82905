package segment

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// Writer writes a segment. Only one goroutine may use it.
type Writer struct {
	w     io.Writer
	err   error
	off   int64
	*room // nil when the segment is closed
	index []blockInfo
	meta  Meta
	sum   Summary
}

// room is the memory in which blocks are made. One segment after the other
// uses it.
type room struct {
	builder builder
	pack    packer
}

var rooms = sync.Pool{New: func() any {
	r := new(room)
	r.pack.init()
	return r
}}

// NewWriter begins a segment. The caller makes what w writes durable after
// Close.
func NewWriter(w io.Writer, meta Meta) (*Writer, error) {
	sw := &Writer{w: w, room: rooms.Get().(*room), meta: meta, sum: Summary{MinTime: math.MaxInt64, MaxTime: math.MinInt64}}
	sw.builder.reset()
	sw.write([]byte(magic))
	return sw, sw.err
}

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(b)
	w.off += int64(n)
	w.err = err
}

// Append adds a record, whatever its time; its bytes are copied.
func (w *Writer) Append(r event.Record) error {
	if len(r.Raw) > MaxRecord {
		return fmt.Errorf("a record of %d bytes; at most %d fit", len(r.Raw), MaxRecord)
	}
	if w.err != nil {
		return w.err
	}
	w.builder.add(r)
	w.sum.Records++
	w.sum.RawBytes += int64(len(r.Raw))
	w.sum.MinTime, w.sum.MaxTime = min(w.sum.MinTime, r.Time), max(w.sum.MaxTime, r.Time)
	if w.builder.raw >= targetBlock || len(w.builder.rows) >= maxRecords {
		w.flush()
	}
	return w.err
}

func (w *Writer) flush() {
	if w.err != nil || len(w.builder.rows) == 0 {
		return
	}
	info := w.pack.block(&w.builder)
	info.offset = w.off
	w.write(w.pack.out)
	w.index = append(w.index, info)
	w.builder.reset()
}

// Close writes what is left and the index. It does not close the writer below.
func (w *Writer) Close() (Summary, error) {
	w.flush()
	if w.room != nil {
		w.builder.reset()
		rooms.Put(w.room)
		w.room = nil
	}
	if w.err != nil {
		return Summary{}, w.err
	}
	meta, err := json.Marshal(w.meta)
	if err != nil {
		return Summary{}, err
	}
	at := w.off
	index := binary.AppendUvarint(nil, uint64(len(meta)))
	index = append(index, meta...)
	index = binary.AppendUvarint(index, uint64(len(w.index)))
	for i := range w.index {
		index = w.index[i].encode(index)
	}
	tail := binary.LittleEndian.AppendUint64(nil, uint64(at))
	tail = binary.LittleEndian.AppendUint64(tail, uint64(len(index)))
	tail = binary.LittleEndian.AppendUint32(tail, checksum(index))
	tail = append(tail, trailer...)
	w.write(index)
	w.write(tail)
	if w.err != nil {
		return Summary{}, w.err
	}
	w.err = errors.New("the segment is closed")
	w.sum.Bytes, w.sum.Blocks = w.off, len(w.index)
	if w.sum.Records == 0 {
		w.sum.MinTime, w.sum.MaxTime = 0, 0
	}
	return w.sum, nil
}

// template is what records have in common.
type template struct {
	id      int
	key     []byte
	count   int
	columns []column
}

// builder takes the records of a block apart.
type builder struct {
	rows      []row
	raw       int64
	templates []*template
	byKey     map[string]*template
	whole     *template // keeps records that are not taken apart
	values    hashSet

	stamper stamper
	key     []byte
	vals    []value
	free    [][]byte // buffers of columns
	freed   int      // their size, in bytes
}

// maxFree bounds the buffers that are kept for the next block.
const maxFree = 16 << 20

// row is what is kept of a record beside its text.
type row struct {
	template int
	time     int64
	clock    event.Clock
	written  int64 // the time in the text, less that of the record; 0 without one
}

func (b *builder) reset() {
	for _, t := range b.templates {
		for i := range t.columns {
			if data := t.columns[i].data; cap(data) >= 1<<10 && b.freed+cap(data) <= maxFree {
				b.free, b.freed = append(b.free, data[:0]), b.freed+cap(data)
			}
		}
	}
	b.rows, b.raw, b.stamper = b.rows[:0], 0, stamper{}
	b.templates, b.whole = nil, nil
	b.byKey = make(map[string]*template, 256)
	b.values.reset()
}

func (b *builder) add(r event.Record) {
	at, id, written := b.stamper.find(r.Raw, r.Time)
	out := row{time: r.Time, clock: r.Clock}
	if at.to > 0 {
		out.written = int64(written) - r.Time
	}
	b.key, b.vals = split(r.Raw, at, id, b.key[:0], b.vals[:0])
	t := b.byKey[string(b.key)]
	if t == nil {
		if len(b.templates) >= maxTemplates || len(b.vals) > maxVariables {
			b.keepWhole(r.Raw, out)
			return
		}
		t = &template{id: len(b.templates), key: []byte(string(b.key)), columns: make([]column, len(b.vals))}
		b.templates = append(b.templates, t)
		b.byKey[string(t.key)] = t
	}
	for i, v := range b.vals {
		val := r.Raw[v.from:v.to]
		c := &t.columns[i]
		if len(c.data)+len(val) >= cap(c.data) && len(c.data) < 1<<10 && len(b.free) > 0 && t.count > 8 {
			last := len(b.free) - 1
			c.data = append(b.free[last], c.data...)
			b.free, b.freed = b.free[:last], b.freed-cap(c.data)
		}
		if c.add(val) && !within(val, func(a []byte) { b.values.add(hashValue(a)) }) {
			c.odd = true
		}
		b.values.add(hashValue(val))
	}
	b.finish(t, out, r.Raw)
}

// keepWhole keeps a record that cannot be taken apart: its template is empty,
// and its only column holds lengths and bytes.
func (b *builder) keepWhole(raw []byte, out row) {
	if b.whole == nil {
		b.whole = &template{id: len(b.templates), columns: make([]column, 1)}
		b.whole.key = []byte{placeVariable}
		b.templates = append(b.templates, b.whole)
	}
	c := &b.whole.columns[0]
	c.data = binary.AppendUvarint(c.data, uint64(len(raw)))
	c.data = append(c.data, raw...)
	out.written = 0
	b.finish(b.whole, out, raw)
}

func (b *builder) finish(t *template, out row, raw []byte) {
	t.count++
	out.template = t.id
	b.rows = append(b.rows, out)
	b.raw += int64(len(raw))
}
