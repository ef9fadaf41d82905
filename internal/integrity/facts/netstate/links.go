package netstate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// links tells of the interfaces and their addresses.
func links(g *gathering) {
	addresses := map[uint32][]string{}
	err := routeList("addresses", unix.RTM_GETADDR, unix.SizeofIfAddrmsg, func(h []byte, attrs []netlink.Attr) {
		if text := address(h, attrs); text != "" {
			index := binary.NativeEndian.Uint32(h[4:])
			addresses[index] = append(addresses[index], text)
		}
	})
	err = errors.Join(err, routeList("interfaces", unix.RTM_GETLINK, unix.SizeofIfInfomsg, func(h []byte, attrs []netlink.Attr) {
		if name, f, ok := link(h, attrs, g.names); ok {
			f.Attributes["addresses"] = facts.Join(addresses[binary.NativeEndian.Uint32(h[4:])])
			g.add("interfaces", "interface", name, f)
		}
	}))
	if err != nil {
		g.drop("interfaces")
	}
	g.told("interfaces", err, "")
}

// address makes text of struct ifaddrmsg. Of an address that ends by itself,
// since it is leased or there for privacy, only the network is told. Addresses
// of the link itself follow from its hardware.
func address(h []byte, attrs []netlink.Attr) string {
	bits, flags, scope := int(h[1]), uint32(h[2]), h[3]
	var addr netip.Addr
	for _, a := range attrs {
		switch a.Type {
		case unix.IFA_FLAGS:
			flags = a.Uint32()
		case unix.IFA_LOCAL:
			if v, ok := netip.AddrFromSlice(a.Value); ok {
				addr = v
			}
		case unix.IFA_ADDRESS: // of a point-to-point link the other end
			if v, ok := netip.AddrFromSlice(a.Value); ok && !addr.IsValid() {
				addr = v
			}
		}
	}
	if !addr.IsValid() || scope == unix.RT_SCOPE_LINK && addr.Is6() {
		return ""
	}
	p := netip.PrefixFrom(addr, bits)
	// For IPv4 the flag of the temporary ones means something else.
	if flags&unix.IFA_F_PERMANENT == 0 || addr.Is6() && flags&unix.IFA_F_TEMPORARY != 0 {
		return p.Masked().String() + " (dynamic)"
	}
	return p.String()
}

const linkXDP = 43 // IFLA_XDP

// link makes a fact of struct ifinfomsg. The host's end of a cable into
// another network namespace comes and goes with its container.
func link(h []byte, attrs []netlink.Attr, names interfaceNames) (name string, f facts.Fact, ok bool) {
	kind, mac, master, elsewhere := "hardware", facts.None, facts.None, false
	xdp, promiscuous := facts.None, false
	for _, a := range attrs {
		switch a.Type {
		case unix.IFLA_IFNAME:
			name = facts.Text(a.Text())
		case unix.IFLA_ADDRESS:
			mac = fmt.Sprintf("% x", a.Value)
		case unix.IFLA_MASTER:
			master = names.of(a.Uint32())
		case unix.IFLA_PROMISCUITY:
			promiscuous = a.Uint32() > 0
		case unix.IFLA_LINK_NETNSID:
			elsewhere = true
		case unix.IFLA_LINKINFO:
			info, _ := netlink.Attributes(a.Value)
			for _, i := range info {
				if i.Type == unix.IFLA_INFO_KIND {
					kind = facts.Text(i.Text())
				}
			}
		case linkXDP:
			info, _ := netlink.Attributes(a.Value)
			for _, i := range info {
				if i.Type == unix.IFLA_XDP_ATTACHED && len(i.Value) > 0 && i.Value[0] != 0 {
					xdp = "attached"
				}
			}
		}
	}
	if name == "" || kind == "veth" && elsewhere {
		return "", f, false
	}
	if kind != "hardware" {
		mac = facts.None // made up anew at each start
	}
	up := binary.NativeEndian.Uint32(h[8:])&unix.IFF_UP != 0
	return name, facts.Fact{Severity: finding.Medium, Attributes: map[string]string{
		"kind": kind, "mac": mac, "master": master, "up": facts.YesNo(up), "promiscuous": facts.YesNo(promiscuous), "xdp": xdp,
	}}, true
}
