package netstate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// socket is one that takes what others send.
type socket struct {
	protocol string // "tcp"
	addr     netip.Addr
	port     uint16 // of a raw socket: the protocol that it takes
	device   uint32 // index of the interface that it is bound to; 0: any
	uid      uint32
	inode    uint32
	v6only   bool
}

// States of sockets, from net/tcp_states.h. Of UDP and raw sockets, the
// unconnected are in the state of closed ones.
const (
	stateClose  = 7
	stateListen = 10
)

// transports are the protocols that have sockets which take what comes.
var transports = [...]struct {
	name   string
	number uint8
	state  uint8
}{
	{"tcp", unix.IPPROTO_TCP, stateListen}, {"udp", unix.IPPROTO_UDP, stateClose}, {"udplite", unix.IPPROTO_UDPLITE, stateClose},
	{"sctp", unix.IPPROTO_SCTP, stateListen}, {"dccp", unix.IPPROTO_DCCP, stateListen}, {"raw", unix.IPPROTO_RAW, stateClose},
}

// sockets tells what listens, and which programs these are.
func sockets(g *gathering) {
	list, packet, holders, whole, err := g.held()
	if n := len(list) + len(packet); err == nil && n > maxSockets {
		err = fmt.Errorf("there are %d sockets that listen, too many to tell (see them: ss -lntup)", n)
	}
	if err != nil {
		g.told("sockets", err, "")
		g.told("programs", err, "")
		return
	}
	g.told("sockets", nil, "")
	if whole {
		g.told("programs", nil, "")
	} else {
		g.sources = append(g.sources, facts.Source{Aspect: facts.Network, Name: "programs", State: facts.Partial,
			Detail: "only root sees which programs of other users hold a socket"})
	}
	user := g.users()
	low, high := g.dynamicPorts()
	for _, s := range list {
		p := holders[s.inode]
		if p == nil && whole && s.inode != 0 {
			p = &holder{program: noProcess, script: facts.None, unit: facts.None}
		}
		if s.protocol == "raw" || s.port == 0 {
			g.unbound("raw", s.protocol+"/"+ipProtocol(s.port), p, finding.Medium)
			continue
		}
		dynamic := s.port >= low && s.port <= high
		if s.protocol != "tcp" && dynamic {
			g.unbound("dynamic", s.protocol, p, finding.Low)
			continue
		}
		f := facts.Fact{Severity: finding.High, Attributes: map[string]string{
			"protocol": s.protocol, "address": s.address(), "port": strconv.Itoa(int(s.port)), "user": user(s.uid),
			"interface": g.names.device(s.device), "dynamic": facts.YesNo(dynamic),
		}}
		if s.addr.IsLoopback() {
			f.Severity = finding.Medium
		}
		p.describe(f.Attributes, s.inode == 0)
		g.add("sockets", "listen", s.protocol+"/"+netip.AddrPortFrom(s.addr, s.port).String()+g.names.bound(s.device), f)
	}
	for _, s := range packet {
		g.unbound("raw", "packet", holders[s.inode], finding.Medium)
	}
}

// maxSockets bounds what is told: there is no host with a use for more.
const maxSockets = 50_000

// noProcess is the program of a socket that no process of this host has open:
// one of another PID namespace has it, or a process that is being hidden.
const noProcess = "no visible process"

// held lists the sockets with the programs that hold them. A socket that is
// closed between the two lists has no program any more, so both are made again
// when one has none.
func (g *gathering) held() (list, packet []socket, holders map[uint32]*holder, whole bool, err error) {
	for try := range 3 {
		if try > 0 {
			time.Sleep(20 * time.Millisecond)
		}
		if list, err = g.listening(); err != nil {
			return nil, nil, nil, false, err
		}
		if packet, err = packetSockets(); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
			packet, err = nil, nil // this kernel has no list of them
		}
		if err != nil {
			return nil, nil, nil, false, err
		}
		inodes := map[uint32]bool{}
		for _, s := range append(slices.Clone(list), packet...) {
			if s.inode != 0 {
				inodes[s.inode] = true
			}
		}
		if holders, whole = g.holders(inodes); !whole || len(holders) == len(inodes) {
			break
		}
	}
	return list, packet, holders, whole, nil
}

// unbound tells of a program that takes packets without a port of its own: the
// number of such sockets changes all the time, the program does not.
func (g *gathering) unbound(kind, what string, p *holder, severity finding.Severity) {
	if p == nil || p.program == "" {
		return // the source "programs" says that they are not known
	}
	f := facts.Fact{Severity: severity, Attributes: map[string]string{}}
	p.describe(f.Attributes, false)
	g.add("programs", kind, what+"/"+strings.TrimPrefix(p.program, "/"), f)
}

func (s *socket) address() string {
	switch {
	case s.addr.IsUnspecified() && s.v6only:
		return "any IPv6"
	case s.addr.IsUnspecified() && s.addr.Is6():
		return "any"
	case s.addr.IsUnspecified():
		return "any IPv4"
	}
	return s.addr.String()
}

// device names what a socket is bound to.
func (n interfaceNames) device(index uint32) string {
	if index == 0 {
		return "any"
	}
	return n.of(index)
}

// bound is what the key of a socket that is bound to an interface ends with.
func (n interfaceNames) bound(index uint32) string {
	if index == 0 {
		return ""
	}
	return "%" + n.of(index)
}

// dynamicPorts is the range from which the kernel takes ports for programs that
// name none.
func (g *gathering) dynamicPorts() (low, high uint16) {
	low, high = 32768, 60999
	b, err := os.ReadFile(filepath.Join(g.Proc, "sys/net/ipv4/ip_local_port_range"))
	if f := strings.Fields(string(b)); err == nil && len(f) == 2 {
		l, err1 := strconv.ParseUint(f[0], 10, 16)
		h, err2 := strconv.ParseUint(f[1], 10, 16)
		if err1 == nil && err2 == nil {
			return uint16(l), uint16(h)
		}
	}
	return low, high
}

// listening asks sock_diag(7), and where the kernel has no such module for a
// protocol, the list in /proc/net.
func (g *gathering) listening() ([]socket, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var all []socket
	for _, t := range transports {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			list, err := c.Dump(unix.SOCK_DIAG_BY_FAMILY, diagRequest(family, t.number, t.state))
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
				more, err := g.listed(t.name, family, t.state)
				if err != nil {
					return nil, err
				}
				all = append(all, more...)
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("list of %s sockets: %w", t.name, err)
			}
			for _, m := range list {
				s, err := parseDiag(m, t.name)
				if err != nil {
					return nil, err
				}
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// diagRequest is struct inet_diag_req_v2 of linux/inet_diag.h. Of raw sockets,
// its third byte of head is the protocol; 255 is all.
func diagRequest(family, protocol, state uint8) []byte {
	b := make([]byte, 56)
	b[0], b[1] = family, protocol
	if protocol == unix.IPPROTO_RAW {
		b[3] = protocol
	}
	binary.NativeEndian.PutUint32(b[4:], 1<<state)
	return b
}

// Attributes of an answer of inet_diag.
const inetDiagV6Only = 11

// parseDiag reads struct inet_diag_msg.
func parseDiag(m []byte, protocol string) (socket, error) {
	head, attrs, err := netlink.After(m, 72)
	if err != nil {
		return socket{}, err
	}
	s := socket{
		protocol: protocol, port: binary.BigEndian.Uint16(head[4:]), device: binary.NativeEndian.Uint32(head[40:]),
		uid: binary.NativeEndian.Uint32(head[64:]), inode: binary.NativeEndian.Uint32(head[68:]),
	}
	if head[0] == unix.AF_INET {
		s.addr = netip.AddrFrom4([4]byte(head[8:12]))
	} else {
		s.addr = netip.AddrFrom16([16]byte(head[8:24]))
	}
	for _, a := range attrs {
		if a.Type == inetDiagV6Only && len(a.Value) > 0 {
			s.v6only = a.Value[0] != 0
		}
	}
	return s, nil
}

// listed reads /proc/net/NAME. A protocol that is in neither place is not in
// this kernel.
func (g *gathering) listed(protocol string, family, state uint8) ([]socket, error) {
	file := filepath.Join(g.Proc, "net", protocol)
	if family == unix.AF_INET6 {
		file += "6"
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseProcNet(string(b), protocol, state)
}

// parseProcNet reads the lines of /proc/net/tcp and its likes, see proc(5).
func parseProcNet(text, protocol string, state uint8) ([]socket, error) {
	var list []socket
	n := 0
	for line := range strings.Lines(text) {
		n++
		f := strings.Fields(line)
		if len(f) < 10 || f[0] == "sl" {
			continue
		}
		st, err := strconv.ParseUint(f[3], 16, 8)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: state %q", protocol, n, f[3])
		}
		if uint8(st) != state {
			continue
		}
		addr, port, err := parseHexAddress(f[1])
		uid, err2 := strconv.ParseUint(f[7], 10, 32)
		inode, err3 := strconv.ParseUint(f[9], 10, 32)
		if err := errors.Join(err, err2, err3); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", protocol, n, err)
		}
		list = append(list, socket{protocol: protocol, addr: addr, port: port, uid: uint32(uid), inode: uint32(inode)})
	}
	return list, nil
}

// parseHexAddress reads "0100007F:0016": words of this machine's byte order.
func parseHexAddress(s string) (netip.Addr, uint16, error) {
	host, p, _ := strings.Cut(s, ":")
	port, err := strconv.ParseUint(p, 16, 16)
	if err != nil || len(host) != 8 && len(host) != 32 {
		return netip.Addr{}, 0, fmt.Errorf("address %q", s)
	}
	var b []byte
	for ; host != ""; host = host[8:] {
		w, err := strconv.ParseUint(host[:8], 16, 32)
		if err != nil {
			return netip.Addr{}, 0, fmt.Errorf("address %q", s)
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(w))
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr, uint16(port), nil
}

// packetSockets lists those of packet(7), which see everything that passes.
// Without the module for it, there is nothing to ask.
func packetSockets() ([]socket, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	req := make([]byte, 20) // struct packet_diag_req of linux/packet_diag.h
	req[0] = unix.AF_PACKET
	list, err := c.Dump(unix.SOCK_DIAG_BY_FAMILY, req)
	if err != nil {
		return nil, fmt.Errorf("list of packet sockets: %w", err)
	}
	var all []socket
	for _, m := range list {
		head, _, err := netlink.After(m, 16)
		if err != nil {
			return nil, err
		}
		all = append(all, socket{protocol: "packet", inode: binary.NativeEndian.Uint32(head[4:])})
	}
	return all, nil
}

func ipProtocol(n uint16) string {
	switch n {
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	case unix.IPPROTO_IGMP:
		return "igmp"
	case unix.IPPROTO_GRE:
		return "gre"
	case unix.IPPROTO_RAW:
		return "any"
	case 89:
		return "ospf"
	case 112:
		return "vrrp"
	}
	return strconv.Itoa(int(n))
}
