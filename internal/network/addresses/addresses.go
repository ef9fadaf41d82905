// Package addresses reads what people write for addresses of networks, and makes
// of any heap of prefixes the sorted ranges, of which no two touch, that sets of
// nf_tables want.
package addresses

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Range is the addresses from First to Last, both in it and of one version.
type Range struct {
	First, Last netip.Addr
}

// Contains reports whether the range has the address.
func (r Range) Contains(a netip.Addr) bool {
	return r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// String writes a range as an address, a prefix where it is one, or FIRST-LAST.
func (r Range) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	for bits := range r.First.BitLen() {
		if p := netip.PrefixFrom(r.First, bits); p.Masked() == p && Of(p).Last == r.Last {
			return p.String()
		}
	}
	return r.First.String() + "-" + r.Last.String()
}

// Of returns the addresses of a prefix.
func Of(p netip.Prefix) Range {
	p = p.Masked()
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return Range{p.Addr(), last}
}

// ParsePrefix reads 192.0.2.0/24, 2001:db8::/32 or a single address. Addresses
// that belong to an interface (fe80::1%eth0) and those of IPv4 within IPv6 are
// refused; bits below the prefix may be set.
func ParsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return netip.Prefix{}, fmt.Errorf("%q is not an address such as 192.0.2.7 or 2001:db8::7", s)
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not a network such as 192.0.2.0/24 or 2001:db8::/32", s)
	}
	return p.Masked(), nil
}

// Merge sorts ranges, in place, and joins those that overlap or touch. Ranges
// of IPv4 come before those of IPv6.
func Merge(list []Range) []Range {
	slices.SortFunc(list, func(a, b Range) int { return a.First.Compare(b.First) })
	out := list[:0]
	for _, r := range list {
		if n := len(out); n > 0 && out[n-1].First.BitLen() == r.First.BitLen() {
			last := &out[n-1]
			if r.First.Compare(last.Last) <= 0 || last.Last.Next() == r.First {
				if last.Last.Less(r.Last) {
					last.Last = r.Last
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// Split returns the ranges of IPv4 and those of IPv6 of a merged list. What is
// appended to one of them does not reach the other.
func Split(merged []Range) (v4, v6 []Range) {
	i := slices.IndexFunc(merged, func(r Range) bool { return r.First.Is6() })
	if i < 0 {
		return merged, nil
	}
	return merged[:i:i], merged[i:]
}

// Find reports whether a merged list has the address.
func Find(merged []Range, a netip.Addr) bool {
	i, exact := slices.BinarySearchFunc(merged, a, func(r Range, a netip.Addr) int { return r.First.Compare(a) })
	return exact || i > 0 && merged[i-1].First.BitLen() == a.BitLen() && merged[i-1].Contains(a)
}

// Without returns a merged list without the addresses of another.
func Without(merged, except []Range) []Range {
	var out []Range
	for _, r := range merged {
		for _, x := range except {
			if x.Last.Compare(r.First) < 0 || x.First.BitLen() != r.First.BitLen() {
				continue
			}
			if x.First.Compare(r.Last) > 0 {
				break
			}
			if r.First.Less(x.First) {
				out = append(out, Range{r.First, x.First.Prev()})
			}
			if r.First = x.Last.Next(); !r.First.IsValid() || r.Last.Less(r.First) {
				r.First = netip.Addr{}
				break
			}
		}
		if r.First.IsValid() {
			out = append(out, r)
		}
	}
	return out
}
