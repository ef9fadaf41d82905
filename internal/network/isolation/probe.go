package isolation

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// Target is what must be reachable while a host is isolated.
type Target struct {
	Name  string           // HOST:PORT as it was given
	Why   string           // "probe", "controller"
	Addrs []netip.AddrPort // of the host, found out before isolation
}

// Resolve reads HOST:PORT, and asks for the addresses of a name.
func Resolve(ctx context.Context, hostport string) (t Target, err error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return t, failure.Errorf(failure.Usage, "%q is not HOST:PORT", hostport)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return t, failure.Errorf(failure.Usage, "%q has no port from 1 to 65535", hostport)
	}
	t.Name = hostport
	if a, err := netip.ParseAddr(host); err == nil {
		t.Addrs = []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), uint16(n))}
		return t, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return t, failure.Hint(failure.Errorf(failure.Failed, "address of %s: %w", host, err), "give its address, which needs no name server")
	}
	for _, a := range list {
		t.Addrs = append(t.Addrs, netip.AddrPortFrom(a.Unmap(), uint16(n)))
	}
	return t, nil
}

// Peers are the target as services that stay reachable.
func (t Target) Peers() (list []Peer) {
	for _, a := range t.Addrs {
		list = append(list, Peer{Prefix: netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), First: a.Port(), Last: a.Port(), Proto: unix.IPPROTO_TCP, Why: t.Why})
	}
	return list
}

// patience is how long a target may take to answer.
const patience = 5 * time.Second

// Reach connects to the target by TCP, to one of its addresses.
func (t Target) Reach(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, a := range t.Addrs {
		d := net.Dialer{Timeout: patience / time.Duration(len(t.Addrs))}
		var c net.Conn
		if c, err = d.DialContext(ctx, "tcp", a.String()); err == nil {
			return c.Close()
		}
	}
	return err
}
