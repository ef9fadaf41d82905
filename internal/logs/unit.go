package logs

import (
	"cmp"
	"container/heap"
	"context"
	"math"
	"slices"
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/segment"
)

// unit is what a worker looks through at a time: a block, or loose records.
type unit struct {
	origin   *event.Origin
	first    int64 // the oldest time in it
	last     int64
	name     string
	file     *openSegment
	segment  *Segment // of file
	block    int
	line     *sequence // it is part of
	loose    []event.Record
	sequence int // in the order of dispatch
	rank     int // of its source's records among each other
}

// openSegment is a segment whose blocks are being searched. The last of them
// closes it.
type openSegment struct {
	data   Data
	reader *segment.Reader
	users  atomic.Int32
}

func (o *openSegment) release() {
	if o != nil && o.users.Add(-1) == 0 {
		o.data.Close()
	}
}

// plan hands out units by the time of their first record. Segments are opened
// when their time comes, and closed with their last block.
type plan struct {
	ctx      context.Context
	opts     *Options
	segments []*Segment                 // by time
	lines    map[event.Origin]*sequence // nil: nobody asks what is beside a record
	ready    unitHeap
	next     int // number of the next unit
	skipped  int
	problems []Problem
}

func newPlan(ctx context.Context, c *Corpus, o *Options) *plan {
	p := &plan{ctx: ctx, opts: o}
	if o.Before+o.After > 0 {
		p.lines = sequences(c)
	}
	for i := range c.Segments {
		if s := &c.Segments[i]; s.MaxTime >= o.Since && s.MinTime < o.Until {
			p.segments = append(p.segments, s)
		}
	}
	slices.SortStableFunc(p.segments, func(a, b *Segment) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.Order, b.Order))
	})
	for i := range c.Loose {
		l := &c.Loose[i]
		u := &unit{origin: &l.Origin, name: l.Origin.Source, first: math.MaxInt64, last: math.MinInt64, loose: l.Records, line: p.lines[l.Origin], rank: math.MaxInt}
		for _, r := range l.Records {
			u.first, u.last = min(u.first, r.Time), max(u.last, r.Time)
		}
		if len(l.Records) > 0 && u.last >= o.Since && u.first < o.Until {
			p.ready = append(p.ready, u)
		}
	}
	heap.Init(&p.ready)
	return p
}

// take returns the next unit, or nil when there is none.
func (p *plan) take() *unit {
	for len(p.segments) > 0 && (len(p.ready) == 0 || p.segments[0].MinTime <= p.ready[0].first) {
		p.expand(p.segments[0])
		p.segments = p.segments[1:]
	}
	if len(p.ready) == 0 {
		return nil
	}
	u := heap.Pop(&p.ready).(*unit)
	u.sequence = p.next
	p.next++
	return u
}

// expand opens a segment and makes units of its blocks.
func (p *plan) expand(s *Segment) {
	data, err := s.Open(p.ctx)
	if err != nil {
		p.problems = append(p.problems, Problem{s.Name, err})
		return
	}
	reader, err := segment.Open(data)
	if err != nil {
		data.Close()
		p.problems = append(p.problems, Problem{s.Name, err})
		return
	}
	file := &openSegment{data: data, reader: reader}
	var units []*unit
	for i := range reader.Blocks() {
		b := reader.Block(i)
		if b.MaxTime < p.opts.Since || b.MinTime >= p.opts.Until {
			p.skipped++
			continue
		}
		units = append(units, &unit{origin: &s.Origin, name: s.Name, first: b.MinTime, last: b.MaxTime, file: file, segment: s, line: p.lines[s.Origin], block: i, rank: int(s.Order)})
	}
	if file.users.Store(int32(len(units))); len(units) == 0 {
		data.Close()
	}
	for _, u := range units {
		heap.Push(&p.ready, u)
	}
}

// frontier returns a time before which no unit that is still to come has a
// record.
func (p *plan) frontier() int64 {
	at := int64(math.MaxInt64)
	if len(p.segments) > 0 {
		at = p.segments[0].MinTime
	}
	if len(p.ready) > 0 {
		at = min(at, p.ready[0].first)
	}
	return at
}

// close ends what was not dispatched.
func (p *plan) close() {
	for _, u := range p.ready {
		u.file.release()
	}
	p.ready, p.segments = nil, nil
}

// unitHeap has the unit with the oldest record on top.
type unitHeap []*unit

func (h unitHeap) Len() int { return len(h) }
func (h unitHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].first, h[j].first), cmp.Compare(h[i].rank, h[j].rank), cmp.Compare(h[i].block, h[j].block)) < 0
}
func (h unitHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *unitHeap) Push(x any)   { *h = append(*h, x.(*unit)) }
func (h *unitHeap) Pop() any {
	old := *h
	u := old[len(old)-1]
	*h = old[:len(old)-1]
	return u
}
