package logs

import (
	"cmp"
	"context"
	"slices"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/segment"
)

// spot says where a record lies: in which segment, block and row. Records that
// are in no segment yet have none, and lie behind all segments.
type spot struct {
	segment    *Segment
	origin     *event.Origin
	block, row int

	// Where context is shown:
	place             int  // of the segment in its sequence
	endsBlock, endsIt bool // the last record of its block, of its segment
}

// isBefore says whether next is the record right behind s.
func (s spot) isBefore(next spot) bool {
	switch {
	case s.origin == nil || next.origin == nil || *s.origin != *next.origin:
		return false
	case s.place != next.place:
		return s.endsIt && next.place == s.place+1 && next.block == 0 && next.row == 0
	case s.block != next.block:
		return s.endsBlock && next.block == s.block+1 && next.row == 0
	}
	return next.row == s.row+1
}

// sequence are the records of one origin in the order in which they were
// written, as far as that is known: by segments, and then what is in none.
type sequence struct {
	segments []*Segment
	places   map[*Segment]int // in segments
	loose    []event.Record
	origin   *event.Origin
}

// spot returns the place of a record: row of so many in a block of so many.
// Without a segment it is that of a loose record.
func (s *sequence) spot(seg *Segment, block, blocks, row, rows int) spot {
	at := spot{segment: seg, origin: s.origin, block: block, row: row, place: len(s.segments), endsBlock: row == rows-1}
	if seg != nil {
		at.place = s.places[seg]
	}
	at.endsIt = at.endsBlock && block == blocks-1
	return at
}

// sequences returns the records of a corpus by their origin.
func sequences(c *Corpus) map[event.Origin]*sequence {
	all := map[event.Origin]*sequence{}
	of := func(o *event.Origin) *sequence {
		if all[*o] == nil {
			all[*o] = &sequence{origin: o}
		}
		return all[*o]
	}
	for i := range c.Segments {
		s := of(&c.Segments[i].Origin)
		s.segments = append(s.segments, &c.Segments[i])
	}
	for _, s := range all {
		slices.SortStableFunc(s.segments, func(a, b *Segment) int {
			return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.Order, b.Order))
		})
		s.places = make(map[*Segment]int, len(s.segments))
		for i, seg := range s.segments {
			s.places[seg] = i
		}
	}
	for i := range c.Loose {
		of(&c.Loose[i].Origin).loose = c.Loose[i].Records
	}
	return all
}

// beyond calls fn with the records before the first of a unit, the nearest
// first, or with those behind its last, until fn returns false. What cannot be
// read ends it: whoever searches that unit says so.
func (s *sequence) beyond(ctx context.Context, u *unit, forward bool, fn func(spot, *event.Record) bool) {
	at, block := len(s.segments), 0
	if u.file != nil {
		at = s.places[u.segment]
		block = u.block
	} else if forward {
		return
	}
	var b segment.Block
	read := func(file *openSegment, seg *Segment, block int) bool {
		if b.Load(file.reader, block) != nil {
			return false
		}
		n := int(file.reader.Block(block).Records)
		for k := range n {
			row := k
			if !forward {
				row = n - 1 - k
			}
			r, err := b.Record(row)
			if err != nil || !fn(s.spot(seg, block, file.reader.Blocks(), row, n), &r) {
				return false
			}
		}
		return true
	}
	step := 1
	if !forward {
		step = -1
	}
	if u.file != nil {
		for block += step; block >= 0 && block < u.file.reader.Blocks(); block += step {
			if !read(u.file, u.segment, block) {
				return
			}
		}
	}
	for at += step; at >= 0 && at < len(s.segments); at += step {
		seg := s.segments[at]
		data, err := seg.Open(ctx)
		if err != nil {
			return
		}
		more := func() bool {
			defer data.Close()
			reader, err := segment.Open(data)
			if err != nil {
				return false
			}
			file := &openSegment{data: data, reader: reader}
			for k := range reader.Blocks() {
				if !forward {
					k = reader.Blocks() - 1 - k
				}
				if !read(file, seg, k) {
					return false
				}
			}
			return true
		}()
		if !more {
			return
		}
	}
	if forward {
		for i := range s.loose {
			if !fn(s.spot(nil, 0, 1, i, len(s.loose)), &s.loose[i]) {
				return
			}
		}
	}
}
