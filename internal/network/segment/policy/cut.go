package policy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/mobileops/mobileops/internal/network/conntrack"
	"github.com/mobileops/mobileops/internal/network/segment"
	"golang.org/x/sys/unix"
)

// cut makes the kernel forget connections that are not allowed any more. What
// comes next of them is looked at as if it were new.
func (p *Policy) cut() error {
	own, err := hostAddresses()
	if err != nil {
		return err
	}
	_, err = conntrack.Delete(func(c *conntrack.Connection) bool {
		q, ok := p.begun(c, own)
		return ok && !p.Decide(q).Allowed
	})
	if errors.Is(err, conntrack.ErrUnavailable) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the rules are in force, but connections from before them may go on: %w", err)
	}
	return nil
}

// hostAddresses are those of this host.
func hostAddresses() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this host: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				own[addr.Unmap()] = true
			}
		}
	}
	return own, nil
}

// begun is the packet that a connection began with, as the rules saw it; not ok
// when no zone has to do with it.
func (p *Policy) begun(c *conntrack.Connection, own map[netip.Addr]bool) (q Packet, ok bool) {
	to := c.Orig.Dst
	if real, yes := c.Translated(); yes && c.Status&conntrack.DstNAT != 0 {
		to = real
	}
	q.From, q.To = p.Locate(c.Orig.Src.Addr()), p.Locate(to.Addr())
	q.From.Host, q.To.Host = own[q.From.Address], own[q.To.Address]
	if q.From.Host {
		q.From.Zone = ""
	}
	if q.To.Host {
		q.To.Zone = ""
	}
	if q.From.Zone == "" && q.To.Zone == "" {
		return q, false
	}
	switch c.Orig.Proto {
	case unix.IPPROTO_TCP:
		q.Traffic.Protocol = segment.ProtocolTCP
	case unix.IPPROTO_UDP:
		q.Traffic.Protocol = segment.ProtocolUDP
	case unix.IPPROTO_SCTP:
		q.Traffic.Protocol = segment.ProtocolSCTP
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		q.Traffic.Protocol = segment.ProtocolICMP
		return q, true
	default:
		return q, true
	}
	q.Traffic.First, q.Traffic.Last = to.Port(), to.Port()
	return q, true
}
