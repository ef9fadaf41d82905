package store

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/source"
)

// Batch is what a source hands over at once: records of one origin, and how far
// it has read with them.
type Batch = source.Batch

// A Writer keeps what sources find.
var _ source.Sink = (*Writer)(nil)

// A frame of the write-ahead log holds the batches of one Append:
//
//	uvarint  number of batches
//	for each:
//	  key, source, format, host   each a uvarint length and bytes
//	  byte     1: a cursor follows (uvarint length, bytes); 0: forget the cursor
//	  uvarint  number of records
//	  uvarint  length in bytes of what follows for this batch
//	  varint   least time, varint: greatest time minus least, when there are records
//	  for each record: varint time minus the time of the one before (of the
//	  least time, for the first), byte clock, uvarint length, raw bytes
func appendBatches(b []byte, batches []Batch) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(len(batches)))
	var body []byte
	for i := range batches {
		t := &batches[i]
		if len(t.Key) > maxName || len(t.Origin.Source) > maxName || len(t.Origin.Format) > maxName || len(t.Origin.Host) > maxName {
			return nil, errors.New("a name of more than 64 KiB")
		}
		if len(t.Cursor) > maxCursor {
			return nil, errors.New("a cursor of more than 1 MiB")
		}
		b = appendBytes(b, t.Key)
		b = appendOrigin(b, t.Origin)
		if t.Cursor == nil {
			b = append(b, 0)
		} else {
			b = append(b, 1)
			b = appendBytes(b, t.Cursor)
		}
		body = appendRecords(body[:0], t.Records)
		b = binary.AppendUvarint(b, uint64(len(t.Records)))
		b = appendBytes(b, body)
	}
	return b, nil
}

func appendRecords(b []byte, records []event.Record) []byte {
	if len(records) == 0 {
		return b
	}
	least, greatest := int64(math.MaxInt64), int64(math.MinInt64)
	for i := range records {
		t := timeOf(&records[i])
		least, greatest = min(least, t), max(greatest, t)
	}
	b = binary.AppendVarint(b, least)
	b = binary.AppendUvarint(b, uint64(greatest)-uint64(least))
	last := least
	for i := range records {
		r := &records[i]
		t := timeOf(r)
		b = binary.AppendVarint(b, t-last) // wraps around, and back when it is read
		b = append(b, byte(r.Clock))
		b = appendBytes(b, r.Raw)
		last = t
	}
	return b
}

// timeOf is the time of a record. The very last one that there is cannot be
// asked for, because ranges end before their end; it becomes the one before.
func timeOf(r *event.Record) int64 { return min(r.Time, math.MaxInt64-1) }

// framed is one batch in a frame, its records not decoded yet. The bytes belong
// to the frame.
type framed struct {
	key              []byte
	origin           event.Origin
	cursor           []byte // nil: forget it
	records          int
	body             []byte
	minTime, maxTime int64
}

// origins gives the same origin the same strings, so that a frame costs none.
type origins map[string]event.Origin

func (o origins) read(d *decoder) event.Origin {
	from := d.off
	for range 3 {
		d.bytes(maxName)
	}
	if d.err != nil {
		return event.Origin{}
	}
	raw := d.b[from:d.off]
	if known, ok := o[string(raw)]; ok {
		return known
	}
	d.off = from
	known := d.origin()
	o[string(raw)] = known
	return known
}

// decodeBatches calls fn with each batch of a frame.
func decodeBatches(b []byte, known origins, fn func(*framed) error) error {
	d := &decoder{what: "frame of the write-ahead log", b: b}
	for range d.count(7) {
		f := framed{key: d.bytes(maxName), origin: known.read(d)}
		switch d.byte() {
		case 0:
		case 1:
			f.cursor = d.bytes(maxCursor)
		default:
			d.fail("neither a cursor nor none")
		}
		records := d.uvarint()
		f.body = d.bytes(len(b))
		if records > uint64(len(f.body)/3+1) || records == 0 && len(f.body) > 0 {
			d.fail("a number of records that does not fit")
		}
		if d.err != nil {
			return d.err
		}
		if f.records = int(records); f.records > 0 {
			t := decoder{what: d.what, b: f.body}
			f.minTime = t.varint()
			f.maxTime = int64(uint64(f.minTime) + t.uvarint())
			if t.err != nil || f.maxTime < f.minTime {
				d.fail("no range of times")
				return d.err
			}
		}
		if err := fn(&f); err != nil {
			return err
		}
	}
	return d.end()
}

// each calls fn with each record. Raw belongs to the frame.
func (f *framed) each(fn func(*event.Record) error) error {
	if f.records == 0 {
		return nil
	}
	d := decoder{what: "batch in the write-ahead log", b: f.body}
	t := d.varint()
	d.uvarint()
	for range f.records {
		t += d.varint()
		r := event.Record{Time: t, Clock: event.Clock(d.byte()), Raw: d.bytes(len(f.body))}
		if d.err != nil {
			return d.err
		}
		if err := fn(&r); err != nil {
			return err
		}
	}
	return d.end()
}
