package dhcp

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// FuzzPacket hands frames of one station to a server: it must not fall over, nor
// give that station more than its share.
func FuzzPacket(f *testing.F) {
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeDecline, dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeInform} {
		m := message(1, kind, serverID, wish("10.77.0.100"), dhcpv4.WithOption(dhcpv4.OptHostName("host")), dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{1, 2, 3})),
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionFQDN, []byte("\x05\x00\x00\x04host\x03dev\x00"))))
		f.Add(appendUDP(nil, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), m.ToBytes()), false)
	}
	for _, m := range [][]byte{solicitation(solicit6), solicitation(request6), solicitation(release6), solicitation(inform6)} {
		f.Add(appendUDP6(nil, netip.MustParseAddrPort("[fe80::2]:546"), netip.AddrPortFrom(allServers, serverPort6), m), true)
	}
	c := config(f)
	c.Gateway6 = []netip.Prefix{netip.MustParsePrefix("fd77::1/64")}
	c.Pool6 = Range{netip.MustParseAddr("fd77::100"), netip.MustParseAddr("fd77::1ff")}
	c.Pool.Last = netip.MustParseAddr("10.77.0.200")
	s, err := New(c, nil)
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	s.now = func() time.Time { return start }
	f.Fuzz(func(t *testing.T, data []byte, six bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		handle := s.handle4
		if six {
			handle = s.handle6
		}
		a, ok := handle(packet{data: data, from: mac(1)}, start)
		if ok && len(a.data) > 1500 {
			t.Errorf("an answer of %d bytes", len(a.data))
		}
		s.v4.changed, s.v6.changed = nil, nil
		for _, table := range []*table{s.v4, s.v6} {
			if n := table.macs[mac(1)]; n > c.PerMAC+4 {
				t.Fatalf("one station has %d addresses", n)
			}
			if len(table.running) > len(table.byAddr) {
				t.Fatalf("%d run, %d are known", len(table.running), len(table.byAddr))
			}
		}
	})
}

// FuzzLeases reads what stands in a file of leases.
func FuzzLeases(f *testing.F) {
	data := []byte(fileHeader)
	data = appendLine(appendLine(data, sample(1, Bound)), sample(2, Ended))
	f.Add(data)
	f.Add(data[:len(data)-3])
	f.Add([]byte(fileHeader + "00000000 {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, whole, err := parseFile("x", data)
		if err != nil {
			return
		}
		if whole > int64(len(data)) || len(list) > len(data) {
			t.Fatalf("%d leases in %d of %d bytes", len(list), whole, len(data))
		}
		// What was read is read again after it was written anew.
		out := []byte(fileHeader)
		for i := range list {
			out = appendLine(out, &list[i])
		}
		if again, _, err := parseFile("x", out); err != nil || len(again) != len(list) {
			t.Fatalf("%d leases became %d: %v", len(list), len(again), err)
		}
		name := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadLeases(name, start); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzLink reads what comes in beside DHCP: solicitations and ARP.
func FuzzLink(f *testing.F) {
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1})
	f.Add(appendProbe(nil, mac(1), netip.MustParseAddr("10.0.0.1")))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := parseSolicit(data, 255, netip.MustParseAddr("fe80::1")); err == nil && len(data) < 8 {
			t.Error("a short one was taken")
		}
		if parseSolicit(data, 254, netip.IPv6Unspecified()) == nil {
			t.Error("one that came through a router was taken")
		}
		parseARP(data)
	})
}
