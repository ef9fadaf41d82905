package dhcp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// solicitation is a message of client 1 with one IA_NA, and addresses in it.
func solicitation(kind byte, addresses ...string) []byte {
	b := []byte{kind, 1, 2, 3}
	b = appendOption6(b, optClientID, []byte{0, 3, 0, 1, 2, 0, 0, 0, 0, 1})
	switch kind {
	case request6, renew6, release6, decline6:
		b = appendOption6(b, optServerID, []byte{0, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	}
	b = appendOption6(b, optRequested, []byte{0, optDNS6, 0, optSearch6, 0, optNTP6, 0, optRefresh})
	if kind == inform6 {
		return b
	}
	ia := make([]byte, 12)
	ia[3] = 7
	for _, a := range addresses {
		ia = appendAddress6(ia, netip.MustParseAddr(a), 0)
	}
	b = appendOption6(b, optFQDN6, []byte("\x01\x05phone\x00"))
	return appendOption6(b, optIANA, ia)
}

func newDesk6(t *testing.T) *desk {
	return newDesk(t, func(c *Config) {
		c.Gateway6 = []netip.Prefix{netip.MustParsePrefix("fd77::1/64")}
		c.Pool6 = Range{netip.MustParseAddr("fd77::100"), netip.MustParseAddr("fd77::101")}
		c.DNS = []netip.Addr{netip.MustParseAddr("fd77::1")}
		c.PerPort = -1
	})
}

// tell6 returns the answer, and the address and status in its IA_NA.
func (d *desk) tell6(n int, b []byte) (m *message6, addr string, valid uint32, status int) {
	d.Helper()
	b = append([]byte{}, b...)
	b[4+4+9] = byte(n)
	d.s.mu.Lock()
	a, ok := d.s.handle6(packet{data: appendUDP6(nil, netip.MustParseAddrPort("[fe80::2]:546"), netip.AddrPortFrom(allServers, serverPort6), b), from: mac(n), sums: false}, d.clock)
	d.s.takeChanges()
	d.s.mu.Unlock()
	if err := d.s.commit(); err != nil {
		d.Fatal(err)
	}
	if !ok {
		return nil, "", 0, -1
	}
	payload := a.data[48:]
	if checksum(a.data[40:], pseudo(a.data[8:40], len(a.data)-40)) != 0 {
		d.Error("the checksum does not fit")
	}
	options, err := parseOptions6(payload[4:], 4)
	if err != nil {
		d.Fatal(err)
	}
	m = &message6{kind: payload[0], options: options}
	status = -1
	read := func(list []option6) {
		for _, o := range list {
			switch o.code {
			case optIAAddr:
				if addr == "" {
					addr, valid = netip.AddrFrom16([16]byte(o.value)).String(), binary.BigEndian.Uint32(o.value[20:])
				}
			case optStatus:
				status = int(binary.BigEndian.Uint16(o.value))
			}
		}
	}
	read(options)
	if ia := m.get(optIANA); ia != nil {
		inner, err := parseOptions6(ia[12:], 0)
		if err != nil {
			d.Fatal(err)
		}
		read(inner)
	}
	return m, addr, valid, status
}

func TestDHCPv6(t *testing.T) {
	d := newDesk6(t)
	m, a, _, _ := d.tell6(1, solicitation(solicit6))
	if m == nil || m.kind != advertise6 || !d.s.cfg.Pool6.Contains(netip.MustParseAddr(a)) {
		t.Fatalf("%+v with %q", m, a)
	}
	if string(m.get(optDNS6)) != string(netip.MustParseAddr("fd77::1").AsSlice()) || string(m.get(optSearch6)) != "\x03dev\x08internal\x00" {
		t.Errorf("options %+v", m.options)
	}
	if m, b, valid, _ := d.tell6(1, solicitation(request6, a)); m == nil || m.kind != reply6 || b != a || valid != 3600 {
		t.Fatalf("%+v with %q for %d s", m, b, valid)
	}
	if _, b, _, _ := d.tell6(2, solicitation(request6, a)); b == a || b == "" {
		t.Errorf("a second client got %q", b)
	}
	if m, _, _, status := d.tell6(3, solicitation(solicit6)); m == nil || status != statusNoAddrs {
		t.Errorf("a third client of a pool of two: %+v, status %d", m, status)
	}
	d.clock = d.clock.Add(30 * time.Minute)
	if _, b, valid, _ := d.tell6(1, solicitation(renew6, a)); b != a || valid != 3600 {
		t.Errorf("renewed as %q for %d s", b, valid)
	}
	if _, _, valid, status := d.tell6(3, solicitation(renew6, a)); valid != 0 || status != statusNoBinding {
		t.Errorf("renewed by another: valid %d s, status %d", valid, status)
	}
	if m, _, _, _ := d.tell6(3, solicitation(rebind6, a)); m != nil && m.get(optIANA) != nil {
		t.Errorf("rebound by another: %+v", m.options)
	}
	if _, _, _, status := d.tell6(1, solicitation(confirm6, a)); status != statusSuccess {
		t.Errorf("confirm: %d", status)
	}
	if _, _, _, status := d.tell6(1, solicitation(confirm6, "fd99::5")); status != statusNotOnLink {
		t.Errorf("confirm of another link: %d", status)
	}
	d.restart()
	if list, _ := d.s.Lookup("phone"); len(list) != 1 || list[0].String() != a {
		t.Errorf("phone is %v, want %s", list, a)
	}
	d.tell6(3, solicitation(release6, a)) // not its own
	if d.s.NameOf(netip.MustParseAddr(a)) != "phone" {
		t.Error("released by another")
	}
	d.tell6(1, solicitation(release6, a))
	if d.s.NameOf(netip.MustParseAddr(a)) != "" {
		t.Error("not released")
	}
	if m, _, _, _ := d.tell6(1, solicitation(inform6)); m == nil || m.kind != reply6 || m.get(optDNS6) == nil || m.get(optRefresh) == nil {
		t.Errorf("information: %+v", m)
	}
}

func TestWithoutARangeAddressesAreNotGivenOut(t *testing.T) {
	d := newDesk(t, func(c *Config) { c.Gateway6 = []netip.Prefix{netip.MustParsePrefix("fd77::1/64")} })
	if m, _, _, _ := d.tell6(1, solicitation(solicit6)); m != nil {
		t.Errorf("a solicitation was answered: %+v", m)
	}
	if m, _, _, _ := d.tell6(1, solicitation(inform6)); m == nil {
		t.Error("a question for information was not answered")
	}
}
