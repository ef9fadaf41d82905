package block

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/network/nft"
)

// The rules of the table inet, and those of bridge, which are a part of them:
//
//	arriving  prerouting  interfaces, MAC addresses, ports, then addresses: from, to
//	leaving   output      control groups, users, ports, then addresses: to
//	passing   forward     addresses again, after DNAT: to
//
// The chains from4, from6, to4 and to6 look at one address of a packet. A rule
// looks it up in one set, and only when it is in there, whether it must not be
// blocked. They come before DNAT, where a container's published port still has
// the host's address, and passing after it, where a packet to a container has the
// container's.
const (
	// priority is after conntrack (-200) and isolation, and before DNAT (-100).
	priority = -180
	// bridgePriority is before other filters of bridges, and before what makes
	// of frames packets of this host (brouting).
	bridgePriority = -490
)

// counts are what rules have counted so far, by table, chain and comment.
type counts map[string][2]uint64

func countKey(t nft.Table, chain, comment string) string {
	return fmt.Sprintf("%d/%s/%s", t.Family, chain, comment)
}

// drop counts, going on from what the rule before it did, and drops.
func (c counts) drop(t nft.Table, chain, comment string) []nft.Expr {
	if n, ok := c[countKey(t, chain, comment)]; ok {
		return []nft.Expr{nft.CountFrom(n[0], n[1]), nft.Drop()}
	}
	return []nft.Expr{nft.Count(), nft.Drop()}
}

// side is a chain that looks at one address of packets.
type side struct {
	chain string
	four  bool
	field nft.Field
	kind  nft.Field // that of the address for this host
}

func sides() []side {
	return []side{
		{"from4", true, nft.IPv4Saddr, nft.SourceKind}, {"to4", true, nft.IPv4Daddr, nft.DestinationKind},
		{"from6", false, nft.IPv6Saddr, nft.SourceKind}, {"to6", false, nft.IPv6Daddr, nft.DestinationKind},
	}
}

// chains makes the chains of a table, which are empty.
func chains(b *nft.Batch, t nft.Table) {
	for _, s := range sides() {
		b.AddChain(t, s.chain, nil)
	}
	if t.Family == nft.Bridge {
		b.AddChain(t, "arriving", &nft.Hook{At: "prerouting", Priority: bridgePriority})
		return
	}
	b.AddChain(t, "arriving", &nft.Hook{At: "prerouting", Priority: priority})
	b.AddChain(t, "leaving", &nft.Hook{At: "output", Priority: priority})
	b.AddChain(t, "passing", &nft.Hook{At: "forward", Priority: priority})
}

// chainNames are those that chains makes.
func chainNames(t nft.Table) []string {
	names := []string{"from4", "to4", "from6", "to6", "arriving"}
	if t.Family == nft.INet {
		names = append(names, "leaving", "passing")
	}
	return names
}

// rules fills the chains of inet or bridge.
func (w *wanted) rules(b *nft.Batch, t nft.Table, c counts) {
	rule := func(chain, comment string, match ...nft.Expr) {
		b.AddRule(t, chain, comment, append(match, c.drop(t, chain, comment)...)...)
	}
	set := func(name string, flags nft.SetFlags, key ...nft.Type) nft.Set {
		return nft.Set{Table: t, Name: name, Key: key, Flags: flags}
	}
	w.addressRules(b, t, rule)
	lookAt := func(chain string, list ...string) {
		for _, name := range list {
			if t.Family == nft.Bridge { // the rules there look at the version themselves
				b.AddRule(t, chain, "", nft.Jump(name))
				continue
			}
			b.AddRule(t, chain, "", nft.Is(nft.NFProto, nft.IPVersion(strings.HasSuffix(name, "6"))), nft.Jump(name))
		}
	}
	macs := set("macs", nft.Timeout, nft.EtherAddr)
	if t.Family == nft.Bridge {
		if len(w.macs) > 0 {
			rule("arriving", "mac from", nft.In(macs, nft.EtherSaddr))
			rule("arriving", "mac to", nft.In(macs, nft.EtherDaddr))
		}
		lookAt("arriving", "from4", "to4", "from6", "to6")
		return
	}
	services := set("services", nft.Timeout, nft.INetProto, nft.Service)
	names := set("interfaces", nft.Timeout, nft.IfName)
	b.AddRule(t, "arriving", "", nft.Is(nft.InName, nft.Interface("lo")), nft.Accept())
	for _, level := range w.levels() {
		rule("leaving", fmt.Sprintf("cgroup of level %d", level), nft.In(set(cgroupSet(level), nft.Timeout, nft.CgroupV2), nft.SocketCgroup(level)))
	}
	if len(w.uids) > 0 {
		rule("leaving", "user", nft.In(set("users", nft.Timeout, nft.UID), nft.SocketUID))
	}
	b.AddRule(t, "leaving", "", nft.Is(nft.OutName, nft.Interface("lo")), nft.Accept())
	if len(w.interfaces) > 0 {
		rule("arriving", "interface", nft.In(names, nft.InName))
		rule("leaving", "interface", nft.In(names, nft.OutName))
		rule("passing", "interface", nft.In(names, nft.OutName))
	}
	if len(w.macs) > 0 {
		rule("arriving", "mac", nft.In(macs, nft.EtherSaddr))
	}
	if len(w.services) > 0 {
		rule("arriving", "port", nft.In(services, nft.L4Proto, nft.Dport))
		rule("leaving", "port", nft.In(services, nft.L4Proto, nft.Dport))
		rule("passing", "port", nft.In(services, nft.L4Proto, nft.Dport))
	}
	lookAt("arriving", "from4", "to4", "from6", "to6")
	lookAt("leaving", "to4", "to6")
	lookAt("passing", "to4", "to6")
}

// addressRules fills the chains that look at one address.
func (w *wanted) addressRules(b *nft.Batch, t nft.Table, rule func(chain, comment string, match ...nft.Expr)) {
	for _, s := range sides() {
		suffix, key := "4", nft.IPv4Addr
		if !s.four {
			suffix, key = "6", nft.IPv6Addr
		}
		set := func(name string, flags nft.SetFlags) nft.Set {
			return nft.Set{Table: t, Name: name + suffix, Key: []nft.Type{key}, Flags: flags}
		}
		unless := []nft.Expr{nft.NotIn(set("never", nft.Interval), s.field)}
		if t.Family != nft.Bridge { // there is no routing table for those
			unless = append(unless, nft.IsNot(s.kind, nft.Local()))
		}
		if hasVersion(w.forced, s.four) {
			rule(s.chain, "named", nft.In(set("forced", nft.Interval|nft.Timeout), s.field))
		}
		if hasVersion(w.plain, s.four) {
			rule(s.chain, "address", append([]nft.Expr{nft.In(set("blocked", nft.Interval|nft.Timeout), s.field)}, unless...)...)
		}
		for _, f := range w.feeds {
			if t.Family == nft.Bridge && !w.bridged {
				continue
			}
			for _, fs := range f.sets(t) {
				if fs.four == s.four {
					rule(s.chain, fs.Name, append([]nft.Expr{nft.In(fs.Set, s.field)}, unless...)...)
				}
			}
		}
	}
}

func hasVersion(list []timed, four bool) bool {
	for _, t := range list {
		if t.First.Is4() == four {
			return true
		}
	}
	return false
}

// frameRules makes the whole of the table netdev: what is cut there never reaches
// IP, nor does ARP or what programs send as raw frames. MAC addresses are looked
// at where frames arrive alone; what is sent to one has no answer any more.
func (w *wanted) frameRules(b *nft.Batch, c counts) {
	if len(w.devices) == 0 || len(w.macs)+len(w.interfaces) == 0 {
		return
	}
	b.AddTable(frames, 0, layout)
	for _, s := range w.small(frames) {
		b.AddSet(s.set)
		b.AddElements(s.set, len(s.elements), func(i int) nft.Element { return s.elements[i] })
	}
	names := nft.Set{Table: frames, Name: "interfaces", Key: []nft.Type{nft.IfName}, Flags: nft.Timeout}
	macs := nft.Set{Table: frames, Name: "macs", Key: []nft.Type{nft.EtherAddr}, Flags: nft.Timeout}
	rule := func(chain, comment string, match ...nft.Expr) {
		b.AddRule(frames, chain, comment, append(match, c.drop(frames, chain, comment)...)...)
	}
	// A chain has room for 256 interfaces.
	for n, part := range slices.Collect(slices.Chunk(w.devices, 200)) {
		arriving, leaving := "arriving", "leaving"
		if n > 0 {
			arriving, leaving = arriving+strconv.Itoa(n), leaving+strconv.Itoa(n)
		}
		b.AddChain(frames, arriving, &nft.Hook{At: "ingress", Priority: bridgePriority, Devices: part})
		if len(w.interfaces) > 0 {
			rule(arriving, "interface", nft.In(names, nft.InName))
			b.AddChain(frames, leaving, &nft.Hook{At: "egress", Priority: bridgePriority, Devices: part})
			rule(leaving, "interface", nft.In(names, nft.OutName))
		}
		if len(w.macs) > 0 {
			rule(arriving, "mac", nft.In(macs, nft.EtherSaddr))
		}
	}
}
