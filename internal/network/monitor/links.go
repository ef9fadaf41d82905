package monitor

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// Interface is a network interface.
type Interface struct {
	Index       uint32    `json:"index"`
	Name        string    `json:"name"`
	Kind        string    `json:"kind"`  // "hardware", "loopback", or what the kernel says: "veth", "bridge"
	State       string    `json:"state"` // operational: "up", "down", "lower-layer-down", "unknown" (as of loopback)
	Up          bool      `json:"up"`    // switched on by the administrator
	MAC         string    `json:"mac,omitempty"`
	MTU         uint32    `json:"mtu"`
	Master      string    `json:"master,omitempty"` // the bridge or bond that it is a port of
	Promiscuous bool      `json:"promiscuous,omitempty"`
	Addresses   []Address `json:"addresses,omitempty"`
	Peer        *Peer     `json:"peer,omitempty"` // the other end of a cable, or what it stands on
	Counters    Counters  `json:"counters"`
	Rate        *Rate     `json:"rate,omitempty"` // none in the first snapshot

	master uint32
}

// Address is one of an interface.
type Address struct {
	Prefix     netip.Prefix `json:"prefix"`
	Scope      string       `json:"scope"`                // "global", "link", "host", "site"
	Dynamic    bool         `json:"dynamic,omitempty"`    // leased or learned: it ends by itself
	Temporary  bool         `json:"temporary,omitempty"`  // of privacy extensions
	Tentative  bool         `json:"tentative,omitempty"`  // not usable yet: somebody else may have it
	Deprecated bool         `json:"deprecated,omitempty"` // not for new connections
}

// Counters are what the kernel counted since the interface was made.
type Counters struct {
	ReceivedPackets uint64 `json:"received_packets"`
	ReceivedBytes   uint64 `json:"received_bytes"`
	ReceivedErrors  uint64 `json:"received_errors"`
	ReceivedDropped uint64 `json:"received_dropped"`
	SentPackets     uint64 `json:"sent_packets"`
	SentBytes       uint64 `json:"sent_bytes"`
	SentErrors      uint64 `json:"sent_errors"`
	SentDropped     uint64 `json:"sent_dropped"`
}

// Peer is the interface that belongs to another one.
type Peer struct {
	Index     uint32 `json:"index"`
	Name      string `json:"name,omitempty"`      // empty when it is in a namespace that cannot be asked
	Namespace string `json:"namespace,omitempty"` // name of its network namespace, if it is another one and has a name
	Container string `json:"container,omitempty"` // id of the container that it is in
	PID       int    `json:"pid,omitempty"`       // a process in that namespace
	Process   string `json:"process,omitempty"`   // and its name

	nsid      int32
	elsewhere bool
}

// links is what is known about interfaces.
type links struct {
	interfaces   []Interface
	bridges      []Bridge
	names        map[uint32]string
	local        map[netip.Addr]bool // addresses of this host
	peersUnknown bool
	neighbours   neighbours
}

func (l *links) name(index uint32) string {
	if index == 0 {
		return ""
	}
	if n := l.names[index]; n != "" {
		return n
	}
	return fmt.Sprintf("interface-%d", index)
}

// each asks for a list of rtnetlink(7).
func each(c *netlink.Conn, what string, message uint16, request []byte, head int, f func(head []byte, attrs []netlink.Attr)) error {
	list, err := c.Dump(message, request)
	if err != nil {
		return fmt.Errorf("list of %s: %w", what, err)
	}
	for _, m := range list {
		h, attrs, err := netlink.After(m, head)
		if err != nil {
			return fmt.Errorf("list of %s: %w", what, err)
		}
		f(h, attrs)
	}
	return nil
}

// readLinks reads interfaces, addresses and bridges; with the neighbours and the
// other ends of cables only if full.
func readLinks(full bool) (*links, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	l := &links{bridges: []Bridge{}, names: map[uint32]string{}, local: map[netip.Addr]bool{}}
	ports := map[uint32]*Port{}
	err = each(c, "interfaces", unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), unix.SizeofIfInfomsg, func(h []byte, attrs []netlink.Attr) {
		i, bridge, port := parseLink(h, attrs)
		l.names[i.Index] = i.Name
		l.interfaces = append(l.interfaces, i)
		if bridge != nil {
			l.bridges = append(l.bridges, *bridge)
		}
		if port != nil {
			ports[i.Index] = port
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(l.interfaces, func(a, b Interface) int { return cmp.Compare(a.Index, b.Index) })
	addresses := map[uint32][]Address{}
	err = each(c, "addresses", unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), unix.SizeofIfAddrmsg, func(h []byte, attrs []netlink.Attr) {
		if a, ok := parseAddress(h, attrs); ok {
			index := binary.NativeEndian.Uint32(h[4:])
			addresses[index] = append(addresses[index], a)
			l.local[a.Prefix.Addr()] = true
		}
	})
	if err != nil {
		return nil, err
	}
	for i := range l.interfaces {
		n := &l.interfaces[i]
		n.Addresses = addresses[n.Index]
		n.Master = l.name(n.master)
	}
	if !full {
		return l, nil
	}
	if err := l.readNeighbours(c); err != nil {
		return nil, err
	}
	l.findPeers(c)
	l.fillBridges(ports)
	return l, nil
}

// parseLink reads struct ifinfomsg and its attributes.
func parseLink(h []byte, attrs []netlink.Attr) (i Interface, bridge *Bridge, port *Port) {
	flags := binary.NativeEndian.Uint32(h[8:])
	i = Interface{Index: binary.NativeEndian.Uint32(h[4:]), Kind: "hardware", State: "unknown", Up: flags&unix.IFF_UP != 0}
	if flags&unix.IFF_LOOPBACK != 0 {
		i.Kind = "loopback"
	}
	var info []netlink.Attr
	peer := Peer{}
	for n := range attrs {
		switch a := &attrs[n]; a.Type {
		case unix.IFLA_IFNAME:
			i.Name = a.Text()
		case unix.IFLA_ADDRESS:
			if i.Kind != "loopback" && len(a.Value) > 0 {
				i.MAC = net.HardwareAddr(a.Value).String()
			}
		case unix.IFLA_MTU:
			i.MTU = a.Uint32()
		case unix.IFLA_MASTER:
			i.master = a.Uint32()
		case unix.IFLA_PROMISCUITY:
			i.Promiscuous = a.Uint32() > 0
		case unix.IFLA_OPERSTATE:
			if len(a.Value) > 0 {
				i.State = operState(a.Value[0])
			}
		case unix.IFLA_STATS64:
			i.Counters = parseCounters(a.Value)
		case unix.IFLA_LINK:
			peer.Index = a.Uint32()
		case unix.IFLA_LINK_NETNSID:
			peer.nsid, peer.elsewhere = int32(a.Uint32()), true
		case unix.IFLA_LINKINFO:
			info, _ = netlink.Attributes(a.Value)
		}
	}
	if peer.Index != 0 && (peer.elsewhere || peer.Index != i.Index) {
		i.Peer = &peer
	}
	kind, portOf := "", ""
	for n := range info {
		switch a := &info[n]; a.Type {
		case unix.IFLA_INFO_KIND:
			kind = a.Text()
			i.Kind = kind
		case unix.IFLA_INFO_SLAVE_KIND:
			portOf = a.Text()
		case unix.IFLA_INFO_DATA:
			if kind == "bridge" {
				bridge = parseBridge(&i, a.Value)
			}
		case unix.IFLA_INFO_SLAVE_DATA:
			if portOf == "bridge" {
				port = parsePort(a.Value)
			}
		}
	}
	return i, bridge, port
}

// operState names the states of RFC 2863, as linux/if.h numbers them.
func operState(n uint8) string {
	names := [...]string{"unknown", "not-present", "down", "lower-layer-down", "testing", "dormant", "up"}
	if int(n) >= len(names) {
		return fmt.Sprintf("state-%d", n)
	}
	return names[n]
}

// parseCounters reads struct rtnl_link_stats64.
func parseCounters(b []byte) (c Counters) {
	for i, to := range []*uint64{&c.ReceivedPackets, &c.SentPackets, &c.ReceivedBytes, &c.SentBytes,
		&c.ReceivedErrors, &c.SentErrors, &c.ReceivedDropped, &c.SentDropped} {
		if len(b) >= 8*i+8 {
			*to = binary.NativeEndian.Uint64(b[8*i:])
		}
	}
	return c
}

// parseAddress reads struct ifaddrmsg and its attributes.
func parseAddress(h []byte, attrs []netlink.Attr) (a Address, ok bool) {
	flags := uint32(h[2])
	var addr netip.Addr
	for n := range attrs {
		switch at := &attrs[n]; at.Type {
		case unix.IFA_FLAGS:
			flags = at.Uint32()
		case unix.IFA_LOCAL:
			if v, ok := netip.AddrFromSlice(at.Value); ok {
				addr = v
			}
		case unix.IFA_ADDRESS: // of a point-to-point link the other end
			if v, ok := netip.AddrFromSlice(at.Value); ok && !addr.IsValid() {
				addr = v
			}
		}
	}
	if !addr.IsValid() || int(h[1]) > addr.BitLen() {
		return a, false
	}
	a.Prefix, a.Scope = netip.PrefixFrom(addr, int(h[1])), scopeName(h[3])
	a.Dynamic = flags&unix.IFA_F_PERMANENT == 0
	a.Temporary = addr.Is6() && flags&unix.IFA_F_TEMPORARY != 0 // for IPv4 the flag means something else
	a.Tentative = flags&unix.IFA_F_TENTATIVE != 0
	a.Deprecated = flags&unix.IFA_F_DEPRECATED != 0
	return a, true
}

func scopeName(n uint8) string {
	switch n {
	case unix.RT_SCOPE_UNIVERSE:
		return "global"
	case unix.RT_SCOPE_SITE:
		return "site"
	case unix.RT_SCOPE_LINK:
		return "link"
	case unix.RT_SCOPE_HOST:
		return "host"
	case unix.RT_SCOPE_NOWHERE:
		return "nowhere"
	}
	return fmt.Sprint(n)
}
