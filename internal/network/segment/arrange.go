package segment

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
)

// Given is what a layout depends on beside the documents.
type Given struct {
	// Seed makes MAC addresses differ from those of other hosts, which can
	// share a zone. It stays the same for the life of the host.
	Seed []byte

	// Before is the layout that was in force, from which allocated addresses
	// are kept; nil: none was.
	Before *Layout

	// MTU returns that of an interface of this host, 0 when there is none of
	// that name. Nil: every interface has 1500.
	MTU func(device string) int
}

// Overheads of tunnels, in bytes: the headers of Ethernet, VXLAN, UDP, and IP.
const (
	defaultMTU     = 1500
	overheadVXLAN4 = 50
	overheadVXLAN6 = 70
	leastMTU       = 576
)

// Arrange makes the layout of documents that are to be in force together.
// Problems between documents, such as two zones of one name or subnets that
// overlap, are errors of kind failure.Usage.
func Arrange(docs []*Document, given Given) (*Layout, error) {
	whole, owner, err := merge(docs)
	if err != nil {
		return nil, err
	}
	l := &Layout{Internal: whole.Internal, Flows: whole.Flows}
	for i := range whole.Zones {
		z := ZoneLayout{Zone: whole.Zones[i], Document: owner["zone "+whole.Zones[i].Name], Bridge: prefix + whole.Zones[i].Name, MAC: madeMAC(given.Seed, "bridge", whole.Zones[i].Name)}
		switch {
		case z.VXLAN != nil:
			z.Uplink = fmt.Sprintf("%svx%d", prefix, z.VXLAN.ID)
		case z.VLAN != nil:
			z.Uplink = fmt.Sprintf("%svl%d", prefix, z.VLAN.ID)
		}
		if z.LinkMTU, err = z.mtu(given); err != nil {
			return nil, err
		}
		z.service()
		l.Zones = append(l.Zones, z)
	}
	a := newAllocator(l, whole, given.Before)
	devices := map[string]string{}
	for i := range whole.Workloads {
		w := whole.Workloads[i]
		p := Port{Workload: w, Document: owner["workload "+w.Name], Device: w.device(), Bridge: prefix + w.Zone, Inside: w.Attach.Inside}
		if other, taken := devices[p.Device]; taken {
			return nil, failure.Errorf(failure.Usage, "the ports of the workloads %q and %q would both be called %s: rename one of them", other, w.Name, p.Device)
		}
		devices[p.Device] = w.Name
		z := l.Zone(w.Zone)
		p.Addr = slices.Clone(w.Addresses)
		if w.Attach.Namespaced() {
			if p.MAC.IsZero() {
				p.MAC = madeMAC(given.Seed, "inside", w.Zone, w.Name)
			}
			if len(p.Addr) == 0 {
				if p.Addr, err = a.allocate(&w, z); err != nil {
					return nil, err
				}
			}
		} else if len(p.Addr) == 0 && z.DHCP != nil && !p.MAC.IsZero() {
			for _, r := range z.DHCP.Reservations {
				if r.MAC == p.MAC {
					p.Addr = slices.Clone(r.Addresses)
				}
			}
		}
		if z.DHCP != nil && !p.MAC.IsZero() && !w.Attach.Namespaced() {
			z.reserve(&p)
		}
		p.Nameservers = z.nameservers()
		l.Ports = append(l.Ports, p)
	}
	return l, nil
}

// merge puts documents together; owner says which document "zone dev" and
// "workload web" came from.
func merge(docs []*Document) (whole *Document, owner map[string]string, err error) {
	whole, owner = &Document{}, map[string]string{}
	for _, d := range docs {
		whole.Internal = append(whole.Internal, d.Internal...)
		whole.Zones = append(whole.Zones, d.Zones...)
		whole.Workloads = append(whole.Workloads, d.Workloads...)
		for _, f := range d.Flows {
			f.Document = d.Name
			whole.Flows = append(whole.Flows, f)
		}
		claim := func(what string) {
			if other, taken := owner[what]; taken && err == nil {
				err = failure.Errorf(failure.Usage, "the documents %q and %q both have the %s", other, d.Name, what)
				if strings.HasPrefix(what, "workload ") {
					err = failure.Hint(err, "name it differently: WORKLOAD=NAME")
				}
			}
			owner[what] = d.Name
		}
		for i := range d.Zones {
			claim("zone " + d.Zones[i].Name)
		}
		for i := range d.Workloads {
			claim("workload " + d.Workloads[i].Name)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	problems := &document.Error{File: "documents together"}
	check(whole, func(_ string, format string, args ...any) { problems.Add(document.Place{}, format, args...) })
	if err := problems.Result(failure.Usage); err != nil {
		return nil, nil, err
	}
	return whole, owner, nil
}

// mtu is that of the zone's bridge and ports: what it asks for, or as much as
// the transport carries.
func (z *Zone) mtu(given Given) (int, error) {
	below, overhead, device := defaultMTU, 0, ""
	switch {
	case z.VXLAN != nil:
		device, overhead = z.VXLAN.Device, overheadVXLAN4
		if z.VXLAN.Group.Is6() || len(z.VXLAN.Remotes) > 0 && z.VXLAN.Remotes[0].Is6() {
			overhead = overheadVXLAN6
		}
	case z.VLAN != nil:
		device = z.VLAN.Parent
	}
	if device != "" && given.MTU != nil {
		if n := given.MTU(device); n > 0 {
			below = n
		}
	}
	carried := below - overhead
	switch {
	case z.MTU == 0 && carried < leastMTU:
		return 0, failure.Errorf(failure.Usage, "the zone %q: %s with an MTU of %d carries no zone", z.Name, device, below)
	case z.MTU == 0:
		return carried, nil
	case device != "" && z.MTU > carried:
		return 0, failure.Errorf(failure.Usage, "the zone %q has mtu %d, but %s carries %d", z.Name, z.MTU, device, carried)
	}
	return z.MTU, nil
}

// service fills in what a zone's services have when the document says nothing.
func (z *ZoneLayout) service() {
	if z.DHCP == nil {
		return
	}
	d := *z.DHCP // the document stays as it was written
	d.Reservations = slices.Clone(d.Reservations)
	z.DHCP = &d
	for _, s := range z.Subnets {
		if !s.Gateway.IsValid() {
			continue
		}
		if s.Prefix.Addr().Is4() && !d.Range4.IsValid() {
			r := upperHalf(s.Prefix)
			if r.IsValid() && r.Last == s.Gateway {
				r.Last = r.Last.Prev()
			}
			if !r.Contains(s.Gateway) {
				d.Range4 = r
			}
		}
	}
	if z.DNS != nil && len(d.Options.Search) == 0 {
		d.Options.Search = []string{z.DNS.Domain}
	}
	d.RA = d.RA && slices.ContainsFunc(z.Subnets, func(s Subnet) bool { return s.Prefix.Addr().Is6() && s.Gateway.IsValid() })
}

// reserve keeps the addresses of a machine for it.
func (z *ZoneLayout) reserve(p *Port) {
	if len(p.Addr) == 0 || slices.ContainsFunc(z.DHCP.Reservations, func(r Reservation) bool { return r.MAC == p.MAC }) {
		return
	}
	z.DHCP.Reservations = append(z.DHCP.Reservations, Reservation{MAC: p.MAC, Addresses: p.Addr, Hostname: p.Name})
}

// nameservers are whom workloads of the zone ask: this host when it serves
// names, else nobody that mobileops knows of.
func (z *ZoneLayout) nameservers() (list []netip.Addr) {
	if z.DNS == nil {
		return nil
	}
	for _, s := range z.Subnets {
		if s.Gateway.IsValid() {
			list = append(list, s.Gateway)
		}
	}
	return list
}

// device is the name of a workload's port in this namespace. A long name is
// cut, and what makes it unique is added.
func (w *Workload) device() string {
	if w.Attach.Interface != "" {
		return w.Attach.Interface
	}
	room := maxInterface - len(portPrefix)
	if len(w.Name) <= room {
		return portPrefix + w.Name
	}
	sum := sha256.Sum256([]byte(w.Name))
	return portPrefix + w.Name[:room-5] + "-" + hex.EncodeToString(sum[:2])
}

// madeMAC is a locally administered address that is the same each time it is
// made on one host.
func madeMAC(seed []byte, parts ...string) MAC {
	h := sha256.New()
	h.Write(seed)
	for _, p := range parts {
		h.Write(append([]byte{0}, p...))
	}
	m := MAC(h.Sum(nil)[:6])
	m[0] = m[0]&^1 | 2
	return m
}

// allocator gives addresses to namespaces that have no fixed ones.
type allocator struct {
	taken map[netip.Addr]bool
	kept  map[string][]netip.Addr // "zone/workload" → what it had
}

func newAllocator(l *Layout, whole *Document, before *Layout) *allocator {
	a := &allocator{map[netip.Addr]bool{}, map[string][]netip.Addr{}}
	for i := range l.Zones {
		for _, s := range l.Zones[i].Subnets {
			a.taken[s.Gateway] = true
		}
		if d := l.Zones[i].DHCP; d != nil {
			for _, r := range d.Reservations {
				for _, addr := range r.Addresses {
					a.taken[addr] = true
				}
			}
		}
	}
	for i := range whole.Workloads {
		for _, addr := range whole.Workloads[i].Addresses {
			a.taken[addr] = true
		}
	}
	if before == nil {
		return a
	}
	for i := range before.Ports {
		p := &before.Ports[i]
		if w := whole.workload(p.Name); w == nil || w.Zone != p.Zone || len(w.Addresses) > 0 || !w.Attach.Namespaced() || len(p.Workload.Addresses) > 0 {
			continue
		}
		z := l.Zone(p.Zone)
		for _, addr := range p.Addr {
			// What it had stays its own even before its turn comes.
			if z != nil && z.holds(addr) == "" && !a.taken[addr] && !z.leases(addr) {
				a.kept[p.Zone+"/"+p.Name] = append(a.kept[p.Zone+"/"+p.Name], addr)
				a.taken[addr] = true
			}
		}
	}
	return a
}

func (d *Document) workload(name string) *Workload {
	for i := range d.Workloads {
		if d.Workloads[i].Name == name {
			return &d.Workloads[i]
		}
	}
	return nil
}

// leases reports whether DHCP can give the address to anybody.
func (z *ZoneLayout) leases(a netip.Addr) bool {
	return z.DHCP != nil && (z.DHCP.Range4.Contains(a) || z.DHCP.Range6.Contains(a))
}

// allocate returns an address in one subnet of each family.
func (a *allocator) allocate(w *Workload, z *ZoneLayout) (list []netip.Addr, err error) {
	kept := a.kept[w.Zone+"/"+w.Name]
	for _, family4 := range []bool{true, false} {
		wanted := false
		var found netip.Addr
		for _, s := range z.Subnets {
			if s.Prefix.Addr().Is4() != family4 || found.IsValid() {
				continue
			}
			wanted = true
			if i := slices.IndexFunc(kept, s.Prefix.Contains); i >= 0 {
				found = kept[i]
				continue
			}
			found = a.first(s.Prefix, z)
		}
		if found.IsValid() {
			list = append(list, found)
		} else if wanted {
			return nil, failure.Errorf(failure.Usage, "the zone %q has no address left for the workload %q", z.Name, w.Name)
		}
	}
	return list, nil
}

// first returns the first address of a network that nobody has.
func (a *allocator) first(p netip.Prefix, z *ZoneLayout) netip.Addr {
	for addr := firstUsable(p); usable(p, addr); addr = addr.Next() {
		if z.leases(addr) {
			r := z.DHCP.Range4
			if addr.Is6() {
				r = z.DHCP.Range6
			}
			addr = r.Last // as large as half the network
			continue
		}
		if !a.taken[addr] {
			a.taken[addr] = true
			return addr
		}
	}
	return netip.Addr{}
}
