package isolation

import (
	"slices"

	"golang.org/x/sys/unix"
)

// disjoint returns services that cover the same addresses and ports, of which no
// two overlap. For each protocol the ports are cut where a range of any begins
// or ends; for each piece, prefixes within others are left out.
func disjoint(services []Peer) []Peer {
	var out []Peer
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		var cuts []int
		for _, s := range services {
			if s.Proto == proto {
				cuts = append(cuts, int(s.First), int(s.Last)+1)
			}
		}
		slices.Sort(cuts)
		cuts = slices.Compact(cuts)
		for i := 0; i+1 < len(cuts); i++ {
			first, last := uint16(cuts[i]), uint16(cuts[i+1]-1)
			var here []Peer
			for _, s := range services {
				if s.Proto == proto && s.First <= first && last <= s.Last {
					s.First, s.Last = first, last
					here = append(here, s)
				}
			}
			// The widest first: what lies within another is left out.
			slices.SortStableFunc(here, func(a, b Peer) int { return a.Prefix.Bits() - b.Prefix.Bits() })
			kept := here[:0]
			for _, s := range here {
				if !slices.ContainsFunc(kept, func(k Peer) bool { return k.Prefix.Contains(s.Prefix.Addr()) }) {
					kept = append(kept, s)
				}
			}
			out = append(out, kept...)
		}
	}
	return out
}
