package monitor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/network/conntrack"
	"github.com/mobileops/mobileops/internal/network/sockets"
	"golang.org/x/sys/unix"
)

// Process is one that has a socket open.
type Process struct {
	sockets.Process
	ExeB64 []byte `json:"exe_b64,omitempty"` // the path, when it is not valid UTF-8
}

func processes(found map[uint64][]sockets.Process) map[uint64][]Process {
	all := make(map[uint64][]Process, len(found))
	for inode, list := range found {
		for _, p := range list {
			o := Process{Process: p}
			if !utf8.ValidString(p.Exe) {
				o.ExeB64 = []byte(p.Exe)
			}
			all[inode] = append(all[inode], o)
		}
	}
	return all
}

// Listener is a socket that takes what others send first.
type Listener struct {
	Protocol  string         `json:"protocol"` // "tcp", "udp", "udplite", "raw"
	Local     netip.AddrPort `json:"local"`    // of a raw socket the port is the protocol that it takes
	Any       bool           `json:"any"`      // every address of the host; with IPv6 both families unless v6only
	V6Only    bool           `json:"v6only,omitempty"`
	Interface string         `json:"interface,omitempty"` // bound to it
	UID       uint32         `json:"uid"`
	Inode     uint64         `json:"inode"`             // 0: the kernel's own
	Waiting   uint32         `json:"waiting,omitempty"` // connections, or bytes, that nobody took yet
	Processes []Process      `json:"processes,omitempty"`
}

// Flow is a connection, or what looks like one: packets between two ends.
type Flow struct {
	Protocol string `json:"protocol"` // "tcp", "udp", "icmp", …
	// Direction is "out" when this host asked, "in" when it was asked, "forward"
	// when it only passes packets on, and "within" when both ends are here. Of a
	// connection that the kernel does not track it is "in" when something listens
	// at its local port.
	Direction string `json:"direction"`
	State     string `json:"state,omitempty"` // "established", "time-wait"; of UDP "unreplied" when nothing came back yet
	// Local is the end of this host, of a forwarded flow that which asked.
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	// Translated is where the kernel really sends what is for Remote, or, of a
	// connection that came in, what was for Local. Absent without translation.
	Translated netip.AddrPort `json:"translated,omitzero"`
	Processes  []Process      `json:"processes,omitempty"`
	// Behind is, of a forwarded flow, the container or namespace of this machine
	// that one of its ends is in: the one that asked, if it is such.
	Behind *Peer  `json:"behind,omitempty"`
	UID    uint32 `json:"uid"`
	Inode  uint64 `json:"inode,omitempty"` // of the socket; 0: no process of this host has one
	Mark   uint32 `json:"mark,omitempty"`
	Zone   uint16 `json:"zone,omitempty"`
	// CountedBy is "conntrack", which counts packets with their heads, or
	// "socket", which counts what TCP carried; empty: nobody counts.
	CountedBy     string    `json:"counted_by,omitempty"`
	SentBytes     *uint64   `json:"sent_bytes,omitempty"` // by Local
	ReceivedBytes *uint64   `json:"received_bytes,omitempty"`
	Rate          *Rate     `json:"rate,omitempty"`
	Started       time.Time `json:"started,omitzero"`         // known when net.netfilter.nf_conntrack_timestamp is 1
	Timeout       int64     `json:"timeout_seconds,omitzero"` // the kernel forgets it then, if nothing passes

	key string // tells it apart from all others, also of other snapshots
}

func protocolOf(n uint8) string {
	switch n {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_UDPLITE:
		return "udplite"
	case unix.IPPROTO_RAW:
		return "raw"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	case unix.IPPROTO_SCTP:
		return "sctp"
	case unix.IPPROTO_GRE:
		return "gre"
	case unix.IPPROTO_ESP:
		return "esp"
	case unix.IPPROTO_IGMP:
		return "igmp"
	case 112:
		return "vrrp"
	}
	return fmt.Sprint(n)
}

// listeners are the sockets that wait, in the order of protocol and port.
func listeners(list []sockets.Socket, owners map[uint64][]Process, l *links) []Listener {
	out := []Listener{}
	for i := range list {
		s := &list[i]
		if !s.Listens() {
			continue
		}
		n := Listener{Protocol: protocolOf(s.Proto), Local: s.Local, Any: s.Local.Addr().IsUnspecified(), V6Only: s.V6Only,
			Interface: l.name(s.Interface), UID: s.UID, Inode: s.Inode, Waiting: s.ReceiveQueue, Processes: owners[s.Inode]}
		out = append(out, n)
	}
	slices.SortStableFunc(out, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Local.Port(), b.Local.Port()), a.Local.Addr().Compare(b.Local.Addr()))
	})
	return out
}

// ends are a connection as one end sees it.
type ends struct {
	proto         uint8
	local, remote netip.AddrPort
}

// flows joins sockets with the connections that the kernel tracks. A socket that
// asked sees what is in the tuple of its connection, one that was asked the
// tuple of the reply: that holds with address translation, too.
func flows(list []sockets.Socket, tracked []conntrack.Connection, owners map[uint64][]Process, l *links) []Flow {
	asked, replied := make(map[ends]*conntrack.Connection, len(tracked)), make(map[ends]*conntrack.Connection, len(tracked))
	for i := range tracked {
		c := &tracked[i]
		asked[ends{c.Orig.Proto, c.Orig.Src, c.Orig.Dst}] = c
		replied[ends{c.Reply.Proto, c.Reply.Src, c.Reply.Dst}] = c
	}
	out := []Flow{}
	owned := make(map[*conntrack.Connection]bool, len(tracked))
	waiting := map[ends]*sockets.Socket{} // without a remote end: what an unconnected UDP socket takes
	type service struct {
		proto uint8
		port  uint16
	}
	served := map[service]bool{}
	for i := range list {
		if s := &list[i]; s.Listens() {
			served[service{s.Proto, s.Local.Port()}] = true
		}
	}
	for i := range list {
		s := &list[i]
		if s.Proto == unix.IPPROTO_RAW || s.Listens() || s.State == sockets.Close {
			if s.Proto == unix.IPPROTO_UDP || s.Proto == unix.IPPROTO_UDPLITE {
				waiting[ends{proto: s.Proto, local: s.Local}] = s
			}
			continue
		}
		f := Flow{Protocol: protocolOf(s.Proto), State: s.State.String(), Local: s.Local, Remote: s.Remote, UID: s.UID, Inode: s.Inode,
			Mark: s.Mark, Processes: owners[s.Inode], key: fmt.Sprintf("socket %d", s.Cookie)}
		if s.Counted {
			f.count("socket", s.Sent, s.Received)
		}
		at := ends{s.Proto, s.Local, s.Remote}
		if c := asked[at]; c != nil {
			owned[c] = true
			f.track(c, false)
			// Tracking that began in the middle takes who spoke first for who asked.
			if f.Direction = "out"; s.Proto == unix.IPPROTO_TCP && served[service{s.Proto, s.Local.Port()}] {
				f.Direction = "in"
			}
		} else if c := replied[at]; c != nil {
			owned[c] = true
			f.track(c, true)
			f.Direction = "in"
		} else if f.Direction = "out"; served[service{s.Proto, s.Local.Port()}] {
			f.Direction = "in"
		}
		if l.local[s.Remote.Addr()] || s.Remote.Addr().IsLoopback() {
			f.Direction = "within"
		}
		out = append(out, f)
	}
	for i := range tracked {
		if c := &tracked[i]; !owned[c] {
			out = append(out, unowned(c, waiting, owners, l))
		}
	}
	slices.SortStableFunc(out, func(a, b Flow) int {
		return cmp.Or(a.Remote.Addr().Compare(b.Remote.Addr()), cmp.Compare(a.Remote.Port(), b.Remote.Port()),
			a.Local.Addr().Compare(b.Local.Addr()), cmp.Compare(a.Local.Port(), b.Local.Port()), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}

// unowned makes a flow of a connection that belongs to no connected socket: it
// is forwarded, or over, or that of a UDP socket that talks to many.
func unowned(c *conntrack.Connection, waiting map[ends]*sockets.Socket, owners map[uint64][]Process, l *links) Flow {
	f := Flow{Protocol: protocolOf(c.Orig.Proto), key: fmt.Sprintf("connection %d %d %s %s", c.ID, c.Zone, c.Orig.Src, c.Orig.Dst)}
	takes := func(at netip.AddrPort) *sockets.Socket {
		for _, addr := range []netip.Addr{at.Addr(), netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			if s := waiting[ends{proto: c.Orig.Proto, local: netip.AddrPortFrom(addr, at.Port())}]; s != nil {
				return s
			}
		}
		return nil
	}
	here := func(a netip.Addr) bool { return l.local[a] || a.IsLoopback() || a.IsMulticast() }
	from, to := here(c.Orig.Src.Addr()), here(c.Reply.Src.Addr())
	var s *sockets.Socket
	switch {
	case from:
		f.Direction, f.Local, f.Remote = "out", c.Orig.Src, c.Orig.Dst
		f.track(c, false)
		if s = takes(c.Orig.Src); to {
			f.Direction = "within"
		}
	case to:
		f.Direction, f.Local, f.Remote = "in", c.Reply.Src, c.Reply.Dst
		f.track(c, true)
		s = takes(c.Reply.Src)
	default:
		f.Direction, f.Local, f.Remote = "forward", c.Orig.Src, c.Orig.Dst
		f.track(c, false)
		if f.Behind = l.behind(c.Orig.Src.Addr()); f.Behind == nil {
			f.Behind = l.behind(c.Reply.Src.Addr())
		}
	}
	if s != nil {
		f.UID, f.Inode, f.Processes = s.UID, s.Inode, owners[s.Inode]
	}
	f.State = c.TCPState.String()
	if c.Status&conntrack.SeenReply == 0 && c.TCPState == 0 {
		f.State = "unreplied"
	}
	return f
}

// track adds what the kernel tracks of it; reversed: this host was asked.
func (f *Flow) track(c *conntrack.Connection, reversed bool) {
	f.Mark, f.Zone, f.Started, f.Timeout = cmp.Or(f.Mark, c.Mark), c.Zone, c.Started, int64(c.Timeout/time.Second)
	if to, yes := c.Translated(); yes {
		switch {
		case reversed && c.Orig.Dst != c.Reply.Src:
			f.Translated = c.Orig.Dst
		case !reversed && to != c.Orig.Dst:
			f.Translated = to
		}
	}
	if !c.Counted {
		return
	}
	if reversed {
		f.count("conntrack", c.ReplyCount.Bytes, c.OrigCount.Bytes)
	} else {
		f.count("conntrack", c.OrigCount.Bytes, c.ReplyCount.Bytes)
	}
}

func (f *Flow) count(by string, sent, received uint64) {
	f.CountedBy, f.SentBytes, f.ReceivedBytes = by, &sent, &received
}

// ByTraffic is the order in which the flow of which most flows comes first.
func ByTraffic(a, b *Flow) int {
	total := func(f *Flow) float64 {
		if f.Rate == nil {
			return 0
		}
		return f.Rate.In + f.Rate.Out
	}
	return cmp.Compare(total(b), total(a))
}

// pathBase is the last part of a path.
func pathBase(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
