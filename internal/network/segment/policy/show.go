package policy

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/network/nft"
)

// Row is something that rules allow or deny, and what came of it.
type Row struct {
	Kind     string `json:"kind"` // "flow", "egress", "service", "nat" or "deny"
	Text     string `json:"text"`
	Document string `json:"document,omitempty"` // of a flow: where it stands
	Line     int    `json:"line,omitempty"`

	// Packets and Bytes are those that came as far as the rule: of flows,
	// egress, services and NAT the first ones of connections.
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Shown is what is in force.
type Shown struct {
	Rows []Row

	// Established are the packets of connections that were allowed before.
	Established nft.Counted

	// Exact is whether exactly the rules of the layout are in force.
	Exact bool
}

// Show reads what the rules in force have counted. Denials that have counted
// nothing are left out.
func (p *Policy) Show(ctx context.Context) (*Shown, error) {
	wanted, err := p.rehearse(ctx)
	if err != nil {
		return nil, err
	}
	have, err := digest(ctx)
	if err != nil {
		return nil, err
	}
	counted, err := readCounters()
	if err != nil {
		return nil, err
	}
	s := &Shown{Exact: have == wanted}
	add := func(r Row, chain, comment string) {
		c := counted.sum(chain, comment)
		r.Packets, r.Bytes = c.Packets, c.Bytes
		s.Rows = append(s.Rows, r)
	}
	for _, f := range p.flows {
		for _, t := range f.traffic {
			_, text, _ := strings.Cut(f.comment(t), ": ")
			add(Row{Kind: "flow", Text: text, Document: f.Document, Line: f.Line}, f.chain(), f.comment(t))
		}
	}
	for _, z := range p.zones {
		switch z.Egress.Mode {
		case "internet":
			add(Row{Kind: "egress", Text: "zone=" + z.Name + " -> internet"}, chainEgress(z), z.egressComment("internet"))
		case "list":
			for _, g := range z.egressGroups() {
				var to []string
				for _, r := range g.to {
					to = append(to, r.String())
				}
				add(Row{Kind: "egress", Text: "zone=" + z.Name + " -> " + strings.Join(to, " ") + " " + g.traffic.String()}, chainEgress(z), z.egressComment(g.traffic.String()))
			}
		}
		done := map[string]bool{}
		for _, v := range z.services() {
			if !done[v.comment] {
				done[v.comment] = true
				add(Row{Kind: "service", Text: v.comment}, chainServices(z), v.comment)
			}
		}
	}
	for chain, at := range map[string]string{"forwarding": "forward", "incoming": "input", "outgoing": "output"} {
		sum := counted.sum(chain, at+": established")
		s.Established.Packets += sum.Packets
		s.Established.Bytes += sum.Bytes
	}
	s.Rows = append(s.Rows, counted.denials()...)
	return s, nil
}

// sum is what the rules of a chain with a comment have counted.
func (c counters) sum(chain, comment string) (sum nft.Counted) {
	for _, table := range []nft.Table{inetTable(), bridgeTable()} {
		for _, r := range c[table.String()+" "+counterKey(comment)] {
			if r.Chain == chain && r.Comment == shorten(comment) {
				sum.Packets += r.Packets
				sum.Bytes += r.Bytes
			}
		}
	}
	return sum
}

// denials are the rules that have dropped something, by what they say, and NAT.
func (c counters) denials() (list []Row) {
	for _, key := range slices.Sorted(maps.Keys(c)) {
		first := c[key][0]
		r := Row{Kind: "deny", Text: first.Comment}
		switch {
		case strings.HasPrefix(first.Comment, "NAT"):
			r.Kind = "nat"
		case !drops(first.Chain, first.Comment):
			continue
		}
		for _, one := range c[key] {
			r.Packets += one.Packets
			r.Bytes += one.Bytes
		}
		if r.Packets > 0 {
			list = append(list, r)
		}
	}
	return list
}

// drops reports whether a rule with a counter is one that drops.
func drops(chain, comment string) bool {
	for _, prefix := range []string{"flow_", "egress_", "services_"} {
		if strings.HasPrefix(chain, prefix) {
			return false
		}
	}
	return comment != "open" && !strings.HasSuffix(comment, ": established") && !strings.HasSuffix(comment, ": errors")
}
