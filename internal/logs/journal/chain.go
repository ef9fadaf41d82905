package journal

// chain is a list of entries: that of a file, or that of a data object. It is
// kept in ENTRY ARRAY objects, each of which names the next. They grow, so
// there are few.
type chain struct {
	f      *file
	extra  uint64 // first entry of a data object, which is in no array; or 0
	head   uint64 // first array
	n      uint64 // number of entries
	arrays []array
	last   int  // array that was used last
	broken bool // ends too early, which was reported
}

type array struct {
	at    uint64 // offset of the object
	start uint64 // index of its first entry
	n     uint64 // number of entries that fit
}

// extend makes the chain n entries long, as far as there are any.
func (c *chain) extend(n uint64) error {
	if n <= c.n || c.broken {
		return nil
	}
	// No entry is smaller, and none is listed twice.
	var err error
	if most := uint64(len(c.f.m)) / 72; n > most && !(c.f.grow() && n <= uint64(len(c.f.m))/72) {
		err = c.f.bad(c.head, "list of %d entries, which is more than fit into the file", n)
		n = most
	}
	have := uint64(0)
	if c.extra != 0 {
		have = 1
	}
	if c == &c.f.entries && len(c.arrays) == 0 {
		c.head = c.f.counter(headerEntryArray) // may not have been there before
	}
	at := c.head
	if k := len(c.arrays); k > 0 {
		last := c.arrays[k-1]
		have = last.start + last.n
		if have < n {
			o, err := c.f.object(last.at, typeEntryArray)
			if err != nil {
				c.broken = true
				return err
			}
			at = le.Uint64(o[arrayNext:])
			if at != 0 && at <= last.at {
				c.n, c.broken = have, true
				return c.f.bad(last.at+arrayNext, "entry array that leads back to %d", at)
			}
		}
	}
	for have < n {
		if at == 0 {
			c.n, c.broken = have, true
			return c.f.bad(c.head, "the list of entries ends after %d of %d", have, n)
		}
		o, err := c.f.object(at, typeEntryArray)
		if err != nil {
			c.n, c.broken = have, true
			return err
		}
		a := array{at: at, start: have, n: (uint64(len(o)) - arrayItems) / c.f.itemSize()}
		if a.n == 0 {
			c.n, c.broken = have, true
			return c.f.bad(at, "entry array without room for any")
		}
		c.arrays = append(c.arrays, a)
		have += a.n
		following := le.Uint64(o[arrayNext:])
		if following != 0 && following <= at && have < n {
			c.n, c.broken = have, true
			return c.f.bad(at+arrayNext, "entry array that leads back to %d", following)
		}
		at = following
	}
	c.n, c.broken = n, err != nil
	return err
}

// itemSize is the size of an entry's offset in an array.
func (f *file) itemSize() uint64 {
	if f.compact {
		return 4
	}
	return 8
}

// item returns the offset of entry i, which is less than n. It may be anything
// in a damaged file.
func (c *chain) item(i uint64) uint64 {
	if i == 0 && c.extra != 0 {
		return c.extra
	}
	if c.last >= len(c.arrays) || i < c.arrays[c.last].start || i >= c.arrays[c.last].start+c.arrays[c.last].n {
		lo, hi := 0, len(c.arrays)
		for lo < hi { // the last array that does not begin after i
			if mid := (lo + hi) / 2; c.arrays[mid].start <= i {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		c.last = lo - 1
	}
	a := &c.arrays[c.last]
	size := c.f.itemSize()
	at := a.at + arrayItems + (i-a.start)*size
	if at+size > uint64(len(c.f.m)) {
		return 0 // the file was cut after the chain was read
	}
	if size == 4 {
		return uint64(le.Uint32(c.f.m[at:]))
	}
	return le.Uint64(c.f.m[at:])
}

// bisect returns the index of the first entry that is not before what is looked
// for. Like journalctl it takes an entry that cannot be read for the end.
func (c *chain) bisect(before func(*head) bool) uint64 {
	lo, hi := uint64(0), c.n
	var h head
	for lo < hi {
		mid := lo + (hi-lo)/2
		o, err := c.f.entry(c.item(mid))
		if err != nil {
			hi = mid
			continue
		}
		if h.set(c.item(mid), o); before(&h) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// gather appends the entries of a data object that lie at or before an offset.
func (f *file) gather(dst []uint64, offset, limit uint64) ([]uint64, error) {
	o, err := f.data(offset)
	if err != nil {
		return dst, err
	}
	n := le.Uint64(o[dataEntries:])
	if n == 0 {
		return dst, nil
	}
	c := chain{f: f, extra: le.Uint64(o[dataEntry:]), head: le.Uint64(o[dataEntryArray:]), arrays: f.scratch[:0]}
	if c.extra == 0 {
		return dst, f.bad(offset, "data object with %d entries and without the first of them", n)
	}
	err = c.extend(n)
	f.scratch = c.arrays
	prev := uint64(0)
	for i := range c.n {
		at := c.item(i)
		if at <= prev {
			// A writer that was killed leaves room that was counted and not
			// filled; anything else is damage.
			return dst, f.bad(offset, "entry %d of %d of a data object leads to %d", i, n, at)
		}
		if at > limit {
			break
		}
		dst, prev = append(dst, at), at
	}
	return dst, err
}
