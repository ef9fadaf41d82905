package policy

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/nft"
	"github.com/mobileops/mobileops/internal/network/segment"
)

// tableName is that of both tables.
const tableName = "mobileops_segments"

func inetTable() nft.Table { return nft.Table{Family: nft.INet, Name: tableName} }

func bridgeTable() nft.Table { return nft.Table{Family: nft.Bridge, Name: tableName} }

// tables is a transaction that puts a policy into force.
type tables struct {
	*nft.Batch
	policy       *Policy
	inet, bridge nft.Table
	counted      counters
	sets         map[string]nft.Set // by table and name
}

// batch writes the tables anew. With text, it can be shown.
func (p *Policy) batch(counted counters, text bool) *nft.Batch {
	t := &tables{policy: p, inet: inetTable(), bridge: bridgeTable(), counted: counted, sets: map[string]nft.Set{}}
	t.Batch = nft.NewBatch()
	if text {
		t.Batch = nft.NewTextBatch()
	}
	for _, table := range []nft.Table{t.inet, t.bridge} {
		t.DestroyTable(table)
		t.AddTable(table, 0, "mobileops: segments")
	}
	t.routed()
	t.bridged()
	return t.Batch
}

// Text returns what puts the policy into force as commands for nft -f.
func (p *Policy) Text() string { return p.batch(nil, true).Text() }

func (t *tables) rule(table nft.Table, chain string, exprs ...nft.Expr) {
	t.AddRule(table, chain, "", exprs...)
}

// count counts, from where the rule of that comment has come to.
func (t *tables) count(table nft.Table, comment string) nft.Expr {
	if c := t.counted.take(table, comment); c.Packets > 0 {
		return nft.CountFrom(c.Packets, c.Bytes)
	}
	return nft.Count()
}

// counters are what rules in force have counted, by table and comment, in the
// order of the rules.
type counters map[string][]nft.Counted

// take returns what the next rule of that comment has counted.
func (c counters) take(table nft.Table, comment string) (first nft.Counted) {
	key := table.String() + " " + counterKey(comment)
	if list := c[key]; len(list) > 0 {
		first, c[key] = list[0], list[1:]
	}
	return first
}

// counterKey is what a rule is known by when a document has changed: the lines
// of its flows can be others.
func counterKey(comment string) string {
	if rest, ok := strings.CutPrefix(comment, "line "); ok {
		_, comment, _ = strings.Cut(rest, ": ")
	}
	return comment
}

func (t *tables) accept(table nft.Table, chain, comment string, exprs ...nft.Expr) {
	t.AddRule(table, chain, shorten(comment), append(exprs, t.count(table, shorten(comment)), nft.Accept())...)
}

func (t *tables) drop(table nft.Table, chain, comment string, exprs ...nft.Expr) {
	t.AddRule(table, chain, shorten(comment), append(exprs, t.count(table, shorten(comment)), nft.Drop())...)
}

// shorten makes a comment as long as the kernel keeps it.
func shorten(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most-3] + "..."
	}
	return s
}

// A log has no more lines than these from each rule, however many packets are
// dropped.
const (
	logRate  = 5 // each second
	logBurst = 20
)

// refuse makes a chain that logs some of the packets that come to it, and drops
// and counts all of them.
func (t *tables) refuse(table nft.Table, chain, prefix, comment string) {
	t.AddChain(table, chain, nil)
	t.rule(table, chain, nft.AtRate(logRate, time.Second, logBurst), nft.Log(prefix))
	t.drop(table, chain, comment)
}

// set makes a set of n elements, or a map of verdicts.
func (t *tables) set(table nft.Table, name string, flags nft.SetFlags, key []nft.Type, n int, at func(i int) nft.Element) nft.Set {
	s := nft.Set{Table: table, Name: name, Key: key, Flags: flags}
	if n > 0 {
		s.Verdicts = at(0).Verdict != nft.Verdict{}
	}
	t.AddSet(s)
	t.AddElements(s, n, at)
	t.sets[table.String()+" "+name] = s
	return s
}

// named returns a set that was made before.
func (t *tables) named(table nft.Table, name string) nft.Set { return t.sets[table.String()+" "+name] }

// devices makes a set of names of interfaces.
func (t *tables) devices(table nft.Table, name string, list []string) nft.Set {
	return t.set(table, name, 0, []nft.Type{nft.IfName}, len(list), func(i int) nft.Element { return nft.One(nft.Interface(list[i]), 0) })
}

// list makes a set of addresses of one family.
func (t *tables) list(table nft.Table, name string, six bool, list []netip.Addr) nft.Set {
	var of []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, a := range list {
		if a.Is6() == six && !seen[a] {
			seen[a] = true
			of = append(of, a)
		}
	}
	return t.set(table, name, 0, []nft.Type{addrType(six)}, len(of), func(i int) nft.Element { return nft.One(nft.Addr(of[i]), 0) })
}

// ranges makes a set of ranges of addresses of one family.
func (t *tables) ranges(table nft.Table, name string, six bool, merged []addresses.Range) nft.Set {
	of, other := addresses.Split(merged)
	if six {
		of = other
	}
	return t.set(table, name, nft.Interval, []nft.Type{addrType(six)}, len(of), func(i int) nft.Element { return nft.AddrRange(of[i].First, of[i].Last, 0) })
}

func addrType(six bool) nft.Type {
	if six {
		return nft.IPv6Addr
	}
	return nft.IPv4Addr
}

func saddr(six bool) nft.Field {
	if six {
		return nft.IPv6Saddr
	}
	return nft.IPv4Saddr
}

func daddr(six bool) nft.Field {
	if six {
		return nft.IPv6Daddr
	}
	return nft.IPv4Daddr
}

// family is the end of names of what there is for each family.
func family(six bool) string {
	if six {
		return "6"
	}
	return "4"
}

func families() []bool { return []bool{false, true} }

// matches are the ways to say that a packet is of some traffic.
func matches(traffic segment.Traffic) [][]nft.Expr {
	switch {
	case traffic.Protocol == segment.ProtocolAny:
		return [][]nft.Expr{nil}
	case traffic.Protocol == segment.ProtocolICMP:
		return [][]nft.Expr{{nft.Is(nft.L4Proto, nft.Proto(number(traffic.Protocol, false)))}, {nft.Is(nft.L4Proto, nft.Proto(number(traffic.Protocol, true)))}}
	}
	list := []nft.Expr{nft.Is(nft.L4Proto, nft.Proto(number(traffic.Protocol, false)))}
	switch {
	case traffic.First == 0:
	case traffic.First == traffic.Last:
		list = append(list, nft.Is(nft.Dport, nft.Num16(traffic.First)))
	default:
		list = append(list, nft.Between(nft.Dport, nft.Num16(traffic.First), nft.Num16(traffic.Last)))
	}
	return [][]nft.Expr{list}
}

func mac(m segment.MAC) nft.Value { return nft.MAC(net.HardwareAddr(m[:])) }

// Names of chains. Those of zones have no sign that zones' names cannot have,
// but for the sign that parts them.

func (f *flow) chain() string { return fmt.Sprintf("flow_%d", f.index) }

// comment says what a rule of the flow allows.
func (f *flow) comment(t segment.Traffic) string {
	return shorten(fmt.Sprintf("line %d: %s -> %s %s", f.Line, f.from.endpoint, f.to.endpoint, t))
}

func chainServices(z *zone) string { return "services_" + z.Name }

func chainEgress(z *zone) string { return "egress_" + z.Name }

func chainWithin(z *zone) string { return "within_" + z.Name }

// chainDeny is where packets from one zone to another end.
func chainDeny(from, to string) string { return "deny_" + from + "_" + to }

func denyComment(from, to string) string {
	return "deny " + strings.TrimPrefix(from, "_") + ">" + strings.TrimPrefix(to, "_")
}
