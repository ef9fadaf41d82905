package isolation

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"golang.org/x/sys/unix"
)

// ParsePeer reads ADDRESS[/BITS][:PORT[-PORT]/PROTO]; an address of IPv6 with a
// port stands in brackets.
func ParsePeer(s, why string) (Peer, error) {
	bad := func(what string) (Peer, error) {
		return Peer{}, fmt.Errorf("%q %s; write 192.0.2.7, 192.0.2.0/24, 192.0.2.7:443/tcp, 2001:db8::/32 or [2001:db8::7]:53/udp", s, what)
	}
	network, service := s, ""
	if strings.HasPrefix(s, "[") {
		inside, rest, ok := strings.Cut(s[1:], "]")
		if !ok {
			return bad("has no closing bracket")
		}
		// [2001:db8::]/32:53/udp and [2001:db8::/32]:53/udp are both understood.
		bits, port, _ := strings.Cut(rest, ":")
		if bits != "" && !strings.HasPrefix(bits, "/") {
			return bad("has something behind its bracket")
		}
		network, service = inside+bits, port
		if rest != bits && port == "" {
			return bad("has no port behind its colon")
		}
	} else if at := strings.IndexByte(s, ':'); at >= 0 && strings.Count(s[:at+1], ".") == 3 {
		network, service = s[:at], s[at+1:]
		if service == "" {
			return bad("has no port behind its colon")
		}
	}
	prefix, err := addresses.ParsePrefix(network)
	if err != nil {
		alone, bits, _ := strings.Cut(network, "/")
		alone, link, ofLink := strings.Cut(alone, "%")
		switch a, err := netip.ParseAddr(alone); {
		case err == nil && a.Is4In6() && (bits == "" || bits == "128"):
			return bad("is an address of IPv4: leave out all before " + a.Unmap().String())
		case err == nil && a.Is4In6():
			return bad("is a network of IPv4 within IPv6")
		case err == nil && ofLink:
			return bad("names an interface, and peers are allowed at all of them: leave out %" + link)
		}
		return bad("is no address or network")
	}
	p := Peer{Prefix: prefix, Why: why}
	if service == "" {
		return p, nil
	}
	ports, proto, _ := strings.Cut(service, "/")
	switch strings.ToLower(proto) {
	case "tcp", "":
		p.Proto = unix.IPPROTO_TCP
	case "udp":
		p.Proto = unix.IPPROTO_UDP
	default:
		return bad("names a protocol that is not tcp or udp")
	}
	first, last, ranged := strings.Cut(ports, "-")
	if !ranged {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	switch {
	case err1 != nil || err2 != nil || a == 0 || b == 0:
		return bad("has a port that is not from 1 to 65535")
	case b < a:
		return bad("has the larger port first")
	}
	p.First, p.Last = uint16(a), uint16(b)
	return p, nil
}

// String writes the peer as ParsePeer reads it.
func (p Peer) String() string {
	network := p.Prefix.String()
	if p.Prefix.IsSingleIP() {
		network = p.Prefix.Addr().String()
	}
	if p.First == 0 {
		return network
	}
	if p.Prefix.Addr().Is6() {
		network = "[" + network + "]"
	}
	ports := strconv.Itoa(int(p.First))
	if p.Last != p.First {
		ports += "-" + strconv.Itoa(int(p.Last))
	}
	proto := "tcp"
	if p.Proto == unix.IPPROTO_UDP {
		proto = "udp"
	}
	return network + ":" + ports + "/" + proto
}

// allows reports whether a connection between this host and a peer may go on.
func (p Peer) allows(proto uint8, local, remote netip.AddrPort) bool {
	if !p.Prefix.Contains(remote.Addr()) {
		return false
	}
	in := func(port uint16) bool { return p.First <= port && port <= p.Last }
	return p.First == 0 || p.Proto == proto && (in(local.Port()) || in(remote.Port()))
}
