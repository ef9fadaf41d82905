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
}

// isBefore says whether next is the record right behind s, as far as that can
// be told without looking: at the border of a block it is taken for granted.
func (s spot) isBefore(next spot) bool {
	if s.origin == nil || next.origin == nil || *s.origin != *next.origin {
		return false
	}
	return s.segment == next.segment && s.block == next.block && next.row == s.row+1 ||
		next.row == 0 && (s.segment != next.segment || s.block != next.block)
}

// sequence are the records of one origin in the order in which they were
// written, as far as that is known: by segments, and then what is in none.
type sequence struct {
	segments []*Segment
	loose    []event.Record
	origin   *event.Origin
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
		at = slices.Index(s.segments, u.segment)
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
			if err != nil || !fn(spot{segment: seg, origin: s.origin, block: block, row: row}, &r) {
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
			if !fn(spot{origin: s.origin, row: i}, &s.loose[i]) {
				return
			}
		}
	}
}
