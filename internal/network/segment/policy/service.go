package policy

import (
	"net/netip"
	"slices"

	"github.com/mobileops/mobileops/internal/network/nft"
	"github.com/mobileops/mobileops/internal/network/segment"
	"golang.org/x/sys/unix"
)

// service is something that workloads of a zone may ask this host for.
type service struct {
	comment  string
	protocol segment.Protocol
	port     uint16
	icmp     uint8        // the type, of ProtocolICMP
	six      bool         // over IPv6; otherwise over IPv4
	to       []netip.Addr // none: any address, broadcast and groups included
}

// Ports and types that services have.
const (
	portDNS          = 53
	portDHCPServer   = 67
	portDHCPClient   = 68
	portDHCPv6Client = 546
	portDHCPv6Server = 547

	echoRequest           = 8
	redirect              = 5
	listenerQuery         = 130
	listenerReport        = 131
	listenerDone          = 132
	routerSolicitation    = 133
	routerAdvertisement   = 134
	neighborSolicitation  = 135
	neighborAdvertisement = 136
	redirect6             = 137
	listenerReport2       = 143
	echoRequest6          = 128
)

// services are those of a zone.
func (z *zone) services() (list []service) {
	for _, six := range []bool{false, true} {
		var own []netip.Addr
		for _, a := range z.gateways {
			if a.Is6() == six {
				own = append(own, a)
			}
		}
		if len(own) == 0 {
			continue
		}
		if six {
			list = append(list, service{"echo for zone " + z.Name + ", IPv6", segment.ProtocolICMP, 0, echoRequest6, six, own})
		} else {
			list = append(list, service{"echo for zone " + z.Name, segment.ProtocolICMP, 0, echoRequest, six, own})
		}
		if z.DNS != nil {
			for _, proto := range []segment.Protocol{segment.ProtocolUDP, segment.ProtocolTCP} {
				list = append(list, service{"DNS for zone " + z.Name, proto, portDNS, 0, six, own})
			}
		}
		if z.DHCP == nil {
			continue
		}
		if six {
			list = append(list, service{"DHCPv6 for zone " + z.Name, segment.ProtocolUDP, portDHCPv6Server, 0, six, nil})
		} else {
			list = append(list, service{"DHCP for zone " + z.Name, segment.ProtocolUDP, portDHCPServer, 0, six, nil})
		}
	}
	return list
}

// covers reports whether a packet asks for the service.
func (s *service) covers(q Packet) bool {
	if q.Traffic.Protocol != s.protocol || q.Traffic.First != s.port {
		return false
	}
	return len(s.to) == 0 || slices.Contains(s.to, q.To.Address)
}

// rules write the service into a chain.
func (s *service) rules(t *tables, chain string) {
	daddr := nft.IPv4Daddr
	if s.six {
		daddr = nft.IPv6Daddr
	}
	var match []nft.Expr
	switch {
	case s.protocol == segment.ProtocolICMP && s.six:
		match = []nft.Expr{nft.Is(nft.ICMPv6Type, nft.Num8(s.icmp))}
	case s.protocol == segment.ProtocolICMP:
		match = []nft.Expr{nft.Is(nft.ICMPType, nft.Num8(s.icmp))}
	case s.port == portDHCPServer:
		match = []nft.Expr{nft.Is(nft.UDPSport, nft.Num16(portDHCPClient)), nft.Is(nft.UDPDport, nft.Num16(s.port))}
	case s.port == portDHCPv6Server:
		match = []nft.Expr{nft.Is(nft.UDPSport, nft.Num16(portDHCPv6Client)), nft.Is(nft.UDPDport, nft.Num16(s.port))}
	default:
		match = []nft.Expr{nft.Is(nft.L4Proto, nft.Proto(number(s.protocol, s.six))), nft.Is(nft.Dport, nft.Num16(s.port))}
	}
	if len(s.to) == 0 {
		t.accept(t.inet, chain, s.comment, match...)
		return
	}
	for _, a := range s.to {
		t.accept(t.inet, chain, s.comment, append([]nft.Expr{nft.Is(daddr, nft.Addr(a))}, match...)...)
	}
}

// number is that of a protocol in IP; ICMP is another one in IPv6.
func number(p segment.Protocol, six bool) uint8 {
	switch p {
	case segment.ProtocolTCP:
		return unix.IPPROTO_TCP
	case segment.ProtocolUDP:
		return unix.IPPROTO_UDP
	case segment.ProtocolSCTP:
		return unix.IPPROTO_SCTP
	}
	if six {
		return unix.IPPROTO_ICMPV6
	}
	return unix.IPPROTO_ICMP
}
