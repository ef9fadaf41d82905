package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	vnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// made plans that an interface is ours from now on. The record says so before
// it exists.
func (p *planner) made(l *link, name, kind string, mac MAC) {
	index := 0
	if l != nil {
		index = l.index
	} else {
		p.kinds = append(p.kinds, kind)
	}
	p.next.Links = append(p.next.Links, madeLink{name, kind, mac, index})
}

// bridge plans the bridge of a zone.
func (p *planner) bridge(z *ZoneLayout) error {
	l, err := p.ours(z.Bridge, fmt.Sprintf("the bridge of the zone %q", z.Name))
	if err != nil {
		return err
	}
	name, fresh := z.Bridge, l == nil
	mac := madeMAC(p.seed, "bridge", z.Name)
	p.made(l, name, "bridge", mac)
	if fresh {
		l = &link{name: name, mtu: 0, bridge: bridgeOptions{snooping: true, groupMACs: true}}
		p.add(false, '+', fmt.Sprintf("bridge %s for the zone %s, mtu %d", name, z.Name, z.LinkMTU), func() error {
			// The kernel remembers that a bridge has been given its mtu only when
			// that changes it; otherwise ports change it as they come.
			return errors.Join(vnl.LinkAdd(&vnl.Bridge{LinkAttrs: attrs(name, mac, 0)}),
				onLink(name, func(l vnl.Link) error { return vnl.LinkSetMTU(l, defaultMTU+1) }))
		})
	}
	p.identity(l, fresh, alias("zone="+z.Name, "document="+z.Document))
	if err := p.sysctls(name, fresh, z.sysctls(p.leaves(z))); err != nil {
		return err
	}
	// Snooping is off: without a querier of multicast in the zone, a bridge
	// that snoops forgets who listens, and with that cuts off the neighbours
	// of IPv6. Frames to the groups of bridges (01:80:c2:00:00:0x) come past all
	// rules: by one to that of LLDP a port would get the address of another one.
	want := bridgeOptions{}
	if z.STP {
		want.stp = 1
	}
	have := l.bridge
	if z.STP && have.stp == 2 {
		have.stp = 1 // a program speaks for the kernel
	}
	if have != want {
		p.add(fresh, '~', fmt.Sprintf("options of the bridge %s: %s -> %s", name, have, want), func() error { return setBridge(name, have, want) })
	}
	p.mtu(l, fresh, z.LinkMTU)
	for _, s := range z.Subnets {
		if !s.Gateway.IsValid() {
			continue
		}
		addr := netip.PrefixFrom(s.Gateway, s.Prefix.Bits())
		p.next.Addresses = append(p.next.Addresses, madeAddress{name, addr})
		if fresh || !p.host.has(l.index, addr) {
			p.add(false, '+', fmt.Sprintf("address %s on %s", addr, name), func() error { return changeAddress(vnl.AddrReplace, name, addr) })
		}
	}
	p.up(l, fresh)
	return nil
}

func (o bridgeOptions) String() string {
	return fmt.Sprintf("stp %d, vlan_filtering %v, mcast_snooping %v, group_fwd_mask %#x, linklocal_learn %v", o.stp, o.filtering, o.snooping, o.groupFwd, o.groupMACs)
}

// sysctls are the switches of a zone's bridge. It is no host of the zone beside
// its gateway addresses: it learns nothing from advertisements and redirects,
// answers ARP for its own address alone, and forwards only when the zone leaves
// this host or goes to another one.
func (z *ZoneLayout) sysctls(leaves bool) []sysctl {
	name, v4, v6 := z.Bridge, "0", "0"
	no6 := "1"
	for _, s := range z.Subnets {
		switch {
		case !s.Gateway.IsValid():
		case s.Prefix.Addr().Is4() && leaves:
			v4 = "1"
		case s.Prefix.Addr().Is6():
			no6 = "0"
			if leaves {
				v6 = "1"
			}
		}
	}
	list := []sysctl{
		{"ipv6/conf/" + name + "/accept_ra", "0"},
		{"ipv6/conf/" + name + "/autoconf", "0"},
		{"ipv6/conf/" + name + "/accept_redirects", "0"},
		{"ipv6/conf/" + name + "/disable_ipv6", no6},
		{"ipv4/conf/" + name + "/accept_redirects", "0"},
		{"ipv4/conf/" + name + "/send_redirects", "0"},
		{"ipv4/conf/" + name + "/accept_source_route", "0"},
		{"ipv4/conf/" + name + "/proxy_arp", "0"},
		{"ipv4/conf/" + name + "/rp_filter", "1"},
		{"ipv4/conf/" + name + "/arp_ignore", "1"},
		{"ipv4/conf/" + name + "/arp_announce", "2"},
		{"ipv4/conf/" + name + "/forwarding", v4},
	}
	if no6 == "0" {
		list = append(list, sysctl{"ipv6/conf/" + name + "/forwarding", v6}, sysctl{"ipv6/conf/" + name + "/force_forwarding", v6})
	}
	return list
}

// uplink plans the port that carries a zone to other hosts.
func (p *planner) uplink(z *ZoneLayout) error {
	if z.Uplink == "" {
		return nil
	}
	l, err := p.ours(z.Uplink, fmt.Sprintf("the uplink of the zone %q", z.Name))
	if err != nil {
		return err
	}
	name, fresh := z.Uplink, l == nil
	mac := madeMAC(p.seed, "uplink", z.Name)
	device, kind, text := "", "vxlan", ""
	if z.VLAN != nil {
		device, kind = z.VLAN.Parent, "vlan"
		text = fmt.Sprintf("VLAN %d on %s as %s", z.VLAN.ID, device, name)
	} else {
		device = z.VXLAN.Device
		text = fmt.Sprintf("VXLAN %d as %s, UDP port %d", z.VXLAN.ID, name, z.VXLAN.Port)
	}
	parent := 0
	if device != "" {
		below := p.host.byName[device]
		if below == nil { // at boot it may come later
			p.absent(z.Document, "the uplink of the zone %s: the interface %s: %v", z.Name, device, errAbsent)
			p.kinds = append(p.kinds, kind)
			return nil
		}
		parent = below.index
	}
	p.made(l, name, kind, mac)
	if fresh {
		l = &link{name: name}
		p.add(false, '+', text, func() error { return vnl.LinkAdd(z.tunnel(attrs(name, mac, parent))) })
	}
	p.identity(l, fresh, alias("zone="+z.Name, "uplink"))
	if err := p.sysctls(name, fresh, []sysctl{{"ipv6/conf/" + name + "/disable_ipv6", "1"}}); err != nil {
		return err
	}
	p.mtu(l, fresh, z.LinkMTU)
	if z.VXLAN != nil {
		p.remotes(l, fresh, z.VXLAN.Remotes)
	}
	p.member(l, fresh, z.Bridge, portOptions{learning: true})
	p.up(l, fresh)
	return nil
}

// tunnel is what the kernel is asked to make.
func (z *ZoneLayout) tunnel(a vnl.LinkAttrs) vnl.Link {
	if z.VLAN != nil {
		return &vnl.Vlan{LinkAttrs: a, VlanId: int(z.VLAN.ID)}
	}
	x := &vnl.Vxlan{LinkAttrs: a, VxlanId: int(z.VXLAN.ID), Port: int(z.VXLAN.Port), Learning: true, VtepDevIndex: a.ParentIndex,
		Group: z.VXLAN.Group.AsSlice(), SrcAddr: z.VXLAN.Local.AsSlice()}
	x.ParentIndex = 0
	if !z.VXLAN.Group.IsValid() && !z.VXLAN.Local.IsValid() && z.VXLAN.Remotes[0].Is6() {
		x.SrcAddr = net.IPv6zero // says the family
	}
	return x
}

// remotes plans the entries by which what is for everybody goes to each of the
// other hosts.
func (p *planner) remotes(l *link, fresh bool, want []netip.Addr) {
	var have []netip.Addr
	for _, f := range p.host.fdb {
		if !fresh && f.index == l.index && f.mac.IsZero() && !f.to.IsMulticast() {
			have = append(have, f.to)
		}
	}
	name := l.name
	for _, a := range have {
		if !slices.Contains(want, a) {
			p.add(false, '-', fmt.Sprintf("remote %s of %s", a, name), func() error { return changeRemote(vnl.NeighDel, name, a) })
		}
	}
	for _, a := range want {
		if !slices.Contains(have, a) {
			p.add(false, '+', fmt.Sprintf("remote %s of %s", a, name), func() error { return changeRemote(vnl.NeighAppend, name, a) })
		}
	}
}

// identity plans the alias.
func (p *planner) identity(l *link, fresh bool, want string) {
	if name := l.name; fresh || l.alias != want {
		p.add(fresh, '~', fmt.Sprintf("alias of %s: %q -> %q", name, l.alias, want), func() error {
			return onLink(name, func(v vnl.Link) error { return vnl.LinkSetAlias(v, want) })
		})
	}
}

func (p *planner) mtu(l *link, fresh bool, want int) {
	if name := l.name; fresh || l.mtu != want {
		p.add(fresh, '~', fmt.Sprintf("mtu of %s: %d -> %d", name, l.mtu, want), func() error {
			return onLink(name, func(v vnl.Link) error { return vnl.LinkSetMTU(v, want) })
		})
	}
}

func (p *planner) up(l *link, fresh bool) {
	if name := l.name; fresh || !l.up {
		p.add(fresh, '~', name+" up", func() error { return onLink(name, vnl.LinkSetUp) })
	}
}

// sysctls plans switches of an interface of ours. Those that the kernel does
// not have are left out.
func (p *planner) sysctls(name string, fresh bool, want []sysctl) error {
	for _, s := range want {
		have := ""
		if !fresh {
			var err error
			if have, err = readSysctl(s.path); err != nil {
				return fmt.Errorf("look at a switch of %s: %w", name, err)
			}
			if have == "" || have == s.value {
				continue
			}
		}
		p.add(fresh, '~', fmt.Sprintf("net/%s: %s -> %s", s.path, have, s.value), func() error { return setSysctl(s) })
	}
	return nil
}

// setSysctl writes a switch that differs, and passes over one that the kernel
// does not have.
func setSysctl(s sysctl) error {
	have, err := readSysctl(s.path)
	if err != nil || have == "" || have == s.value {
		return err
	}
	return writeSysctl(s.path, s.value)
}

// member plans that an interface is a port of a bridge, with its options. It
// is in the bridge, and its options are set, before it is up.
func (p *planner) member(l *link, fresh bool, bridge string, want portOptions) {
	name := l.name
	master := p.existing(bridge)
	joins := fresh || l.port == nil || master == nil || l.master != master.index
	if joins {
		p.add(fresh, '+', fmt.Sprintf("%s as a port of %s", name, bridge), func() error {
			return onLink(name, func(v vnl.Link) error {
				return onLink(bridge, func(b vnl.Link) error { return vnl.LinkSetMasterByIndex(v, b.Attrs().Index) })
			})
		})
	}
	have := portOptions{learning: true} // of a port that has just come
	if !joins {
		have = *l.port
	}
	if have != want {
		p.add(joins, '~', fmt.Sprintf("options of the port %s: %s -> %s", name, have, want), func() error { return setPort(name, have, want) })
	}
}

func (o portOptions) String() string {
	return fmt.Sprintf("isolated %v, hairpin %v, learning %v, guard %v", o.isolated, o.hairpin, o.learning, o.guard)
}

func attrs(name string, mac MAC, parent int) vnl.LinkAttrs {
	a := vnl.NewLinkAttrs()
	a.Name, a.ParentIndex = name, parent
	a.HardwareAddr = net.HardwareAddr(mac[:])
	return a
}

// onLink calls f with an interface as it is now.
func onLink(name string, f func(vnl.Link) error) error {
	l, err := vnl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	return f(l)
}

// changeAddress calls f with an address. Nobody else has it, so IPv6 need not
// look whether somebody does.
func changeAddress(f func(vnl.Link, *vnl.Addr) error, device string, p netip.Prefix) error {
	return onLink(device, func(l vnl.Link) error {
		a := &vnl.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		return f(l, a)
	})
}

// removeAddresses takes addresses off an interface; one that went by itself is
// gone, too.
func removeAddresses(device string, list []netip.Prefix) error {
	return onLink(device, func(l vnl.Link) error {
		for _, p := range list {
			if err := vnl.AddrDel(l, &vnl.Addr{IPNet: ipNet(p)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return err
			}
		}
		return nil
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func changeRemote(f func(*vnl.Neigh) error, device string, to netip.Addr) error {
	return onLink(device, func(l vnl.Link) error {
		return f(&vnl.Neigh{LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, State: vnl.NUD_PERMANENT | vnl.NUD_NOARP, Flags: vnl.NTF_SELF,
			IP: to.AsSlice(), HardwareAddr: make(net.HardwareAddr, 6)})
	})
}

// setBridge sets those options of a bridge that differ, in one request: a
// kernel can lack one of them altogether.
func setBridge(name string, have, want bridgeOptions) error {
	return onLink(name, func(l vnl.Link) error {
		req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(l.Attrs().Index)
		req.AddData(msg)
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
		data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
		for _, o := range []struct {
			differs bool
			typ     int
			value   []byte
		}{
			{have.stp != want.stp, brSTP, nl.Uint32Attr(want.stp)},
			{have.filtering != want.filtering, brFiltering, bit(want.filtering)},
			{have.snooping != want.snooping, brSnooping, bit(want.snooping)},
			{have.groupFwd != want.groupFwd, brGroupFwd, binary.NativeEndian.AppendUint16(nil, want.groupFwd)},
			{have.groupMACs != want.groupMACs, brOptions, groupMACs(want.groupMACs)},
		} {
			if o.differs {
				data.AddRtAttr(o.typ, o.value)
			}
		}
		req.AddData(info)
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

// groupMACs is the value of brOptions.
func groupMACs(on bool) []byte {
	var bits uint32 = brNoGroupMACs
	if on {
		bits = 0
	}
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, bits), brNoGroupMACs)
}

// setPort sets those options of a port that differ.
func setPort(name string, have, want portOptions) error {
	return onLink(name, func(l vnl.Link) error {
		for _, o := range []struct {
			have, want bool
			set        func(vnl.Link, bool) error
		}{
			{have.isolated, want.isolated, vnl.LinkSetIsolated}, {have.hairpin, want.hairpin, vnl.LinkSetHairpin},
			{have.learning, want.learning, vnl.LinkSetLearning}, {have.guard, want.guard, vnl.LinkSetGuard},
		} {
			if o.have != o.want {
				if err := o.set(l, o.want); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func bit(on bool) []byte {
	if on {
		return []byte{1}
	}
	return []byte{0}
}
