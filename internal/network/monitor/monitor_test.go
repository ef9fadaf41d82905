package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/network/sockets"
	"golang.org/x/sys/unix"
)

func take(t *testing.T, h *lab.Host, s *Sampler) *Snapshot {
	t.Helper()
	var snap *Snapshot
	err := h.Do(func() (err error) { snap, err = s.Take(context.Background()); return err })
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func whole(t *testing.T, h *lab.Host, s *Sampler) *Snapshot {
	t.Helper()
	snap := take(t, h, s)
	if !snap.Complete() {
		t.Errorf("missing: %v", snap.Missing)
	}
	return snap
}

func (s *Snapshot) named(name string) *Interface {
	for i := range s.Interfaces {
		if s.Interfaces[i].Name == name {
			return &s.Interfaces[i]
		}
	}
	return &Interface{Name: "no " + name}
}

// sleeper starts a process in a host, and ends it with the test.
func sleeper(t *testing.T, h *lab.Host) (pid int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := h.Command(ctx, "sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); c.Wait() })
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // it becomes sleep by and by
		if b, _ := os.ReadFile("/proc/" + itoa(c.Process.Pid) + "/comm"); string(b) == "sleep\n" {
			return c.Process.Pid
		}
		if time.Now().After(end) {
			t.Fatal("no process in the guest within a minute")
		}
	}
}

// sameInterfaces says where a snapshot differs from what ip(8) has.
func sameInterfaces(t *testing.T, h *lab.Host, snap *Snapshot) (wrong []string) {
	t.Helper()
	var want []struct {
		Index     uint32 `json:"ifindex"`
		Name      string `json:"ifname"`
		State     string `json:"operstate"`
		MTU       uint32
		Address   string
		Master    string
		Addresses []struct {
			Local string
			Bits  int `json:"prefixlen"`
		} `json:"addr_info"`
		Info struct {
			Kind string `json:"info_kind"`
		} `json:"linkinfo"`
	}
	if err := json.Unmarshal([]byte(h.Run("ip", "-j", "-d", "addr").Is(t, 0).Stdout), &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(snap.Interfaces) || len(want) < 5 {
		return []string{fmt.Sprintf("%d interfaces, ip has %d", len(snap.Interfaces), len(want))}
	}
	for _, w := range want {
		n := snap.named(w.Name)
		kind := w.Info.Kind
		if w.Name == "lo" {
			kind, w.Address = "loopback", ""
		}
		if n.Index != w.Index || n.MTU != w.MTU || strings.ReplaceAll(n.State, "-", "") != strings.ToLower(w.State) || n.MAC != w.Address ||
			n.Master != w.Master || n.Kind != kind || len(n.Addresses) != len(w.Addresses) {
			wrong = append(wrong, fmt.Sprintf("%+v, ip has %+v", n, w))
			continue
		}
		for i, a := range w.Addresses {
			if n.Addresses[i].Prefix != netip.PrefixFrom(netip.MustParseAddr(a.Local), a.Bits) {
				wrong = append(wrong, fmt.Sprintf("%s: %v, ip has %v", n.Name, n.Addresses[i], a))
			}
		}
	}
	return wrong
}

// TestInterfaces compares them with what ip(8) says.
func TestInterfaces(t *testing.T) {
	l := lab.New(t)
	h := l.Switch().Host("host")
	h.IP("link add br7 type bridge stp_state 1", "link set br7 up", "addr add 10.7.0.1/24 dev br7")
	one, two := h.Guest("one", "tap1", "10.7.0.2/24"), h.Guest("two", "tap2", "10.7.0.3/24")
	h.IP("link set br7 type bridge stp_state 0", "link set tap1 master br7", "link set tap2 master br7", "link set tap1 type bridge_slave isolated on")
	pid := sleeper(t, one)
	one.Run("ping", "-c1", "-W30", "10.7.0.1").Is(t, 0)
	two.Run("ping", "-c1", "-W30", "10.7.0.1").Is(t, 0)

	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		wrong := sameInterfaces(t, h, whole(t, h, New(Options{Parts: Parts{Interfaces: true}})))
		if len(wrong) == 0 {
			break
		}
		if time.Now().After(end) { // the kernel makes addresses of IPv6 a moment after the links are up
			t.Fatalf("interfaces\n%s", strings.Join(wrong, "\n"))
		}
	}
	s := New(Options{Parts: Parts{Interfaces: true}})
	snap := whole(t, h, s)
	if len(snap.Bridges) != 1 || len(snap.Bridges[0].Ports) != 2 {
		t.Fatalf("bridges %+v", snap.Bridges)
	}
	b := &snap.Bridges[0]
	if b.Name != "br7" || b.STP != "off" || b.Neighbours < 2 || b.Learned != 2 {
		t.Errorf("%+v", b)
	}
	for _, p := range b.Ports {
		if p.Isolated != (p.Name == "tap1") || p.State != "forwarding" || p.Learned != 1 || p.Peer == nil || p.Peer.Name != "eth0" {
			t.Errorf("%+v, peer %+v", p, p.Peer)
		}
	}
	if p := snap.named("tap1").Peer; p == nil || p.PID != pid || p.Process != "sleep" {
		t.Errorf("who is at the other end: %+v", p)
	}

	if snap.named("tap1").Rate != nil {
		t.Error("a rate, and nothing before")
	}
	one.Run("ping", "-c3", "-i0.01", "-W30", "-s1000", "10.7.0.1").Is(t, 0)
	after := whole(t, h, s)
	rate, passed := after.named("tap1").Rate, float64(after.named("tap1").Counters.ReceivedBytes-snap.named("tap1").Counters.ReceivedBytes)
	if rate == nil || passed < 3000 || rate.In*after.Seconds < passed-1 || rate.In*after.Seconds > passed+1 || rate.Out <= 0 {
		t.Errorf("rate %+v over %f s, %f bytes passed", rate, after.Seconds, passed)
	}
	if after.Listeners != nil || after.Flows != nil || after.Routes != nil {
		t.Error("parts that nobody asked for")
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// sameRoutes says what ip(8) has and a snapshot has not.
func sameRoutes(t *testing.T, h *lab.Host, snap *Snapshot) (wrong []string) {
	t.Helper()
	n := 0
	for _, family := range []string{"-4", "-6"} {
		var list []struct {
			Dst     string
			Gateway string
			Dev     string
			Type    string
			Table   string
		}
		if err := json.Unmarshal([]byte(h.Run("ip", family, "-j", "-d", "route", "show", "table", "all").Is(t, 0).Stdout), &list); err != nil {
			t.Fatal(err)
		}
		n += len(list)
		for _, w := range list {
			want := w.Dst
			if want == "default" {
				want = map[string]string{"-4": "0.0.0.0/0", "-6": "::/0"}[family]
			} else if !strings.Contains(want, "/") {
				want += map[string]string{"-4": "/32", "-6": "/128"}[family]
			}
			table := w.Table
			if table == "" {
				table = "main"
			}
			if !slices.ContainsFunc(snap.Routes, func(r Route) bool {
				same := r.Destination.String() == want && r.Type == w.Type && r.TableName == table
				return same && (w.Dev == "" || len(r.Hops) == 1 && r.Hops[0] == Hop{w.Gateway, w.Dev})
			}) {
				wrong = append(wrong, fmt.Sprintf("no %+v", w))
			}
		}
	}
	if len(snap.Routes) != n || n < 10 {
		wrong = append(wrong, fmt.Sprintf("%d routes, ip has %d", len(snap.Routes), n))
	}
	return wrong
}

// TestRoutes compares them with what ip(8) says.
func TestRoutes(t *testing.T) {
	h := lab.New(t).Switch().Host("host")
	h.IP("route add default via 10.9.1.7", "route add default via fd09:0:0:1::7", "route add 10.20.0.0/16 via 10.9.1.8 metric 50",
		"route add blackhole 10.21.0.0/16 table 100", "route add 10.22.0.0/16 nexthop via 10.9.1.8 nexthop via 10.9.1.9", "route add default via 10.9.1.9 table 7")
	var snap *Snapshot
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		snap = whole(t, h, New(Options{Parts: Parts{Routes: true}}))
		wrong := sameRoutes(t, h, snap)
		if len(wrong) == 0 {
			break
		}
		if time.Now().After(end) { // the kernel makes those of IPv6 a moment after the address
			t.Fatalf("routes\n%s", strings.Join(wrong, "\n"))
		}
	}
	for i, r := range snap.Routes {
		if first := i < 3; r.Default != first || i < 2 && r.Table != 254 {
			t.Errorf("route %d is %+v", i, r)
		}
	}
	i := slices.IndexFunc(snap.Routes, func(r Route) bool { return r.Destination == netip.MustParsePrefix("10.22.0.0/16") })
	if i < 0 || len(snap.Routes[i].Hops) != 2 {
		t.Errorf("a route with two hops: %+v", snap.Routes)
	}
}

func rules(t *testing.T, h *lab.Host, text string) {
	t.Helper()
	file := h.Dir() + "/rules"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Run("nft", "-f", file).Is(t, 0)
}

// serve accepts connections at an address of the host and keeps them.
func serve(t *testing.T, h *lab.Host, network, at string) (addr netip.AddrPort) {
	t.Helper()
	if err := h.Do(func() error {
		l, err := net.Listen(network, at)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		addr = netip.MustParseAddrPort(l.Addr().String())
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { c.Close() })
				go io.Copy(c, c)
			}
		}()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return addr
}

// talk connects to a server and has n bytes sent back.
func talk(t *testing.T, h *lab.Host, to netip.AddrPort, n int) (c net.Conn) {
	t.Helper()
	if err := h.Do(func() (err error) {
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			c, err = net.DialTimeout("tcp", to.String(), time.Minute)
			if err == nil || time.Now().After(end) { // routes of IPv6 come a moment after addresses
				return err
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	more(t, c, n)
	return c
}

func more(t *testing.T, c net.Conn, n int) {
	t.Helper()
	if _, err := c.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

func (s *Snapshot) flow(local, remote netip.AddrPort) *Flow {
	for i := range s.Flows {
		if f := &s.Flows[i]; f.Local == local && f.Remote == remote {
			return f
		}
	}
	return &Flow{Protocol: "none"}
}

func local(c net.Conn) netip.AddrPort { return netip.MustParseAddrPort(c.LocalAddr().String()) }

func ours(list []Process) bool { return len(list) == 1 && list[0].PID == os.Getpid() }

// TestListenersAndFlows of programs of the host, first where nothing is tracked.
func TestListenersAndFlows(t *testing.T) {
	l := lab.New(t)
	lan := l.Switch()
	host, other := lan.Host("host"), lan.Host("other")
	any := serve(t, host, "tcp", ":0")
	away := serve(t, other, "tcp", netip.AddrPortFrom(other.IPv4(), 0).String())
	out := talk(t, host, away, 1000)
	in := talk(t, other, netip.AddrPortFrom(host.IPv4(), any.Port()), 500)
	six := talk(t, other, netip.AddrPortFrom(host.IPv6(), any.Port()), 10)
	self := talk(t, host, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), any.Port()), 10)
	s := New(Options{Parts: Parts{Listeners: true, Flows: true}})
	host4 := netip.AddrPortFrom(host.IPv4(), any.Port())
	var snap *Snapshot
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // what a server sends is acknowledged a moment after it was read
		snap = whole(t, host, s)
		four, six := snap.flow(host4, local(in)), snap.flow(netip.AddrPortFrom(host.IPv6(), any.Port()), local(six))
		if four.SentBytes != nil && *four.SentBytes >= 500 && six.SentBytes != nil && *six.SentBytes >= 10 || time.Now().After(end) {
			break
		}
	}
	if snap.Tracking.Bytes {
		t.Error("connections are counted, and nobody asked for that")
	}
	if len(snap.Listeners) != 1 || snap.Listeners[0].Local.Port() != any.Port() || !snap.Listeners[0].Any || snap.Listeners[0].Protocol != "tcp" || !ours(snap.Listeners[0].Processes) {
		t.Errorf("listeners %+v", snap.Listeners)
	}
	check := func(f *Flow, direction, by string, sent, received uint64) {
		t.Helper()
		if f.Protocol != "tcp" || f.State != "established" || f.Direction != direction || f.CountedBy != by || f.SentBytes == nil ||
			*f.SentBytes < sent || *f.ReceivedBytes < received || *f.SentBytes > sent+2000 || !ours(f.Processes) || f.Inode == 0 {
			t.Errorf("%+v, want %s by %s", f, direction, by)
		}
	}
	check(snap.flow(local(out), away), "out", "socket", 1000, 1000)
	check(snap.flow(host4, local(in)), "in", "socket", 500, 500)
	check(snap.flow(netip.AddrPortFrom(host.IPv6(), any.Port()), local(six)), "in", "socket", 10, 10)
	check(snap.flow(local(self), netip.MustParseAddrPort(self.RemoteAddr().String())), "within", "socket", 10, 10)

	// What begins from now on is tracked and counted.
	host.Sysctl("net/netfilter/nf_conntrack_acct", "1")
	rules(t, host, `table inet t { chain in { type filter hook input priority 0; ct state established counter; }; }
table ip nat { chain pre { type nat hook prerouting priority -100; tcp dport 99 redirect to :`+itoa(int(any.Port()))+`; }; }`)
	out = talk(t, host, away, 3000)
	in = talk(t, other, netip.AddrPortFrom(host.IPv4(), 99), 700) // translated
	snap = whole(t, host, s)
	if !snap.Tracking.Connections || !snap.Tracking.Bytes {
		t.Errorf("tracking %+v", snap.Tracking)
	}
	check(snap.flow(local(out), away), "out", "conntrack", 3000, 3000)
	f := snap.flow(host4, local(in))
	check(f, "in", "conntrack", 700, 700)
	if want := netip.AddrPortFrom(host.IPv4(), 99); f.Translated != want || f.Timeout == 0 {
		t.Errorf("translated %v, want %v: %+v", f.Translated, want, f)
	}
	more(t, out, 5000)
	snap = whole(t, host, s)
	f = snap.flow(local(out), away)
	if f.Rate == nil || f.Rate.Out*snap.Seconds < 5000 || f.Rate.In*snap.Seconds < 5000 {
		t.Errorf("rate %+v over %f s", f.Rate, snap.Seconds)
	}

	// UDP without a connection is told by what passes.
	var server net.PacketConn
	if err := host.Do(func() (err error) {
		server, err = net.ListenPacket("udp", ":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	port := netip.MustParseAddrPort(server.LocalAddr().String()).Port()
	var question net.Conn
	if err := other.Do(func() (err error) {
		question, err = net.Dial("udp", netip.AddrPortFrom(host.IPv4(), port).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer question.Close()
	if _, err := question.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if _, from, err := server.ReadFrom(make([]byte, 10)); err != nil || from.String() != question.LocalAddr().String() {
		t.Fatal(from, err)
	}
	f = whole(t, host, s).flow(netip.AddrPortFrom(host.IPv4(), port), local(question))
	if f.Protocol != "udp" || f.Direction != "in" || f.State != "unreplied" || !ours(f.Processes) {
		t.Errorf("%+v", f)
	}

	// A filter leaves what it names.
	for name, c := range map[string]struct {
		filter    Filter
		listeners int
		flow      bool
	}{
		"port":             {Filter{Port: away.Port()}, 0, true},
		"another port":     {Filter{Port: 1}, 0, false},
		"process":          {Filter{Process: pathBase(os.Args[0])}, 2, true},
		"number":           {Filter{Process: itoa(os.Getpid())}, 2, true},
		"other process":    {Filter{Process: "sshd"}, 0, false},
		"network":          {Filter{Address: netip.MustParsePrefix("10.9.1.2/32")}, 2, true},
		"other network":    {Filter{Address: netip.MustParsePrefix("192.0.2.0/24")}, 2, false},
		"state":            {Filter{State: "established"}, 0, true},
		"listening":        {Filter{State: "listening"}, 2, false},
		"all of them":      {Filter{State: "established", Port: away.Port(), Address: netip.MustParsePrefix("10.9.1.0/24")}, 0, true},
		"one of them does": {Filter{State: "time-wait", Port: away.Port()}, 0, false},
	} {
		snap := whole(t, host, New(Options{Parts: AllParts, Filter: c.filter}))
		if len(snap.Listeners) != c.listeners || (snap.flow(local(out), away).Protocol == "tcp") != c.flow {
			t.Errorf("%s: %d listeners, want %d; flow %v", name, len(snap.Listeners), c.listeners, !c.flow)
		}
	}
}

// TestForwarded: connections of containers pass the host, which has no socket
// for them.
func TestForwarded(t *testing.T) {
	l := lab.New(t)
	lan := l.Switch()
	host, other := lan.Host("host"), lan.Host("other")
	host.Forward()
	host.Sysctl("net/netfilter/nf_conntrack_acct", "1")
	host.IP("link add br7 type bridge", "link set br7 up", "addr add 10.7.0.1/24 dev br7")
	guest := host.Guest("guest", "tap1", "10.7.0.2/24")
	host.IP("link set tap1 master br7")
	guest.IP("route add default via 10.7.0.1")
	rules(t, host, `table ip nat { chain post { type nat hook postrouting priority 100; ip saddr 10.7.0.0/24 masquerade; }; }`)
	pid := sleeper(t, guest)
	to := serve(t, other, "tcp", netip.AddrPortFrom(other.IPv4(), 0).String())
	c := talk(t, guest, to, 2000)
	snap := whole(t, host, New(Options{Parts: AllParts}))
	f := snap.flow(local(c), to)
	if f.Protocol != "tcp" || f.Direction != "forward" || f.State != "established" || f.SentBytes == nil || *f.SentBytes < 2000 ||
		len(f.Processes) != 0 || f.Inode != 0 || f.Translated.IsValid() {
		t.Errorf("%+v", f)
	}
	p := snap.named("tap1").Peer
	if p == nil || p.PID != pid || f.Behind == nil || *f.Behind != *p {
		t.Errorf("the other end of the cable: %+v, and behind the flow: %+v", p, f.Behind)
	}
	only := whole(t, host, New(Options{Parts: AllParts, Filter: Filter{Process: itoa(pid)}}))
	if len(only.Flows) == 0 || only.flow(local(c), to).Behind == nil {
		t.Errorf("flows of the container: %+v", only.Flows)
	}
}

// TestPathsAreBytes: a path that is no text is in JSON as it is.
func TestPathsAreBytes(t *testing.T) {
	path := "/srv/\xffprogram"
	list := processes(map[uint64][]sockets.Process{7: {{PID: 1, Exe: path}, {PID: 2, Exe: "/bin/sh"}}})[7]
	b, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	var back []struct {
		ExeB64 []byte `json:"exe_b64"`
		Exe    string
	}
	if err := json.Unmarshal(b, &back); err != nil || string(back[0].ExeB64) != path || back[1].ExeB64 != nil || back[1].Exe != "/bin/sh" {
		t.Errorf("%v: %s", err, b)
	}
}

// TestWithoutRights: what cannot be seen is said.
func TestWithoutRights(t *testing.T) {
	h := lab.New(t).Host("host")
	rules(t, h, `table inet t { chain in { type filter hook input priority 0; ct state established counter; }; }`)
	var snap *Snapshot
	err := h.Do(func() error {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps, none [2]unix.CapUserData
		if err := unix.Capget(&hdr, &caps[0]); err != nil {
			return err
		}
		none = caps
		none[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&hdr, &none[0]); err != nil { // of this thread
			return err
		}
		var err error
		snap, err = New(Options{Parts: AllParts}).Take(context.Background())
		if err := unix.Capset(&hdr, &caps[0]); err != nil {
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if snap.Complete() || !slices.ContainsFunc(snap.Missing, func(m Missing) bool { return m.What == "connections" }) {
		t.Errorf("missing: %+v", snap.Missing)
	}
}
