package block

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"

	"github.com/mobileops/mobileops/internal/network/addresses"
)

// list is the addresses of a feed: disjoint, sorted, those of IPv4 packed into
// numbers, since a feed has a hundred thousand of them.
type list struct {
	v4 []span4
	v6 []addresses.Range
}

// span4 is a range of IPv4 addresses: the first in the high half, the last in
// the low one. So spans sort as their first addresses do.
type span4 uint64

func (s span4) first() uint32 { return uint32(s >> 32) }
func (s span4) last() uint32  { return uint32(s) }
func (s span4) single() bool  { return s.first() == s.last() }

func makeSpan4(first, last uint32) span4 { return span4(first)<<32 | span4(last) }

func number4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func addr4(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func (s span4) rng() addresses.Range {
	return addresses.Range{First: addr4(s.first()), Last: addr4(s.last())}
}

// add puts a range in; settle makes the list usable afterwards.
func (l *list) add(r addresses.Range) {
	if r.First.Is4() {
		l.v4 = append(l.v4, makeSpan4(number4(r.First), number4(r.Last)))
	} else {
		l.v6 = append(l.v6, r)
	}
}

// excessive reports whether the list has more than half of the addresses of IPv4,
// or of those that IPv6 gives to hosts (2000::/3): networks that are narrow enough
// one by one can be everything together.
func (l *list) excessive() bool {
	var four, six uint64
	for _, s := range l.v4 {
		four += uint64(s.last()-s.first()) + 1
	}
	for _, r := range l.v6 { // in networks of 32 bits
		first, last := r.First.As16(), r.Last.As16()
		six += uint64(binary.BigEndian.Uint32(last[:]) - binary.BigEndian.Uint32(first[:]))
	}
	return four > 1<<31 || six > 1<<28
}

// settle sorts and joins what overlaps. Ranges that touch are joined, single
// addresses are left alone: sets of single addresses are filled, and looked
// into, faster than those of ranges.
func (l *list) settle() {
	sort4(l.v4)
	out := l.v4[:0]
	for _, s := range l.v4 {
		if n := len(out); n > 0 {
			last := &out[n-1]
			touches := !s.single() && !last.single() && last.last()+1 == s.first() && last.last() != 1<<32-1
			if s.first() <= last.last() || touches {
				*last = makeSpan4(last.first(), max(last.last(), s.last()))
				continue
			}
		}
		out = append(out, s)
	}
	l.v4 = out
	slices.SortFunc(l.v6, func(a, b addresses.Range) int { return a.First.Compare(b.First) })
	six := l.v6[:0]
	for _, r := range l.v6 {
		if n := len(six); n > 0 {
			last := &six[n-1]
			touches := r.First != r.Last && last.First != last.Last && last.Last.Next() == r.First
			if r.First.Compare(last.Last) <= 0 || touches {
				if last.Last.Less(r.Last) {
					last.Last = r.Last
				}
				continue
			}
		}
		six = append(six, r)
	}
	l.v6 = six
}

// sort4 sorts spans by their first addresses, by two passes over as many lists as
// half an address has values: a feed has too many to compare them with each other.
func sort4(spans []span4) {
	if len(spans) < 4096 || slices.IsSorted(spans) {
		slices.Sort(spans)
		return
	}
	from, to := spans, make([]span4, len(spans))
	starts := make([][1 << 16]uint32, 2)
	for _, s := range from {
		starts[0][uint16(s>>32)]++
		starts[1][uint16(s>>48)]++
	}
	for pass := range starts {
		sum := uint32(0)
		for i, n := range starts[pass] {
			starts[pass][i] = sum
			sum += n
		}
		for _, s := range from {
			at := &starts[pass][uint16(s>>(32+16*pass))]
			to[*at] = s
			*at++
		}
		from, to = to, from
	}
}

// without takes the addresses of sorted, disjoint ranges out, and returns which
// of those there was anything to take out for.
func (l *list) without(except []addresses.Range) (hit []addresses.Range) {
	four, six := addresses.Split(except)
	var out []span4
	rest := l.v4
	for _, x := range four {
		first, last := number4(x.First), number4(x.Last)
		i, _ := slices.BinarySearch(rest, makeSpan4(first, 0))
		if i > 0 && rest[i-1].last() >= first {
			i--
		}
		j := i
		for j < len(rest) && rest[j].first() <= last {
			j++
		}
		if i == j {
			continue
		}
		hit = append(hit, x)
		out = append(out, rest[:i]...)
		if s := rest[i]; s.first() < first {
			out = append(out, makeSpan4(s.first(), first-1))
		}
		s := rest[j-1]
		rest = rest[j:]
		if s.last() > last {
			// What follows may lie in the next exception, too.
			rest = slices.Insert(slices.Clone(rest), 0, makeSpan4(last+1, s.last()))
		}
	}
	if len(hit) > 0 {
		l.v4 = append(out, rest...)
	}
	for _, x := range six {
		if slices.ContainsFunc(l.v6, func(r addresses.Range) bool { return r.First.Compare(x.Last) <= 0 && x.First.Compare(r.Last) <= 0 }) {
			hit = append(hit, x)
		}
	}
	l.v6 = addresses.Without(l.v6, six)
	return hit
}

// has tells whether the list has the address.
func (l *list) has(a netip.Addr) bool {
	if !a.Is4() {
		return addresses.Find(l.v6, a)
	}
	n := number4(a)
	i, found := slices.BinarySearch(l.v4, makeSpan4(n, n))
	return found || i < len(l.v4) && l.v4[i].first() == n || i > 0 && l.v4[i-1].last() >= n
}

func (l *list) counts() (c Counts) {
	for _, s := range l.v4 {
		if s.single() {
			c.Singles4++
		}
	}
	c.Ranges4 = len(l.v4) - c.Singles4
	for _, r := range l.v6 {
		if r.First == r.Last {
			c.Singles6++
		}
	}
	c.Ranges6 = len(l.v6) - c.Singles6
	return c
}

// singles are the single addresses of a version.
func (l *list) singles(four bool) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if four {
			for _, s := range l.v4 {
				if s.single() && !yield(addr4(s.first())) {
					return
				}
			}
			return
		}
		for _, r := range l.v6 {
			if r.First == r.Last && !yield(r.First) {
				return
			}
		}
	}
}

// ranges returns what is not a single address of a version.
func (l *list) ranges(four bool) (out []addresses.Range) {
	if four {
		for _, s := range l.v4 {
			if !s.single() {
				out = append(out, s.rng())
			}
		}
		return out
	}
	for _, r := range l.v6 {
		if r.First != r.Last {
			out = append(out, r)
		}
	}
	return out
}
