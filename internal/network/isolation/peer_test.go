package isolation

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"golang.org/x/sys/unix"
)

func TestParsePeer(t *testing.T) {
	for _, c := range [][2]string{
		{"10.0.0.1", "10.0.0.1"},
		{"10.0.0.77/24", "10.0.0.0/24"},
		{"10.0.0.1:22/tcp", "10.0.0.1:22/tcp"},
		{"10.0.0.1:22", "10.0.0.1:22/tcp"},
		{"10.0.0.0/8:1000-2000/UDP", "10.0.0.0/8:1000-2000/udp"},
		{"2001:db8::7", "2001:db8::7"},
		{"2001:db8::/32", "2001:db8::/32"},
		{"[2001:db8::7]:53/udp", "[2001:db8::7]:53/udp"},
		{"[2001:db8::]/32:53/udp", "[2001:db8::/32]:53/udp"},
		{"[2001:db8::/32]:53/udp", "[2001:db8::/32]:53/udp"},
		{"[2001:db8::7]", "2001:db8::7"},
		{"255.255.255.255", "255.255.255.255"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"::/0", "::/0"},
	} {
		p, err := ParsePeer(c[0], "test")
		if err != nil || p.String() != c[1] {
			t.Errorf("%s: %v %v, want %s", c[0], p, err, c[1])
		}
	}
	for _, s := range []string{
		"", "host", "10.0.0.1:", "10.0.0.1:0/tcp", "10.0.0.1:65536/tcp", "10.0.0.1:9-8/tcp", "10.0.0.1:22/icmp", "10.0.0.1/33",
		"[::1", "[::1]22", "[::1]:", "fe80::1%eth0", "::ffff:10.0.0.1", "10.0.0.1:22/tcp/x", "10.0.0", "10.0.0.1 ", "[10.0.0.1]:x/tcp",
	} {
		if p, err := ParsePeer(s, "test"); err == nil {
			t.Errorf("%q was taken for %v", s, p)
		}
	}
}

// TestWhatIsWrongWithAPeer: the message says what to write instead.
func TestWhatIsWrongWithAPeer(t *testing.T) {
	for _, c := range [][2]string{
		{"fe80::1%eth0", "names an interface, and peers are allowed at all of them: leave out %eth0"},
		{"::ffff:192.0.2.1/128", "is an address of IPv4: leave out all before 192.0.2.1"},
		{"[::ffff:192.0.2.1]:22/tcp", "is an address of IPv4: leave out all before 192.0.2.1"},
		{"::ffff:192.0.2.0/120", "is a network of IPv4 within IPv6"},
		{"192.0.2.1:23-22/tcp", "has the larger port first"},
		{"192.0.2.1:0-22/tcp", "has a port that is not from 1 to 65535"},
		{"192.0.2.1:22/sctp", "names a protocol that is not tcp or udp"},
		{"host%eth0", "is no address or network"},
	} {
		if _, err := ParsePeer(c[0], "test"); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v", c[0], err)
		}
	}
}

func BenchmarkDisjointServices(b *testing.B) {
	var services []Peer
	for i := range 5000 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		services = append(services, Peer{Prefix: netip.PrefixFrom(addr, 32), First: uint16(1 + i), Last: uint16(1 + i), Proto: unix.IPPROTO_TCP})
	}
	for b.Loop() {
		disjoint(services)
	}
}

func FuzzParsePeer(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "10.0.0.0/8:1-2/udp", "[2001:db8::]/32:53/udp", "[::1]", "::/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePeer(s, "fuzz")
		if err != nil {
			return
		}
		again, err := ParsePeer(p.String(), "fuzz")
		if err != nil || again != p {
			t.Errorf("%q is %q, and that is %q, %v", s, p, again, err)
		}
	})
}

// TestDisjointServices compares with every address and port of a small world.
func TestDisjointServices(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var services []Peer
		for range random.IntN(10) {
			first := uint16(1 + random.IntN(12))
			services = append(services, Peer{
				Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(16))}), 28+random.IntN(5)).Masked(),
				First:  first, Last: first + uint16(random.IntN(5)), Proto: []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}[random.IntN(2)],
			})
		}
		cut := disjoint(services)
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			for host := range 16 {
				for port := uint16(1); port < 20; port++ {
					covers := func(list []Peer) (n int) {
						for _, p := range list {
							if p.Proto == proto && p.First <= port && port <= p.Last && p.Prefix.Contains(netip.AddrFrom4([4]byte{10, 0, 0, byte(host)})) {
								n++
							}
						}
						return n
					}
					want := min(covers(services), 1)
					if got := covers(cut); got != want {
						t.Fatalf("%v\nbecame %v\n10.0.0.%d:%d is covered %d times", services, cut, host, port, got)
					}
				}
			}
		}
	}
}

func TestPrefixesOfRanges(t *testing.T) {
	for _, c := range [][3]string{
		{"10.0.0.0", "10.0.0.255", "10.0.0.0/24"},
		{"10.0.0.1", "10.0.0.4", "10.0.0.1/32 10.0.0.2/31 10.0.0.4/32"},
		{"0.0.0.0", "255.255.255.255", "0.0.0.0/0"},
		{"255.255.255.255", "255.255.255.255", "255.255.255.255/32"},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"},
		{"2001:db8::1", "2001:db8::1", "2001:db8::1/128"},
	} {
		var words []string
		for _, p := range prefixes(addresses.Range{First: netip.MustParseAddr(c[0]), Last: netip.MustParseAddr(c[1])}) {
			words = append(words, p.String())
		}
		if got := strings.Join(words, " "); got != c[2] {
			t.Errorf("%s-%s: %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestSolicitedNode(t *testing.T) {
	for _, c := range [][3]string{
		{"fd00::12:3456", "fd00::12:3456", "ff02::1:ff12:3456"},
		{"fd00::1", "fd00::ff", "ff02::1:ff00:1-ff02::1:ff00:ff"},
		{"fd00::", "fd00::ffff:ffff", "ff02::1:ff00:0/104"},
	} {
		got := solicitedNode(addresses.Range{First: netip.MustParseAddr(c[0]), Last: netip.MustParseAddr(c[1])})
		if got.String() != c[2] {
			t.Errorf("%s-%s: %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestSessionOfSSH(t *testing.T) {
	if s := fromSSH("2001:db8::5 50000 2001:db8::1 2222"); s == nil || s.Peer.String() != "2001:db8::5" || s.Port != 2222 {
		t.Errorf("%+v", s)
	}
	for _, s := range []string{"", "127.0.0.1 1 127.0.0.1 22", "x 1 y 22", "10.0.0.1 1 10.0.0.2", "10.0.0.1 1 10.0.0.2 99999"} {
		if got := fromSSH(s); got != nil {
			t.Errorf("%q: %+v", s, got)
		}
	}
}
