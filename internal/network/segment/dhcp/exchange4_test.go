package dhcp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var start = time.Unix(1_800_000_000, 0)

// desk is a server without a network: packets are handed to it.
type desk struct {
	*testing.T
	s     *Server
	clock time.Time
}

func config(t testing.TB) Config {
	return Config{
		Interface: "br0", Gateway: netip.MustParsePrefix("10.77.0.1/24"),
		Pool: Range{netip.MustParseAddr("10.77.0.100"), netip.MustParseAddr("10.77.0.103")},
		File: filepath.Join(t.TempDir(), "zone.leases"), Lease: time.Hour,
		Options: Options{Router: true, DNS: []netip.Addr{netip.MustParseAddr("10.77.0.1")}, Domain: "dev.internal", MTU: 1400},
		Limits:  Limits{Probe: -1, Rate: -1},
	}
}

func newDesk(t *testing.T, change func(*Config)) *desk {
	t.Helper()
	c := config(t)
	if change != nil {
		change(&c)
	}
	d := &desk{T: t, clock: start}
	d.open(c)
	return d
}

func (d *desk) open(c Config) {
	d.Helper()
	s, err := New(c, d.Logf)
	if err != nil {
		d.Fatal(err)
	}
	s.now = func() time.Time { return d.clock }
	d.s = s
	d.Cleanup(func() { s.Close() })
}

// restart is a kill -9 and a new server.
func (d *desk) restart() {
	d.Helper()
	d.s.Close()
	c := d.s.cfg
	d.open(c)
}

func mac(n int) MAC { return MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

func message(n int, kind dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	hw := mac(n)
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(hw[:]), dhcpv4.WithMessageType(kind)}, mods...)...)
	if err != nil {
		panic(err)
	}
	return m
}

// tell hands a message over and returns the answer, nil for none.
func (d *desk) tell(n int, m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	d.Helper()
	src := netip.IPv4Unspecified()
	if a := addr4(m.ClientIPAddr); a.IsValid() {
		src = a
	}
	return d.packet(mac(n), appendUDP(nil, netip.AddrPortFrom(src, 68), netip.MustParseAddrPort("255.255.255.255:67"), m.ToBytes()))
}

func (d *desk) packet(from MAC, data []byte) *dhcpv4.DHCPv4 {
	d.Helper()
	d.s.mu.Lock()
	a, ok := d.s.handle4(packet{data: data, from: from, sums: true}, d.clock)
	d.s.takeChanges()
	d.s.mu.Unlock()
	if err := d.s.commit(); err != nil {
		d.Fatal(err)
	}
	if !ok {
		return nil
	}
	_, _, payload, err := parseUDP(a.data, 68, true)
	if err != nil {
		d.Fatal(err)
	}
	m, err := dhcpv4.FromBytes(payload)
	if err != nil {
		d.Fatal(err)
	}
	return m
}

func ip(s string) net.IP { return net.ParseIP(s).To4() }

var serverID = dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip("10.77.0.1")))

func wish(s string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip(s)))
}

// lease gets an address the usual way, "" when there is none.
func (d *desk) lease(n int, mods ...dhcpv4.Modifier) string {
	d.Helper()
	offer := d.tell(n, message(n, dhcpv4.MessageTypeDiscover, mods...))
	if offer == nil {
		return ""
	}
	ack := d.tell(n, message(n, dhcpv4.MessageTypeRequest, append(mods, serverID, wish(offer.YourIPAddr.String()))...))
	if ack == nil || ack.MessageType() != dhcpv4.MessageTypeAck || !ack.YourIPAddr.Equal(offer.YourIPAddr) {
		d.Fatalf("client %d was offered %s, and then got %v", n, offer.YourIPAddr, ack)
	}
	return ack.YourIPAddr.String()
}

func (d *desk) want(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType, your string) {
	d.Helper()
	switch {
	case m == nil && kind != 0:
		d.Errorf("no answer, want %s", kind)
	case m != nil && m.MessageType() != kind:
		d.Errorf("%s, want %s", m.MessageType(), kind)
	case m != nil && your != "" && m.YourIPAddr.String() != your:
		d.Errorf("%s of %s, want %s", kind, m.YourIPAddr, your)
	}
}

func TestTheAnswerSaysEverything(t *testing.T) {
	d := newDesk(t, func(c *Config) {
		c.Routes = []Route{{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParseAddr("10.77.0.9")}}
		c.NTP = []netip.Addr{netip.MustParseAddr("10.77.0.2")}
		c.Search = []string{"dev.internal", "internal"}
	})
	id := []byte{255, 1, 2, 3, 4, 0, 3, 0, 1, 9, 9}
	o := d.tell(1, message(1, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptClientIdentifier(id))))
	d.want(o, dhcpv4.MessageTypeOffer, "")
	for _, c := range []struct {
		code dhcpv4.OptionCode
		want []byte
	}{
		{dhcpv4.OptionSubnetMask, []byte{255, 255, 255, 0}},
		{dhcpv4.OptionRouter, []byte{10, 77, 0, 1}},
		{dhcpv4.OptionDomainNameServer, []byte{10, 77, 0, 1}},
		{dhcpv4.OptionDomainName, []byte("dev.internal")},
		{dhcpv4.OptionInterfaceMTU, []byte{5, 120}},
		{dhcpv4.OptionNTPServers, []byte{10, 77, 0, 2}},
		{dhcpv4.OptionServerIdentifier, []byte{10, 77, 0, 1}},
		{dhcpv4.OptionIPAddressLeaseTime, []byte{0, 0, 14, 16}},
		{dhcpv4.OptionRenewTimeValue, []byte{0, 0, 7, 8}},
		{dhcpv4.OptionClientIdentifier, id}, // RFC 6842
		// RFC 3442: with the default route in it.
		{dhcpv4.OptionClasslessStaticRoute, []byte{24, 192, 0, 2, 10, 77, 0, 9, 0, 10, 77, 0, 1}},
	} {
		if got := o.Options.Get(c.code); string(got) != string(c.want) {
			t.Errorf("%s: % x, want % x", c.code, got, c.want)
		}
	}
	if got := o.DomainSearch().Labels; !slices.Equal(got, []string{"dev.internal", "internal"}) {
		t.Errorf("search list %q", got)
	}
	// Only what is asked for, and the mask.
	o = d.tell(2, message(2, dhcpv4.MessageTypeDiscover, dhcpv4.WithRequestedOptions(dhcpv4.OptionRouter)))
	if o.Options.Has(dhcpv4.OptionNTPServers) || !o.Options.Has(dhcpv4.OptionRouter) || !o.Options.Has(dhcpv4.OptionSubnetMask) {
		t.Errorf("asked for the router alone, got %s", o.Summary())
	}
}

func TestAnswersFitWhatAClientTakes(t *testing.T) {
	d := newDesk(t, func(c *Config) {
		for i := range maxRoutes {
			c.Routes = append(c.Routes, Route{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), 24), netip.MustParseAddr("10.77.0.9")})
		}
		for i := range 8 {
			c.Search = append(c.Search, fmt.Sprintf("a-rather-long-name-%d.dev.internal", i))
		}
	})
	o := d.tell(1, message(1, dhcpv4.MessageTypeDiscover))
	if n := len(o.ToBytes()) + 28; n > minMessage {
		t.Errorf("a packet of %d bytes for a client that takes %d", n, minMessage)
	}
	if !o.Options.Has(dhcpv4.OptionRouter) || !o.Options.Has(dhcpv4.OptionDomainNameServer) {
		t.Errorf("what matters most was left out: %s", o.Summary())
	}
	o = d.tell(1, message(1, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1500))))
	if !o.Options.Has(dhcpv4.OptionDNSDomainSearchList) || !o.Options.Has(dhcpv4.OptionClasslessStaticRoute) {
		t.Error("options are left out for a client that takes 1500 bytes")
	}
}

func TestTheFourKindsOfRequest(t *testing.T) {
	d := newDesk(t, nil)
	const R = dhcpv4.MessageTypeRequest
	ciaddr := func(s string) dhcpv4.Modifier { return dhcpv4.WithClientIP(ip(s)) }
	a := d.lease(1)
	t.Run("selecting another server", func(t *testing.T) {
		d.tell(2, message(2, dhcpv4.MessageTypeDiscover))
		d.want(d.tell(2, message(2, R, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ip("10.77.0.2"))), wish("10.77.0.50"))), 0, "")
		if n := len(d.s.v4.byAddr); n != 1 {
			t.Errorf("%d addresses are held, want 1", n)
		}
	})
	t.Run("selecting what is somebody else's", func(t *testing.T) { d.want(d.tell(2, message(2, R, serverID, wish(a))), dhcpv4.MessageTypeNak, "") })
	t.Run("selecting what is not in the pool", func(t *testing.T) {
		for _, s := range []string{"10.77.0.1", "10.77.0.0", "10.77.0.255", "10.77.0.50", "192.0.2.1"} {
			d.want(d.tell(2, message(2, R, serverID, wish(s))), dhcpv4.MessageTypeNak, "")
		}
	})
	t.Run("init-reboot", func(t *testing.T) {
		d.want(d.tell(1, message(1, R, wish(a))), dhcpv4.MessageTypeAck, a)
		d.want(d.tell(1, message(1, R, wish("10.77.0.50"))), dhcpv4.MessageTypeNak, "")
		d.want(d.tell(1, message(1, R, wish("192.168.1.5"))), dhcpv4.MessageTypeNak, "")
		d.want(d.tell(3, message(3, R, wish("10.77.0.101"))), 0, "") // no record of it: silent
		d.want(d.tell(3, message(3, R, wish("192.168.1.5"))), dhcpv4.MessageTypeNak, "")
	})
	t.Run("renewing", func(t *testing.T) {
		d.clock = d.clock.Add(30 * time.Minute)
		d.want(d.tell(1, message(1, R, ciaddr(a))), dhcpv4.MessageTypeAck, a)
		if l := d.s.Leases(); len(l) != 1 || !l[0].Until.Equal(d.clock.Add(time.Hour)) || !l[0].Since.Equal(start) {
			t.Errorf("%+v", l)
		}
		d.want(d.tell(2, message(2, R, ciaddr(a))), dhcpv4.MessageTypeNak, "")
		d.want(d.tell(2, message(2, R, ciaddr("192.168.1.5"))), dhcpv4.MessageTypeNak, "")
	})
	t.Run("rebinding what ran out", func(t *testing.T) {
		d.clock = d.clock.Add(2 * time.Hour)
		d.want(d.tell(1, message(1, R, ciaddr(a))), dhcpv4.MessageTypeAck, a)
	})
}

func TestReleaseDeclineInform(t *testing.T) {
	d := newDesk(t, nil)
	a := d.lease(1)
	release := func(n int, mods ...dhcpv4.Modifier) {
		d.want(d.tell(n, message(n, dhcpv4.MessageTypeRelease, append(mods, dhcpv4.WithClientIP(ip(a)))...)), 0, "")
	}
	state := func() State { return d.s.Leases()[0].State }
	release(2, serverID)
	release(1)
	if state() != Bound {
		t.Fatal("released by somebody else, or without the server's name")
	}
	release(1, serverID)
	if state() != Ended {
		t.Fatal("not released")
	}
	if b := d.lease(1); b != a {
		t.Errorf("%s after %s was released", b, a)
	}
	decline := message(1, dhcpv4.MessageTypeDecline, serverID, wish(a))
	d.want(d.tell(2, decline), 0, "") // of another station: spoofed
	if state() != Bound || d.s.Counters().Spoofed != 1 {
		t.Fatal("declined by somebody else")
	}
	d.want(d.tell(1, decline), 0, "")
	b := d.lease(1)
	if b == a {
		t.Errorf("%s was given out again after it was declined", a)
	}
	d.restart()
	if c := d.lease(1); c != b {
		t.Errorf("%s after a restart, want %s", c, b)
	}
	m := d.tell(5, message(5, dhcpv4.MessageTypeInform, dhcpv4.WithClientIP(ip("10.77.0.77"))))
	d.want(m, dhcpv4.MessageTypeAck, "0.0.0.0")
	if m.Options.Has(dhcpv4.OptionIPAddressLeaseTime) || !m.Options.Has(dhcpv4.OptionDomainNameServer) {
		t.Errorf("inform: %s", m.Summary())
	}
}

func TestEndedAddressesAreReusedOldestFirst(t *testing.T) {
	d := newDesk(t, func(c *Config) { c.PerPort = -1 })
	var got []string
	for n := range 4 {
		got = append(got, d.lease(n+1))
		d.clock = d.clock.Add(time.Minute)
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != 4 {
		t.Fatalf("four clients got %q", got)
	}
	if a := d.lease(5); a != "" {
		t.Fatalf("a fifth client got %s of a pool of four", a)
	}
	if d.s.Counters().Exhausted == 0 {
		t.Error("nobody counted that")
	}
	// The third one renews, so the order is 1, 2, 4, 3.
	third := d.lease(3)
	d.clock = d.clock.Add(2 * time.Hour)
	first := d.s.v4.byClient["hw/"+mac(1).String()].Address.String()
	if a := d.lease(5); a != first {
		t.Errorf("%s, want %s, which ended first", a, first)
	}
	second := d.s.v4.byClient["hw/"+mac(2).String()].Address.String()
	if a := d.lease(6); a != second {
		t.Errorf("%s, want %s, which ended next", a, second)
	}
	if a := d.lease(3); a != third {
		t.Errorf("%s, want %s, which it had before", a, third)
	}
}

func TestReservations(t *testing.T) {
	d := newDesk(t, func(c *Config) {
		c.Reservations = []Reservation{
			{MAC: mac(1), Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.100")}, Name: "web"},
			{MAC: mac(2), Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.9")}},
		}
		c.PerPort = -1
	})
	for n := 3; n < 6; n++ {
		if a := d.lease(n); a == "10.77.0.100" || a == "" {
			t.Fatalf("client %d got %q", n, a)
		}
	}
	if a := d.lease(6); a != "" {
		t.Errorf("client 6 got %s, all that is left is reserved", a)
	}
	if a := d.lease(1, dhcpv4.WithOption(dhcpv4.OptHostName("db"))); a != "10.77.0.100" {
		t.Errorf("%q is not what is reserved", a)
	}
	if a := d.lease(2); a != "10.77.0.9" {
		t.Errorf("%q is not what is reserved outside of the pool", a)
	}
	// The firmware and the system of one machine are two clients.
	if a := d.lease(1, dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{255, 1, 2, 3, 4, 5}))); a != "10.77.0.100" {
		t.Errorf("%q under another identifier", a)
	}
	if list, _ := d.s.Lookup("web"); len(list) != 1 || list[0].String() != "10.77.0.100" {
		t.Errorf("web is %v", list)
	}
	d.want(d.tell(7, message(7, dhcpv4.MessageTypeRequest, serverID, wish("10.77.0.9"))), dhcpv4.MessageTypeNak, "")
}

func TestNames(t *testing.T) {
	d := newDesk(t, func(c *Config) {
		c.Names = []string{"gateway"}
		c.Reservations = []Reservation{{MAC: mac(9), Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.9")}, Name: "web"}}
		c.PerPort = -1
	})
	host := func(s string) dhcpv4.Modifier { return dhcpv4.WithOption(dhcpv4.OptHostName(s)) }
	for n, c := range []struct{ asked, got string }{{"Phone.example.org", "phone"}, {"phone", ""}, {"web", ""}, {"gateway", ""}} {
		a := netip.MustParseAddr(d.lease(n+1, host(c.asked)))
		if got := d.s.NameOf(a); got != c.got {
			t.Errorf("%q became %q, want %q", c.asked, got, c.got)
		}
	}
	if list, _ := d.s.Lookup("web"); list != nil {
		t.Errorf("web is %v without a lease", list)
	}
	d.restart()
	if list, m := d.s.Lookup("phone"); len(list) != 1 || m != mac(1) {
		t.Errorf("phone is %v of %s after a restart", list, m)
	}
	d.clock = d.clock.Add(2 * time.Hour)
	if list, _ := d.s.Lookup("phone"); list != nil {
		t.Errorf("phone is %v after its lease", list)
	}
	for in, want := range map[string]string{"a\x00": "a", "-a": "", "a-": "", "a_b": "", "": "", "ä": "", "a b": "", strings.Repeat("a", 64): ""} {
		if got := cleanName(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := fqdnName([]byte("\x05\x00\x00\x04host\x03dev\x00")); got != "host" {
		t.Errorf("a name as in DNS became %q", got)
	}
}

// TestOneStationCannotDrainThePool: whatever it calls itself.
func TestOneStationCannotDrainThePool(t *testing.T) {
	d := newDesk(t, func(c *Config) {
		c.Pool.Last = netip.MustParseAddr("10.77.0.200")
		c.PerMAC = 3
	})
	got := 0
	for i := range 100 {
		if d.lease(1, dhcpv4.WithOption(dhcpv4.OptClientIdentifier(binary.BigEndian.AppendUint32(nil, uint32(i+1))))) != "" {
			got++
		}
	}
	if got != 3 {
		t.Errorf("one station got %d addresses, want 3", got)
	}
	// Nor in the name of others.
	for i := range 100 {
		m := message(100+i, dhcpv4.MessageTypeDiscover)
		if o := d.tell(1, m); o != nil {
			t.Fatalf("an offer for %s, which did not send the frame", m.ClientHWAddr)
		}
	}
	// Nor by declining what it gets.
	for range 100 {
		if o := d.tell(2, message(2, dhcpv4.MessageTypeDiscover)); o != nil {
			a := o.YourIPAddr.String()
			d.tell(2, message(2, dhcpv4.MessageTypeDecline, serverID, wish(a)))
		}
	}
	if n := len(d.s.v4.byAddr); n > 6 {
		t.Errorf("%d addresses are taken", n)
	}
}

func TestARestartGivesNoAddressTwice(t *testing.T) {
	d := newDesk(t, func(c *Config) {
		c.Pool.Last = netip.MustParseAddr("10.77.0.250")
		c.PerPort = -1
	})
	seen := map[string]int{}
	for n := range 60 {
		a := d.lease(n)
		if by, ok := seen[a]; ok {
			t.Fatalf("%s was given to %d and to %d", a, by, n)
		}
		seen[a] = n
		if n%7 == 0 {
			d.restart()
		}
	}
	d.restart()
	for a, n := range seen {
		if b := d.lease(n); b != a {
			t.Errorf("client %d got %s, it had %s", n, b, a)
		}
	}
}

func TestWhatIsNotForUs(t *testing.T) {
	d := newDesk(t, nil)
	good := message(1, dhcpv4.MessageTypeDiscover)
	reply := message(1, dhcpv4.MessageTypeDiscover)
	reply.OpCode = dhcpv4.OpcodeBootReply
	relayed := message(1, dhcpv4.MessageTypeDiscover, dhcpv4.WithRelay(ip("10.0.0.1")))
	bootp := message(1, dhcpv4.MessageTypeDiscover, dhcpv4.WithoutOption(dhcpv4.OptionDHCPMessageType))
	long := message(1, dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptClientIdentifier(make([]byte, 65))))
	for name, m := range map[string]*dhcpv4.DHCPv4{"a reply": reply, "relayed": relayed, "bootp": bootp, "a long identifier": long} {
		if a := d.tell(1, m); a != nil {
			t.Errorf("%s was answered by %s", name, a.Summary())
		}
	}
	b := appendUDP(nil, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), good.ToBytes())
	for i := range b {
		if a := d.packet(mac(1), b[:i]); a != nil {
			t.Errorf("the first %d bytes were answered", i)
		}
	}
	broken := slices.Clone(b)
	broken[40] ^= 1
	if a := d.packet(mac(1), broken); a != nil {
		t.Error("a wrong checksum was answered")
	}
	other := appendUDP(nil, netip.MustParseAddrPort("10.77.0.9:68"), netip.MustParseAddrPort("192.0.2.1:67"), good.ToBytes())
	if a := d.packet(mac(1), other); a != nil {
		t.Error("a message for another server was answered")
	}
	if a := d.packet(mac(1), b); a == nil {
		t.Error("the control: this one should have been answered")
	}
}
