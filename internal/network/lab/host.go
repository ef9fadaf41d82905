package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

// Switch is a bridge in a namespace of its own, with a network of its own.
type Switch struct {
	lab    *Lab
	spot   *namespace
	number int
	mu     sync.Mutex
	ports  int
}

// Switch makes a switch.
func (l *Lab) Switch() *Switch {
	l.t.Helper()
	l.mu.Lock()
	l.nets++
	number := l.nets
	l.mu.Unlock()
	spot, err := l.namespace(fmt.Sprintf("switch%d", number))
	l.must(err)
	l.must(spot.ip("link add br0 type bridge stp_state 0 mcast_snooping 0", "link set br0 up"))
	// A switch looks at no packets: it would put what it takes for IP in order.
	for _, family := range []string{"iptables", "ip6tables", "arptables"} {
		if err := spot.sysctl("net/bridge/bridge-nf-call-"+family, "0"); !os.IsNotExist(err) {
			l.must(err)
		}
	}
	return &Switch{lab: l, spot: spot, number: number}
}

// Host is a computer: a network namespace, with NICs.
type Host struct {
	// Name tells hosts of a lab apart.
	Name string

	lab     *Lab
	spot    *namespace
	dir     string
	mu      sync.Mutex
	nics    []*NIC
	private [][2]string // source and place of bind mounts
	env     []string
	servers map[uint16]bool

	visitors atomic.Int32 // connections to its servers
}

// NIC is an interface of a host.
type NIC struct {
	Host *Host
	Name string
	MAC  net.HardwareAddr
	IPv4 netip.Addr // not valid when it has none
	IPv6 netip.Addr // not valid when it has none
}

// Option is how a host is attached to a switch.
type Option int

const (
	// IPv4Only gives no IPv6 address, and no link-local one either.
	IPv4Only Option = iota + 1
	// IPv6Only gives no IPv4 address.
	IPv6Only
	// Bare gives no address but the link-local one.
	Bare
)

// Host makes a host whose eth0 is on the switch.
func (s *Switch) Host(name string, options ...Option) *Host {
	s.lab.t.Helper()
	h := s.lab.Host(name)
	h.AddNIC(s, options...)
	return h
}

// Host makes a host that is not connected to anything.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	spot, err := l.namespace(name)
	l.must(err)
	h := &Host{Name: name, lab: l, spot: spot, dir: filepath.Join(l.dir, fmt.Sprintf("%s-%d", name, spot.inode)), servers: map[uint16]bool{}}
	for _, dir := range []string{"home", "state", "log", "run"} {
		l.must(os.MkdirAll(filepath.Join(h.dir, dir), 0o700))
	}
	conf := filepath.Join(h.dir, "config.yaml")
	l.must(os.WriteFile(conf, []byte("# nothing is configured\n"), 0o644))
	h.env = []string{
		marker + "=" + l.mark, "HOME=" + filepath.Join(h.dir, "home"), "LC_ALL=C.UTF-8", "TERM=dumb",
		"MOBILEOPS_CONFIG=" + conf, "MOBILEOPS_STATE_DIR=" + filepath.Join(h.dir, "state"),
		"MOBILEOPS_LOG_DIR=" + filepath.Join(h.dir, "log"), "MOBILEOPS_RUN_DIR=" + filepath.Join(h.dir, "run"),
	}
	return h
}

// AddNIC gives the host another interface on a switch: eth0, eth1 and so on.
func (h *Host) AddNIC(s *Switch, options ...Option) *NIC {
	h.lab.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	s.ports++
	n := s.ports
	s.mu.Unlock()
	nic := &NIC{Host: h, Name: fmt.Sprintf("eth%d", len(h.nics))}
	port := fmt.Sprintf("port%d", n)
	h.lab.must(s.spot.ip(
		fmt.Sprintf("link add %s type veth peer name %s netns %s", port, nic.Name, h.spot.path()),
		fmt.Sprintf("link set %s master br0 up", port)))
	plan := []string{"link set " + nic.Name + " up"}
	option := Option(0)
	for _, option = range options {
	}
	if option == 0 || option == IPv4Only {
		nic.IPv4 = netip.MustParseAddr(fmt.Sprintf("10.9.%d.%d", s.number, n))
		plan = append(plan, fmt.Sprintf("addr add %s/24 broadcast + dev %s", nic.IPv4, nic.Name))
	}
	if option == IPv4Only {
		h.lab.must(h.spot.sysctl("net/ipv6/conf/"+nic.Name+"/disable_ipv6", "1"))
	}
	if option == 0 || option == IPv6Only {
		nic.IPv6 = netip.MustParseAddr(fmt.Sprintf("fd09:0:0:%d::%d", s.number, n))
		plan = append(plan, fmt.Sprintf("addr add %s/64 dev %s nodad", nic.IPv6, nic.Name))
	}
	h.lab.must(h.spot.ip(plan...))
	h.lab.must(h.Do(func() error {
		i, err := net.InterfaceByName(nic.Name)
		if err == nil {
			nic.MAC = i.HardwareAddr
		}
		return err
	}))
	h.lab.must(h.spot.settled(nic.Name))
	h.nics = append(h.nics, nic)
	return nic
}

// Router makes a host that forwards between switches.
func (l *Lab) Router(name string, switches ...*Switch) *Host {
	l.t.Helper()
	h := l.Host(name)
	for _, s := range switches {
		h.AddNIC(s)
	}
	h.Forward()
	return h
}

// Forward makes a router of the host. It says so to nobody.
func (h *Host) Forward() {
	h.lab.t.Helper()
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		h.lab.must(h.spot.sysctl(name, "1"))
	}
}

// Via makes another host the gateway for everything that is not on the host's
// own networks: by that NIC of it that is on one of them.
func (h *Host) Via(router *Host) {
	h.lab.t.Helper()
	for _, mine := range h.nics {
		for _, hop := range router.nics {
			if same(mine.IPv4, hop.IPv4, 24) {
				h.IP("route add default via " + hop.IPv4.String() + " dev " + mine.Name)
			}
			if same(mine.IPv6, hop.IPv6, 64) {
				h.IP("route add default via " + hop.IPv6.String() + " dev " + mine.Name)
			}
		}
	}
}

func same(a, b netip.Addr, bits int) bool {
	return a.IsValid() && b.IsValid() && netip.PrefixFrom(a, bits).Masked().Contains(b)
}

// NIC is the n-th interface of the host, from 0.
func (h *Host) NIC(n int) *NIC {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.nics[n]
}

// IPv4 is the address of eth0; not valid when it has none.
func (h *Host) IPv4() netip.Addr { return h.NIC(0).IPv4 }

// IPv6 is the address of eth0; not valid when it has none.
func (h *Host) IPv6() netip.Addr { return h.NIC(0).IPv6 }

// IP runs commands of ip(8) in the host, each in one argument: "link set eth0
// down". A command that fails ends the test.
func (h *Host) IP(commands ...string) {
	h.lab.t.Helper()
	h.lab.must(h.spot.ip(commands...))
}

// Sysctl sets a value below /proc/sys: "net/ipv4/ip_forward".
func (h *Host) Sysctl(name, value string) {
	h.lab.t.Helper()
	h.lab.must(h.spot.sysctl(name, value))
}

// Do runs f on a thread that is in the host's namespace, and returns its
// error. Sockets that it makes stay in the namespace, and so do processes that
// it starts.
func (h *Host) Do(f func() error) error { return h.spot.do(f) }

// Processes are the ids of what runs in the host.
func (h *Host) Processes() []int { return processes([]*namespace{h.spot}) }

// NetNS is a path by which other programs find the namespace, such as nsenter
// and "ip link set netns", for as long as the test lasts.
func (h *Host) NetNS() string { return h.spot.path() }

// Dir is a directory of the host's own, which is removed at the end. State,
// logs and runtime files of mobileops are in state, log and run below it.
func (h *Host) Dir() string { return h.dir }

// Child makes another host whose NIC is a link of a kind on top of one of this
// host's, as a container has it: "macvlan mode bridge", "ipvlan mode l2". Its
// addresses are those given, with their prefix length. The test is skipped where
// the kernel has no such links.
func (n *NIC) Child(name, kind string, addresses ...string) *Host {
	l := n.Host.lab
	l.t.Helper()
	child := l.Host(name)
	err := n.Host.spot.ip(fmt.Sprintf("link add link %s name eth0 netns %s type %s", n.Name, child.spot.path(), kind))
	if err != nil && strings.Contains(err.Error(), "Unknown device type") {
		l.t.Skipf("NOT RUN: what packets do by a link of %s: the kernel has none", kind)
	}
	l.must(err)
	child.attach(addresses...)
	return child
}

// Guest makes another host that is connected to this one by a cable, as
// containers and VMs are: port is the end in this host.
func (h *Host) Guest(name, port string, addresses ...string) *Host {
	h.lab.t.Helper()
	guest := h.lab.Host(name)
	h.IP(fmt.Sprintf("link add %s type veth peer name eth0 netns %s", port, guest.spot.path()), "link set "+port+" up")
	guest.attach(addresses...)
	h.lab.must(h.spot.settled(port))
	h.lab.must(guest.spot.settled("eth0"))
	return guest
}

// attach makes the eth0 that another host has made known, with addresses.
func (h *Host) attach(addresses ...string) {
	h.lab.t.Helper()
	nic := &NIC{Host: h, Name: "eth0"}
	plan := []string{"link set eth0 up"}
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a)
		h.lab.must(err)
		if p.Addr().Is4() {
			nic.IPv4, plan = p.Addr(), append(plan, "addr add "+a+" broadcast + dev eth0")
		} else {
			nic.IPv6, plan = p.Addr(), append(plan, "addr add "+a+" dev eth0 nodad")
		}
	}
	h.IP(plan...)
	h.lab.must(h.Do(func() error {
		i, err := net.InterfaceByName(nic.Name)
		if err == nil {
			nic.MAC = i.HardwareAddr
		}
		return err
	}))
	h.mu.Lock()
	h.nics = append(h.nics, nic)
	h.mu.Unlock()
}
