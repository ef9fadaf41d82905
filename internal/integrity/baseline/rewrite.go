package baseline

import (
	"bytes"

	"github.com/mobileops/mobileops/pkg/filehash"
)

// Edit says what becomes of one key in a rewritten baseline.
type Edit struct {
	Dir, Name []byte
	Record    *Record // its record from now on; nil: it is to have none
}

// Rewrite writes to w, which must be new, what r has with the edits made;
// these must be in the order of filehash.CompareKeys, with one for each key.
// Blocks that no edit touches are copied as they are, so that accepting a few
// changes costs as much as they do, and not as much as the baseline.
//
// from is called in the order of the new baseline: its next n records are the
// ones from number old on of r, or, when old is negative, new ones.
func (r *Reader) Rewrite(w *Writer, edits []Edit, from func(old, n int)) error {
	w.counts = r.Header.Counts
	w.counts.Blocks = 0
	for n := range r.blocks {
		mine := edits
		if n+1 < len(r.blocks) {
			next := &r.blocks[n+1].head
			k := 0
			for k < len(edits) && filehash.CompareKeys(edits[k].Dir, edits[k].Name, next.dir, next.name) < 0 {
				k++
			}
			mine = edits[:k]
		}
		edits = edits[len(mine):]
		b := &r.blocks[n]
		// A block that fits behind what is waiting is joined with it: blocks
		// must not become smaller and smaller.
		if len(mine) == 0 && (w.enc.n == 0 || w.enc.n+b.head.records > maxRecords) {
			if err := w.flush(); err != nil {
				return err
			}
			// A copy: the writer's transaction keeps what it is given until it
			// is committed, and r may be closed before.
			var data []byte
			if err := guard(func() error { data = bytes.Clone(b.data); return nil }); err != nil {
				return err
			}
			if err := w.put(data); err != nil {
				return err
			}
			from(b.base, b.head.records)
			continue
		}
		if err := r.merge(w, n, mine, from); err != nil {
			return err
		}
	}
	for i := range edits { // a baseline without blocks
		if err := w.edit(nil, &edits[i], from); err != nil {
			return err
		}
	}
	return nil
}

// merge adds the records of block n to w with the edits made.
func (r *Reader) merge(w *Writer, n int, edits []Edit, from func(old, n int)) error {
	c, err := r.acquire(n)
	if err != nil {
		return err
	}
	defer r.release(c)
	for i := range c.blk.Records {
		rec := &c.blk.Records[i]
		order := 1
		for len(edits) > 0 {
			if order = filehash.CompareKeys(edits[0].Dir, edits[0].Name, rec.Dir, rec.Name); order >= 0 {
				break
			}
			if err := w.edit(nil, &edits[0], from); err != nil {
				return err
			}
			edits = edits[1:]
		}
		if len(edits) > 0 && order == 0 {
			if err := w.edit(rec, &edits[0], from); err != nil {
				return err
			}
			edits = edits[1:]
			continue
		}
		from(c.blk.base+i, 1)
		if err := w.encode(rec); err != nil {
			return err
		}
	}
	for i := range edits {
		if err := w.edit(nil, &edits[i], from); err != nil {
			return err
		}
	}
	return nil
}

// edit makes one edit; old is the record it replaces, nil when there is none.
func (w *Writer) edit(old *Record, e *Edit, from func(old, n int)) error {
	if old != nil {
		w.count(old, -1)
	}
	if e.Record == nil {
		return nil
	}
	from(-1, 1)
	return w.Add(e.Record)
}
