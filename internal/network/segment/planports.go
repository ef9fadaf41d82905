package segment

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"

	"github.com/mobileops/mobileops/internal/failure"
	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// end is the side of a port that is in a workload's namespace.
type end struct {
	ns      *os.File
	host    *host    // what is in there
	missing error    // or why it is not there yet
	dirty   []sysctl // switches of its interface that are not as they should be
}

// ends are those of all workloads in namespaces, by name.
type ends map[string]*end

func (e ends) close() {
	for _, v := range e {
		if v.ns != nil {
			v.ns.Close()
		}
	}
}

// ends looks into the namespaces of workloads.
func (p *planner) ends(ctx context.Context) (list ends, err error) {
	list = ends{}
	defer func() {
		if err != nil {
			list.close()
		}
	}()
	for i := range p.Layout.Ports {
		t := &p.Layout.Ports[i]
		if !t.Attach.Namespaced() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e := new(end)
		list[t.Name] = e
		if e.ns, err = openNamespace(&t.Attach); errors.Is(err, errAbsent) {
			e.missing, err = err, nil
			continue
		}
		if err == nil {
			err = within(e.ns, func() (err error) {
				if e.host, err = readHost(); err != nil || e.host.byName[t.Inside] == nil {
					return err
				}
				for _, s := range t.sysctls() {
					if have, err := readSysctl(s.path); err != nil {
						return err
					} else if have != "" && have != s.value {
						e.dirty = append(e.dirty, s)
					}
				}
				return nil
			})
		}
		if err != nil {
			return list, fmt.Errorf("the workload %q: %w", t.Name, err)
		}
	}
	return list, nil
}

// sysctls are switches of the interface in a namespace: its address and its
// routes are those that it is given, whatever others advertise. Runtimes turn
// IPv6 off in containers to which they give none.
func (t *Port) sysctls() []sysctl {
	conf := "ipv6/conf/" + t.Inside
	list := []sysctl{{conf + "/accept_ra", "0"}, {conf + "/autoconf", "0"}}
	if slices.ContainsFunc(t.Addr, netip.Addr.Is6) {
		list = append(list, sysctl{conf + "/disable_ipv6", "0"})
	}
	return list
}

// fits reports whether a port that is there, if it is, ends in the namespace
// that it belongs to.
func (e *end) fits(p *planner, t *Port) bool {
	outer := p.host.byName[t.Device]
	if outer == nil {
		return true
	}
	if e.host == nil {
		return false
	}
	in := e.host.byName[t.Inside]
	return in != nil && in.kind == "veth" && in.parent == outer.index && outer.parent == in.index
}

// port plans the port of a workload.
func (p *planner) port(t *Port, e *end) error {
	z := p.Layout.Zone(t.Zone)
	options := portOptions{isolated: z.IsolatePorts, learning: true, guard: z.STP}
	if t.Attach.Interface != "" {
		return p.join(t, options)
	}
	l, err := p.ours(t.Device, fmt.Sprintf("the port of the workload %q", t.Name))
	if err != nil {
		return err
	}
	name, fresh := t.Device, l == nil
	mac := madeMAC(p.seed, "port", t.Zone, t.Name)
	kind := "tun"
	if t.Attach.Namespaced() {
		kind = "veth"
		if e.missing != nil {
			p.absent(t.Document, "%s: %v", t.Name, e.missing)
			return nil
		}
		if in := e.host.byName[t.Inside]; in != nil && (fresh && !p.goes(in) || in.kind != "veth") {
			if p.known[t.Name] {
				// Whoever is root in there can do that at any time. It is no reason
				// to leave everything else as it is.
				p.absent(t.Document, "%s: it has made an interface %s of its own", t.Name, t.Inside)
				return nil
			}
			return failure.Errorf(failure.Busy, "the workload %q has an interface %s of its own: choose another name for the one that mobileops makes (inside: eth1)", t.Name, t.Inside)
		}
	}
	if _, err := ownerID(t.Attach.Owner); err != nil {
		return fmt.Errorf("the workload %q: %w", t.Name, err)
	}
	p.made(l, name, kind, mac)
	id := alias("zone="+t.Zone, "workload="+t.Name)
	if fresh {
		l = &link{name: name}
		if kind == "veth" {
			p.add(false, '+', fmt.Sprintf("port %s of %s for the workload %s, its %s is in %s", name, t.Bridge, t.Name, t.Inside, t.Attach.place()), func() error { return makeCable(t, mac, z.LinkMTU) })
		} else {
			p.add(false, '+', fmt.Sprintf("tap %s of %s for the workload %s", name, t.Bridge, t.Name), func() error { return makeTap(name, mac, id, t.Attach.Owner) })
		}
	} else if kind == "tun" {
		p.owner(l, t)
	}
	p.identity(l, fresh, id)
	if err := p.sysctls(name, fresh, []sysctl{{"ipv6/conf/" + name + "/disable_ipv6", "1"}}); err != nil {
		return err
	}
	p.mtu(l, fresh, z.LinkMTU)
	p.member(l, fresh, t.Bridge, options)
	p.up(l, fresh)
	if kind == "veth" {
		p.insides(t, z, e, fresh)
	}
	return nil
}

// goes reports whether an interface in a namespace is the other end of a port that
// an earlier step removes.
func (p *planner) goes(in *link) bool {
	for _, l := range p.host.links {
		if p.gone[l.name] && in.kind == "veth" && in.parent == l.index && l.parent == in.index {
			return true
		}
	}
	return false
}

// place is where the namespace of a workload is, in words.
func (a *Attach) place() string {
	switch {
	case a.PID != 0:
		return fmt.Sprintf("the namespace of process %d", a.PID)
	case a.Container != "":
		return "the container " + a.Container[:12]
	}
	return "the namespace " + a.Namespace
}

// join plans that an interface of somebody else's becomes a port. One that has
// addresses would lose its connections by it.
func (p *planner) join(t *Port, options portOptions) error {
	l := p.existing(t.Device)
	if l == nil {
		p.absent(t.Document, "%s: the interface %s: %v", t.Name, t.Device, errAbsent)
		return nil
	}
	before := p.rec.joinedAs(l)
	if before == nil {
		before = &joined{Up: l.up}
		if l.kind == "bridge" || l.kind == "vrf" {
			return failure.Errorf(failure.Usage, "the workload %q: %s is a %s, and cannot be a port of another bridge", t.Name, l.name, l.kind)
		}
		if l.master != 0 {
			return failure.Errorf(failure.Busy, "the workload %q: %s belongs to %s already (take it out: ip link set %s nomaster)", t.Name, l.name, p.host.indexed(l.master).name, l.name)
		}
		for _, a := range p.host.addresses {
			if a.index == l.index && !a.prefix.Addr().IsLinkLocalUnicast() {
				return failure.Errorf(failure.Busy, "the workload %q: %s has the address %s, and whoever uses it would be cut off as it becomes a port (take it away first: ip address del %s dev %s)", t.Name, l.name, a.prefix, a.prefix, l.name)
			}
		}
	}
	p.next.Joined = append(p.next.Joined, joined{l.name, l.index, t.Bridge, before.Up})
	p.member(l, false, t.Bridge, options)
	if err := p.outer("ipv6/conf/"+l.name+"/disable_ipv6", "1"); err != nil {
		return err
	}
	p.up(l, false)
	return nil
}

// leave plans that an interface of somebody else's is no port any more.
func (p *planner) leave(j *joined, l *link) {
	if master := p.host.indexed(l.master); master != nil && master.name == j.Bridge {
		it := byIndex(l)
		p.add(false, '-', fmt.Sprintf("%s as a port of %s", j.Name, j.Bridge), func() error { return vnl.LinkSetNoMaster(it) })
		l.master, l.port = 0, nil // it can become one of another bridge
	}
	if !j.Up && l.up {
		name := l.name
		p.add(false, '~', name+" down", func() error { return onLink(name, vnl.LinkSetDown) })
		l.up = false
	}
}

// owner plans who may open a tap that is there.
func (p *planner) owner(l *link, t *Port) {
	want, err := ownerID(t.Attach.Owner)
	if err != nil || l.owner == want {
		return
	}
	name := l.name
	p.add(false, '~', fmt.Sprintf("owner of the tap %s: %s", name, ownerName(t.Attach.Owner)), func() error { return changeTap(name, t.Attach.Owner) })
}

func ownerName(name string) string {
	if name == "" {
		return "root"
	}
	return name
}

// ownerID is the number of a user. A tap without an owner is root's.
func ownerID(name string) (int64, error) {
	if name == "" || name == "root" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return int64(n), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, failure.Errorf(failure.NotReady, "no user %q", name)
	}
	return strconv.ParseInt(u.Uid, 10, 64)
}

// makeCable makes both ends of a port at once, the one in the workload's
// namespace with its name and address.
func makeCable(t *Port, mac MAC, mtu int) error {
	ns, err := openNamespace(&t.Attach)
	if err != nil {
		return err
	}
	defer ns.Close()
	a := attrs(t.Device, mac, 0)
	a.MTU = mtu
	return vnl.LinkAdd(&vnl.Veth{LinkAttrs: a, PeerName: t.Inside, PeerMTU: uint32(mtu),
		PeerHardwareAddr: t.MAC[:], PeerNamespace: vnl.NsFd(ns.Fd())})
}

// makeTap makes a tap that stays. It stays only when everything that says whose
// it is has been set: until then it goes away with this process.
func makeTap(name string, mac MAC, id, owner string) error {
	fd, err := openTap(name, unix.IFF_TUN_EXCL)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := onLink(name, func(l vnl.Link) error {
		return errors.Join(vnl.LinkSetHardwareAddr(l, mac[:]), vnl.LinkSetAlias(l, id))
	}); err != nil {
		return err
	}
	if err := setOwner(fd, owner); err != nil {
		return err
	}
	return os.NewSyscallError("TUNSETPERSIST", unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1))
}

func changeTap(name, owner string) error {
	fd, err := openTap(name, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setOwner(fd, owner)
}

func setOwner(fd int, owner string) error {
	uid, err := ownerID(owner)
	if err != nil {
		return err
	}
	return os.NewSyscallError("TUNSETOWNER", unix.IoctlSetInt(fd, unix.TUNSETOWNER, int(int32(uid))))
}

func openTap(name string, flags uint16) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
		err = os.NewSyscallError("TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, req))
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// How many addresses that a workload was not given are named one by one, and how
// many are taken away at a time.
const (
	mostStrange = 16
	mostRemoved = 1000
)

// insides plans the interface in the workload's namespace: its address and its
// way out are those of the layout, and no others.
func (p *planner) insides(t *Port, z *ZoneLayout, e *end, fresh bool) {
	name, where := t.Inside, fmt.Sprintf("%s of %s", t.Inside, t.Name)
	attach := t.Attach
	in := &link{name: name}
	h := &host{byName: map[string]*link{}}
	dirty := t.sysctls()
	if !fresh {
		in, h, dirty = e.host.byName[name], e.host, e.dirty
	}
	do := func(detail bool, sign byte, text string, f func() error) {
		p.add(detail, sign, text, func() error {
			ns, err := openNamespace(&attach)
			if err != nil {
				return err
			}
			defer ns.Close()
			return within(ns, f)
		})
	}
	for _, s := range dirty {
		do(fresh, '~', fmt.Sprintf("net/%s in %s: -> %s", s.path, t.Name, s.value), func() error { return setSysctl(s) })
	}
	if !fresh && in.mac != t.MAC {
		do(false, '~', fmt.Sprintf("MAC address of %s: %s -> %s", where, in.mac, t.MAC), func() error {
			return onLink(name, func(l vnl.Link) error { return vnl.LinkSetHardwareAddr(l, t.MAC[:]) })
		})
	}
	if !fresh && in.mtu != z.LinkMTU {
		do(false, '~', fmt.Sprintf("mtu of %s: %d -> %d", where, in.mtu, z.LinkMTU), func() error {
			return onLink(name, func(l vnl.Link) error { return vnl.LinkSetMTU(l, z.LinkMTU) })
		})
	}
	want := map[netip.Prefix]bool{}
	for _, a := range t.Addr {
		for _, s := range z.Subnets {
			if s.Prefix.Contains(a) {
				want[netip.PrefixFrom(a, s.Prefix.Bits())] = true
			}
		}
	}
	var strange []netip.Prefix
	for _, a := range h.addresses {
		if a.index == in.index && !a.prefix.Addr().IsLinkLocalUnicast() && !want[a.prefix] {
			strange = append(strange, a.prefix)
		}
	}
	if len(strange) > mostStrange {
		// Somebody in there wants us to be busy. Rules let none of them out, so
		// the rest may stay for the next time.
		what := fmt.Sprintf("%d addresses of %s that it was not given", len(strange), where)
		strange := strange[:min(len(strange), mostRemoved)]
		do(false, '-', what, func() error { return removeAddresses(name, strange) })
	} else {
		for _, prefix := range strange {
			do(false, '-', fmt.Sprintf("address %s of %s", prefix, where), func() error { return changeAddress(vnl.AddrDel, name, prefix) })
		}
	}
	for _, a := range t.Addr { // in the order of the layout
		for pf := range want {
			if pf.Addr() == a && (fresh || !h.has(in.index, pf)) {
				do(false, '+', fmt.Sprintf("address %s on %s", pf, where), func() error { return changeAddress(vnl.AddrReplace, name, pf) })
			}
		}
	}
	if !in.up {
		do(fresh, '~', where+" up", func() error { return onLink(name, vnl.LinkSetUp) })
	}
	p.wayOut(t, z, e.host, in, do)
}

// wayOut plans the default routes of a workload.
func (p *planner) wayOut(t *Port, z *ZoneLayout, h *host, in *link, do func(bool, byte, string, func() error)) {
	for _, s := range z.Subnets {
		if !s.Gateway.IsValid() || !hasFamily(t.Addr, s.Prefix) {
			continue
		}
		there, elsewhere := false, ""
		for _, r := range h.routes {
			if r.to.Bits() != 0 || r.to.Addr().Is4() != s.Gateway.Is4() || !r.unicast {
				continue
			}
			if in.index == 0 || r.index != in.index {
				if l := h.indexed(r.index); l != nil && !p.gone[t.Device] {
					elsewhere = l.name
				}
			} else if r.via == s.Gateway {
				there = true
			}
		}
		switch gateway, name := s.Gateway, in.name; {
		case there:
		case elsewhere != "":
			p.Notes = append(p.Notes, fmt.Sprintf("the workload %s has a default route by %s already: what it sends does not leave through its zone", t.Name, elsewhere))
		default:
			do(false, '+', fmt.Sprintf("default route of %s by %s", t.Name, gateway), func() error {
				return onLink(name, func(l vnl.Link) error {
					return vnl.RouteReplace(&vnl.Route{LinkIndex: l.Attrs().Index, Gw: gateway.AsSlice(), Dst: ipNet(everything(gateway))})
				})
			})
		}
	}
}

// everything is the destination of a default route.
func everything(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// hasFamily reports whether one of the addresses is in a network.
func hasFamily(list []netip.Addr, p netip.Prefix) bool {
	for _, a := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
