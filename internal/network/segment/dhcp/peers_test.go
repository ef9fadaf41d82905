package dhcp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// serverEnv holds the configuration of a server that a copy of the test is to
// be, as JSON.
const serverEnv = "DHCP_TEST_SERVER"

func TestMain(m *testing.M) {
	conf := os.Getenv(serverEnv)
	if conf == "" {
		os.Exit(m.Run())
	}
	var c Config
	err := json.Unmarshal([]byte(conf), &c)
	if err == nil {
		var s *Server
		if s, err = New(c, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }); err == nil {
			err = s.Run(context.Background(), func() { fmt.Println("ready") })
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// zone is a bridge in a host of a lab, with a server on it.
type zone struct {
	*testing.T
	lab    *lab.Lab
	router *lab.Host
	conf   Config
	server *exec.Cmd
	guests int
}

func newZone(t *testing.T, change func(*Config)) *zone {
	t.Helper()
	l := lab.New(t)
	z := &zone{T: t, lab: l, router: l.Host("router"), conf: config(t)}
	z.conf.Interface = "mo-dev"
	z.conf.Gateway6 = []netip.Prefix{netip.MustParsePrefix("fd77::1/64")}
	z.conf.DNS = append(z.conf.DNS, netip.MustParseAddr("fd77::1"))
	z.conf.Advertise = true
	z.conf.Limits = Limits{Probe: 100 * time.Millisecond, PerPort: -1}
	if change != nil {
		change(&z.conf)
	}
	z.router.IP("link add mo-dev type bridge", "link set mo-dev up", "addr add 10.77.0.1/24 dev mo-dev", "addr add fd77::1/64 dev mo-dev nodad")
	z.start()
	return z
}

// start runs the server as a process of its own.
func (z *zone) start() {
	z.Helper()
	self, err := os.Executable()
	if err != nil {
		z.Fatal(err)
	}
	data, err := json.Marshal(z.conf)
	if err != nil {
		z.Fatal(err)
	}
	cmd := z.router.Command(context.Background(), self)
	cmd.Env = append(cmd.Env, serverEnv+"="+string(data))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		z.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		z.Fatal(err)
	}
	z.server = cmd
	z.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		z.Fatalf("the server said %q: %v", line, err)
	}
}

func (z *zone) kill() {
	z.server.Process.Signal(syscall.SIGKILL)
	z.server.Wait()
}

// guest plugs a machine into the bridge, as a VM is.
func (z *zone) guest(name string) *lab.Host {
	z.Helper()
	z.guests++
	port := fmt.Sprintf("mo-p-%d", z.guests)
	g := z.router.Guest(name, port)
	z.router.IP("link set " + port + " master mo-dev")
	g.Private("/etc/resolv.conf")
	g.Empty("/run")
	g.Empty("/var/lib/dhcp")
	g.Empty("/var/lib/dhcpcd")
	return g
}

func (z *zone) leases() []Lease {
	z.Helper()
	list, err := ReadLeases(z.conf.File, time.Now())
	if err != nil {
		z.Fatal(err)
	}
	return list
}

func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: %s is not installed (see .ci/test-tools)", tool)
		}
	}
}

// dhclient runs ISC's client and returns the address that eth0 has then.
func dhclient(t *testing.T, g *lab.Host, args ...string) string {
	t.Helper()
	r := g.Run("dhclient", append([]string{"-4", "-v", "-1", "-lf", g.Dir() + "/leases", "-pf", g.Dir() + "/pid", "eth0"}, args...)...)
	if r.Status != 0 {
		t.Logf("%s: status %d: %s", g.Name, r.Status, r.Stderr)
	}
	return address(g, "-4")
}

// stop ends dhclient, and keeps the lease.
func stop(t *testing.T, g *lab.Host) {
	g.Run("dhclient", "-x", "-pf", g.Dir()+"/pid", "eth0").Is(t, 0)
	g.IP("addr flush dev eth0 scope global")
}

var inet = regexp.MustCompile(`inet6? ([0-9a-f.:]+)/`)

func address(g *lab.Host, family string) string {
	m := inet.FindStringSubmatch(g.Run("ip", family, "addr", "show", "dev", "eth0", "scope", "global").Stdout)
	if m == nil {
		return ""
	}
	return m[1]
}

func TestDhclient(t *testing.T) {
	need(t, "dhclient")
	z := newZone(t, func(c *Config) {
		c.Reservations = []Reservation{{MAC: mac(7), Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.7")}, Name: "seven"}}
		c.Lease = minLease
	})
	a, b, r := z.guest("a"), z.guest("b"), z.guest("r")
	r.IP("link set eth0 address " + mac(7).String())
	var wg sync.WaitGroup
	got := make([]string, 3)
	for i, g := range []*lab.Host{a, b, r} {
		wg.Go(func() { got[i] = dhclient(t, g) })
	}
	wg.Wait()
	if got[0] == "" || got[1] == "" || got[0] == got[1] || got[2] != "10.77.0.7" {
		t.Fatalf("three clients at once got %q", got)
	}
	if out := a.Run("ip", "-4", "route").Stdout; !strings.Contains(out, "default via 10.77.0.1") {
		t.Errorf("routes %s", out)
	}
	if out := a.Run("ip", "link", "show", "eth0").Stdout; !strings.Contains(out, "mtu 1400") {
		t.Errorf("link %s", out)
	}
	if out := a.Run("cat", "/etc/resolv.conf").Stdout; !strings.Contains(out, "nameserver 10.77.0.1") || !strings.Contains(out, "dev.internal") {
		t.Errorf("resolv.conf %s", out)
	}
	stop(t, a)
	if again := dhclient(t, a); again != got[0] { // INIT-REBOOT
		t.Errorf("after a reboot %s, before %s", again, got[0])
	}
	if err := os.Remove(a.Dir() + "/leases"); err != nil {
		t.Fatal(err)
	}
	stop(t, a)
	if again := dhclient(t, a); again != got[0] { // a new installation
		t.Errorf("after it forgot its lease %s, before %s", again, got[0])
	}
	a.Run("dhclient", "-4", "-r", "-v", "-lf", a.Dir()+"/leases", "-pf", a.Dir()+"/pid", "eth0").Is(t, 0)
	until(t, "the release", func() bool { // which the client sends, and nobody answers
		return slices.ContainsFunc(z.leases(), func(l Lease) bool { return l.Address.String() == got[0] && l.State == Ended })
	})
	for _, l := range z.leases() {
		if want := map[string]State{got[0]: Ended, got[1]: Bound, got[2]: Bound}[l.Address.String()]; l.State != want {
			t.Errorf("%s is %s, want %s", l.Address, l.State, want)
		}
		if l.Port == "" || l.Port == unknownPort {
			t.Errorf("the port of %s is %q", l.Address, l.Port)
		}
	}
	if again := dhclient(t, a); again != got[0] {
		t.Errorf("after a release %s, before %s", again, got[0])
	}
}

func TestDhcpcd(t *testing.T) {
	need(t, "dhcpcd")
	z := newZone(t, func(c *Config) {
		c.Pool6 = Range{netip.MustParseAddr("fd77::100"), netip.MustParseAddr("fd77::1ff")}
	})
	g := z.guest("g")
	run := func(args ...string) lab.Result {
		return g.Run("dhcpcd", append([]string{"-t", "60", "-d", "-f", "/dev/null", "--noarp", "--nohook", "resolv.conf", "--waitip=4", "--waitip=6"}, append(args, "eth0")...)...)
	}
	r := run("-o", "domain_name_servers,interface_mtu,classless_static_routes", "--dhcp", "--ia_na")
	if first := address(g, "-4"); r.Status != 0 || first == "" {
		t.Fatalf("status %d, address %q: %s", r.Status, first, r.Stderr)
	}
	find := func() (four, six *Lease) {
		for _, l := range z.leases() {
			if l.Address.Is4() {
				four = &l
			} else {
				six = &l
			}
		}
		return four, six
	}
	var four, sixth *Lease
	until(t, "both leases", func() bool {
		four, sixth = find()
		return four != nil && sixth != nil
	})
	if four.State != Bound || sixth.State != Bound || !z.conf.Pool6.Contains(sixth.Address) {
		t.Fatalf("leases %+v and %+v: %s", four, sixth, r.Stderr)
	}
	until(t, "its IPv6 address", func() bool {
		return strings.Contains(g.Run("ip", "-6", "addr", "show", "dev", "eth0").Stdout, sixth.Address.String())
	})
	if out := g.Run("ip", "-6", "route").Stdout; !strings.Contains(out, "default via fe80::") {
		t.Errorf("routes %s", out)
	}
	before := four.Until
	until(t, "a renewal", func() bool {
		g.Run("dhcpcd", "-N", "eth0")
		four, _ = find()
		return four.Until.After(before)
	})
	// A dhcpcd that is still renewing may let the first request pass unheard.
	until(t, "the release", func() bool {
		said := g.Run("dhcpcd", "-k", "eth0").Stderr
		four, sixth = find()
		if four.State == Ended && sixth.State == Ended {
			return true
		}
		time.Sleep(time.Second)
		t.Logf("leases %s and %s; dhcpcd -k says %s", four.State, sixth.State, said)
		return false
	})
}

// until waits for something that will be.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestRouterAdvertisements(t *testing.T) {
	need(t, "rdisc6")
	z := newZone(t, nil)
	g := z.guest("g")
	var out string
	until(t, "an advertisement", func() bool {
		r := g.Run("rdisc6", "-1", "-r", "1", "-w", "2000", "eth0")
		out = r.Stdout
		return r.Status == 0
	})
	for _, want := range []string{"Stateful address conf.    :           No", "Stateful other conf.      :          Yes", "Router lifetime           :         1800",
		"Prefix                   : fd77::/64", "Autonomous address conf.:          Yes", "Recursive DNS server     : fd77::1", "MTU                      :         1400", "DNS search list          : dev.internal"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	until(t, "an address of its own", func() bool { return strings.HasPrefix(address(g, "-6"), "fd77::") })
	if _, err := exec.LookPath("dhclient"); err == nil {
		r := g.Run("dhclient", "-6", "-S", "-1", "-v", "-lf", g.Dir()+"/leases6", "-pf", g.Dir()+"/pid6", "eth0")
		if data, _ := os.ReadFile(g.Dir() + "/leases6"); !strings.Contains(string(data)+r.Stderr, "fd77::1") && r.Status != 0 {
			t.Errorf("stateless DHCPv6: status %d: %s\n%s", r.Status, r.Stderr, data)
		}
		g.Run("dhclient", "-6", "-x", "-pf", g.Dir()+"/pid6", "eth0")
	}
}

func TestAnAddressInUseIsNotOffered(t *testing.T) {
	need(t, "dhclient")
	z := newZone(t, func(c *Config) {
		c.Pool.Last = netip.MustParseAddr("10.77.0.102")
		c.Probe = time.Second // in which a busy machine answers, too
	})
	squatter, g := z.guest("squatter"), z.guest("g")
	squatter.IP("addr add 10.77.0.100/24 dev eth0", "addr add 10.77.0.101/24 dev eth0")
	until(t, "the port of the squatter", squatter.Ping(z.conf.Gateway.Addr()).Passes) // the bridge opens it a moment later
	if a := dhclient(t, g); a != "10.77.0.102" {
		t.Errorf("%q, though others have 100 and 101", a)
	}
}

// TestKilledServers: whatever the moment, no two clients have one address.
func TestKilledServers(t *testing.T) {
	need(t, "dhclient")
	z := newZone(t, func(c *Config) {
		c.Pool.Last = netip.MustParseAddr("10.77.0.130")
		c.Probe = -1 // nothing but the file of leases
	})
	guests := []*lab.Host{z.guest("a"), z.guest("b"), z.guest("c"), z.guest("d")}
	var wg sync.WaitGroup
	got := make([]string, len(guests))
	for i, g := range guests {
		wg.Go(func() { got[i] = dhclient(t, g) })
	}
	for range 5 {
		time.Sleep(rand.N(300 * time.Millisecond)) // whenever
		z.kill()
		z.start()
	}
	wg.Wait()
	seen := map[string]bool{}
	for i, a := range got {
		if a == "" {
			a = dhclient(t, guests[i])
		}
		if a == "" || seen[a] {
			t.Fatalf("guest %d has %q: %q", i, a, got)
		}
		seen[a] = true
	}
	z.kill()
	z.start()
	e := z.guest("e")
	if a := dhclient(t, e); a == "" || seen[a] {
		t.Errorf("a fifth one got %q after a restart; %q are taken", a, got)
	}
}

// TestARogueGuest sends garbage and invents clients; its neighbour gets an
// address all the same.
func TestARogueGuest(t *testing.T) {
	need(t, "dhclient")
	z := newZone(t, func(c *Config) {
		c.Pool.Last = netip.MustParseAddr("10.77.0.139")
		c.Limits = Limits{Probe: 50 * time.Millisecond}
	})
	rogue, g := z.guest("rogue"), z.guest("g")
	nic := rogue.NIC(0)
	own := MAC(nic.MAC)
	frame := func(from MAC, m []byte) []byte {
		return lab.Ethernet(lab.Broadcast, net.HardwareAddr(from[:]), unix.ETH_P_IP, appendUDP(nil, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), m))
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var frames [][]byte
	for n := range 2000 {
		from := MAC{2, 9, byte(n >> 16), byte(n >> 8), byte(n), 1}
		m := message(0, dhcpv4.MessageTypeDiscover)
		m.ClientHWAddr = from[:]
		b := m.ToBytes()
		switch n % 4 {
		case 1: // in the name of others
			from = own
		case 2: // broken
			b[rnd.IntN(len(b))] ^= byte(1 + rnd.IntN(255))
		case 3:
			b = b[:rnd.IntN(len(b))]
		}
		frames = append(frames, frame(from, b))
	}
	sendAll(t, rogue, frames)
	if a := dhclient(t, g); a == "" {
		t.Fatal("its neighbour got no address")
	}
	if err := z.server.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatal(err)
	}
	if n := len(z.leases()); n != 1 {
		t.Errorf("%d leases, want that of the neighbour alone", n)
	}
}

// sendAll sends frames from eth0 by one socket.
func sendAll(t *testing.T, h *lab.Host, frames [][]byte) {
	t.Helper()
	err := h.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Protocol: swap(unix.ETH_P_IP), Ifindex: ifi.Index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPoolExhausted(t *testing.T) {
	need(t, "dhclient")
	z := newZone(t, func(c *Config) {
		c.Pool.Last = c.Pool.First
		c.Probe = -1
	})
	a, b := z.guest("a"), z.guest("b")
	if got := dhclient(t, a); got != "10.77.0.100" {
		t.Fatalf("%q", got)
	}
	conf := filepath.Join(b.Dir(), "dhclient.conf")
	if err := os.WriteFile(conf, []byte("timeout 3;\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := dhclient(t, b, "-cf", conf); got != "" {
		t.Fatalf("a second client got %q of a pool of one", got)
	}
	a.Run("dhclient", "-4", "-r", "-lf", a.Dir()+"/leases", "-pf", a.Dir()+"/pid", "eth0").Is(t, 0)
	if got := dhclient(t, b); got != "10.77.0.100" {
		t.Errorf("%q after it was released", got)
	}
}
