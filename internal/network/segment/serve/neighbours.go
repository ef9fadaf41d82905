package serve

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/netlink"
	"github.com/mobileops/mobileops/internal/network/segment/dhcp"
	"golang.org/x/sys/unix"
)

// Hosts that make IPv6 addresses of their own tell nobody but their neighbours.
// This host is one, so the names of leases are joined with its neighbour table
// by the MAC address.

const (
	neighbourMemory = 3 * time.Second
	maxNeighbours   = 8 // addresses under one name
)

// neighbours are the IPv6 addresses on one interface, as of a moment ago.
type neighbours struct {
	mu   sync.Mutex
	at   time.Time
	list map[netip.Addr]dhcp.MAC
}

func (n *neighbours) get(ifname string) map[netip.Addr]dhcp.MAC {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.at).Abs() < neighbourMemory {
		return n.list
	}
	n.at = time.Now()
	if list, err := readNeighbours(ifname); err == nil {
		n.list = list
	}
	return n.list
}

// readNeighbours asks the kernel (rtnetlink(7), RTM_GETNEIGH).
func readNeighbours(ifname string) (map[netip.Addr]dhcp.MAC, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, err
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	body := make([]byte, 12) // struct ndmsg
	body[0] = unix.AF_INET6
	list, err := c.Dump(unix.RTM_GETNEIGH, body)
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]dhcp.MAC{}
	for _, b := range list {
		head, attrs, err := netlink.After(b, 12)
		if err != nil || int(binary.NativeEndian.Uint32(head[4:])) != ifi.Index {
			continue
		}
		if state := binary.NativeEndian.Uint16(head[8:]); state&(unix.NUD_REACHABLE|unix.NUD_STALE|unix.NUD_DELAY|unix.NUD_PROBE) == 0 {
			continue
		}
		var addr netip.Addr
		var mac dhcp.MAC
		for _, a := range attrs {
			switch {
			case a.Type == unix.NDA_DST && len(a.Value) == 16:
				addr = netip.AddrFrom16([16]byte(a.Value))
			case a.Type == unix.NDA_LLADDR && len(a.Value) == 6:
				mac = dhcp.MAC(a.Value)
			}
		}
		if addr.IsGlobalUnicast() {
			out[addr] = mac
		}
	}
	return out, nil
}

// lookup returns the addresses of a lease by its name.
func (z *zoneRun) lookup(label, ifname string, networks []netip.Prefix) []netip.Addr {
	s := z.leases.Load()
	if s == nil {
		return nil
	}
	list, mac := s.Lookup(label)
	if len(list) == 0 {
		return nil
	}
	var own []netip.Addr
	for a, m := range z.neighbours.get(ifname) {
		if m == mac && ofZone(a, networks) && !slices.Contains(list, a) {
			own = append(own, a)
		}
	}
	slices.SortFunc(own, netip.Addr.Compare)
	return append(list, own[:min(len(own), maxNeighbours)]...)
}

// reverse returns the name of a lease by an address of its client.
func (z *zoneRun) reverse(a netip.Addr, ifname string, networks []netip.Prefix) string {
	s := z.leases.Load()
	if s == nil {
		return ""
	}
	if name := s.NameOf(a); name != "" || a.Is4() || !ofZone(a, networks) {
		return name
	}
	if mac, ok := z.neighbours.get(ifname)[a]; ok {
		return s.NameOfMAC(mac)
	}
	return ""
}

func ofZone(a netip.Addr, networks []netip.Prefix) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) && !p.Addr().IsLinkLocalUnicast() })
}
