package segment

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/mobileops/mobileops/internal/document"
)

// report says that something is wrong: where is "zone dev dhcp", "workload
// web", "flow 3".
type report func(where string, format string, args ...any)

func flowPlace(i int) string { return "flow " + strconv.Itoa(i) }

// check looks at how the parts of a document go together.
func check(d *Document, say report) {
	checkZones(d, say)
	checkWorkloads(d, say)
	checkFlows(d, say)
}

func checkZones(d *Document, say report) {
	type subnet struct {
		netip.Prefix
		zone string
	}
	var all []subnet
	vxlans, vlans := map[string]string{}, map[string]string{}
	for i := range d.Zones {
		z := &d.Zones[i]
		where := "zone " + z.Name
		if z.VXLAN != nil && z.VLAN != nil {
			say(where+" vlan", "the zone %q is carried by vxlan and by vlan: one of them", z.Name)
		}
		if x := z.VXLAN; x != nil {
			checkVXLAN(z, say)
			id := fmt.Sprint(x.ID)
			if other, taken := vxlans[id]; taken {
				say(where+" vxlan", "the zones %q and %q have the same id of VXLAN, %s", other, z.Name, id)
			}
			vxlans[id] = z.Name
		}
		if v := z.VLAN; v != nil {
			if v.ID == 0 || v.Parent == "" {
				say(where+" vlan", "vlan needs id and parent")
			}
			id := fmt.Sprint(v.ID)
			if other, taken := vlans[id]; taken {
				say(where+" vlan", "the zones %q and %q have the same id of VLAN, %s", other, z.Name, id)
			}
			vlans[id] = z.Name
		}
		for _, s := range z.Subnets {
			checkPrefix(where, s.Prefix, say)
			for _, o := range all {
				if o.Overlaps(s.Prefix) {
					say(where+" subnets", "the subnet %s of the zone %q overlaps with %s of the zone %q", s.Prefix, z.Name, o.Prefix, o.zone)
				}
			}
			all = append(all, subnet{s.Prefix, z.Name})
			if s.Prefix.Addr().Is6() && z.MTU != 0 && z.MTU < 1280 {
				say(where+" mtu", "IPv6 needs an mtu of 1280 or more")
			}
		}
		gateway := slices.ContainsFunc(z.Subnets, func(s Subnet) bool { return s.Gateway.IsValid() })
		for _, need := range []struct {
			set       bool
			key, does string
		}{
			{z.NAT != nil, "nat", "nat"}, {z.Egress.Mode != EgressNone && z.Egress.Mode != "", "egress", "egress"},
			{z.DHCP != nil, "dhcp", "dhcp"}, {z.DNS != nil, "dns", "dns"},
		} {
			if need.set && !gateway {
				say(where+" "+need.key, "%s of the zone %q needs a subnet in which this host is the gateway", need.does, z.Name)
			}
		}
		if z.DHCP != nil {
			checkDHCP(z, say)
		}
	}
}

// checkPrefix refuses networks that no zone can have.
func checkPrefix(where string, p netip.Prefix, say report) {
	a := p.Addr()
	switch {
	case p.Bits() == 0 || a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() ||
		a.Is4() && (a.As4()[0] == 0 || a.As4()[0] == 127 || a.As4()[0] >= 224):
		say(where+" subnets", "%s is no network that a zone can have", p)
	case a.Is4() && p.Bits() > 30, a.Is6() && p.Bits() > 126:
		say(where+" subnets", "%s is too small: the gateway and a workload need an address", p)
	case a.Is4() && p.Bits() < 8, a.Is6() && p.Bits() < 32:
		say(where+" subnets", "%s is larger than any zone", p)
	}
}

func checkVXLAN(z *Zone, say report) {
	x, where := z.VXLAN, "zone "+z.Name+" vxlan"
	group := x.Group.IsValid()
	switch {
	case x.ID == 0:
		say(where, "vxlan needs an id")
	case group == (len(x.Remotes) > 0):
		say(where, "vxlan needs remotes, the addresses of the other hosts, or a multicast group")
	case group && x.Device == "":
		say(where, "a multicast group needs the device below it")
	}
	seen := map[netip.Addr]bool{}
	for _, a := range append([]netip.Addr{x.Local}, x.Remotes...) {
		if !a.IsValid() {
			continue
		}
		other := x.Group
		if !group {
			other = x.Remotes[0]
		}
		if a.IsMulticast() || a.IsUnspecified() || a.Is4() != other.Is4() || seen[a] {
			say(where, "%s: local and remotes are addresses of single hosts, of one family, each once", a)
		}
		seen[a] = true
	}
}

func checkDHCP(z *Zone, say report) {
	where := "zone " + z.Name + " dhcp"
	for _, r := range []Range{z.DHCP.Range4, z.DHCP.Range6} {
		if !r.IsValid() {
			continue
		}
		i := slices.IndexFunc(z.Subnets, func(s Subnet) bool { return s.Prefix.Contains(r.First) })
		switch {
		case i < 0 || !z.Subnets[i].Gateway.IsValid():
			say(where, "the range %s is in no subnet of the zone %q in which this host is the gateway", r, z.Name)
		case !usable(z.Subnets[i].Prefix, r.First) || !usable(z.Subnets[i].Prefix, r.Last):
			say(where, "the range %s goes beyond the subnet %s", r, z.Subnets[i].Prefix)
		case r.Contains(z.Subnets[i].Gateway):
			say(where, "the range %s has the gateway %s in it", r, z.Subnets[i].Gateway)
		}
	}
	macs, addrs := map[MAC]bool{}, map[netip.Addr]bool{}
	for _, r := range z.DHCP.Reservations {
		if macs[r.MAC] {
			say("zone "+z.Name+" reservations", "%s has two reservations", r.MAC)
		}
		macs[r.MAC] = true
		families := map[bool]bool{}
		for _, a := range r.Addresses {
			if problem := z.holds(a); problem != "" {
				say("zone "+z.Name+" reservations", "the reservation of %s: %s", r.MAC, problem)
			}
			if addrs[a] || families[a.Is4()] {
				say("zone "+z.Name+" reservations", "%s is reserved twice, or %s has two addresses of one family", a, r.MAC)
			}
			addrs[a], families[a.Is4()] = true, true
		}
	}
}

// holds says why a workload of the zone cannot have an address, "" when it can.
func (z *Zone) holds(a netip.Addr) string {
	for _, s := range z.Subnets {
		switch {
		case !s.Prefix.Contains(a):
		case s.Gateway == a:
			return fmt.Sprintf("%s is the gateway of the zone %q", a, z.Name)
		case !usable(s.Prefix, a):
			return fmt.Sprintf("%s is the address of the network %s itself, or its broadcast address", a, s.Prefix)
		default:
			return ""
		}
	}
	return fmt.Sprintf("%s is in no subnet of the zone %q", a, z.Name)
}

func checkWorkloads(d *Document, say report) {
	zones := map[string]*Zone{}
	var names []string
	for i := range d.Zones {
		zones[d.Zones[i].Name] = &d.Zones[i]
		names = append(names, d.Zones[i].Name)
	}
	ports := map[string]int{}
	addrs, macs, ends := map[netip.Addr]string{}, map[string]string{}, map[string]string{}
	taken := func(where, what, by string, in map[string]string) {
		if other, ok := in[what]; ok {
			say(where, "the workloads %q and %q have the same %s", other, by, what)
		}
		in[what] = by
	}
	for i := range d.Workloads {
		w := &d.Workloads[i]
		where := "workload " + w.Name
		z := zones[w.Zone]
		if z == nil {
			if w.Zone == "" {
				say(where, "the workload %q does not say its zone", w.Name)
			} else {
				say(where+" zone", "no zone %q%s", w.Zone, document.DidYouMean(w.Zone, names))
			}
			continue
		}
		if ports[z.Name]++; ports[z.Name] == maxPortsOfZone+1 {
			say(where, "the zone %q has more than %d workloads", z.Name, maxPortsOfZone)
		}
		families := map[bool]bool{}
		for _, a := range w.Addresses {
			if problem := z.holds(a); problem != "" {
				say(where+" addresses", "the workload %q: %s", w.Name, problem)
			}
			if families[a.Is4()] {
				say(where+" addresses", "the workload %q has two addresses of one family", w.Name)
			}
			families[a.Is4()] = true
			if other, ok := addrs[a]; ok {
				say(where+" addresses", "the workloads %q and %q have the same address %s", other, w.Name, a)
			}
			addrs[a] = w.Name
		}
		if !w.MAC.IsZero() {
			taken(where+" mac", "MAC address "+w.MAC.String()+" in the zone "+z.Name, w.Name, macs)
		}
		checkAttach(w, where, say, func(key, what string) { taken(where+" "+key, what, w.Name, ends) })
		if z.DHCP != nil {
			checkReserved(w, z, where, say)
		}
	}
}

// checkReserved holds the addresses of a workload against those that DHCP
// gives to others.
func checkReserved(w *Workload, z *Zone, where string, say report) {
	for _, r := range z.DHCP.Reservations {
		same := !w.MAC.IsZero() && r.MAC == w.MAC
		for _, a := range w.Addresses {
			others := slices.Contains(r.Addresses, a) && !same
			another := same && slices.ContainsFunc(r.Addresses, func(o netip.Addr) bool { return o != a && o.Is4() == a.Is4() })
			if others || another {
				say(where+" addresses", "the workload %q has %s, but the reservation of %s says something else", w.Name, a, r.MAC)
			}
		}
	}
	if w.Attach.Namespaced() || !w.MAC.IsZero() {
		return
	}
	for _, a := range w.Addresses {
		if z.DHCP.Range4.Contains(a) || z.DHCP.Range6.Contains(a) {
			say(where+" addresses", "the workload %q has %s, which DHCP gives to whoever asks: say its mac, and it is kept for it", w.Name, a)
		}
	}
}

func checkAttach(w *Workload, where string, say report, taken func(key, what string)) {
	a := &w.Attach
	switch {
	case a.Interface != "":
		taken("interface", "interface "+a.Interface)
		if len(a.Interface) >= len(prefix) && a.Interface[:len(prefix)] == prefix {
			say(where+" interface", "interfaces that begin with %s are made by mobileops: name one of your own", prefix)
		}
	case a.Namespace != "":
		taken("namespace", "interface "+a.Inside+" in the namespace "+a.Namespace)
	case a.PID != 0:
		taken("pid", fmt.Sprintf("interface %s in the namespace of the process %d", a.Inside, a.PID))
	case a.Container != "":
		taken("container", "interface "+a.Inside+" in the container "+a.Container)
	}
	if a.Inside != "" && !a.Namespaced() {
		say(where+" inside", "inside is for workloads in a namespace; the workload %q has no interface there", w.Name)
	}
	if a.Owner != "" && !a.Tap {
		say(where+" owner", "owner is for a tap; the workload %q has none", w.Name)
	}
}

func checkFlows(d *Document, say report) {
	zones, workloads := []string{}, []string{}
	isolated := map[string]bool{}
	for i := range d.Zones {
		zones = append(zones, d.Zones[i].Name)
		isolated[d.Zones[i].Name] = d.Zones[i].IsolatePorts
	}
	for i := range d.Workloads {
		workloads = append(workloads, d.Workloads[i].Name)
	}
	for i := range d.Flows {
		f, where := &d.Flows[i], flowPlace(i)
		for _, e := range []*Endpoint{&f.From, &f.To} {
			if e.Zone != "" && !slices.Contains(zones, e.Zone) {
				say(where, "no zone %q%s", e.Zone, document.DidYouMean(e.Zone, zones))
			}
			if e.Workload != "" && !slices.Contains(workloads, e.Workload) {
				say(where, "no workload %q%s", e.Workload, document.DidYouMean(e.Workload, workloads))
			}
		}
		if !f.From.Selector() && !f.To.Selector() {
			say(where, "a flow has workloads on one side at least: this one goes from %s to %s", f.From, f.To)
		}
		if z, a, b := contradiction(d, f, isolated); z != "" {
			say(where, "the flow from %q to %q can never pass: the zone %q has isolate_ports", a, b, z)
		}
	}
}

// contradiction finds two workloads of one zone with isolated ports between
// which a flow would pass.
func contradiction(d *Document, f *Flow, isolated map[string]bool) (zone, from, to string) {
	if f.From.Whole() && f.To.Whole() && f.From.Zone == f.To.Zone && isolated[f.From.Zone] {
		return f.From.Zone, f.From.String(), f.To.String()
	}
	senders := map[string][]string{} // zone → up to two workloads
	for i := range d.Workloads {
		if w := &d.Workloads[i]; isolated[w.Zone] && f.From.Selects(w) && len(senders[w.Zone]) < 2 {
			senders[w.Zone] = append(senders[w.Zone], w.Name)
		}
	}
	for i := range d.Workloads {
		w := &d.Workloads[i]
		if !f.To.Selects(w) {
			continue
		}
		for _, s := range senders[w.Zone] {
			if s != w.Name {
				return w.Zone, s, w.Name
			}
		}
	}
	return "", "", ""
}
