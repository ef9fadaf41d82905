// Package nft writes rulesets of nf_tables: it encodes tables, chains, sets,
// elements and rules as netlink messages and gives them to the kernel as one
// transaction, which is in force wholly or not at all.
//
// A Batch is filled and then committed over a Conn. Whatever is put into it is
// kept as text, too, in the syntax of nft(8), so that --dry-run shows what would
// be in force; a test proves that nft makes the same ruleset of that text.
//
// Reading is done with package internal/netlink; see read.go for what a command
// needs to know of tables in force.
//
// Why an own encoder: isolation wants table flags (owner, persist), sets with
// time-outs for each element, hundreds of thousands of elements in one
// transaction and no work at start-up, at the least latency.
//
// Invariants: nothing reaches the kernel before Commit; a Batch that ran into an
// error is never sent; names are those that nft can parse back, so a ruleset can
// be listed and loaded again (chain names that are keywords are refused).
//
// Sources: linux/netfilter/nf_tables.h, netlink(7), nft(8), the kernel's
// net/netfilter/nf_tables_api.c for the order of messages.
package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// Family is an address family of nf_tables.
type Family uint8

// Families of tables.
const (
	INet   Family = unix.NFPROTO_INET
	IPv4   Family = unix.NFPROTO_IPV4
	IPv6   Family = unix.NFPROTO_IPV6
	ARP    Family = unix.NFPROTO_ARP
	Bridge Family = unix.NFPROTO_BRIDGE
	NetDev Family = unix.NFPROTO_NETDEV
)

// String returns the word for the family in nft(8).
func (f Family) String() string {
	switch f {
	case INet:
		return "inet"
	case IPv4:
		return "ip"
	case IPv6:
		return "ip6"
	case ARP:
		return "arp"
	case Bridge:
		return "bridge"
	case NetDev:
		return "netdev"
	}
	return fmt.Sprintf("family %d", uint8(f))
}

// Error is the kernel's answer to one message of a batch: all of the batch was
// refused. It unwraps to a unix.Errno.
type Error struct {
	What  string // what was asked for: "add chain inet x y"; "commit" for the whole
	Errno unix.Errno
}

func (e *Error) Error() string { return fmt.Sprintf("nftables: %s: %v", e.What, e.Errno) }

// Unwrap returns the kernel's error number.
func (e *Error) Unwrap() error { return e.Errno }

// Conn is a netlink socket to nf_tables in the network namespace of the thread
// that dialled. A table with the flag Owner belongs to the Conn that made it:
// nobody else can change it until the Conn is closed. It is for one goroutine.
type Conn struct {
	fd    int
	stale bool // answers to a batch that failed may still be there
}

// Dial opens a Conn.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, failure.New(failure.NotReady, "the kernel has no netfilter (CONFIG_NETFILTER_NETLINK)")
		}
		return nil, os.NewSyscallError("socket", err)
	}
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	if err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	// Answers to refused messages repeat them; their heads are enough.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &Conn{fd: fd}, nil
}

// patience is how long the kernel may take over a commit: that of a million
// elements takes seconds.
const patience = 60 * time.Second

// Close closes the socket. Tables that it owns go, unless they persist.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Commit gives the batch to the kernel as one transaction. On an error, an
// *Error when it came from the kernel, nothing has changed. A Batch is
// committed once.
func (c *Conn) Commit(b *Batch) error {
	data, err := b.finish()
	if err != nil || len(data) == 0 {
		return err
	}
	// The message must fit the send buffer as a whole.
	if len(data) > 100<<10 {
		size := len(data) + len(data)/4 + 64<<10
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size); err != nil {
			return fmt.Errorf("room for %d bytes: %w", size, os.NewSyscallError("setsockopt", err))
		}
	}
	if c.stale {
		c.drain()
	}
	if err := unix.Sendto(c.fd, data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send %d bytes of rules: %w", len(data), os.NewSyscallError("sendto", err))
	}
	err = c.outcome(b)
	c.stale = err != nil
	return err
}

// drain takes away the answers to a batch that failed: there can be an error for
// each of its messages, all of them queued by the time it was sent, and the next
// batch counts its messages in the same way.
func (c *Conn) drain() {
	for buf := make([]byte, 16<<10); ; {
		_, _, err := unix.Recvfrom(c.fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return
		}
	}
}

// outcome waits for the acknowledgement of the last message, or the first error.
func (c *Conn) outcome(b *Batch) error {
	buf := make([]byte, 16<<10)
	var first error
	for {
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return fmt.Errorf("nftables: the kernel gave no answer within %v", patience)
		case err == unix.ENOBUFS && first != nil:
			return first
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			continue // other processes can send to this socket, too
		}
		for rest := buf[:n]; len(rest) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(rest))
			if size < unix.NLMSG_HDRLEN || size > len(rest) {
				return fmt.Errorf("nftables: an answer of %d bytes in %d", size, len(rest))
			}
			m := rest[:size]
			rest = rest[min((size+3)&^3, len(rest)):]
			if binary.NativeEndian.Uint16(m[4:]) != unix.NLMSG_ERROR || len(m) < unix.NLMSG_HDRLEN+4 {
				continue
			}
			seq, code := binary.NativeEndian.Uint32(m[8:]), int32(binary.NativeEndian.Uint32(m[16:]))
			if code < 0 && first == nil {
				first = &Error{What: b.what(seq), Errno: unix.Errno(-code)}
			}
			// An error may be followed by others and ends with none of its own
			// when it is about the batch as a whole.
			if first != nil || seq == b.last {
				return first
			}
		}
	}
}
