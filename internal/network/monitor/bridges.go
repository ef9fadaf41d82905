package monitor

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// Bridge is a switch that the kernel makes of interfaces.
type Bridge struct {
	Name          string `json:"name"`
	STP           string `json:"stp"` // the spanning tree protocol is "off", or run by the "kernel" or a "user" program
	VLANFiltering bool   `json:"vlan_filtering,omitempty"`
	Learned       int    `json:"learned"`    // MAC addresses in its table that it learned
	Neighbours    int    `json:"neighbours"` // hosts that this one knows the MAC address of, through it
	Ports         []Port `json:"ports,omitempty"`

	index uint32
}

// Port is an interface that belongs to a bridge.
type Port struct {
	Name     string `json:"name"`
	State    string `json:"state"`              // of the spanning tree protocol: "forwarding", "blocking", "disabled"
	Isolated bool   `json:"isolated,omitempty"` // isolated ports reach each other only through the host
	Hairpin  bool   `json:"hairpin,omitempty"`  // packets may leave where they came in
	Learned  int    `json:"learned"`
	Peer     *Peer  `json:"peer,omitempty"`
}

func parseBridge(i *Interface, b []byte) *Bridge {
	bridge := &Bridge{Name: i.Name, STP: "off", index: i.Index}
	attrs, _ := netlink.Attributes(b)
	for n := range attrs {
		switch a := &attrs[n]; a.Type {
		case 5: // IFLA_BR_STP_STATE
			if state := a.Uint32(); state == 1 {
				bridge.STP = "kernel"
			} else if state == 2 {
				bridge.STP = "user"
			}
		case 7: // IFLA_BR_VLAN_FILTERING
			bridge.VLANFiltering = len(a.Value) > 0 && a.Value[0] != 0
		}
	}
	return bridge
}

func parsePort(b []byte) *Port {
	p := &Port{}
	attrs, _ := netlink.Attributes(b)
	for _, a := range attrs {
		if len(a.Value) == 0 {
			continue
		}
		switch a.Type {
		case unix.IFLA_BRPORT_STATE:
			p.State = portState(a.Value[0])
		case unix.IFLA_BRPORT_MODE:
			p.Hairpin = a.Value[0] != 0
		case unix.IFLA_BRPORT_ISOLATED:
			p.Isolated = a.Value[0] != 0
		}
	}
	return p
}

// portState names the states of IEEE 802.1D, as linux/if_bridge.h numbers them.
func portState(n uint8) string {
	names := [...]string{"disabled", "listening", "learning", "forwarding", "blocking"}
	if int(n) >= len(names) {
		return fmt.Sprintf("state-%d", n)
	}
	return names[n]
}

// fillBridges puts ports and counts into the bridges.
func (l *links) fillBridges(ports map[uint32]*Port) {
	for n := range l.bridges {
		b := &l.bridges[n]
		b.Neighbours = l.neighbours.count[b.index]
		for k := range l.interfaces {
			i := &l.interfaces[k]
			p := ports[i.Index]
			if i.master != b.index || p == nil {
				continue
			}
			p.Name, p.Peer, p.Learned = i.Name, i.Peer, l.neighbours.learned[i.Index]
			b.Learned += p.Learned
			b.Ports = append(b.Ports, *p)
		}
	}
}

// neighbours is what is known about who is behind an interface.
type neighbours struct {
	count   map[uint32]int          // hosts by interface
	learned map[uint32]int          // MAC addresses by port of a bridge
	macs    map[netip.Addr]neighbor // by address
	ports   map[station]uint32      // of a bridge and a MAC address: the port
}

type neighbor struct {
	index uint32
	mac   [6]byte
}

// station is a MAC address that a bridge knows.
type station struct {
	bridge uint32
	mac    [6]byte
}

// known are the states of a neighbour whose MAC address is known.
const known = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT

// readNeighbours reads the tables of ARP and ND, and those of bridges.
func (l *links) readNeighbours(c *netlink.Conn) error {
	n := &l.neighbours
	*n = neighbours{map[uint32]int{}, map[uint32]int{}, map[netip.Addr]neighbor{}, map[station]uint32{}}
	read := func(family uint8) error {
		request := make([]byte, 12) // struct ndmsg
		request[0] = family
		return each(c, "neighbours", unix.RTM_GETNEIGH, request, 12, func(h []byte, attrs []netlink.Attr) {
			index, state := binary.NativeEndian.Uint32(h[4:]), binary.NativeEndian.Uint16(h[8:])
			var addr netip.Addr
			var mac net.HardwareAddr
			var master uint32
			for k := range attrs {
				switch a := &attrs[k]; a.Type {
				case unix.NDA_DST:
					addr, _ = netip.AddrFromSlice(a.Value)
				case unix.NDA_LLADDR:
					mac = a.Value
				case unix.NDA_MASTER:
					master = a.Uint32()
				}
			}
			if len(mac) != 6 {
				return
			}
			switch {
			case family == unix.AF_BRIDGE && master != 0 && state&unix.NUD_PERMANENT == 0:
				// The same address can be told once for each VLAN.
				if at := (station{master, [6]byte(mac)}); n.ports[at] == 0 {
					n.ports[at] = index
					n.learned[index]++
				}
			case family != unix.AF_BRIDGE && state&known != 0 && addr.IsValid():
				n.count[index]++
				n.macs[addr] = neighbor{index, [6]byte(mac)}
			}
		})
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := read(family); err != nil {
			return err
		}
	}
	if len(l.bridges) == 0 {
		return nil
	}
	return read(unix.AF_BRIDGE)
}

// behind finds the other end of the cable that leads to an address, if it is
// that of a container or another namespace of this machine.
func (l *links) behind(addr netip.Addr) *Peer {
	n, ok := l.neighbours.macs[addr]
	if !ok {
		return nil
	}
	index := n.index
	if port := l.neighbours.ports[station{index, n.mac}]; port != 0 {
		index = port
	}
	for k := range l.interfaces {
		if i := &l.interfaces[k]; i.Index == index && i.Peer != nil && i.Peer.elsewhere {
			return i.Peer
		}
	}
	return nil
}
