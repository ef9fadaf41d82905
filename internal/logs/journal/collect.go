package journal

import "slices"

// collect returns the entries at or before limit that have everything that the
// query asks for, in order.
func (q *query) collect(f *file, limit uint64) ([]uint64, error) {
	var list []uint64
	first := true
	g := gathering{f: f, limit: limit, budget: uint64(len(f.m))}
	narrow := func(entries []uint64) {
		if first {
			list, first = entries, false
		} else {
			list = intersect(list, entries)
		}
	}
	for i := range q.groups {
		var values []uint64
		for _, v := range q.groups[i].values {
			offset, err := f.find(&q.s.codec, v)
			if err != nil {
				return nil, err
			}
			if offset != 0 {
				values = append(values, offset)
			}
		}
		entries, err := g.entries(values)
		if err != nil {
			return nil, err
		}
		narrow(entries)
		if len(list) == 0 {
			return nil, nil
		}
	}
	if len(q.clauses) == 0 {
		return list, nil
	}
	values, err := q.scan(f)
	if err != nil {
		return nil, err
	}
	// The clause with the fewest values first: it may leave nothing.
	slices.SortFunc(values, func(a, b []uint64) int { return len(a) - len(b) })
	for _, v := range values {
		entries, err := g.entries(v)
		if err != nil {
			return nil, err
		}
		narrow(entries)
		if len(list) == 0 {
			return nil, nil
		}
	}
	return list, nil
}

// gathering collects the entries of data objects.
type gathering struct {
	f      *file
	limit  uint64
	budget uint64 // entries and arrays that may still be looked at: all lie in the file
}

// entries returns the entries that have one of the values at these offsets.
func (g *gathering) entries(values []uint64) ([]uint64, error) {
	var list []uint64
	for _, v := range values {
		n := len(list)
		var err error
		if list, err = g.f.gather(list, v, g.limit); err != nil {
			return nil, err
		}
		looked := uint64(len(list)-n+len(g.f.scratch)) + 1
		if looked > g.budget {
			return nil, g.f.bad(v, "lists of entries that are longer than the file")
		}
		g.budget -= looked
	}
	if !slices.IsSorted(list) {
		slices.Sort(list)
	}
	return slices.Compact(list), nil
}

// intersect returns what is in both of two lists in order, in the room of a.
func intersect(a, b []uint64) []uint64 {
	both := a[:0]
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] < b[j]:
			i++
		case a[i] > b[j]:
			j++
		default:
			both = append(both, a[i])
			i++
			j++
		}
	}
	return both
}

// scanWindow is how many bytes of a file are looked through at once: few
// enough that they stay in the cache from one literal to the next.
const scanWindow = 256 << 10

// window is a part of a file in which values are looked for.
type window struct {
	f     *file
	start uint64 // offset of its first object
	bytes []byte
	plain []uint64 // offsets of the data objects that are not compressed
}

// scan returns, for each clause, the offsets of the data objects that have one
// of its literals, in order. Every object of the file is passed once, and the
// bytes of many are looked through in one go; only compressed values are looked
// at one by one.
func (q *query) scan(f *file) ([][]uint64, error) {
	hits := make([][]uint64, len(q.clauses))
	var first []int // where each literal occurs first in the window
	// Entries that were listed before have all their values at or before the
	// object that is the last one now.
	tail := f.counter(headerTailObject)
	table := f.counter(headerDataTable) // of the first item, after the header of its object
	w := window{f: f}
	for at := f.first; at <= tail; {
		if err := q.ctx.Err(); err != nil {
			return nil, err
		}
		// Looking for the literals first is what reads the memory: in order, and
		// as fast as that goes. Which objects there are is asked afterwards.
		w.start, w.plain = at, w.plain[:0]
		if o, err := f.object(at, 0); err == nil && o[0] != typeData && len(o) >= scanWindow/4 && at < tail {
			at = next(at, o) // a hash table, or a long list, has no values
			continue
		}
		end := min(at+scanWindow, tail+objectHeader, uint64(len(f.m)))
		if end <= at {
			return nil, f.bad(at, "the file ends before its last object")
		}
		if at < table && table < end {
			end = table
		}
		first = first[:0]
		for _, clause := range q.clauses {
			for k := range clause {
				first = append(first, clause[k].finder.Next(f.m[at:end], 0))
			}
		}
		dataEnd := at
		for at < end && at <= tail {
			o, err := f.object(at, 0)
			if err != nil && at == tail && f.writing() {
				at = tail + 8 // it is just being written
				break
			}
			if err != nil {
				return nil, err
			}
			if o[0] == typeData && uint64(len(o)) > f.payload {
				dataEnd = at + uint64(len(o))
				if o[1] == 0 {
					w.plain = append(w.plain, at)
				} else {
					q.scanPacked(f, at, o, hits)
				}
			}
			at = next(at, o)
		}
		// What comes after the last value, such as a hash table, may be large.
		w.bytes = f.m[w.start:min(max(end, dataEnd), uint64(len(f.m)))]
		n := 0
		for i, clause := range q.clauses {
			for k := range clause {
				from := first[n]
				if from < 0 { // nor before what came with the last object
					from = max(0, int(end-w.start)-clause[k].size+1)
				}
				hits[i] = clause[k].scan(&w, from, hits[i])
				n++
			}
		}
	}
	for i := range hits {
		if !slices.IsSorted(hits[i]) {
			slices.Sort(hits[i])
		}
		hits[i] = slices.Compact(hits[i])
	}
	return hits, nil
}

// scanPacked looks through a compressed value.
func (q *query) scanPacked(f *file, at uint64, o []byte, hits [][]uint64) {
	value, err := q.s.codec.value(f, at, o)
	if err != nil {
		q.s.problem(err)
		return // it is left out of entries, too
	}
	for i := range q.clauses {
		if q.meets(i, value) {
			hits[i] = append(hits[i], at)
		}
	}
}

// scan appends the data objects of a window that have the literal, which does
// not occur before from.
func (n *needle) scan(w *window, from int, hits []uint64) []uint64 {
	plain, payload := w.plain, w.f.payload
	for {
		at := n.finder.Next(w.bytes, from)
		if at < 0 {
			return hits
		}
		where := w.start + uint64(at)
		// The data object that begins last before the hit.
		k, found := slices.BinarySearch(plain, where)
		if !found {
			k--
		}
		if plain = plain[max(k, 0):]; len(plain) == 0 {
			return hits
		}
		offset := plain[0]
		from = at + 1
		if where < offset+payload {
			continue // in the header of an object
		}
		object := w.bytes[offset-w.start:]
		value := object[:min(le.Uint64(object[objectSize:]), uint64(len(object)))][payload:]
		in := int(where - offset - payload)
		if in+n.size > len(value) || !n.stands(value, in) {
			continue // in what comes after it, or part of a word
		}
		hits = append(hits, offset)
		from = int(offset-w.start) + int(payload) + len(value)
	}
}
