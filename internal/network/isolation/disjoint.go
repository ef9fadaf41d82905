package isolation

import (
	"cmp"
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
		var coming, here []Peer // by their first port; those that have the ports at hand
		for _, s := range services {
			if s.Proto == proto {
				s.Prefix = s.Prefix.Masked()
				coming = append(coming, s)
				cuts = append(cuts, int(s.First), int(s.Last)+1)
			}
		}
		slices.SortStableFunc(coming, func(a, b Peer) int { return cmp.Compare(a.First, b.First) })
		slices.Sort(cuts)
		cuts = slices.Compact(cuts)
		for i := 0; i+1 < len(cuts); i++ {
			first, last := uint16(cuts[i]), uint16(cuts[i+1]-1)
			here = slices.DeleteFunc(here, func(s Peer) bool { return s.Last < first })
			for len(coming) > 0 && coming[0].First == first {
				here, coming = append(here, coming[0]), coming[1:]
			}
			// A network before all that lies within it, which so comes right after it.
			slices.SortStableFunc(here, func(a, b Peer) int {
				return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
			})
			for j, s := range here {
				if j > 0 && out[len(out)-1].Prefix.Contains(s.Prefix.Addr()) {
					continue
				}
				s.First, s.Last = first, last
				out = append(out, s)
			}
		}
	}
	return out
}
