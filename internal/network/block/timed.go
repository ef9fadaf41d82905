package block

import (
	"net/netip"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/network/addresses"
)

// timed is a range of addresses that is blocked for a while; left 0: for ever.
type timed struct {
	addresses.Range
	left time.Duration
}

// flatten makes of ranges that overlap ranges that don't, those of IPv4 first.
// What is in several of them stays as long as the longest.
func flatten(list []timed) []timed {
	var four, six []timed
	for _, t := range list {
		if t.First.Is4() {
			four = append(four, t)
		} else {
			six = append(six, t)
		}
	}
	return append(flattenOne(four), flattenOne(six)...)
}

// flattenOne is flatten for one version.
func flattenOne(list []timed) []timed {
	// Between two borders the same ranges cover everything.
	var borders []netip.Addr
	for _, t := range list {
		borders = append(borders, t.First)
		if after := t.Last.Next(); after.IsValid() {
			borders = append(borders, after)
		}
	}
	slices.SortFunc(borders, netip.Addr.Compare)
	borders = slices.Compact(borders)
	slices.SortFunc(list, func(a, b timed) int { return a.First.Compare(b.First) })
	var out, open []timed
	for i, from := range borders {
		for len(list) > 0 && list[0].First == from {
			open, list = append(open, list[0]), list[1:]
		}
		open = slices.DeleteFunc(open, func(t timed) bool { return t.Last.Less(from) })
		if len(open) == 0 {
			continue
		}
		piece := timed{left: longest(open)}
		piece.First = from
		if i+1 < len(borders) {
			piece.Last = borders[i+1].Prev()
		} else {
			piece.Last = open[0].Last // all of them end where addresses do
		}
		if n := len(out); n > 0 && out[n-1].left == piece.left && out[n-1].Last.Next() == piece.First {
			out[n-1].Last = piece.Last
			continue
		}
		out = append(out, piece)
	}
	return out
}

func longest(list []timed) (left time.Duration) {
	for _, t := range list {
		if t.left == 0 {
			return 0
		}
		left = max(left, t.left)
	}
	return left
}
