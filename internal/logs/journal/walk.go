package journal

import (
	"cmp"
	"math"
	"slices"
)

// place is a position in the order of all entries: that of an entry, or one
// that is only partly known.
type place struct {
	head
	seqnumID ID
	// which parts are known
	hasSeqnum, hasMonotonic, hasRealtime, hasXor bool
	// exact says that this is the entry that was handed out last.
	exact bool
}

// state says what the head of a stream is.
type state uint8

const (
	fresh   state = iota // nothing yet
	ready                // the next entry
	taken                // handed out
	drained              // the last one, handed out or left out
)

// stream is the entries of one file, one of which is its head.
type stream struct {
	f     *file
	state state
	head  head
	next  uint64 // index of the entry after head
	end   uint64 // index of the first entry that is not looked at
	seen  uint64 // number of entries in the file when it was drained
	scan  uint64 // objects are looked at one by one from here; 0: entries are listed
	// before says that an entry lies before where the walk began. Where entries
	// are listed, that is known without asking.
	before func(*head) bool

	// list has those that pass of the entries before listed. The others are
	// looked at one by one.
	list []uint64
	at   int // index in list of the entry after head
}

// walk hands out the entries of several files in the order of journalctl
// (sd-journal.c, real_journal_next): the earliest of the heads of all files,
// leaving out entries that were in another file already.
type walk struct {
	s       *Set
	streams []*stream
	place   place
	current *stream
	restore map[ID]uint64 // sequence number of the entry handed out last, by file
	filter  filter        // nil: everything passes
}

// filter leaves entries out. Both methods are called with a guard.
type filter interface {
	// prepare is called once for a stream, before its first entry. It may set
	// list, and next and end.
	prepare(*stream)
	// pass says whether the head of a stream is handed out. listed says that it
	// was in the list.
	pass(st *stream, listed bool) bool
}

// order compares two entries as journal_file_compare_locations does: by number
// when both are of one source, then by the clock since boot when both are of one
// boot, then by time. It is not transitive, so the algorithm matters too.
func order(a *head, as *ID, b *head, bs *ID) int {
	if *as == *bs {
		if c := cmp.Compare(a.seqnum, b.seqnum); c != 0 {
			return c
		}
	}
	if a.boot == b.boot {
		if c := cmp.Compare(a.monotonic, b.monotonic); c != 0 {
			return c
		}
	}
	if c := cmp.Compare(a.realtime, b.realtime); c != 0 {
		return c
	}
	return cmp.Compare(a.xor, b.xor)
}

// advance moves to the next entry, which becomes the head of current. It
// returns false when there is none for now. The caller has a guard.
func (w *walk) advance() bool {
	var best *stream
	for _, st := range w.streams {
		if !w.beyond(st) {
			continue
		}
		if best == nil || order(&st.head, &st.f.seqnumID, &best.head, &best.f.seqnumID) < 0 {
			best = st
		}
	}
	if best == nil {
		return false
	}
	best.state = taken
	w.current = best
	w.place = place{
		head: best.head, seqnumID: best.f.seqnumID, exact: true,
		hasSeqnum: true, hasMonotonic: true, hasRealtime: true, hasXor: true,
	}
	return true
}

// beyond moves a stream to its first entry after the one handed out last, and
// reports whether there is one.
func (w *walk) beyond(st *stream) bool {
	switch st.state {
	case fresh:
		w.start(st)
	case drained:
		if st.finished() {
			return false
		}
	}
	if st.state != ready && !w.step(st) {
		return false
	}
	for w.place.exact {
		c := order(&st.head, &st.f.seqnumID, &w.place.head, &w.place.seqnumID)
		// The order within a file is not in doubt.
		if c > 0 || st == w.current || c < 0 && w.s.opts.KeepAll {
			break
		}
		if !w.step(st) {
			return false
		}
	}
	return true
}

// step moves a stream to its next entry that passes.
func (w *walk) step(st *stream) bool {
	for {
		listed, ok := w.raw(st)
		if !ok {
			st.state = drained
			return false
		}
		if w.filter == nil || w.filter.pass(st, listed) {
			st.state = ready
			return true
		}
	}
}

// raw moves a stream to its next entry, listed or not.
func (w *walk) raw(st *stream) (listed, ok bool) {
	for st.at < len(st.list) {
		offset := st.list[st.at]
		st.at++
		if w.take(st, offset) {
			return true, true
		}
	}
	f := st.f
	st.seen = f.counter(headerEntries)
	if st.scan == 0 {
		if err := f.entries.extend(st.seen); err != nil {
			w.s.problem(err)
		}
		for st.next < min(f.entries.n, st.end) {
			offset := f.entries.item(st.next)
			st.next++
			if w.take(st, offset) {
				return false, true
			}
		}
		if st.next >= st.end || !f.entries.broken && !w.short(st) {
			return false, false
		}
		// The rest of the list is lost. The entries themselves may not be.
		if st.scan = f.first; st.head.offset != 0 {
			st.scan = st.head.offset
		}
	}
	for {
		o, err := f.object(st.scan, 0)
		if err != nil {
			return false, false // damage was reported with the list
		}
		offset := st.scan
		st.scan = next(offset, o)
		if o[0] == typeEntry && offset > st.head.offset && w.take(st, offset) && !st.before(&st.head) {
			return false, true
		}
	}
}

// short reports whether the list of entries of a file ends before its entries
// do. That the last one is not listed is usual: its writer had no room left, and
// wrote it to the next file.
func (w *walk) short(st *stream) bool {
	last := st.f.counter(headerTailSeqnum)
	if st.f.writing() || st.f.counter(headerEntries) != st.seen || last <= st.head.seqnum+1 {
		return false
	}
	st.f.entries.broken = true
	w.s.problem(st.f.bad(headerEntries, "the list of entries ends with entry %d, and the last one is %d", st.head.seqnum, last))
	return true
}

// take makes an entry the head of a stream when it can be read.
func (w *walk) take(st *stream, offset uint64) bool {
	if offset <= st.head.offset {
		w.s.problem(st.f.bad(offset, "entry listed after the one at %d", st.head.offset))
		return false
	}
	o, err := st.f.entry(offset)
	if err != nil {
		w.s.problem(err)
		return false
	}
	seqnum := st.head.seqnum
	if st.head.set(offset, o); st.head.seqnum <= seqnum {
		w.s.problem(st.f.bad(offset, "entry %d after entry %d", st.head.seqnum, seqnum))
	}
	return true
}

// add makes the walk go over a file, too.
func (w *walk) add(f *file) {
	w.streams = append(w.streams, &stream{f: f, end: math.MaxUint64})
}

// start finds where a stream begins: where the walk is.
func (w *walk) start(st *stream) {
	f := st.f
	if err := f.entries.extend(f.counter(headerEntries)); err != nil {
		w.s.problem(err)
	}
	if w.filter != nil {
		w.filter.prepare(st)
	}
	var i uint64
	i, st.before = w.find(f)
	if i == 0 {
		return
	}
	if i >= f.entries.n {
		st.at = len(st.list)
	} else {
		st.at, _ = slices.BinarySearch(st.list, f.entries.item(i))
	}
	st.next = max(st.next, i)
	// Entries are numbered in the order in which they lie, so the one before
	// says what has been passed.
	offset := f.entries.item(i - 1)
	if o, err := f.entry(offset); err == nil {
		st.head.set(offset, o)
	}
}

// find returns the index of the first listed entry of a file that is not before
// the place of the walk, and what tells whether an entry is before it.
func (w *walk) find(f *file) (uint64, func(*head) bool) {
	c, p := &f.entries, w.place
	before := func(*head) bool { return false }
	if w.restore != nil {
		seqnum, known := w.restore[f.id]
		if !known {
			return 0, before
		}
		before = func(h *head) bool { return h.seqnum <= seqnum }
		return c.bisect(before), before
	}
	if p.hasSeqnum && f.seqnumID == p.seqnumID {
		before = func(h *head) bool { return h.seqnum < p.seqnum }
		return c.bisect(before), before
	}
	if p.hasMonotonic {
		if i, ok := w.findMonotonic(f); ok {
			return i, func(h *head) bool { return h.boot == p.boot && h.monotonic < p.monotonic }
		}
	}
	if p.hasRealtime {
		before = func(h *head) bool { return h.realtime < p.realtime }
		return c.bisect(before), before
	}
	return 0, before
}

// findMonotonic is find by the clock since boot, among the entries of the boot.
func (w *walk) findMonotonic(f *file) (uint64, bool) {
	p := &w.place
	offset, err := f.find(&w.s.codec, p.boot.append([]byte(bootField)))
	if err != nil {
		w.s.problem(err)
	}
	if err != nil || offset == 0 {
		return 0, false
	}
	o, err := f.data(offset)
	if err != nil {
		return 0, false
	}
	boot := chain{f: f, extra: le.Uint64(o[dataEntry:]), head: le.Uint64(o[dataEntryArray:])}
	if err := boot.extend(le.Uint64(o[dataEntries:])); err != nil {
		w.s.problem(err)
	}
	i := boot.bisect(func(h *head) bool { return h.monotonic < p.monotonic })
	if i >= boot.n {
		return f.entries.n, true
	}
	at := boot.item(i)
	return f.entries.bisect(func(h *head) bool { return h.offset < at }), true
}

// passed returns the sequence number of the last entry of a stream that was
// handed out or passed over; 0 when there is none.
func (w *walk) passed(st *stream) uint64 {
	if st.state == fresh {
		w.start(st)
		st.state = taken
	}
	if st.state == ready {
		return st.head.seqnum - 1
	}
	return st.head.seqnum
}
