package store

import (
	"encoding/binary"
)

// operation is one change of the store, as one frame of the Merkle log. It says
// all that the change does to state.db, so that one which was written, but
// whose transaction did not come to its end, is carried through later.
type operation struct {
	// generation, when it is not 0, says that all generations of the
	// write-ahead log up to this one are in segments now.
	generation uint64
	cursors    []cursorChange
	records    []*Record
	leaves     [][]byte // the records, encoded
}

// cursorChange moves or, when cursor is nil, forgets a cursor.
type cursorChange struct {
	key    string
	cursor []byte
}

// encode returns the body of a frame of the Merkle log:
//
//	uvarint  generation
//	uvarint  number of cursors; for each: key, byte 0 (forget) or 1 and cursor
//	uvarint  number of leaves; for each: uvarint length, bytes
func (o *operation) encode() []byte {
	b := binary.AppendUvarint(nil, o.generation)
	b = binary.AppendUvarint(b, uint64(len(o.cursors)))
	for _, c := range o.cursors {
		b = appendBytes(b, c.key)
		if c.cursor == nil {
			b = append(b, 0)
		} else {
			b = append(b, 1)
			b = appendBytes(b, c.cursor)
		}
	}
	if o.leaves == nil {
		for _, r := range o.records {
			o.leaves = append(o.leaves, r.encode())
		}
	}
	b = binary.AppendUvarint(b, uint64(len(o.leaves)))
	for _, l := range o.leaves {
		b = appendBytes(b, l)
	}
	return b
}

func decodeOperation(b []byte) (*operation, error) {
	d := &decoder{what: "frame of the Merkle log", b: b}
	o := &operation{generation: d.uvarint()}
	for range d.count(2) {
		c := cursorChange{key: d.string()}
		switch d.byte() {
		case 0:
		case 1:
			// Not nil, also when it is empty: that would forget it.
			c.cursor = append([]byte{}, d.bytes(maxCursor)...)
		default:
			d.fail("neither a cursor nor none")
		}
		o.cursors = append(o.cursors, c)
	}
	for range d.count(1) {
		o.leaves = append(o.leaves, d.bytes(maxRecord))
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	for _, l := range o.leaves {
		r, err := decodeRecord(l)
		if err != nil {
			return nil, err
		}
		o.records = append(o.records, r)
	}
	return o, nil
}
