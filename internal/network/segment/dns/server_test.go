package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// oracle is an upstream server that answers as a test wants.
type oracle struct {
	addr  netip.AddrPort
	asked atomic.Int64
	byTCP atomic.Int64

	mu    sync.Mutex
	lies  func(reply []byte) [][]byte // what is sent in place of the reply, by UDP
	zone  map[string][]string
	names []string // as they were asked, in their letters
}

func newOracle(t *testing.T, zone map[string][]string) *oracle {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &oracle{addr: pc.LocalAddr().(*net.UDPAddr).AddrPort(), zone: zone}
	l, err := net.Listen("tcp4", o.addr.String())
	if err != nil {
		t.Skipf("NOT RUN: port %d is free for UDP and not for TCP", o.addr.Port())
	}
	t.Cleanup(func() { pc.Close(); l.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			reply := o.reply(buf[:n], true)
			o.mu.Lock()
			lies := o.lies
			o.mu.Unlock()
			out := [][]byte{reply}
			if lies != nil {
				out = lies(reply)
			}
			for _, b := range out {
				pc.WriteTo(b, from)
			}
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.byTCP.Add(1)
			var size [2]byte
			if _, err := io.ReadFull(c, size[:]); err == nil {
				b := make([]byte, binary.BigEndian.Uint16(size[:]))
				io.ReadFull(c, b)
				reply := o.reply(b, false)
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
			}
			c.Close()
		}
	}()
	return o
}

func (o *oracle) lie(lies func([]byte) [][]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lies = lies
}

// heard are the names that were asked for.
func (o *oracle) heard() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.names)
}

func (o *oracle) reply(b []byte, udp bool) []byte {
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil || len(m.Question) != 1 {
		return nil
	}
	o.asked.Add(1)
	o.mu.Lock()
	o.names = append(o.names, m.Question[0].Name)
	records, ok := o.zone[strings.ToLower(m.Question[0].Name)]
	o.mu.Unlock()
	r := new(dns.Msg).SetReply(m)
	r.RecursionAvailable = true
	if !ok {
		r.Rcode = dns.RcodeNameError
		records = []string{"example.org. 900 IN SOA ns.example.org. x.example.org. 1 2 3 4 60"}
	}
	for _, line := range records {
		rr, err := dns.NewRR(line)
		if err != nil {
			panic(line)
		}
		switch {
		case rr.Header().Rrtype == dns.TypeSOA:
			r.Ns = append(r.Ns, rr)
		case strings.HasPrefix(line, "extra."):
			r.Extra = append(r.Extra, rr)
		default:
			r.Answer = append(r.Answer, rr)
		}
	}
	out, err := r.Pack()
	if err != nil {
		panic(err)
	}
	if udp && len(out) > 1232 {
		r.Truncated, r.Answer = true, nil
		out, _ = r.Pack()
	}
	return out
}

// start runs a server on the loopback interface, as a client from there sees it.
func start(t *testing.T, c Config, tune ...func(*Server)) (*Server, string) {
	t.Helper()
	c.Listen = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	if c.Clients == nil {
		c.Clients = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.77.0.0/24"), netip.MustParsePrefix("fd77::/64")}
	}
	c.Domain = "dev.internal"
	var s *Server
	for {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.Port = pc.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		pc.Close()
		if s, err = New(c); err != nil {
			t.Fatal(err)
		}
		for _, f := range tune {
			f(s)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ready, done := make(chan bool, 1), make(chan error, 1)
		go func() { done <- s.Run(ctx, func() { ready <- true }) }()
		select {
		case <-ready:
			t.Cleanup(func() {
				cancel()
				if err := <-done; err != nil {
					t.Errorf("the server ended: %v", err)
				}
			})
			return s, fmt.Sprintf("127.0.0.1:%d", c.Port)
		case err := <-done:
			cancel()
			t.Logf("another port: %v", err)
		}
	}
}

// ask asks by UDP with EDNS, unless change makes another question of it.
func ask(t *testing.T, server, name string, typ uint16, change func(*dns.Msg, *dns.Client)) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, typ)
	m.SetEdns0(1232, false)
	c := &dns.Client{Timeout: time.Minute}
	if change != nil {
		change(m, c)
	}
	r, _, err := c.Exchange(m, server)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if r.Question[0] != m.Question[0] {
		t.Errorf("asked %v, the answer is about %v", m.Question[0], r.Question[0])
	}
	return r
}

// data is what the answer section says, sorted.
func data(m *dns.Msg) string {
	var list []string
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		list = append(list, f[3]+" "+strings.Join(f[4:], " "))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func TestNamesOfTheZone(t *testing.T) {
	up := newOracle(t, nil)
	lease := netip.MustParseAddr("10.77.0.120")
	_, at := start(t, Config{
		Upstream: []netip.AddrPort{up.addr}, Foreign: []string{"prod.example"},
		Records: map[string][]netip.Addr{"web": {netip.MustParseAddr("10.77.0.9"), netip.MustParseAddr("fd77::9")}, "gateway": {netip.MustParseAddr("10.77.0.1")}, "db.example.net": {netip.MustParseAddr("192.0.2.7")}},
		Aliases: map[string]string{"www": "web", "a": "b", "b": "a"},
		Lookup: func(label string) []netip.Addr {
			if label == "phone" {
				return []netip.Addr{lease}
			}
			return nil
		},
		Reverse: func(a netip.Addr) string {
			if a == lease {
				return "phone"
			}
			return ""
		},
	})
	for _, c := range []struct {
		name  string
		typ   uint16
		rcode int
		want  string
	}{
		{"web.dev.internal.", dns.TypeA, 0, "A 10.77.0.9"},
		{"WEB.Dev.internal.", dns.TypeAAAA, 0, "AAAA fd77::9"},
		{"web.dev.internal.", dns.TypeMX, 0, ""},
		{"www.dev.internal.", dns.TypeA, 0, "A 10.77.0.9, CNAME web.dev.internal."},
		{"phone.dev.internal.", dns.TypeA, 0, "A 10.77.0.120"},
		{"phone.dev.internal.", dns.TypeAAAA, 0, ""},
		{"nobody.dev.internal.", dns.TypeA, dns.RcodeNameError, ""},
		{"x.phone.dev.internal.", dns.TypeA, dns.RcodeNameError, ""},
		{"dev.internal.", dns.TypeNS, 0, "NS gateway.dev.internal."},
		{"db.example.net.", dns.TypeA, 0, "A 192.0.2.7"},
		{"9.0.77.10.in-addr.arpa.", dns.TypePTR, 0, "PTR web.dev.internal."},
		{"120.0.77.10.in-addr.arpa.", dns.TypePTR, 0, "PTR phone.dev.internal."},
		{"121.0.77.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, ""},
		{"9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.d.f.ip6.arpa.", dns.TypePTR, 0, "PTR web.dev.internal."},
		{"1.1.168.192.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, ""},
		{"localhost.", dns.TypeA, 0, "A 127.0.0.1"},
		{"x.localhost.", dns.TypeAAAA, 0, "AAAA ::1"},
		{"printer.local.", dns.TypeA, dns.RcodeNameError, ""},
		{"x.invalid.", dns.TypeA, dns.RcodeNameError, ""},
		{"x.onion.", dns.TypeA, dns.RcodeNameError, ""},
		{"other.internal.", dns.TypeA, dns.RcodeNameError, ""},
		{"web.prod.example.", dns.TypeA, dns.RcodeNameError, ""},
		{"intranet.", dns.TypeA, dns.RcodeNameError, ""},
		{"web.dev.internal.", dns.TypeANY, 0, `HINFO "RFC8482" ""`},
		{"example.org.", dns.TypeANY, 0, `HINFO "RFC8482" ""`},
		{"web.dev.internal.", dns.TypeAXFR, dns.RcodeRefused, ""},
	} {
		r := ask(t, at, c.name, c.typ, nil)
		if got := data(r); got != c.want || r.Rcode != c.rcode {
			t.Errorf("%s %s: %s %q, want %s %q", c.name, dns.TypeToString[c.typ], dns.RcodeToString[r.Rcode], got, dns.RcodeToString[c.rcode], c.want)
		}
		if len(r.Answer) == 0 && r.Rcode != dns.RcodeRefused && (len(r.Ns) != 1 || r.Ns[0].Header().Rrtype != dns.TypeSOA) {
			t.Errorf("%s: nothing says for how long it does not exist: %v", c.name, r.Ns)
		}
	}
	ask(t, at, "a.dev.internal.", dns.TypeA, nil) // a ring of aliases ends
	if n := up.asked.Load(); n != 0 {
		t.Errorf("upstream was asked %d times: %q", n, up.heard())
	}
}

func TestForwarding(t *testing.T) {
	long := []string{}
	for i := range 200 {
		long = append(long, fmt.Sprintf("long.example.org. 300 IN A 198.51.100.%d", i+1))
	}
	up := newOracle(t, map[string][]string{
		"www.example.org.":   {"www.example.org. 300 IN CNAME web.example.org.", "web.example.org. 100000000 IN A 198.51.100.7", "evil.example.com. 300 IN A 198.51.100.66", "extra.example.org. 1 IN A 198.51.100.67"},
		"short.example.org.": {"short.example.org. 0 IN A 198.51.100.8"},
		"empty.example.org.": {"example.org. 900 IN SOA ns.example.org. x.example.org. 1 2 3 4 60"},
		"long.example.org.":  long,
	})
	clock := time.Now()
	var mu sync.Mutex
	s, at := start(t, Config{Upstream: []netip.AddrPort{up.addr}}, func(s *Server) {
		s.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return clock }
	})
	for range 3 {
		r := ask(t, at, "wWw.example.org.", dns.TypeA, nil)
		if got := data(r); got != "A 198.51.100.7, CNAME web.example.org." || len(r.Extra) != 1 {
			t.Errorf("%q and %v", got, r.Extra)
		}
		if r.AuthenticatedData || !r.RecursionAvailable {
			t.Errorf("header %+v", r.MsgHdr)
		}
	}
	if n := up.asked.Load(); n != 1 {
		t.Errorf("asked upstream %d times, want once", n)
	}
	if c := s.Counters(); c.Cached != 2 || c.Forwarded != 1 {
		t.Errorf("%+v", c)
	}
	mu.Lock()
	clock = clock.Add(100 * time.Second)
	mu.Unlock()
	r := ask(t, at, "www.example.org.", dns.TypeA, nil)
	if a, b := r.Answer[0].Header().Ttl, r.Answer[1].Header().Ttl; a != 200 || b > 86400-100 {
		t.Errorf("times %d and %d after 100 s of 300 and of a day", a, b)
	}
	if ttl := ask(t, at, "short.example.org.", dns.TypeA, nil).Answer[0].Header().Ttl; ttl != 5 {
		t.Errorf("a time of 0 became %d", ttl)
	}
	before := up.asked.Load()
	for _, name := range []string{"empty.example.org.", "gone.example.org."} { // RFC 2308
		for range 2 {
			if r := ask(t, at, name, dns.TypeA, nil); len(r.Ns) != 1 || r.Ns[0].Header().Ttl != 60 {
				t.Errorf("%s: %v", name, r.Ns)
			}
		}
	}
	if n := up.asked.Load() - before; n != 2 {
		t.Errorf("asked upstream %d times for two names that have nothing", n)
	}
	// What does not fit is asked for by TCP, on both sides.
	if r := ask(t, at, "long.example.org.", dns.TypeA, nil); !r.Truncated || len(r.Answer) != 0 || up.byTCP.Load() != 1 {
		t.Errorf("truncated %v with %d records, %d times by TCP", r.Truncated, len(r.Answer), up.byTCP.Load())
	}
	if r := ask(t, at, "long.example.org.", dns.TypeA, func(_ *dns.Msg, c *dns.Client) { c.Net = "tcp" }); r.Truncated || len(r.Answer) != 200 {
		t.Errorf("by TCP: truncated %v with %d records", r.Truncated, len(r.Answer))
	}
	r = ask(t, at, "www.example.org.", dns.TypeA, func(m *dns.Msg, _ *dns.Client) { m.Extra = nil })
	if r.IsEdns0() != nil {
		t.Error("an OPT record for who sent none")
	}
	r = ask(t, at, "new.example.org.", dns.TypeA, func(m *dns.Msg, _ *dns.Client) { m.RecursionDesired = false })
	if r.Rcode != dns.RcodeRefused {
		t.Errorf("without recursion: %s", dns.RcodeToString[r.Rcode])
	}
	// The letters are random.
	mixed := 0
	heard := up.heard()
	for _, n := range heard {
		if n != strings.ToLower(n) && n != strings.ToUpper(n) {
			mixed++
		}
	}
	if mixed < len(heard)-1 {
		t.Errorf("%d of %q have letters of both kinds", mixed, heard)
	}
}

func TestLiars(t *testing.T) {
	zone := map[string][]string{"www.example.org.": {"www.example.org. 300 IN A 198.51.100.7"}}
	forge := func(change func([]byte)) func([]byte) [][]byte {
		return func(reply []byte) [][]byte {
			lie := bytes.Clone(reply)
			// The address is at the end of the answer, before the OPT record if any.
			at := bytes.LastIndex(lie, []byte{198, 51, 100, 7})
			copy(lie[at:], []byte{6, 6, 6, 6})
			change(lie)
			return [][]byte{lie, reply}
		}
	}
	for name, lies := range map[string]func([]byte) [][]byte{
		"another number":   forge(func(b []byte) { b[0] ^= 1 }),
		"another question": forge(func(b []byte) { b[14] = 'x' }),
		"no answer":        forge(func(b []byte) { b[2] &^= 0x80 }),
		"garbage":          func(reply []byte) [][]byte { return [][]byte{{1, 2, 3}, nil, reply} },
		// The letters are not kept: then TCP decides.
		"other letters": forge(func(b []byte) {
			for i := 13; i < 16; i++ {
				b[i] ^= 0x20
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			up := newOracle(t, zone)
			up.lie(lies)
			_, at := start(t, Config{Upstream: []netip.AddrPort{up.addr}})
			if got := data(ask(t, at, "www.example.org.", dns.TypeA, nil)); got != "A 198.51.100.7" {
				t.Errorf("%q", got)
			}
		})
	}
	t.Run("broken", func(t *testing.T) {
		up := newOracle(t, zone)
		up.lie(func(reply []byte) [][]byte { return [][]byte{reply[:len(reply)-15]} })
		s, at := start(t, Config{Upstream: []netip.AddrPort{up.addr}})
		if r := ask(t, at, "www.example.org.", dns.TypeA, nil); r.Rcode != dns.RcodeServerFailure || s.Counters().Failed != 1 {
			t.Errorf("%s", dns.RcodeToString[r.Rcode])
		}
	})
}

func TestRebinding(t *testing.T) {
	up := newOracle(t, map[string][]string{
		"evil.example.org.":     {"evil.example.org. 300 IN A 10.77.0.9"},
		"mixed.example.org.":    {"mixed.example.org. 300 IN A 127.0.0.1", "mixed.example.org. 300 IN A 198.51.100.7"},
		"six.example.org.":      {"six.example.org. 300 IN AAAA ::ffff:192.168.1.1", "six.example.org. 300 IN AAAA fd00::1", "six.example.org. 300 IN AAAA 64:ff9b::a00:1", "six.example.org. 300 IN AAAA 2002:a00:1::1", "six.example.org. 300 IN AAAA 2001:db9::1"},
		"https.example.org.":    {`https.example.org. 300 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.0.1"`},
		"host.corp.example.":    {"host.corp.example. 300 IN A 10.1.1.1"},
		"alias.example.org.":    {"alias.example.org. 300 IN CNAME host.corp.example.", "host.corp.example. 300 IN A 10.1.1.1"},
		"printer.vpn.internal.": {"printer.vpn.internal. 300 IN A 10.2.2.2"},
	})
	s, at := start(t, Config{Upstream: []netip.AddrPort{up.addr}, AllowPrivate: []string{"corp.example", "vpn.internal"}})
	for _, c := range []struct {
		name string
		typ  uint16
		want string
	}{
		{"evil.example.org.", dns.TypeA, ""},
		{"mixed.example.org.", dns.TypeA, "A 198.51.100.7"},
		{"six.example.org.", dns.TypeAAAA, "AAAA 2001:db9::1"},
		{"https.example.org.", dns.TypeHTTPS, ""},
		{"host.corp.example.", dns.TypeA, "A 10.1.1.1"},
		{"alias.example.org.", dns.TypeA, "CNAME host.corp.example."},
		{"printer.vpn.internal.", dns.TypeA, "A 10.2.2.2"},
	} {
		for range 2 { // from upstream, and from the cache
			if got := data(ask(t, at, c.name, c.typ, nil)); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
	}
	if n := s.Counters().Rebinding; n != 1+1+4+1+1 {
		t.Errorf("%d addresses were left out", n)
	}
}

func TestSlowAndDeadUpstreams(t *testing.T) {
	zone := map[string][]string{"www.example.org.": {"www.example.org. 300 IN A 198.51.100.7"}, "two.example.org.": {"two.example.org. 300 IN A 198.51.100.8"}}
	dead, good := newOracle(t, zone), newOracle(t, zone)
	silent := func([]byte) [][]byte { return nil }
	dead.lie(silent)
	s, at := start(t, Config{Upstream: []netip.AddrPort{dead.addr, good.addr}, Limits: Limits{Timeout: 2 * time.Second, Waiting: 16}})
	var wg sync.WaitGroup
	for range 2 { // the same question at the same time is asked once
		wg.Go(func() {
			if got := data(ask(t, at, "www.example.org.", dns.TypeA, nil)); got != "A 198.51.100.7" {
				t.Errorf("%q", got)
			}
		})
	}
	wg.Wait()
	if a, b := dead.asked.Load(), good.asked.Load(); a != 1 || b != 1 {
		t.Errorf("the dead one was asked %d times, the good one %d times", a, b)
	}
	ask(t, at, "two.example.org.", dns.TypeA, nil)
	if n := dead.asked.Load(); n != 1 {
		t.Errorf("the dead one was asked again, %d times", n)
	}
	// Nobody answers; one client may wait for two answers at once.
	good.lie(silent)
	rcodes := make([]int, 6)
	for i := range rcodes {
		wg.Go(func() { rcodes[i] = ask(t, at, fmt.Sprintf("n%d.example.org.", i), dns.TypeA, nil).Rcode })
	}
	wg.Wait()
	for _, r := range rcodes {
		if r != dns.RcodeServerFailure {
			t.Errorf("%s", dns.RcodeToString[r])
		}
	}
	if c := s.Counters(); c.Limited != 4 || c.Failed != 2 {
		t.Errorf("%+v", c)
	}
}

func TestWhoIsNotServed(t *testing.T) {
	blocked := func(name string) bool { return name == "ads.example.org" }
	up := newOracle(t, map[string][]string{"ads.example.org.": {"ads.example.org. 300 IN A 198.51.100.7"}, "www.example.org.": {"www.example.org. 300 IN A 198.51.100.8"}})
	var mu sync.Mutex
	var log []Query
	now := time.Now()
	s, at := start(t, Config{Upstream: []netip.AddrPort{up.addr}, Blocked: blocked, Limits: Limits{Rate: 10},
		Log: func(q Query) { mu.Lock(); log = append(log, q); mu.Unlock() }},
		func(s *Server) { s.now = func() time.Time { return now } }) // the rate does not depend on how fast they are asked
	if r := ask(t, at, "ADS.example.org.", dns.TypeA, nil); r.Rcode != dns.RcodeNameError {
		t.Errorf("blocked: %s", dns.RcodeToString[r.Rcode])
	}
	ask(t, at, "www.example.org.", dns.TypeA, nil)
	ask(t, at, "www.example.org.", dns.TypeA, nil)
	for _, c := range []struct {
		rcode  int
		change func(*dns.Msg, *dns.Client)
	}{
		{dns.RcodeNotImplemented, func(m *dns.Msg, _ *dns.Client) { m.Opcode = dns.OpcodeNotify }},
		{dns.RcodeRefused, func(m *dns.Msg, _ *dns.Client) { m.Question[0].Qclass = dns.ClassCHAOS }},
		{dns.RcodeBadVers, func(m *dns.Msg, _ *dns.Client) { m.IsEdns0().SetVersion(1) }},
	} {
		if r := ask(t, at, "www.example.org.", dns.TypeA, c.change); r.Rcode != c.rcode {
			t.Errorf("%s, want %s", dns.RcodeToString[r.Rcode], dns.RcodeToString[c.rcode])
		}
	}
	mu.Lock()
	want := []string{"blocked", "forwarded", "cache", "refused", "refused", "refused"}
	for i, q := range log {
		if q.Outcome != want[i] || i < 3 && !strings.HasSuffix(q.Name, ".example.org.") {
			t.Errorf("logged %+v, want %s", q, want[i])
		}
	}
	mu.Unlock()
	c := &dns.Client{Timeout: 100 * time.Millisecond}
	answered := 0 // or lost on a busy machine, which takes its time
	for s.Counters().Limited == 0 && answered < 40 {
		answered++
		_, _, err := c.Exchange(new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA), at)
		if err == nil && s.Counters().Limited > 0 {
			t.Error("a question beyond the limit was answered")
		}
	}
	if s.Counters().Limited == 0 {
		t.Errorf("%d questions at once with a burst of 20 allowed", answered)
	}
	_, at = start(t, Config{Upstream: []netip.AddrPort{up.addr}, Clients: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}})
	if r := ask(t, at, "www.example.org.", dns.TypeA, nil); r.Rcode != dns.RcodeRefused || len(r.Answer) > 0 {
		t.Errorf("from outside of the zone: %s", dns.RcodeToString[r.Rcode])
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	c := newCache(100)
	now := time.Now()
	for i := range 1000 {
		c.put(&stored{key: fmt.Sprint(i), data: make([]byte, 100), from: now, until: now.Add(time.Hour)})
		c.get([]byte("0"), now)
	}
	if c.len() != 100 || c.get([]byte("0"), now) == nil || c.get([]byte("500"), now) != nil {
		t.Errorf("%d answers, %v", c.len(), c.get([]byte("0"), now))
	}
	if c.get([]byte("999"), now.Add(2*time.Hour)) != nil || c.get([]byte("998"), now.Add(-time.Second)) != nil {
		t.Error("an answer outside of its time")
	}
	big := newCache(1 << 20)
	for i := range 10000 {
		big.put(&stored{key: fmt.Sprint(i), data: make([]byte, 4096), from: now, until: now.Add(time.Hour)})
	}
	if big.bytes > maxCacheBytes {
		t.Errorf("%d bytes", big.bytes)
	}
}

// FuzzMessage hands messages of a client to a server, which answers with what
// is a DNS message again.
func FuzzMessage(f *testing.F) {
	for _, name := range []string{"web.dev.internal.", "9.0.77.10.in-addr.arpa.", ".", "a.b.example.", `odd\ name.example.`} {
		m := new(dns.Msg).SetQuestion(name, dns.TypeA)
		b, _ := m.Pack()
		f.Add(b)
		m.SetEdns0(1232, true)
		b, _ = m.Pack()
		f.Add(b)
	}
	s, err := New(Config{Listen: []netip.Addr{netip.MustParseAddr("10.77.0.1")}, Domain: "dev.internal", Clients: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")},
		Records: map[string][]netip.Addr{"web": {netip.MustParseAddr("10.77.0.9")}}, Limits: Limits{Rate: -1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := new(scratch)
		reply, later := s.answer(b, netip.MustParseAddr("10.77.0.5"), false, w)
		if later != nil {
			t.Fatal("there is nobody to ask")
		}
		if reply == nil {
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(reply); err != nil || !m.Response || len(reply) > ednsSize {
			t.Fatalf("%d bytes, %v: % x", len(reply), err, reply)
		}
	})
}

// FuzzUpstream screens what upstream servers say.
func FuzzUpstream(f *testing.F) {
	m := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
	m.Response = true
	for _, line := range []string{"www.example.org. 300 IN CNAME a.example.org.", "a.example.org. 300 IN A 10.0.0.1", "a.example.org. 300 IN RRSIG A 8 2 300 20300101000000 20250101000000 1 example.org. AAAA"} {
		rr, err := dns.NewRR(line)
		if err != nil {
			f.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
		b, _ := m.Pack()
		f.Add(b, true)
	}
	s, err := New(Config{Listen: []netip.Addr{netip.MustParseAddr("10.77.0.1")}, Domain: "dev.internal"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, do bool) {
		in := new(dns.Msg)
		if in.Unpack(b) != nil {
			return
		}
		out, life, _ := s.screen(in, &question{typ: dns.TypeA, do: do}, "www.example.org.")
		if life < 0 || life > s.cfg.MaxTTL {
			t.Fatalf("for %s", life)
		}
		for _, rr := range out.Answer {
			if a, ok := rr.(*dns.A); ok {
				if ip, ok := netip.AddrFromSlice(a.A.To4()); ok && private(ip) {
					t.Fatalf("%s came through", ip)
				}
			}
		}
		got, err := keep(out, "", time.Now(), life)
		if err == nil && (got.end > len(got.data) || len(got.places) > len(got.data)/10) {
			t.Fatalf("%+v", got)
		}
	})
}
