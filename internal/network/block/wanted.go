package block

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/nft"
	"github.com/mobileops/mobileops/internal/threat"
)

// The tables that hold what is in force.
var (
	inet   = nft.Table{Family: nft.INet, Name: TableName}
	bridge = nft.Table{Family: nft.Bridge, Name: TableName}
	frames = nft.Table{Family: nft.NetDev, Name: TableName}
)

// TableName is the name of all tables.
const TableName = "mobileops_blocks"

// layout is the comment of the tables: one with another is of another version of
// mobileops, and replaced as a whole.
const layout = "what mobileops network block has blocked, layout 1"

// wanted is what is to be in force: it follows from the catalogue, the clock and
// the interfaces of the host.
type wanted struct {
	revision      uint32 // of the catalogue
	never         []addresses.Range
	plain, forced []timed
	services      map[service]time.Duration // 0: for ever
	uids          map[uint32]time.Duration
	macs          map[string]time.Duration
	interfaces    map[string]time.Duration
	cgroups       map[int]map[uint64]time.Duration // by level
	feeds         []wantedFeed
	paths         map[uint64]string // of control groups, by inode
	// bridged is set on a host with bridges: others are spared a second copy of
	// every feed.
	bridged bool
	// unreadable are feeds that are not in force since their files are damaged: they
	// must not keep others from being blocked.
	unreadable []string
	devices    []string // Ethernet interfaces, which netdev chains look at
}

type wantedFeed struct {
	*Feed
	left time.Duration // 0: for ever
}

// wantedOf derives it.
func (c *catalogue) wantedOf(clock Clock, never []protected, devices []link) *wanted {
	w := &wanted{
		revision: c.revision(),
		never:    rangesOf(never), services: map[service]time.Duration{}, uids: map[uint32]time.Duration{}, macs: map[string]time.Duration{},
		interfaces: map[string]time.Duration{}, cgroups: map[int]map[uint64]time.Duration{},
		paths: map[uint64]string{},
	}
	w.look(devices)
	for _, name := range c.targets() {
		b := c.blocks[name]
		left, ends := b.Left(clock)
		if ends && left < time.Millisecond {
			continue
		}
		w.addBlock(b, left)
	}
	w.plain, w.forced = flatten(w.plain), flatten(w.forced)
	for _, name := range c.feedNames() {
		f := c.feeds[name]
		left, ends := f.Left(clock)
		if !ends || left >= time.Millisecond {
			w.feeds = append(w.feeds, wantedFeed{f, left})
		}
	}
	return w
}

// look takes the interfaces of the host into account.
func (w *wanted) look(devices []link) {
	w.bridged, w.devices = false, nil
	for _, l := range devices {
		w.bridged = w.bridged || l.bridge
		if l.ethernet && l.name != "lo" {
			w.devices = append(w.devices, l.name)
		}
	}
	slices.Sort(w.devices)
}

func (w *wanted) addBlock(b *Block, left time.Duration) {
	if r, ok := rangeOf(b.Target); ok {
		if b.Forced {
			w.forced = append(w.forced, timed{r, left})
		} else {
			w.plain = append(w.plain, timed{r, left})
		}
	}
	switch b.Target.Type {
	case threat.MAC:
		longer(w.macs, b.Target.Value, left)
	case threat.Port:
		for _, s := range servicesOf(b.Target) {
			longer(w.services, s, left)
		}
	case threat.UID:
		if n, err := strconv.ParseUint(b.Target.Value, 10, 32); err == nil {
			longer(w.uids, uint32(n), left)
		}
	case threat.Interface:
		longer(w.interfaces, b.Target.Value, left)
	}
	// A container may have an address that is protected, as in a network of
	// management; it was named, so it is blocked.
	for _, a := range b.Parts.Addresses {
		w.forced = append(w.forced, timed{addresses.Range{First: a, Last: a}, left})
	}
	for _, name := range b.Parts.Interfaces {
		longer(w.interfaces, name, left)
	}
	for _, g := range b.Parts.Cgroups {
		if w.cgroups[g.Level] == nil {
			w.cgroups[g.Level] = map[uint64]time.Duration{}
		}
		longer(w.cgroups[g.Level], g.Inode, left)
		w.paths[g.Inode] = g.Path
	}
}

// longer keeps the longer of two spans, of which 0 is for ever.
func longer[K comparable](m map[K]time.Duration, key K, left time.Duration) {
	if old, ok := m[key]; !ok || old != 0 && (left == 0 || left > old) {
		m[key] = left
	}
}

// empty tells that nothing is blocked, so there are to be no tables.
func (w *wanted) empty() bool {
	return len(w.plain)+len(w.forced)+len(w.services)+len(w.uids)+len(w.macs)+len(w.interfaces)+len(w.cgroups)+len(w.feeds) == 0
}

// ordered returns the keys of a map in order: the same state has the same rules.
func ordered[K comparable](m map[K]time.Duration, less func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, less)
	return keys
}

// A filled set is one with all its elements.
type filled struct {
	set      nft.Set
	elements []nft.Element
}

func timedElements(list []timed, four bool) (out []nft.Element) {
	for _, t := range list {
		if t.First.Is4() == four {
			out = append(out, nft.AddrRange(t.First, t.Last, t.left))
		}
	}
	return out
}

// cgroupSet is the name of the set of a level.
func cgroupSet(level int) string { return "cgroups" + strconv.Itoa(level) }

// small returns all sets of a table but those of feeds.
func (w *wanted) small(t nft.Table) (out []filled) {
	add := func(name string, flags nft.SetFlags, elements []nft.Element, key ...nft.Type) {
		out = append(out, filled{nft.Set{Table: t, Name: name, Key: key, Flags: flags}, elements})
	}
	macs := func() (list []nft.Element) {
		for _, m := range ordered(w.macs, cmp.Compare[string]) {
			if hw, err := net.ParseMAC(m); err == nil {
				list = append(list, nft.One(nft.MAC(hw), w.macs[m]))
			}
		}
		return list
	}
	var names []nft.Element
	for _, n := range ordered(w.interfaces, cmp.Compare[string]) {
		names = append(names, nft.One(nft.Interface(n), w.interfaces[n]))
	}
	add("macs", nft.Timeout, macs(), nft.EtherAddr)
	if t.Family != nft.Bridge {
		add("interfaces", nft.Timeout, names, nft.IfName)
	}
	if t.Family == nft.NetDev {
		return out
	}
	four, six := addresses.Split(w.never)
	for _, v := range []struct {
		suffix string
		four   bool
		never  []addresses.Range
		key    nft.Type
	}{{"4", true, four, nft.IPv4Addr}, {"6", false, six, nft.IPv6Addr}} {
		var never []nft.Element
		for _, r := range v.never {
			never = append(never, nft.AddrRange(r.First, r.Last, 0))
		}
		add("never"+v.suffix, nft.Interval, never, v.key)
		add("blocked"+v.suffix, nft.Interval|nft.Timeout, timedElements(w.plain, v.four), v.key)
		add("forced"+v.suffix, nft.Interval|nft.Timeout, timedElements(w.forced, v.four), v.key)
	}
	if t.Family == nft.Bridge {
		return out
	}
	add("revision", 0, []nft.Element{nft.One(nft.Host32(w.revision), 0)}, nft.Mark)
	var services, uids []nft.Element
	for _, s := range ordered(w.services, func(a, b service) int { return cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.proto, b.proto)) }) {
		services = append(services, nft.Element{Key: nft.Key(nft.Proto(s.proto), nft.Num16(s.port)), Timeout: w.services[s]})
	}
	for _, u := range ordered(w.uids, cmp.Compare[uint32]) {
		uids = append(uids, nft.One(nft.Host32(u), w.uids[u]))
	}
	add("services", nft.Timeout, services, nft.INetProto, nft.Service)
	add("users", nft.Timeout, uids, nft.UID)
	for _, level := range w.levels() {
		var groups []nft.Element
		for _, inode := range ordered(w.cgroups[level], cmp.Compare[uint64]) {
			groups = append(groups, nft.One(nft.Cgroup(w.paths[inode], inode), w.cgroups[level][inode]))
		}
		add(cgroupSet(level), nft.Timeout, groups, nft.CgroupV2)
	}
	return out
}

func (w *wanted) levels() []int {
	var out []int
	for level := range w.cgroups {
		out = append(out, level)
	}
	slices.Sort(out)
	return out
}

// A feedSet is one of the four sets of a feed.
type feedSet struct {
	nft.Set
	four, single bool
}

// sets returns those sets of a feed that are not empty. Single addresses are in
// sets without intervals: those are hash tables, several times as fast to fill.
func (f wantedFeed) sets(t nft.Table) (out []feedSet) {
	for _, s := range []struct {
		suffix       string
		four, single bool
		n            int
	}{
		{"_4", true, true, f.Singles4}, {"_nets4", true, false, f.Ranges4},
		{"_6", false, true, f.Singles6}, {"_nets6", false, false, f.Ranges6},
	} {
		if s.n == 0 {
			continue
		}
		set := nft.Set{Table: t, Name: "feed_" + f.Name + s.suffix, Key: []nft.Type{nft.IPv6Addr}}
		if s.four {
			set.Key = []nft.Type{nft.IPv4Addr}
		}
		// The set has the time-out of its first elements, which is less to send;
		// later ones have their own: see update.
		set.Flags, set.Timeout = nft.Timeout, f.left
		if s.single {
			// The kernel makes the table as large as it will be, at once. A later
			// version of the feed may have a quarter more; beyond that all
			// tables are made anew. A larger table is slower to fill.
			set.Size = uint32(s.n + s.n/4 + 1024)
		} else {
			set.Flags |= nft.Interval
		}
		out = append(out, feedSet{set, s.four, s.single})
	}
	return out
}

// fill puts the addresses of a feed into its sets.
func (f wantedFeed) fill(b *nft.Batch, t nft.Table, l *list) {
	for _, s := range f.sets(t) {
		b.AddSet(s.Set)
		fillSet(b, s, l, 0)
	}
}

func fillSet(b *nft.Batch, s feedSet, l *list, timeout time.Duration) {
	if s.single {
		b.AddAddresses(s.Set, l.singles(s.four), timeout)
		return
	}
	ranges := l.ranges(s.four)
	b.AddElements(s.Set, len(ranges), func(i int) nft.Element { return nft.AddrRange(ranges[i].First, ranges[i].Last, timeout) })
}
