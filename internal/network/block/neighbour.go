package block

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// neighbour is an address of IPv4 or IPv6 and the Ethernet address that this host
// has found for it.
type neighbour struct {
	addr netip.Addr
	mac  string
}

// neighbours are those that this host knows of.
func neighbours() (out []neighbour) {
	eachNeighbour(unix.AF_UNSPEC, func(_ uint32, addr netip.Addr, mac string) {
		if addr.IsValid() && mac != "" {
			out = append(out, neighbour{addr, mac})
		}
	})
	return out
}

// eachNeighbour calls f with what each struct ndmsg says: of a port of a bridge and
// an Ethernet address that was seen there, when the family is AF_BRIDGE.
func eachNeighbour(family byte, f func(index uint32, addr netip.Addr, mac string)) {
	for _, m := range routeDump(unix.RTM_GETNEIGH, unix.SizeofNdMsg, family) {
		head, attrs, err := netlink.After(m, unix.SizeofNdMsg)
		if err != nil {
			continue
		}
		var addr netip.Addr
		mac := ""
		for _, a := range attrs {
			switch a.Type {
			case unix.NDA_DST:
				addr, _ = netip.AddrFromSlice(a.Value)
			case unix.NDA_LLADDR:
				mac = net.HardwareAddr(a.Value).String()
			}
		}
		f(binary.NativeEndian.Uint32(head[4:]), addr, mac)
	}
}

// sessionPath are the interfaces that answers to the caller pass: the one that has
// the address, what that one is on, and the ports of a bridge at which the caller,
// or a gateway, was seen.
func (e *Engine) sessionPath() (path []string) {
	first := e.sessionInterface()
	if first == "" {
		return nil
	}
	path = []string{first}
	all := links()
	named := func(l link) bool { return slices.Contains(path, l.name) }
	for range all { // as many as can lie on each other
		for _, l := range all {
			if !named(l) || l.peer == 0 || l.elsewhere {
				continue
			}
			if i := slices.IndexFunc(all, func(on link) bool { return on.index == l.peer }); i >= 0 && !named(all[i]) {
				path = append(path, all[i].name)
			}
		}
	}
	if !slices.ContainsFunc(all, func(l link) bool { return l.bridge && named(l) }) {
		return path
	}
	next := append(gateways(), e.opts.Session.Peer.Unmap().WithZone(""))
	var macs []string
	for _, n := range neighbours() {
		if slices.Contains(next, n.addr) {
			macs = append(macs, n.mac)
		}
	}
	eachNeighbour(unix.AF_BRIDGE, func(index uint32, _ netip.Addr, mac string) {
		if i := slices.IndexFunc(all, func(l link) bool { return l.index == index }); i >= 0 && slices.Contains(macs, mac) && !named(all[i]) {
			path = append(path, all[i].name)
		}
	})
	return path
}
