// Package conntrack lists the connections that the kernel keeps track of in the
// network namespace of the process, those that it only forwards included, and
// makes it forget them: a firewall that lets established connections pass goes
// on to do so until their entry is gone.
//
// The kernel tracks only where a rule asks it to, and only root may ask for the
// list. Byte counts are there when net.netfilter.nf_conntrack_acct is 1.
//
// Sources: linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h,
// conntrack(8), the kernel's Documentation/networking/nf_conntrack-sysctl.rst.
package conntrack

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// Tuple is one direction of a connection. For protocols without ports they are
// 0; of ICMP, Src has the identifier as its port.
type Tuple struct {
	Proto    uint8 // unix.IPPROTO_TCP, …
	Src, Dst netip.AddrPort
	// Of ICMP and ICMPv6.
	ICMPType, ICMPCode uint8
}

// Counter is what passed in one direction.
type Counter struct{ Packets, Bytes uint64 }

// Status are bits of IPS_* of nf_conntrack_common.h.
type Status uint32

// The bits that matter to those who look at connections.
const (
	SeenReply Status = 1 << 1 // packets passed in both directions
	Assured   Status = 1 << 2 // not dropped early when the table is full
	Confirmed Status = 1 << 3
	SrcNAT    Status = 1 << 4
	DstNAT    Status = 1 << 5
	Dying     Status = 1 << 9
)

// Connection is an entry of the kernel's table.
type Connection struct {
	Family uint8 // unix.AF_INET or AF_INET6
	// Orig is how the first packet came, Reply how answers look before they are
	// translated back: with NAT, it is not just the reverse of Orig.
	Orig, Reply Tuple
	Zone        uint16
	Status      Status
	TCPState    TCPState // 0 for other protocols
	Mark        uint32
	ID          uint32
	Timeout     time.Duration // until it is forgotten, if nothing passes
	// Counted is set when the kernel counts packets and bytes.
	Counted               bool
	OrigCount, ReplyCount Counter
	// Started is when it was created; zero unless
	// net.netfilter.nf_conntrack_timestamp is 1.
	Started time.Time

	tuple, zone []byte // as the kernel wrote them: what Delete names it by
}

// Translated tells whether address translation took place, and to whom the
// connection really goes: the source of the replies.
func (c *Connection) Translated() (to netip.AddrPort, yes bool) {
	return c.Reply.Src, c.Status&(SrcNAT|DstNAT) != 0
}

// TCPState is a state of a tracked TCP connection, as in enum tcp_conntrack.
type TCPState uint8

// String returns the name that conntrack(8) prints, in lower case.
func (s TCPState) String() string {
	names := [...]string{"", "syn-sent", "syn-recv", "established", "fin-wait", "close-wait", "last-ack", "time-wait", "close", "syn-sent2"}
	if int(s) >= len(names) {
		return fmt.Sprintf("state-%d", uint8(s))
	}
	return names[s]
}

// ErrUnavailable is wrapped when the kernel tracks no connections.
var ErrUnavailable = failure.New(failure.NotReady, "this kernel tracks no connections")

// sysctls is where the kernel shows that it tracks connections. Asking over
// netlink would load its module.
const sysctls = "/proc/sys/net/netfilter"

// Accounting tells whether the kernel counts the bytes of connections that
// begin from now on.
func Accounting() bool {
	b, err := os.ReadFile(sysctls + "/nf_conntrack_acct")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// List returns the connections of both families and all zones. Without the
// right to see them the error is of kind failure.NotAllowed.
func List() ([]Connection, error) {
	c, err := open()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return list(c)
}

func open() (*netlink.Conn, error) {
	if _, err := os.Stat(sysctls + "/nf_conntrack_count"); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("connections: %w", ErrUnavailable)
	}
	return netlink.Dial(unix.NETLINK_NETFILTER)
}

func list(c *netlink.Conn) ([]Connection, error) {
	messages, err := c.Dump(message(msgGet), make([]byte, headSize)) // struct nfgenmsg: any family
	if err != nil {
		return nil, explained("list of connections", err)
	}
	all := make([]Connection, 0, len(messages))
	for _, m := range messages {
		e, err := parse(m)
		if err != nil {
			return nil, fmt.Errorf("list of connections: %w", err)
		}
		all = append(all, e)
	}
	return all, nil
}

// explained gives an error of the kernel its kind.
func explained(what string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return failure.Errorf(failure.NotAllowed, "%s: only root may do that: %w", what, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%s: %w (CONFIG_NF_CT_NETLINK): %w", what, ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
