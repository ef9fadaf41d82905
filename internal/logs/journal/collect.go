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

// scan returns, for each clause, the offsets of the data objects that have one
// of its literals, in order. Every object of the file is passed once, and the
// bytes of many are looked through in one go; only compressed values are looked
// at one by one.
func (q *query) scan(f *file) ([][]uint64, error) {
	hits := make([][]uint64, len(q.clauses))
	// Entries that were listed before have all their values at or before the
	// object that is the last one now.
	tail := f.counter(headerTailObject)
	var plain []uint64 // data objects in the window
	start, at := f.first, f.first
	for at <= tail {
		o, err := f.object(at, 0)
		if err != nil && at == tail && f.m[headerState] == stateOnline {
			break // it is just being written
		}
		if err != nil {
			return nil, err
		}
		if o[0] == typeData && uint64(len(o)) > f.payload {
			if o[1] == 0 {
				plain = append(plain, at)
			} else {
				q.scanPacked(f, at, o, hits)
			}
		}
		at = next(at, o)
		if at-start >= scanWindow {
			q.scanPlain(f, f.m[start:min(at, uint64(len(f.m)))], start, plain, hits)
			plain, start = plain[:0], at
			if err := q.ctx.Err(); err != nil {
				return nil, err
			}
		}
	}
	q.scanPlain(f, f.m[start:min(at, uint64(len(f.m)))], start, plain, hits)
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

// scanPlain looks through a window that begins at an offset of the file for the
// literals of all clauses.
func (q *query) scanPlain(f *file, window []byte, start uint64, plain []uint64, hits [][]uint64) {
	for i, clause := range q.clauses {
		for k := range clause {
			hits[i] = clause[k].scan(f, window, start, plain, hits[i])
		}
	}
}

// scan appends the data objects of a window that have the literal.
func (n *needle) scan(f *file, window []byte, start uint64, plain, hits []uint64) []uint64 {
	for from, k := 0, 0; ; {
		at := n.finder.Next(window, from)
		if at < 0 {
			return hits
		}
		// The data object that begins last before the hit.
		where := start + uint64(at)
		for k+1 < len(plain) && plain[k+1] <= where {
			k++
		}
		from = at + 1
		if k >= len(plain) {
			return hits
		}
		offset := plain[k]
		if where < offset+f.payload {
			continue // in the header of an object
		}
		object := window[offset-start:]
		value := object[:min(le.Uint64(object[objectSize:]), uint64(len(object)))][f.payload:]
		in := int(where - offset - f.payload)
		if in+n.size > len(value) || !n.stands(value, in) {
			continue // in what comes after it, or part of a word
		}
		hits = append(hits, offset)
		from = int(offset-start) + int(f.payload) + len(value)
	}
}
