package host

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"golang.org/x/sys/unix"
)

const (
	dialTimeout = 10 * time.Second // when the plugin says none
	maxTimeout  = 60 * time.Second
	maxAddress  = 512 // bytes
)

// dial answers dial: it connects on behalf of the plugin, which cannot, and
// hands the connection over.
func (s *session) dial(params []byte) (any, error) {
	var p struct {
		Network string `json:"network"`
		Address string `json:"address"`
		Timeout int64  `json:"timeout_ms"`
	}
	if err := decode(params, &p); err != nil {
		return nil, err
	}
	if len(p.Address) > maxAddress {
		return nil, refuse(TooLarge, "an address has at most %d bytes", maxAddress)
	}
	timeout := dialTimeout
	if p.Timeout > 0 {
		timeout = time.Duration(min(p.Timeout, maxTimeout.Milliseconds())) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	// A plugin that is to end is not told any more, and nobody waits for that.
	defer context.AfterFunc(s.caller, cancel)()
	var conn net.Conn
	var err error
	switch p.Network {
	case "tcp":
		conn, err = s.dialTCP(ctx, p.Address)
	case "unix":
		if !slices.Contains(s.opts.Permissions.Unix, p.Address) {
			return nil, refuse(Denied, "the permissions of this plugin do not have unix: %s", quoted(p.Address))
		}
		conn, err = dialUnix(ctx, p.Address, s.opts.Account)
	default:
		return nil, refuse(Invalid, "there is no network %s; it is tcp or unix", quoted(p.Network))
	}
	if err != nil {
		if r, ok := err.(*Refusal); ok {
			return nil, r
		}
		if ctx.Err() != nil && s.ctx.Err() == nil {
			return nil, refuse(Failed, "%s did not answer within %v", quoted(p.Address), timeout)
		}
		return nil, refuse(Failed, "connect to %s: %s", quoted(p.Address), clean(err.Error(), 256))
	}
	defer conn.Close()
	fd, err := descriptor(conn)
	if err != nil {
		return nil, err
	}
	return passed{fd}, nil
}

// descriptor returns a copy of a connection's descriptor, in blocking mode,
// which is what programs expect that are not written in Go.
func descriptor(conn net.Conn) (fd int, err error) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	fd = -1
	failed := raw.Control(func(have uintptr) {
		if fd, err = unix.FcntlInt(have, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, false)
		}
	})
	if err == nil {
		err = failed
	}
	if err != nil && fd >= 0 {
		unix.Close(fd)
	}
	return fd, err
}

// endpoint is an address to dial, in the one form in which two are compared.
type endpoint struct {
	host string     // in lower case and without a dot at its end; "" with addr
	addr netip.Addr // of an address
	port uint16
}

// parseEndpoint reads host:port. An IPv6 address is in brackets.
func parseEndpoint(text string) (e endpoint, err error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return e, fmt.Errorf("%s is not host:port", quoted(text))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '+' {
		return e, fmt.Errorf("%s has no port from 1 to 65535", quoted(text))
	}
	e.port = uint16(n)
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Is6() != strings.HasPrefix(text, "[") || addr.Zone() != "" {
			return e, fmt.Errorf("%s: an IPv6 address is in brackets and has no zone", quoted(text))
		}
		e.addr = addr.Unmap()
		return e, nil
	}
	e.host = strings.ToLower(strings.TrimSuffix(host, "."))
	// What is neither a name nor an address in its one form is refused: some
	// resolvers take 0x7f.1 or 127.1 for an address.
	if e.host == "" || len(e.host) > 253 || strings.HasPrefix(text, "[") || strings.Trim(e.host, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return e, fmt.Errorf("%s has no name of a host", quoted(text))
	}
	last := e.host[strings.LastIndexByte(e.host, '.')+1:]
	if last == "" || strings.HasPrefix(last, "0x") || strings.Trim(last, "0123456789") == "" {
		return e, fmt.Errorf("%s looks like an address, and is none", quoted(text))
	}
	return e, nil
}

// dialTCP connects to an address that the permissions list. A name is resolved
// once, and the connection goes to what came of that.
func (s *session) dialTCP(ctx context.Context, address string) (net.Conn, error) {
	want, err := parseEndpoint(address)
	if err != nil {
		return nil, refuse(Invalid, "%s", err)
	}
	if !slices.ContainsFunc(s.opts.Permissions.Network, func(listed string) bool {
		e, err := parseEndpoint(listed)
		return err == nil && e == want
	}) {
		return nil, refuse(Denied, "the permissions of this plugin do not have network: %s", quoted(address))
	}
	addrs := []netip.Addr{want.addr}
	if want.host != "" {
		resolver := s.opts.Resolver
		if resolver == nil {
			resolver = net.DefaultResolver
		}
		if addrs, err = resolver.LookupNetIP(ctx, "ip", want.host); err != nil {
			return nil, fmt.Errorf("resolve the name: %w", err)
		}
		addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return s.forbidden(want.host, a.Unmap()) })
		if len(addrs) == 0 {
			return nil, refuse(Denied, "%s leads to link-local, loopback, multicast or no address, which the permissions have to list as such", quoted(address))
		}
	}
	var d net.Dialer
	for i, a := range addrs {
		// Each address has a share of the time, so that one that is silent does
		// not take that of the others.
		try, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok && i < len(addrs)-1 {
			try, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addrs)-i))
		}
		var conn net.Conn
		conn, err = d.DialContext(try, "tcp", netip.AddrPortFrom(a.Unmap(), want.port).String())
		cancel()
		if err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// forbidden reports whether a name must not lead to an address. Clouds hand
// out credentials at link-local addresses and a few others, what listens on
// loopback often asks nobody who he is, and who controls the name's zone is not
// who wrote the permissions. 0.0.0.0 is the host itself.
func (s *session) forbidden(name string, a netip.Addr) bool {
	switch {
	case a.IsUnspecified() || a.IsMulticast() || !a.IsValid():
		return true
	case a.IsLoopback():
		return !ofThisHost(name)
	}
	return !s.opts.AllowLinkLocal && (a.IsLinkLocalUnicast() || manifest.IsMetadata(a))
}

// ofThisHost reports whether a name is one that loopback has: RFC 6761, section
// 6.3, and the name of the host, which Debian gives to 127.0.1.1.
func ofThisHost(name string) bool {
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		return false
	}
	host = strings.ToLower(host)
	short, _, _ := strings.Cut(host, ".")
	return name == host || name == short
}
