package block

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/threat"
)

// rangeOf is what a target of type IP or CIDR covers.
func rangeOf(t threat.Indicator) (addresses.Range, bool) {
	if t.Type != threat.IP && t.Type != threat.CIDR {
		return addresses.Range{}, false
	}
	p, err := addresses.ParsePrefix(t.Value)
	return addresses.Of(p), err == nil
}

// canonical brings a target into the form under which it is in the catalogue: a
// network of one address is that address.
func canonical(t threat.Indicator) (threat.Indicator, error) {
	t, err := threat.NewIndicator(t.Type, t.Value)
	if err != nil {
		return t, err
	}
	switch t.Type {
	case threat.CIDR:
		if r, ok := rangeOf(t); ok && r.First == r.Last {
			t = threat.Indicator{Type: threat.IP, Value: r.First.String()}
		}
	case threat.PID:
		pid, start, _ := threat.SplitPID(t.Value)
		now, err := threat.ProcessStart(pid)
		if err == nil {
			_, err = living(pid)
		}
		if errors.Is(err, fs.ErrNotExist) || err == nil && start != 0 && now != start {
			return t, failure.Errorf(failure.Usage, "process %s is not running", t.Value)
		}
		if err != nil {
			return t, err
		}
		t.Value = fmt.Sprintf("%d@%d", pid, now)
	case threat.Domain:
		return t, failure.Hint(failure.Errorf(failure.Usage, "the domain %s cannot be blocked: packets carry addresses", t.Value), "block the addresses that it has: --ip")
	}
	return t, nil
}

// guard refuses targets that would cut off the caller, or all of the host.
func (e *Engine) guard(t threat.Indicator, never []protected) error {
	refuse := func(format string, args ...any) error {
		return failure.Hint(fmt.Errorf("%w: %s", ErrProtected, fmt.Sprintf(format, args...)), "do it nonetheless: --force; cut the whole host off: mobileops network isolate")
	}
	switch t.Type {
	case threat.IP, threat.CIDR:
		r, _ := rangeOf(t)
		if r.First.IsUnspecified() && r.First != r.Last && !r.Last.Next().IsValid() {
			return refuse("%s is every address", t.Value)
		}
		if r.First.IsLoopback() {
			return refuse("%s is this host itself", t.Value)
		}
		if r.First == r.Last {
			for _, p := range never {
				if p.Contains(r.First) {
					return refuse("%s: %s", t.Value, p.why)
				}
			}
		}
		if len(addresses.Without([]addresses.Range{r}, rangesOf(never))) == 0 {
			return refuse("%s: %s", t.Value, whyProtected(never, r))
		}
	case threat.MAC:
		for _, n := range neighbours() {
			for _, p := range never {
				if n.mac == t.Value && p.Contains(n.addr) {
					return refuse("%s is %s: %s", t.Value, n.addr, p.why)
				}
			}
		}
	case threat.Port:
		port, proto, _ := strings.Cut(t.Value, "/")
		if s := e.opts.Session; s.Port != 0 && proto != "udp" && port == strconv.Itoa(int(s.Port)) {
			return refuse("this session comes by port %s", port)
		}
	case threat.UID:
		if t.Value == "0" {
			return refuse("user 0 is root, and all services that run as root")
		}
	case threat.Interface:
		if slices.Contains(e.sessionPath(), t.Value) {
			return refuse("this session comes by %s", t.Value)
		}
		if t.Value == "lo" {
			return refuse("lo is this host itself")
		}
	case threat.Cgroup:
		mine, err := cgroupOf(os.Getpid())
		if err == nil && (mine == t.Value || strings.HasPrefix(mine, t.Value+"/")) {
			return refuse("this process is in the control group %s", t.Value)
		}
	case threat.PID:
		pid, _, _ := threat.SplitPID(t.Value)
		if pid == 1 || slices.Contains(ancestors(), pid) {
			return refuse("process %d started this one", pid)
		}
	}
	return nil
}

// sessionInterface is the interface by which answers to the caller leave; "" when
// there is none.
func (e *Engine) sessionInterface() string {
	peer := e.opts.Session.Peer.Unmap()
	if !peer.IsValid() || peer.IsLoopback() {
		return ""
	}
	// Connecting a datagram socket sends nothing; it asks for the route.
	c, err := net.Dial("udp", netip.AddrPortFrom(peer, 9).String())
	if err != nil {
		return ""
	}
	defer c.Close()
	own, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return ""
	}
	local := own.Addr().Unmap()
	list, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range list {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == local.WithZone("") {
				return i.Name
			}
		}
	}
	return ""
}

// resolve finds what rules know a target by. It may change the host: a process
// is moved to a control group of its own.
func resolve(t threat.Indicator) (Parts, error) {
	switch t.Type {
	case threat.Cgroup:
		c, err := cgroupAt(t.Value)
		return Parts{Cgroups: []Cgroup{c}}, err
	case threat.Container:
		return partsOfContainer(t)
	case threat.PID:
		pid, _, _ := threat.SplitPID(t.Value)
		same, err := inOurNetwork(pid)
		if err != nil {
			return Parts{}, err
		}
		if !same {
			return partsOfNamespace(t, pid)
		}
		list, err := confine(t, pid)
		if err != nil {
			return Parts{}, err
		}
		return Parts{Cgroups: list, Uncovered: openBefore(pid)}, nil
	}
	return Parts{}, nil
}
