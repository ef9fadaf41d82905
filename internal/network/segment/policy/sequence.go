package policy

import (
	"github.com/mobileops/mobileops/internal/network/nft"
	"github.com/mobileops/mobileops/internal/network/segment"
)

// Flows that begin at one end are looked at one after the other, unless there
// are more than fewFlows: then those that name single ports are found in maps,
// as long as one has at most manyKeys there.
const (
	fewFlows = 8
	manyKeys = 256
)

// sequence puts flows that begin at one end into the order in which rules look
// at them: those found by address and port, those found by zone and port, and
// the rest, one by one.
func sequence(flows []*flow) (byAddress, byZone, rest []*flow) {
	if len(flows) <= fewFlows {
		return nil, nil, flows
	}
	for _, f := range flows {
		switch {
		case f.exact() && f.to.kind == chosen:
			byAddress = append(byAddress, f)
		case f.exact() && f.to.kind == whole:
			byZone = append(byZone, f)
		default:
			rest = append(rest, f)
		}
	}
	return byAddress, byZone, rest
}

// exact reports whether a flow can be found by where a packet goes to.
func (f *flow) exact() bool {
	for _, t := range f.traffic {
		if t.Protocol == segment.ProtocolAny || t.First == 0 || t.First != t.Last {
			return false
		}
	}
	keys := 1
	if f.to.kind == chosen {
		keys = len(f.to.addresses(false)) + len(f.to.addresses(true))
	}
	return keys*len(f.traffic) <= manyKeys
}

// begin writes the flows that begin at one end into a chain.
func (t *tables) begin(chain string, flows []*flow) {
	byAddress, byZone, rest := sequence(flows)
	for _, six := range families() {
		var list []nft.Element
		seen := map[key]bool{}
		for _, f := range byAddress {
			for _, a := range f.to.addresses(six) {
				list = f.keys(list, seen, nft.Addr(a))
			}
		}
		if len(list) > 0 {
			s := t.set(t.inet, chain+"_to"+family(six), 0, []nft.Type{addrType(six), nft.INetProto, nft.Service}, len(list), func(i int) nft.Element { return list[i] })
			t.rule(t.inet, chain, nft.By(s, daddr(six), nft.L4Proto, nft.Dport))
		}
	}
	var list []nft.Element
	seen := map[key]bool{}
	for _, f := range byZone {
		list = f.keys(list, seen, nft.Interface(f.to.zone.Bridge))
	}
	if len(list) > 0 {
		s := t.set(t.inet, chain+"_to_zone", 0, []nft.Type{nft.IfName, nft.INetProto, nft.Service}, len(list), func(i int) nft.Element { return list[i] })
		t.rule(t.inet, chain, nft.By(s, nft.OutName, nft.L4Proto, nft.Dport))
	}
	for _, f := range rest {
		t.reaching(chain, f)
	}
}

// key is what a flow is found by.
type key struct {
	to      string
	traffic segment.Traffic
}

// keys adds what the flow is found by at one destination. Of two flows for the
// same, the first one counts.
func (f *flow) keys(list []nft.Element, seen map[key]bool, to nft.Value) []nft.Element {
	for _, traffic := range f.traffic {
		k := key{to.String(), traffic}
		if seen[k] {
			continue
		}
		seen[k] = true
		list = append(list, nft.Element{
			Key:     nft.Key(to, nft.Proto(number(traffic.Protocol, false)), nft.Num16(traffic.First)),
			Verdict: nft.JumpTo(f.chain()),
		})
	}
	return list
}
