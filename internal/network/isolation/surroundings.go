package isolation

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// Interface is a network interface as far as isolation cares.
type Interface struct {
	Index    int32  `json:"index"`
	Name     string `json:"name"`
	Ethernet bool   `json:"ethernet"` // frames have an Ethernet header
	Tagged   bool   `json:"tagged,omitempty"`
	// Dynamic interfaces have an address that runs out.
	Dynamic4 bool   `json:"dhcp,omitempty"`
	Dynamic6 bool   `json:"dhcpv6,omitempty"`
	Kind     string `json:"kind,omitempty"` // "veth", "bridge", …; "" for hardware
	loopback bool
	// parent is the interface of this host that this one is on, and master the
	// one that it is a port of; 0: none.
	parent, master uint32
	// serves is whether frames for other MAC addresses are for this host, too:
	// a bridge or bond has it as a port, or a macvlan of this host is on it.
	serves bool
}

// surroundings are the interfaces of this host, its addresses (not those of
// loopback), the gateways that it sends by and, of these, the routers that
// advertised themselves, at one moment.
type surroundings struct {
	Remembered
	interfaces []Interface
	vrf        bool // addresses of this host are in several routing tables
}

// look reads the surroundings.
func look() (*surroundings, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s := new(surroundings)
	for _, part := range []struct {
		what string
		typ  uint16
		body []byte
		head int
		take func(head []byte, attrs []netlink.Attr)
	}{
		{"interfaces", unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), unix.SizeofIfInfomsg, s.link},
		{"addresses", unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), unix.SizeofIfAddrmsg, s.address},
		{"routes", unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg), unix.SizeofRtMsg, s.route},
	} {
		list, err := c.Dump(part.typ, part.body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.what, err)
		}
		for _, m := range list {
			head, attrs, err := netlink.After(m, part.head)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", part.what, err)
			}
			part.take(head, attrs)
		}
	}
	s.nextHopObjects(c)
	for _, child := range s.interfaces {
		for i := range s.interfaces {
			if on := &s.interfaces[i]; uint32(on.Index) == child.parent {
				on.Tagged = on.Tagged || child.Kind == "vlan"
				on.serves = on.serves || child.Kind == "macvlan" || child.Kind == "macvtap" || child.Kind == "vlan"
			}
		}
	}
	for _, i := range s.interfaces {
		if i.Dynamic4 {
			s.Dynamic4 = append(s.Dynamic4, s.carriers(i)...)
		}
		if i.Dynamic6 {
			s.Dynamic6 = append(s.Dynamic6, s.carriers(i)...)
		}
	}
	s.tidy()
	return s, nil
}

// carriers are the names of an interface and of those that its frames go by: the
// ports of a bridge or bond, and what a VLAN or macvlan is on.
func (s *surroundings) carriers(top Interface) []string {
	names, found := []string{top.Name}, []Interface{top}
	for len(found) > 0 {
		above := found[0]
		found = found[1:]
		for _, i := range s.interfaces {
			if (uint32(above.Index) == i.master || above.parent == uint32(i.Index) && above.Kind != "veth") && !slices.Contains(names, i.Name) {
				names, found = append(names, i.Name), append(found, i)
			}
		}
	}
	return names
}

// add takes up what is known from before.
func (s *surroundings) add(r Remembered) {
	s.Own, s.Gateways, s.Routers = append(s.Own, r.Own...), append(s.Gateways, r.Gateways...), append(s.Routers, r.Routers...)
	s.Dynamic4, s.Dynamic6 = append(s.Dynamic4, r.Dynamic4...), append(s.Dynamic6, r.Dynamic6...)
	s.tidy()
}

// tidy sorts, and names everything once.
func (s *surroundings) tidy() {
	for _, list := range []*[]netip.Addr{&s.Own, &s.Gateways, &s.Routers} {
		slices.SortFunc(*list, netip.Addr.Compare)
		*list = slices.Compact(*list)
	}
	for _, list := range []*[]string{&s.Dynamic4, &s.Dynamic6} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
}

// link takes up what struct ifinfomsg and its attributes say.
func (s *surroundings) link(head []byte, attrs []netlink.Attr) {
	i := Interface{
		Index:    int32(binary.NativeEndian.Uint32(head[4:])),
		Ethernet: binary.NativeEndian.Uint16(head[2:]) == unix.ARPHRD_ETHER,
		loopback: binary.NativeEndian.Uint32(head[8:])&unix.IFF_LOOPBACK != 0,
	}
	elsewhere := false
	for _, a := range attrs {
		switch a.Type {
		case unix.IFLA_IFNAME:
			i.Name = a.Text()
		case unix.IFLA_LINK:
			i.parent = a.Uint32()
		case unix.IFLA_LINK_NETNSID:
			elsewhere = true
		case unix.IFLA_MASTER:
			i.serves, i.master = true, a.Uint32()
		case unix.IFLA_LINKINFO:
			info, _ := netlink.Attributes(a.Value)
			for _, k := range info {
				if k.Type == unix.IFLA_INFO_KIND {
					i.Kind = k.Text()
				}
			}
		}
	}
	if elsewhere { // the number is one of another network namespace
		i.parent = 0
	}
	s.vrf = s.vrf || i.Kind == "vrf"
	if i.Name != "" {
		s.interfaces = append(s.interfaces, i)
	}
}

// address takes up what struct ifaddrmsg and its attributes say.
func (s *surroundings) address(head []byte, attrs []netlink.Attr) {
	flags, index := uint32(head[2]), int32(binary.NativeEndian.Uint32(head[4:]))
	var addr, local netip.Addr
	for _, a := range attrs {
		switch a.Type {
		case unix.IFA_ADDRESS:
			addr, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_FLAGS:
			flags = a.Uint32()
		}
	}
	if local.IsValid() {
		addr = local // the other is the peer's, on a point-to-point link
	}
	if !addr.IsValid() || addr.IsLoopback() {
		return
	}
	s.Own = append(s.Own, addr)
	if flags&unix.IFA_F_PERMANENT != 0 {
		return
	}
	for i := range s.interfaces {
		if s.interfaces[i].Index == index {
			s.interfaces[i].Dynamic4 = s.interfaces[i].Dynamic4 || addr.Is4()
			s.interfaces[i].Dynamic6 = s.interfaces[i].Dynamic6 || addr.Is6()
		}
	}
}

// route takes up what struct rtmsg and its attributes say of gateways.
func (s *surroundings) route(head []byte, attrs []netlink.Attr) {
	protocol, typ := head[5], head[7]
	if typ != unix.RTN_UNICAST {
		return
	}
	s.nextHops(protocol, attrs)
	for _, a := range attrs {
		if a.Type != unix.RTA_MULTIPATH {
			continue
		}
		for b := a.Value; len(b) >= unix.SizeofRtNexthop; { // struct rtnexthop
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtNexthop || size > len(b) {
				break
			}
			hop, _ := netlink.Attributes(b[unix.SizeofRtNexthop:size])
			s.nextHops(protocol, hop)
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// nextHopObjects takes up the gateways of routes that name one by its number: with
// net.ipv4.nexthop_compat_mode at 0, such a route does not tell. The kernel has
// them since Linux 5.3.
func (s *surroundings) nextHopObjects(c *netlink.Conn) {
	list, err := c.Dump(unix.RTM_GETNEXTHOP, make([]byte, unix.SizeofNhmsg))
	if err != nil {
		return
	}
	for _, m := range list {
		head, attrs, err := netlink.After(m, unix.SizeofNhmsg)
		if err != nil {
			return
		}
		for i := range attrs {
			if attrs[i].Type == unix.NHA_GATEWAY {
				attrs[i].Type = unix.RTA_GATEWAY
				s.nextHops(head[2], attrs[i:i+1])
			}
		}
	}
}

func (s *surroundings) nextHops(protocol uint8, attrs []netlink.Attr) {
	for _, a := range attrs {
		b := a.Value
		switch a.Type {
		case unix.RTA_GATEWAY:
		case unix.RTA_VIA: // a gateway of another family: struct rtvia
			if len(b) < 2 {
				continue
			}
			b = b[2:]
		default:
			continue
		}
		gateway, ok := netip.AddrFromSlice(b)
		if !ok {
			continue
		}
		s.Gateways = append(s.Gateways, gateway)
		if protocol == unix.RTPROT_RA {
			s.Routers = append(s.Routers, gateway)
		}
	}
}

// sealed are the interfaces that get chains of their own: all but loopback.
func (s *surroundings) sealed() (list []Interface) {
	for _, i := range s.interfaces {
		if !i.loopback {
			list = append(list, i)
		}
	}
	return list
}
