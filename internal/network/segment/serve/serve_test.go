package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/network/segment/dhcp"
)

// serveEnv makes a copy of the test serve the layout in a file, with everything
// else beside it.
const serveEnv = "SERVE_TEST_LAYOUT"

func TestMain(m *testing.M) {
	file := os.Getenv(serveEnv)
	if file == "" {
		lab.Main(m)
		return
	}
	dir := filepath.Dir(file)
	err := Run(context.Background(), Options{
		Zones: func(context.Context) ([]Zone, error) {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			l := new(segment.Layout)
			if err := json.Unmarshal(data, l); err != nil {
				return nil, err
			}
			return Zones(l, dir), nil
		},
		Changed: func() string {
			fi, err := os.Stat(file)
			if err != nil {
				return ""
			}
			return fi.ModTime().String()
		},
		StatusFile: filepath.Join(dir, "status.json"),
		Ready:      func() { fmt.Println("ready") },
		Alive:      func() {},
		Notice:     func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
	})
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// site is a host with zones that are served.
type site struct {
	*testing.T
	router *lab.Host
	layout segment.Layout
	guests int
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func zoneLayout(name string, n int) segment.ZoneLayout {
	four, six := fmt.Sprintf("10.77.%d.", n), fmt.Sprintf("fd77:%d::", n)
	return segment.ZoneLayout{
		Bridge: "mo-" + name, LinkMTU: 1500,
		Zone: segment.Zone{
			Name:    name,
			Subnets: []segment.Subnet{{Prefix: netip.MustParsePrefix(four + "0/24"), Gateway: addr(four + "1")}, {Prefix: netip.MustParsePrefix(six + "/64"), Gateway: addr(six + "1")}},
			DHCP:    &segment.DHCP{Range4: segment.Range{First: addr(four + "100"), Last: addr(four + "150")}, Lease: time.Hour, RA: true},
			DNS:     &segment.DNS{Domain: name + ".example"},
		},
	}
}

func (s *site) file() string { return filepath.Join(s.router.Dir(), "layout.json") }

func (s *site) apply() {
	s.Helper()
	data, err := json.Marshal(s.layout)
	if err != nil {
		s.Fatal(err)
	}
	if err := durable.WriteFile(s.file(), data, 0o600); err != nil {
		s.Fatal(err)
	}
}

func (s *site) bridge(z *segment.ZoneLayout) {
	s.router.IP("link add "+z.Bridge+" type bridge", "link set "+z.Bridge+" up")
	for _, n := range z.Subnets {
		s.router.IP(fmt.Sprintf("addr add %s/%d dev %s", n.Gateway, n.Prefix.Bits(), z.Bridge))
	}
}

func (s *site) start() {
	s.Helper()
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	cmd := s.router.Command(context.Background(), self)
	cmd.Env = append(cmd.Env, serveEnv+"="+s.file())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		s.Fatalf("it said %q: %v", line, err)
	}
}

func (s *site) guest(name, bridge string) *lab.Host {
	s.guests++
	port := fmt.Sprintf("mo-p-%d", s.guests)
	g := s.router.Guest(name, port)
	s.router.IP("link set " + port + " master " + bridge)
	g.Private("/etc/resolv.conf")
	g.Empty("/run")
	return g
}

func (s *site) status() map[string]ZoneStatus {
	s.Helper()
	st, err := ReadStatus(filepath.Join(s.router.Dir(), "status.json"))
	if err != nil {
		s.Fatal(err)
	}
	out := map[string]ZoneStatus{}
	if st != nil {
		for _, z := range st.Zones {
			out[z.Zone] = z
		}
	}
	return out
}

func newSite(t *testing.T) *site {
	t.Helper()
	for _, tool := range []string{"dhclient", "dig"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: %s is not installed (see .ci/test-tools)", tool)
		}
	}
	s := &site{T: t, router: lab.New(t).Host("router")}
	s.layout.Zones = []segment.ZoneLayout{zoneLayout("dev", 1), zoneLayout("prod", 2)}
	return s
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// lease gets an address by dhclient, under a name.
func lease(t *testing.T, g *lab.Host, name string) string {
	t.Helper()
	conf := filepath.Join(g.Dir(), "dhclient.conf")
	if err := os.WriteFile(conf, []byte("send host-name \""+name+"\";\nrequest subnet-mask, routers, domain-name-servers, domain-name;\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := g.Run("dhclient", "-4", "-v", "-1", "-cf", conf, "-lf", g.Dir()+"/leases", "-pf", g.Dir()+"/pid", "eth0")
	t.Cleanup(func() { g.Run("dhclient", "-x", "-pf", g.Dir()+"/pid", "eth0") })
	for f := strings.Fields(r.Stderr); len(f) > 2; f = f[1:] {
		if f[0] == "bound" && f[1] == "to" {
			return f[2]
		}
	}
	t.Fatalf("no lease: %s", r.Stderr)
	return ""
}

// dig returns the answer in one line.
func dig(g *lab.Host, args ...string) string {
	return strings.Join(strings.Fields(g.Run("dig", append([]string{"+short", "+tries=2", "+time=15"}, args...)...).Stdout), " ")
}

func TestLeasesAndNames(t *testing.T) {
	s := newSite(t)
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 99, 0, byte(i)}))
	}
	z := &s.layout.Zones[0]
	z.DNS.Records = []segment.Record{{Name: "many", Addresses: many}, {Name: "www", Alias: "web"}}
	s.layout.Ports = []segment.Port{{Workload: segment.Workload{Name: "web", Zone: "dev"}, Addr: []netip.Addr{addr("10.77.1.101"), addr("fd77:1::9")}}}
	for i := range s.layout.Zones {
		s.bridge(&s.layout.Zones[i])
	}
	s.apply()
	s.start()
	a, b := s.guest("a", "mo-dev"), s.guest("b", "mo-prod")
	four := lease(t, a, "phone")
	lease(t, b, "tablet")
	if data, _ := os.ReadFile(filepath.Join(a.Dir(), "leases")); !strings.Contains(string(data), `domain-name "dev.example"`) {
		t.Errorf("the lease: %s", data)
	}
	own := ""
	until(t, "an IPv6 address of its own", func() bool {
		for _, f := range strings.Fields(a.Run("ip", "-6", "addr", "show", "dev", "eth0", "scope", "global").Stdout) {
			if strings.HasPrefix(f, "fd77:1::") {
				own = strings.TrimSuffix(f, "/64")
			}
		}
		return own != ""
	})
	for _, c := range []struct{ want, args string }{
		{four, "phone.dev.example"}, // by resolv.conf
		{"10.77.1.101", "@10.77.1.1 web.dev.example"},
		{"fd77:1::9", "@fd77:1::1 web.dev.example AAAA"},
		{"web.dev.example. 10.77.1.101", "@10.77.1.1 www.dev.example"},
		{"web.dev.example.", "@10.77.1.1 -x 10.77.1.101"},
		{"phone.dev.example.", "@10.77.1.1 -x " + four},
		{"10.77.1.1", "@10.77.1.1 gateway.dev.example"},
		{"", "@10.77.1.1 tablet.prod.example"},
		{"", "@10.77.1.1 tablet.dev.example"},
	} {
		if got := dig(a, strings.Fields(c.args)...); got != c.want {
			t.Errorf("dig %s: %q, want %q", c.args, got, c.want)
		}
	}
	// The guest has made its address by itself; who has asked by it is known.
	until(t, "the name of "+own, func() bool {
		dig(a, "@fd77:1::1", "web.dev.example")
		return dig(a, "@10.77.1.1", "phone.dev.example", "AAAA") == own && dig(a, "@10.77.1.1", "-x", own) == "phone.dev.example."
	})
	if got := strings.Fields(dig(a, "@10.77.1.1", "many.dev.example")); len(got) != len(many) {
		t.Errorf("%d of %d addresses by TCP", len(got), len(many))
	}
	if out := a.Run("dig", "@10.77.1.1", "+ignore", "many.dev.example").Stdout; !strings.Contains(out, "flags: qr aa tc") && !strings.Contains(out, " tc ") {
		t.Errorf("not truncated: %s", out)
	}
	// From outside of the zone.
	a.IP("addr add 192.0.2.9/32 dev eth0")
	s.router.IP("route add 192.0.2.9/32 dev mo-dev")
	if out := a.Run("dig", "@10.77.1.1", "-b", "192.0.2.9", "web.dev.example").Stdout; !strings.Contains(out, "status: REFUSED") {
		t.Errorf("from outside: %s", out)
	}
	until(t, "the status", func() bool {
		st := s.status()["dev"]
		return st.DHCP != nil && st.DHCP.State == Serving && st.DNS.State == Serving && st.DHCPCounters.Acks >= 1 && st.DNSCounters.Refused >= 1
	})
	if fi, err := os.Stat(filepath.Join(s.router.Dir(), "status.json")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestOneZoneDoesNotStopAnother(t *testing.T) {
	s := newSite(t)
	dev, prod := &s.layout.Zones[0], &s.layout.Zones[1]
	s.bridge(dev)
	if err := os.WriteFile(LeaseFile(s.router.Dir(), "broken"), []byte("something else\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.layout.Zones = append(s.layout.Zones, zoneLayout("broken", 3))
	s.bridge(&s.layout.Zones[2])
	s.apply()
	s.start()
	a := s.guest("a", "mo-dev")
	first := lease(t, a, "phone")
	var st map[string]ZoneStatus
	until(t, "what every service came to", func() bool {
		st = s.status()
		settled := func(s *ServiceStatus) bool { return s != nil && s.State != Starting }
		return settled(st["prod"].DHCP) && settled(st["prod"].DNS) && settled(st["broken"].DHCP) && settled(st["broken"].DNS)
	})
	if st["prod"].DHCP.State != Failed || st["prod"].DNS.State != Failed || !strings.Contains(st["prod"].DHCP.Error, "mo-prod") {
		t.Errorf("without its bridge: %+v", st["prod"].DHCP)
	}
	if b := st["broken"]; b.DHCP.State != Failed || !strings.Contains(b.DHCP.Error, "broken.leases") || b.DNS.State != Serving {
		t.Errorf("with a damaged file: %+v %+v", b.DHCP, b.DNS)
	}
	s.bridge(prod)
	until(t, "the zone whose bridge has come", func() bool { st := s.status()["prod"]; return st.DHCP.State == Serving && st.DNS.State == Serving })
	b := s.guest("b", "mo-prod")
	lease(t, b, "tablet")

	// What is applied meanwhile is followed, and the other zone is left alone.
	before := s.status()["prod"].DHCP.Since
	dev.DNS.Records = []segment.Record{{Name: "new", Addresses: []netip.Addr{addr("10.77.1.7")}}}
	s.layout.Zones = s.layout.Zones[:2]
	s.apply()
	until(t, "the new name", func() bool { return dig(a, "@10.77.1.1", "new.dev.example") == "10.77.1.7" })
	until(t, "the old lease", func() bool { return dig(a, "@10.77.1.1", "phone.dev.example") == first })
	until(t, "the status", func() bool { _, ok := s.status()["broken"]; return !ok })
	if st := s.status()["prod"].DHCP; !st.Since.Equal(before) || st.Failures == 0 {
		t.Errorf("the other zone was touched: %+v, since %s before", st, before)
	}
	// A bridge that goes away, and comes again.
	s.router.IP("link del mo-dev")
	s.bridge(dev)
	c := s.guest("c", "mo-dev")
	until(t, "an answer on the new bridge", func() bool {
		c.Run("ip", "addr", "replace", "10.77.1.33/24", "dev", "eth0")
		return dig(c, "@10.77.1.1", "new.dev.example") == "10.77.1.7"
	})
	c.IP("addr flush dev eth0 scope global")
	if got := lease(t, c, "other"); got == first {
		t.Errorf("%s was given out twice", got)
	}
	list, err := dhcp.ReadLeases(LeaseFile(s.router.Dir(), "dev"), time.Now())
	if err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestZonesOfALayout(t *testing.T) {
	l := &segment.Layout{Zones: []segment.ZoneLayout{zoneLayout("dev", 1), zoneLayout("prod", 2), {Bridge: "mo-bare", Zone: segment.Zone{Name: "bare"}}}}
	d := l.Zones[0].DHCP
	mac := segment.MAC{2, 0, 0, 0, 0, 9}
	d.Reservations = []segment.Reservation{{MAC: mac, Addresses: []netip.Addr{addr("10.77.1.9")}, Hostname: "Printer"}, {MAC: segment.MAC{2, 0, 0, 0, 0, 8}, Addresses: []netip.Addr{addr("10.77.1.8")}, Hostname: "not a name"}}
	l.Ports = []segment.Port{{Workload: segment.Workload{Name: "web", Zone: "dev"}, Addr: []netip.Addr{addr("10.77.1.120")}}, {Workload: segment.Workload{Name: "db", Zone: "prod"}, Addr: []netip.Addr{addr("10.77.2.120")}}}
	zones := Zones(l, "/leases")
	if len(zones) != 2 || zones[0].DHCP.File != "/leases/dev.leases" {
		t.Fatalf("%+v", zones)
	}
	c := zones[0].DHCP
	if !slices.Contains(c.Exclude, addr("10.77.1.120")) || slices.Contains(c.Exclude, addr("10.77.1.9")) || c.Reservations[0].Name != "printer" || c.Reservations[1].Name != "" || !slices.Contains(c.Names, "web") {
		t.Errorf("%+v", c)
	}
	n := zones[0].DNS
	if n.Records["printer"] == nil || n.Records["web"] == nil || n.Records["db"] != nil || !slices.Equal(n.Foreign, []string{"prod.example"}) {
		t.Errorf("%+v", n)
	}
	again := Zones(l, "/leases")
	if !same(again[0].DHCP, zones[0].DHCP) || !same(again[0].DNS, zones[0].DNS) {
		t.Error("the same layout is another one")
	}
	d.Lease = 2 * time.Hour
	again = Zones(l, "/leases")
	if same(again[0].DHCP, zones[0].DHCP) || !same(again[0].DNS, zones[0].DNS) || !same(again[1].DHCP, zones[1].DHCP) {
		t.Error("a changed zone is the same, or the other one is not")
	}
	if Zones(nil, "/leases") != nil {
		t.Error("nothing was applied")
	}
}
