// Package sockets lists the TCP, UDP, UDP-Lite and raw sockets of the network
// namespace of the process, says which processes have them open, and destroys
// them: the second half of cutting a host off, since rules stop packets and
// leave programs waiting on connections that they believe in.
//
// Everything is asked of the kernel over sock_diag(7). A socket is told apart
// from all others by its cookie, which is never used twice, so what is destroyed
// is what was looked at, and never a socket that took its addresses over.
//
// Sockets of containers with a network of their own are not among them: their
// connections pass this host and are in package conntrack.
//
// Sources: sock_diag(7), linux/inet_diag.h, net/tcp_states.h, tcp(7), proc(5).
package sockets

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// State is the state of a socket, with the numbers of net/tcp_states.h. An
// unconnected UDP or raw socket is in Close, a connected one in Established.
type State uint8

// The states that the kernel tells of.
const (
	Established State = iota + 1
	SynSent
	SynReceived
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
)

// String returns the name that ss(8) prints: "established", "time-wait".
func (s State) String() string {
	names := [...]string{"", "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "closed", "close-wait", "last-ack", "listening", "closing"}
	if s == 0 || int(s) >= len(names) {
		return fmt.Sprintf("state-%d", uint8(s))
	}
	return names[s]
}

// Socket is one as the kernel told it.
type Socket struct {
	Proto  uint8 // unix.IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, IPPROTO_RAW
	Family uint8 // unix.AF_INET or AF_INET6; that of an IPv6 socket which talks IPv4, too
	State  State
	// Local and Remote are its ends. IPv4 addresses mapped into IPv6 are given as
	// IPv4. The port of Local of a raw socket is the protocol that it takes.
	Local, Remote netip.AddrPort
	Interface     uint32 // index of the interface that it is bound to; 0: any
	UID           uint32 // who opened it
	Inode         uint64 // 0: no process has it open any more, or the kernel made it for itself
	Cookie        uint64 // never used twice; 0: the kernel tells none for this protocol
	V6Only        bool   // takes no IPv4
	Mark          uint32 // SO_MARK; told to root alone
	CgroupID      uint64 // of the control group (version 2) that it was opened in; 0: not told
	ReceiveQueue  uint32 // bytes that wait to be read; of a listener: connections that wait
	SendQueue     uint32 // bytes that are not acknowledged; of a listener: how many may wait

	// Counted is set when the kernel counts for it, which it does for TCP:
	// Sent are the bytes of data that went out, those that were sent again not
	// counted twice, and Received those that came. Before Linux 4.19, Sent are
	// those that the other end acknowledged.
	Counted        bool
	Sent, Received uint64

	id [48]byte // struct inet_diag_sockid, as the kernel wrote it
}

// Listens tells whether the socket waits for what others send first: TCP that
// listens, and everything else that is not connected.
func (s *Socket) Listens() bool {
	return s.State == Listen || s.Proto != unix.IPPROTO_TCP && s.State == Close
}

// ErrUnavailable is wrapped when the kernel has no module that lists or
// destroys sockets.
var ErrUnavailable = failure.New(failure.NotReady, "this kernel cannot do that")

// List returns the sockets of the protocols, such as unix.IPPROTO_TCP, of both
// families and in every state; without any, those of TCP, UDP, UDP-Lite and
// raw sockets. Nobody but root sees the mark.
func List(protocols ...uint8) ([]Socket, error) {
	if len(protocols) == 0 {
		protocols = []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_RAW}
	}
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var all []Socket
	for _, p := range protocols {
		all, err = list(c, all, p, everyState, true)
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Listening returns the TCP sockets that wait for connections. However many
// connections there are, they are not gone through.
func Listening() ([]Socket, error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return list(c, nil, unix.IPPROTO_TCP, 1<<Listen, false)
}

// list appends the sockets of one protocol in a set of states.
func list(c *netlink.Conn, all []Socket, protocol uint8, states uint32, counters bool) ([]Socket, error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		messages, err := c.Dump(unix.SOCK_DIAG_BY_FAMILY, dumpRequest(family, protocol, states, counters))
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			if protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_UDP || family == unix.AF_INET6 {
				if all, err = listed(all, protocol, family); err != nil {
					return nil, fmt.Errorf("list of sockets: %w", err)
				}
				continue
			}
			return nil, fmt.Errorf("list of sockets: %w: it lacks inet_diag (CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG)", ErrUnavailable)
		}
		if err != nil {
			return nil, fmt.Errorf("list of sockets: %w", err)
		}
		for _, m := range messages {
			s, err := parse(m, protocol)
			if err != nil {
				return nil, fmt.Errorf("list of sockets: %w", err)
			}
			all = append(all, s)
		}
	}
	return all, nil
}
