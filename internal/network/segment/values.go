package segment

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ParseTraffic reads "443/tcp", "8000-8010/udp", "tcp", "icmp" or "any".
func ParseTraffic(s string) (Traffic, error) {
	ports, proto, both := strings.Cut(s, "/")
	if !both {
		ports, proto = "", s
	}
	t := Traffic{Protocol: Protocol(strings.ToLower(proto))}
	switch t.Protocol {
	case "any":
		t.Protocol = ProtocolAny
	case "icmpv6", "ipv6-icmp":
		t.Protocol = ProtocolICMP
	case ProtocolTCP, ProtocolUDP, ProtocolSCTP, ProtocolICMP:
	default:
		if _, err := strconv.Atoi(s); err == nil {
			return Traffic{}, fmt.Errorf("%q: say the protocol too: %s/tcp or %s/udp", s, s, s)
		}
		return Traffic{}, fmt.Errorf("%q is no traffic: write 443/tcp, 8000-8010/udp, tcp, udp, sctp, icmp or any", s)
	}
	if !both {
		return t, nil
	}
	if t.Protocol == ProtocolAny || t.Protocol == ProtocolICMP {
		return Traffic{}, fmt.Errorf("%q: %s has no ports", s, proto)
	}
	first, last, span := strings.Cut(ports, "-")
	if !span {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 16)
	b, errB := strconv.ParseUint(last, 10, 16)
	if errA != nil || errB != nil || a == 0 || b < a {
		return Traffic{}, fmt.Errorf("%q: ports are 1 to 65535, a span has the smaller one first", s)
	}
	t.First, t.Last = uint16(a), uint16(b)
	return t, nil
}

// ParseTarget reads a network or an address, with the ports in it when only
// those are meant: "192.0.2.0/24", "192.0.2.7:443/tcp", "[2001:db8::/32]:53/udp".
func ParseTarget(s string) (Target, error) {
	text, traffic := s, ""
	if inside, ok := strings.CutPrefix(s, "["); ok {
		var rest string
		text, rest, ok = strings.Cut(inside, "]")
		if !ok || rest != "" && !strings.HasPrefix(rest, ":") {
			return Target{}, fmt.Errorf("%q: write [2001:db8::/32]:443/tcp", s)
		}
		traffic = strings.TrimPrefix(rest, ":")
		if rest == ":" {
			return Target{}, fmt.Errorf("%q: nothing stands after the colon", s)
		}
	} else if strings.Count(s, ":") == 1 {
		text, traffic, _ = strings.Cut(s, ":")
		if traffic == "" {
			return Target{}, fmt.Errorf("%q: nothing stands after the colon", s)
		}
	}
	p, err := ParseNetwork(text)
	if err != nil {
		return Target{}, err
	}
	t := Target{Prefix: p}
	if traffic != "" {
		if t.Traffic, err = ParseTraffic(traffic); err != nil {
			return Target{}, err
		}
	}
	return t, nil
}

// String returns the target as it is written in a document.
func (t Target) String() string {
	switch {
	case t.Traffic == (Traffic{}):
		return t.Prefix.String()
	case t.Prefix.Addr().Is6():
		return "[" + t.Prefix.String() + "]:" + t.Traffic.String()
	}
	return t.Prefix.String() + ":" + t.Traffic.String()
}

// ParseNetwork reads a prefix without bits beyond its length, or an address,
// which is a prefix of its full length.
func ParseNetwork(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := parseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is no network such as 10.60.0.0/24 or fd00:60::/64", s)
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q: write IPv4 as IPv4", s)
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%q has bits beyond its length: the network is %s", s, p.Masked())
	}
	return p, nil
}

// parseAddr reads an address without a zone.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil || a.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%q is no address such as 10.60.0.1 or fd00:60::1", s)
	case a.Is4In6():
		return netip.Addr{}, fmt.Errorf("%q: write IPv4 as IPv4", s)
	}
	return a, nil
}

// parseRange reads "10.60.0.100-10.60.0.199".
func parseRange(s string) (Range, error) {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		return Range{}, fmt.Errorf("%q is no range: write 10.60.0.100-10.60.0.199", s)
	}
	a, err := parseAddr(strings.TrimSpace(first))
	if err != nil {
		return Range{}, err
	}
	b, err := parseAddr(strings.TrimSpace(last))
	if err != nil {
		return Range{}, err
	}
	if a.BitLen() != b.BitLen() || b.Less(a) {
		return Range{}, fmt.Errorf("%q: the first address stands first, and both are of one family", s)
	}
	return Range{a, b}, nil
}

// IsValid reports whether the range has addresses.
func (r Range) IsValid() bool { return r.First.IsValid() }

// IsZero reports whether the range is none.
func (r Range) IsZero() bool { return !r.IsValid() }

// Contains reports whether an address is in the range.
func (r Range) Contains(a netip.Addr) bool {
	return r.IsValid() && a.BitLen() == r.First.BitLen() && !a.Less(r.First) && !r.Last.Less(a)
}

// String returns the range as it is written in a document.
func (r Range) String() string { return r.First.String() + "-" + r.Last.String() }

// ParseEndpoint reads one side of a flow: "host", "internet", a network, or a
// selector such as "app=web", "zone=dev,tier=front" or "workload=web".
func ParseEndpoint(s string) (Endpoint, error) {
	switch s {
	case "host":
		return Endpoint{Host: true}, nil
	case "internet":
		return Endpoint{Internet: true}, nil
	case "":
		return Endpoint{}, fmt.Errorf("nothing stands here: %s", endpointForms)
	}
	if !strings.Contains(s, "=") {
		p, err := ParseNetwork(s)
		if err != nil {
			return Endpoint{}, fmt.Errorf("%q: %s", s, endpointForms)
		}
		return Endpoint{Prefix: p}, nil
	}
	var e Endpoint
	for part := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return Endpoint{}, fmt.Errorf("%q: each part is KEY=VALUE", s)
		}
		switch {
		case key == "zone" && e.Zone == "" && value != "":
			e.Zone = value
		case key == "workload" && e.Workload == "" && value != "":
			e.Workload = value
		default:
			l := Label{key, value}
			if err := l.check(); err != nil {
				return Endpoint{}, err
			}
			if slices.ContainsFunc(e.Labels, func(o Label) bool { return o.Key == key }) {
				return Endpoint{}, fmt.Errorf("%q names %s twice", s, key)
			}
			e.Labels = append(e.Labels, l)
		}
	}
	sortLabels(e.Labels)
	return e, nil
}

const endpointForms = "an endpoint is host, internet, a network, or a selector such as app=web or zone=dev"

func sortLabels(list []Label) {
	slices.SortFunc(list, func(a, b Label) int { return strings.Compare(a.Key, b.Key) })
}

// check says what is wrong with a label.
func (l Label) check() error {
	switch {
	case l.Key == "zone" || l.Key == "workload" || l.Key == "host" || l.Key == "internet":
		return fmt.Errorf("%q is no label: the word is taken", l.Key)
	case !word(l.Key, "_.-/", 63):
		return fmt.Errorf("the label %q: lower-case letters, digits and _ . - / make its key, at most 63", l)
	case !word(strings.ToLower(l.Value), "_.-", 63):
		return fmt.Errorf("the label %q: letters, digits and _ . - make its value, at most 63", l)
	}
	return nil
}

// word reports whether s is lower-case letters and digits, with some of extra
// between them.
func word(s, extra string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
		case i > 0 && i < len(s)-1 && strings.IndexByte(extra, c) >= 0:
		default:
			return false
		}
	}
	return true
}

// checkInterface says why a name cannot be that of an interface: the kernel
// takes 15 bytes, and a name with a sign in it would be an accident.
func checkInterface(name string) error {
	if len(name) > maxInterface {
		return fmt.Errorf("%q is longer than the %d bytes of an interface's name", name, maxInterface)
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' || strings.IndexByte("/:%*\"'\\", c) >= 0 {
			return fmt.Errorf("%q is not fit for the name of an interface", name)
		}
	}
	switch name {
	case "", ".", "..", "all", "default", "lo":
		return fmt.Errorf("%q is not fit for the name of an interface", name)
	}
	return nil
}

const (
	maxInterface = 15
	prefix       = "mo-"   // of every interface that mobileops makes
	portPrefix   = "mo-p-" // of the port of a workload
)

// CheckZoneName says why a name cannot be that of a zone. Its bridge is called
// "mo-" and the name, so there is room for twelve bytes.
func CheckZoneName(name string) error {
	reserved := strings.HasPrefix(name, "p-")
	for _, kind := range []string{"vx", "vl"} {
		if rest, ok := strings.CutPrefix(name, kind); ok && rest != "" && strings.Trim(rest, "0123456789") == "" {
			reserved = true // mo-vx100 is a tunnel
		}
	}
	switch {
	case len(name) > maxInterface-len(prefix):
		return fmt.Errorf("the zone %q: its bridge %q would be longer than the %d bytes of an interface's name", name, prefix+name, maxInterface)
	case !word(name, "-", maxInterface):
		return fmt.Errorf("the zone %q: lower-case letters, digits and - make its name", name)
	case reserved:
		return fmt.Errorf("the zone %q: names that begin with p-, or are vx or vl and a number, are those of ports and tunnels", name)
	}
	return nil
}

// CheckWorkloadName says why a name cannot be that of a workload: it is also a
// host name.
func CheckWorkloadName(name string) error {
	if !word(name, "-", 63) {
		return fmt.Errorf("the workload %q: lower-case letters, digits and - make its name, at most 63", name)
	}
	return nil
}

// checkDomain says why a name cannot be one of the DNS.
func checkDomain(name string) error {
	if len(name) > 253 {
		return fmt.Errorf("%q is longer than the 253 bytes of a domain name", name)
	}
	for part := range strings.SplitSeq(name, ".") {
		if !word(part, "-_", 63) && !(len(part) > 1 && part[0] == '_' && word(part[1:], "-_", 62)) {
			return fmt.Errorf("%q is no domain name in lower case", name)
		}
	}
	return nil
}

// lastOf is the last address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// usable reports whether an interface can have the address in a network: not
// the network itself and not the broadcast address.
func usable(p netip.Prefix, a netip.Addr) bool {
	if !p.Contains(a) {
		return false
	}
	if hosts := p.Addr().BitLen() - p.Bits(); hosts < 2 {
		return true // RFC 3021, RFC 6164
	}
	return a != p.Masked().Addr() && (a.Is6() || a != lastOf(p))
}

// firstUsable is the first address of a network that an interface can have.
func firstUsable(p netip.Prefix) netip.Addr {
	if a := p.Masked().Addr(); usable(p, a) {
		return a
	}
	return p.Masked().Addr().Next()
}

// upperHalf is the range that is given out by DHCP when a document names none.
func upperHalf(p netip.Prefix) Range {
	hosts := p.Addr().BitLen() - p.Bits()
	if hosts < 3 {
		return Range{}
	}
	b := p.Masked().Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	first, _ := netip.AddrFromSlice(b)
	last := lastOf(p)
	if last.Is4() {
		last = last.Prev()
	}
	return Range{first, last}
}

// ParseEgress reads what a zone may reach outside of all zones: "none",
// "internet", or targets.
func ParseEgress(words []string) (Egress, error) {
	if len(words) == 1 {
		switch mode := EgressMode(words[0]); mode {
		case EgressNone, EgressInternet:
			return Egress{Mode: mode}, nil
		}
	}
	e := Egress{Mode: EgressList}
	for _, s := range words {
		t, err := ParseTarget(s)
		if err != nil {
			return Egress{}, fmt.Errorf("none, internet or a network such as 192.0.2.0/24:443/tcp: %w", err)
		}
		e.Allow = append(e.Allow, t)
	}
	return e, nil
}
