package threat

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Type is what sort of thing an indicator names, as a lower-case word.
type Type string

// The types of indicators, with what their values look like.
const (
	IP        Type = "ip"        // 192.0.2.7, 2001:db8::7
	CIDR      Type = "cidr"      // 192.0.2.0/24
	MAC       Type = "mac"       // 02:00:00:00:00:01
	Port      Type = "port"      // 443, 443/tcp
	UID       Type = "uid"       // 1000
	Cgroup    Type = "cgroup"    // /system.slice/x.service, below the mount of cgroup v2
	PID       Type = "pid"       // 1234@567: with when it started, in clock ticks since boot
	Container Type = "container" // a name or an id
	Interface Type = "interface" // eth0
	Domain    Type = "domain"    // example.org; stored only
)

// Types returns all types of indicators.
func Types() []Type {
	return []Type{IP, CIDR, MAC, Port, UID, Cgroup, PID, Container, Interface, Domain}
}

// typeList names all types in a message.
func typeList() string {
	var words []string
	for _, t := range Types() {
		words = append(words, string(t))
	}
	return strings.Join(words, ", ")
}

// Indicator is one thing by which a threat is known.
type Indicator struct {
	Type  Type   `json:"type"`
	Value string `json:"value"`
}

// String writes the indicator as ParseIndicator reads it.
func (i Indicator) String() string { return string(i.Type) + ":" + i.Value }

// ParseIndicator reads TYPE:VALUE, such as ip:192.0.2.7, or an address or network
// alone.
func ParseIndicator(s string) (Indicator, error) {
	if typ, value, ok := strings.Cut(s, ":"); ok {
		for _, t := range Types() {
			if string(t) == typ {
				return NewIndicator(t, value)
			}
		}
	}
	typ := IP
	if strings.Contains(s, "/") {
		typ = CIDR
	}
	i, err := NewIndicator(typ, s)
	if err != nil {
		return i, fmt.Errorf("%w: %q is not TYPE:VALUE, such as port:445, nor an address; the types are %s", ErrInvalid, s, typeList())
	}
	return i, nil
}

// NewIndicator checks a value and brings it into the form in which it is stored:
// there is one for each thing.
func NewIndicator(typ Type, value string) (Indicator, error) {
	bad := func(shape string) (Indicator, error) {
		return Indicator{}, fmt.Errorf("%w: %s %q is not %s", ErrInvalid, typ, value, shape)
	}
	if len(value) > MaxValue || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return bad(fmt.Sprintf("printable text of at most %d bytes", MaxValue))
	}
	switch typ {
	case IP:
		a, err := netip.ParseAddr(value)
		if err != nil || a.Zone() != "" {
			return bad("an address such as 192.0.2.7 or 2001:db8::7")
		}
		value = a.Unmap().String()
	case CIDR:
		p, err := parseCIDR(value)
		if err != nil {
			return bad("a network such as 192.0.2.0/24 or 2001:db8::/32")
		}
		value = p.String()
	case MAC:
		m, err := net.ParseMAC(value)
		if err != nil || len(m) != 6 {
			return bad("an Ethernet address such as 02:00:00:00:00:01")
		}
		value = m.String()
	case Port:
		port, ok := canonicalPort(value)
		if !ok {
			return bad("a port such as 443, 443/tcp or 53/udp")
		}
		value = port
	case UID:
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n == 1<<32-1 {
			return bad("a number of a user")
		}
		value = strconv.FormatUint(n, 10)
	case Cgroup:
		if value = path.Clean(strings.TrimSpace(value)); !strings.HasPrefix(value, "/") {
			return bad("an absolute path such as /system.slice/x.service")
		}
	case PID:
		pid, start, ok := SplitPID(value)
		if !ok {
			return bad("a process such as 1234, or 1234@START")
		}
		if value = strconv.Itoa(pid); start > 0 {
			value += "@" + strconv.FormatUint(start, 10)
		}
	case Container:
		if value == "" || strings.ContainsAny(value, "/ ") {
			return bad("the name or the id of a container")
		}
	case Interface:
		if value == "" || len(value) > 15 || strings.ContainsAny(value, "/: *\"\\") || value == "." || value == ".." {
			return bad("the name of an interface")
		}
	case Domain:
		if value = strings.ToLower(strings.TrimSuffix(value, ".")); value == "" || len(value) > 253 || strings.ContainsAny(value, " /:@\"\\") {
			return bad("a domain such as example.org")
		}
	default:
		return Indicator{}, fmt.Errorf("%w: there is no type of indicators %q (there are %s)", ErrInvalid, typ, typeList())
	}
	return Indicator{typ, value}, nil
}

// parseCIDR reads a network; one of IPv4 within IPv6 is that of IPv4.
func parseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return p, fmt.Errorf("%q is no network", s)
		}
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, fmt.Errorf("%q is no network", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// canonicalPort reads PORT, PORT/PROTO and PROTO/PORT.
func canonicalPort(s string) (string, bool) {
	port, proto, _ := strings.Cut(strings.ToLower(s), "/")
	if port == "tcp" || port == "udp" {
		port, proto = proto, port
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || proto != "" && proto != "tcp" && proto != "udp" {
		return "", false
	}
	if s = strconv.FormatUint(n, 10); proto != "" {
		s += "/" + proto
	}
	return s, true
}

// SplitPID takes the value of an indicator of type PID apart; start is 0 where
// none is given.
func SplitPID(value string) (pid int, start uint64, ok bool) {
	number, after, with := strings.Cut(value, "@")
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || n == 0 {
		return 0, 0, false
	}
	if with {
		if start, err = strconv.ParseUint(after, 10, 64); err != nil || start == 0 {
			return 0, 0, false
		}
	}
	return int(n), start, true
}

// ProcessStart returns when a process started, in clock ticks since the host
// booted: with its number it tells the process from all others (proc_pid_stat(5)).
func ProcessStart(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The name of the program, in parentheses, can hold anything.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}
