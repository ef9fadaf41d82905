package block

import (
	"encoding/binary"
	"net/netip"

	"github.com/mobileops/mobileops/internal/netlink"
	"github.com/mobileops/mobileops/internal/network/addresses"
	"golang.org/x/sys/unix"
)

// protected is addresses that are not blocked, and why.
type protected struct {
	addresses.Range
	why string
}

// protect returns what must not be blocked: what the configuration says, who
// administers the host and over which connection it is being done, the host's
// own addresses, its gateways and its name servers. What cannot be found out is
// not protected; the connection in use always is.
func (e *Engine) protect() []protected {
	var out []protected
	one := func(a netip.Addr, why string) {
		if a = a.Unmap().WithZone(""); a.IsValid() && !a.IsUnspecified() {
			out = append(out, protected{addresses.Range{First: a, Last: a}, why})
		}
	}
	for _, p := range e.opts.Never {
		out = append(out, protected{addresses.Of(p), "network.never_block"})
	}
	for _, p := range e.opts.Management {
		out = append(out, protected{addresses.Of(p), "network.management"})
	}
	one(e.opts.Session.Peer, "this session comes from there")
	for _, a := range ownAddresses() {
		one(a, "an address of this host")
	}
	for _, a := range gateways() {
		one(a, "a gateway of this host")
	}
	for _, a := range addresses.NameServers(e.opts.ResolvConf) {
		one(a, "a name server of this host")
	}
	return out
}

// ranges of what is protected, merged.
func rangesOf(list []protected) []addresses.Range {
	var out []addresses.Range
	for _, p := range list {
		out = append(out, p.Range)
	}
	return addresses.Merge(out)
}

// whyProtected is the reason for one address of a range.
func whyProtected(list []protected, r addresses.Range) string {
	for _, p := range list {
		if p.First.BitLen() == r.First.BitLen() && p.First.Compare(r.Last) <= 0 && r.First.Compare(p.Last) <= 0 {
			return p.why
		}
	}
	return "protected"
}

// routeDump is a list of rtnetlink; head is the size of the header of a request,
// which begins with a family.
func routeDump(typ uint16, head int, family ...byte) [][]byte {
	c, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil
	}
	defer c.Close()
	request := make([]byte, head)
	copy(request, family)
	list, err := c.Dump(typ, request)
	if err != nil {
		return nil
	}
	return list
}

// ownAddresses are those of the host's interfaces, but for loopback.
func ownAddresses() (out []netip.Addr) {
	for _, m := range routeDump(unix.RTM_GETADDR, unix.SizeofIfAddrmsg) {
		_, attrs, err := netlink.After(m, unix.SizeofIfAddrmsg)
		if err != nil {
			continue
		}
		var own netip.Addr
		for _, a := range attrs {
			// IFA_LOCAL is the own end of a tunnel, where IFA_ADDRESS is the other.
			if a.Type == unix.IFA_LOCAL || a.Type == unix.IFA_ADDRESS && !own.IsValid() {
				own, _ = netip.AddrFromSlice(a.Value)
			}
		}
		if own.IsValid() && !own.IsLoopback() {
			out = append(out, own)
		}
	}
	return out
}

// gateways are the next hops of the default routes.
func gateways() (out []netip.Addr) {
	for _, m := range routeDump(unix.RTM_GETROUTE, unix.SizeofRtMsg) {
		head, attrs, err := netlink.After(m, unix.SizeofRtMsg)
		if err != nil || head[1] != 0 { // the length of the destination
			continue
		}
		for _, a := range attrs {
			switch a.Type {
			case unix.RTA_GATEWAY:
				if g, ok := netip.AddrFromSlice(a.Value); ok {
					out = append(out, g)
				}
			case unix.RTA_VIA:
				if len(a.Value) > 2 {
					if g, ok := netip.AddrFromSlice(a.Value[2:]); ok {
						out = append(out, g)
					}
				}
			case unix.RTA_MULTIPATH:
				out = append(out, nextHops(a.Value)...)
			}
		}
	}
	return out
}

// nextHops are the gateways of a route with several: struct rtnexthop, each with
// attributes.
func nextHops(b []byte) (out []netip.Addr) {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			return out
		}
		attrs, _ := netlink.Attributes(b[unix.SizeofRtNexthop:size])
		for _, a := range attrs {
			if a.Type == unix.RTA_GATEWAY {
				if g, ok := netip.AddrFromSlice(a.Value); ok {
					out = append(out, g)
				}
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return out
}
