package segment

import (
	"bytes"
	"encoding/binary"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// pieces returns the parts of a template.
func (b *Block) pieces(t *packedTemplate) []piece {
	if len(t.pieces) > 0 {
		return t.pieces
	}
	for rest := t.key; len(rest) > 0; {
		switch rest[0] {
		case placeVariable, placeAddress:
			t.pieces, rest = append(t.pieces, piece{}), rest[1:]
		case placeTime:
			t.pieces, rest = append(t.pieces, piece{layout: layoutID(rest[1])}), rest[2:]
		default:
			n := bytes.IndexAny(rest, "\x00\x01\x02")
			if n < 0 {
				n = len(rest)
			}
			t.pieces, rest = append(t.pieces, piece{text: rest[:n]}), rest[n:]
		}
	}
	return t.pieces
}

// Each calls fn with the selected records whose time is since or later and
// before until, in the order in which they were appended, and with their
// numbers in the block. The record is valid until fn returns.
func (b *Block) Each(sel Selection, since, until int64, fn func(i int, r *event.Record) error) error {
	if sel.Empty() {
		return nil
	}
	if err := b.loadRows(); err != nil {
		return err
	}
	if err := b.loadTimes(); err != nil {
		return err
	}
	var rec event.Record
	for i, ref := range b.rows {
		if t := b.times[i].time; !sel.has(ref) || t < since || t >= until {
			continue
		}
		if err := b.record(i, &rec); err != nil {
			return err
		}
		if err := fn(i, &rec); err != nil {
			return err
		}
	}
	return nil
}

// Record returns record i of the block. It is valid until the next one.
func (b *Block) Record(i int) (rec event.Record, err error) {
	if err := b.loadRows(); err != nil {
		return rec, err
	}
	if err := b.loadTimes(); err != nil {
		return rec, err
	}
	err = b.record(i, &rec)
	return rec, err
}

func (b *Block) record(i int, rec *event.Record) (err error) {
	if b.raw, err = b.append(b.raw[:0], i); err != nil {
		return err
	}
	rec.Time, rec.Clock, rec.Raw = b.times[i].time, b.times[i].clock, b.raw
	return nil
}

// append appends the bytes of record i. Rows and times are loaded.
func (b *Block) append(out []byte, i int) ([]byte, error) {
	ref, at := b.rows[i], &b.times[i]
	t := &b.templates[ref.template]
	if int(ref.template) == b.whole {
		c, err := b.indexed(t.columns, t.count, true)
		if err != nil {
			return nil, err
		}
		v := c.data[c.places[ref.ordinal]:c.places[ref.ordinal+1]]
		_, n := binary.Uvarint(v)
		return append(out, v[n:]...), nil
	}
	col := t.columns
	for _, p := range b.pieces(t) {
		switch {
		case p.text != nil:
			out = append(out, p.text...)
		case p.layout != 0:
			out = b.clock.append(out, p.layout, moment(at.time+at.written))
		default:
			c := &b.columns[col]
			if c.places == nil {
				if _, err := b.indexed(col, t.count, false); err != nil {
					return nil, err
				}
			}
			col++
			if c.address {
				out = appendAddress(out, c.data[4*ref.ordinal:])
				continue
			}
			at := int(ref.ordinal)
			if c.dictionary {
				at = c.number(at)
			}
			out = append(out, c.data[c.places[at]:c.places[at+1]-1]...)
		}
	}
	return out, nil
}

// batchSize is how many bytes of records are rendered at a time, so that they
// are looked at while they are in the cache of the processor.
const batchSize = 128 << 10

// Batch is some records in a row, as one text.
type Batch struct {
	Text  []byte // of the records, each followed by a newline
	Ends  []int  // where in Text each record ends, before its newline
	Rows  []int  // the number of each in the block
	Plain bool   // no record has a newline within
}

// Batches calls fn with the selected records whose time is since or later and
// before until, some at a time. The batch is valid until fn returns.
func (b *Block) Batches(sel Selection, since, until int64, fn func(*Batch) error) error {
	if sel.Empty() {
		return nil
	}
	if err := b.loadRows(); err != nil {
		return err
	}
	if err := b.loadTimes(); err != nil {
		return err
	}
	out := &b.batch
	flush := func() error {
		if len(out.Rows) == 0 {
			return nil
		}
		out.Plain = bytes.Count(out.Text, []byte{'\n'}) == len(out.Rows)
		err := fn(out)
		out.Text, out.Ends, out.Rows = out.Text[:0], out.Ends[:0], out.Rows[:0]
		return err
	}
	out.Text, out.Ends, out.Rows = out.Text[:0], out.Ends[:0], out.Rows[:0]
	for i, ref := range b.rows {
		if t := b.times[i].time; !sel.has(ref) || t < since || t >= until {
			continue
		}
		text, err := b.append(out.Text, i)
		if err != nil {
			return err
		}
		out.Ends, out.Rows = append(out.Ends, len(text)), append(out.Rows, i)
		if out.Text = append(text, '\n'); len(out.Text) >= batchSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// When returns the time of record i of a batch at hand, and how it was obtained.
func (b *Block) When(i int) (int64, event.Clock) { return b.times[i].time, b.times[i].clock }

// Times calls fn with the numbers and times of the selected records whose time
// is since or later and before until.
func (b *Block) Times(sel Selection, since, until int64, fn func(i int, time int64)) error {
	if err := b.loadRows(); err != nil {
		return err
	}
	if err := b.loadTimes(); err != nil {
		return err
	}
	for i, ref := range b.rows {
		if t := b.times[i].time; t >= since && t < until && sel.has(ref) {
			fn(i, t)
		}
	}
	return nil
}
