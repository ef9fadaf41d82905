package conntrack

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// track makes the kernel keep track of connections in a host, and lets only
// those in whose first packet it saw.
const track = `
table inet test {
	chain input { type filter hook input priority 0; ct state invalid counter drop; ct state established counter accept; }
	chain forward { type filter hook forward priority 0; ct state established counter accept; }
}
`

// tracking is a host that tracks the connections within it.
func tracking(t *testing.T, rules string) *lab.Host {
	t.Helper()
	h := lab.New(t).Host("host")
	load(t, h, rules)
	return h
}

func load(t *testing.T, h *lab.Host, rules string) {
	t.Helper()
	file := h.Dir() + "/rules"
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Sysctl("net/netfilter/nf_conntrack_acct", "1")
	h.Run("nft", "-f", file).Is(t, 0)
}

func inside(t *testing.T, h *lab.Host, f func()) {
	t.Helper()
	if err := h.Do(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// echo makes a TCP connection and lets n bytes pass to the server and back.
func echo(t *testing.T, network, address string, n int) net.Conn {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := net.Dial(network, l.Addr().String())
	for end := time.Now().Add(time.Minute); errors.Is(err, unix.ENETUNREACH) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		c, err = net.Dial(network, l.Addr().String()) // the route to an address of IPv6 comes a moment after it
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	if _, err := c.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	return c
}

func ask(t *testing.T, to string) {
	t.Helper()
	c, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
}

// line writes a connection as conntrack(8) does, without what changes by itself.
func line(c *Connection) string {
	proto := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "icmpv6"}[c.Orig.Proto]
	state := ""
	if c.TCPState != 0 {
		state = " " + strings.ToUpper(strings.ReplaceAll(c.TCPState.String(), "-", "_"))
	}
	half := func(t Tuple, n Counter) string {
		ports := fmt.Sprintf("sport=%d dport=%d", t.Src.Port(), t.Dst.Port())
		if t.Proto == unix.IPPROTO_ICMP || t.Proto == unix.IPPROTO_ICMPV6 {
			ports = fmt.Sprintf("type=%d code=%d id=%d", t.ICMPType, t.ICMPCode, t.Src.Port())
		}
		zone := ""
		return fmt.Sprintf(" src=%s dst=%s %s%s packets=%d bytes=%d", t.Src.Addr(), t.Dst.Addr(), ports, zone, n.Packets, n.Bytes)
	}
	s := proto + state + half(c.Orig, c.OrigCount)
	if c.Status&SeenReply == 0 {
		s += " [UNREPLIED]"
	}
	s += half(c.Reply, c.ReplyCount)
	if c.Status&Assured != 0 {
		s += " [ASSURED]"
	}
	s += fmt.Sprintf(" mark=%d", c.Mark)
	if c.Zone != 0 {
		s += fmt.Sprintf(" zone=%d", c.Zone)
	}
	return s + fmt.Sprintf(" id=%d", c.ID)
}

// TestListIsWhatConntrackPrints compares every entry with conntrack(8).
func TestListIsWhatConntrackPrints(t *testing.T) {
	h := tracking(t, track+`
table ip nat {
	chain out { type nat hook output priority -100; ip daddr 10.1.0.9 tcp dport 80 dnat to 127.0.0.1:8080; }
}
table inet marks {
	chain out { type filter hook output priority -300; udp dport 5353 ct zone set 7; }
	chain late { type filter hook output priority 0; udp dport 5354 ct mark set 0x2a; }
}
`)
	h.IP("addr add 10.1.0.1/24 dev lo", "addr add fd01::1/64 dev lo nodad")
	var got []string
	inside(t, h, func() {
		echo(t, "tcp4", "127.0.0.1:0", 5000)
		echo(t, "tcp6", "[fd01::1]:0", 100)
		ask(t, "127.0.0.1:5353")
		ask(t, "127.0.0.1:5354")
		l, err := net.Listen("tcp4", "127.0.0.1:8080")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		c, err := net.Dial("tcp4", "10.1.0.9:80") // with NAT: it is not where it seems to be
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		h.Run("ping", "-c1", "-W30", "127.0.0.1").Is(t, 0)
		h.Run("ping", "-c1", "-W30", "fd01::1").Is(t, 0)
		list, err := List()
		if err != nil {
			t.Fatal(err)
		}
		translated := 0
		for i := range list {
			e := &list[i]
			got = append(got, line(e))
			if !e.Counted || e.Timeout <= 0 {
				t.Errorf("%+v", e)
			}
			if to, yes := e.Translated(); yes {
				translated++
				if to != netip.MustParseAddrPort("127.0.0.1:8080") || e.Orig.Dst != netip.MustParseAddrPort("10.1.0.9:80") || e.Status&DstNAT == 0 {
					t.Errorf("%+v", e)
				}
			}
		}
		if translated != 1 {
			t.Errorf("%d translated connections", translated)
		}
	})
	var want []string
	for _, family := range []string{"ipv4", "ipv6"} {
		for l := range strings.Lines(h.Run("conntrack", "-L", "-f", family, "-o", "id").Is(t, 0).Stdout) {
			f := strings.Fields(l)
			f = slices.Delete(f, 1, 3) // number of the protocol, timeout
			f = slices.DeleteFunc(f, func(w string) bool { return strings.HasPrefix(w, "use=") })
			want = append(want, strings.Join(f, " "))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if len(want) < 7 || !slices.Equal(got, want) {
		t.Errorf("listed\n%s\nconntrack\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestDelete: what matches is forgotten, in either family and any zone, and
// nothing else.
func TestDelete(t *testing.T) {
	h := tracking(t, track+`
table inet marks { chain out { type filter hook output priority -300; udp dport 5353 ct zone set 7; udp dport 5354 ct original zone set 9; }; }
`)
	h.IP("addr add fd01::1/64 dev lo nodad")
	inside(t, h, func() {
		echo(t, "tcp4", "127.0.0.1:0", 10)
		echo(t, "tcp6", "[fd01::1]:0", 10)
		for _, to := range []string{"127.0.0.1:5353", "127.0.0.1:5354", "127.0.0.1:5355", "[fd01::1]:5353"} {
			ask(t, to)
		}
		before, err := List()
		if err != nil || len(before) < 6 {
			t.Fatalf("%d connections, %v", len(before), err)
		}
		if n, err := Delete(func(*Connection) bool { return false }); n != 0 || err != nil {
			t.Errorf("deleted %d, %v where nothing matches", n, err)
		}
		for _, port := range []uint16{5353, 5354} {
			want := 0
			match := func(c *Connection) bool { return c.Orig.Dst.Port() == port }
			for i := range before {
				if match(&before[i]) {
					want++
				}
			}
			n, err := Delete(match)
			if n != want || want == 0 || err != nil {
				t.Errorf("deleted %d, %v, want %d", n, err, want)
			}
			after, err := List()
			if err != nil || slices.ContainsFunc(after, func(c Connection) bool { return match(&c) }) {
				t.Errorf("port %d is still there: %v", port, err)
			}
		}
		after, err := List()
		for i := range before {
			c := &before[i]
			left := slices.ContainsFunc(after, func(o Connection) bool { return o.ID == c.ID && o.Orig == c.Orig })
			if gone := c.Orig.Dst.Port() == 5353 || c.Orig.Dst.Port() == 5354; left == gone || err != nil {
				t.Errorf("left %v: %s", left, line(c))
			}
		}
		if n, err := Delete(func(c *Connection) bool { return true }); n != len(after) || err != nil {
			t.Errorf("deleted %d, %v, want %d", n, err, len(after))
		}
		if left, err := List(); len(left) != 0 || err != nil {
			t.Errorf("%d are left, %v", len(left), err)
		}
	})
}

// TestDeleteThroughARouter: a connection that only passes this host is cut
// when it is forgotten and rules let nothing new through.
func TestDeleteThroughARouter(t *testing.T) {
	l := lab.New(t)
	a, b := l.Switch(), l.Switch()
	router := l.Router("router", a, b)
	inner, outer := a.Host("inner"), b.Host("outer")
	inner.Via(router)
	outer.Via(router)
	load(t, router, `
table inet test { chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; tcp dport 7 tcp flags & (syn|ack) == syn accept; }; }
`)
	router.Sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")
	for _, address := range []netip.Addr{outer.IPv4(), outer.IPv6()} {
		to := netip.AddrPortFrom(address, 7)
		var listener net.Listener
		inside(t, outer, func() {
			var err error
			if listener, err = net.Listen("tcp", to.String()); err != nil {
				t.Fatal(err)
			}
		})
		t.Cleanup(func() { listener.Close() })
		var c net.Conn
		inside(t, inner, func() {
			var err error
			for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
				if c, err = net.DialTimeout("tcp", to.String(), time.Minute); err == nil {
					return
				}
				if time.Now().After(end) { // routes of IPv6 come a moment after addresses
					t.Fatal(err)
				}
			}
		})
		t.Cleanup(func() { c.Close() })
		s, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		passes := func(wait time.Duration) error {
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
			s.SetReadDeadline(time.Now().Add(wait))
			_, err := s.Read(make([]byte, 1))
			return err
		}
		if err := passes(time.Minute); err != nil {
			t.Fatalf("%s: the control failed: %v", to, err)
		}
		inside(t, router, func() {
			n, err := Delete(func(c *Connection) bool { return c.Orig.Dst == to && c.TCPState != 0 })
			if n != 1 || err != nil {
				t.Errorf("%s: deleted %d, %v", to, n, err)
			}
		})
		if err := passes(500 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: after it was forgotten: %v", to, err)
		}
	}
}

// TestOnlyRootMay: who may not is told so.
func TestOnlyRootMay(t *testing.T) {
	h := tracking(t, track)
	inside(t, h, func() {
		ask(t, "127.0.0.1:9")
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&hdr, &caps[0]); err != nil {
			t.Fatal(err)
		}
		less := caps
		less[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&hdr, &less[0]); err != nil { // of this thread
			t.Fatal(err)
		}
		_, listErr := List()
		n, err := Delete(func(*Connection) bool { return true })
		if err := unix.Capset(&hdr, &caps[0]); err != nil {
			t.Fatal(err)
		}
		if n != 0 || failure.KindOf(err) != failure.NotAllowed || failure.KindOf(listErr) != failure.NotAllowed {
			t.Errorf("list: %v; deleted %d, %v", listErr, n, err)
		}
	})
}

// FuzzParse: whatever is in an answer, reading it ends, and what would be
// deleted has a name: a request without one deletes everything.
func FuzzParse(f *testing.F) {
	h := []byte{unix.AF_INET, 0, 0, 0}
	ip := []byte{20, 0, 1, 0x80, 8, 0, 1, 0, 127, 0, 0, 1, 8, 0, 2, 0, 127, 0, 0, 2}
	f.Add(slices.Concat(h, []byte{24, 0, 1, 0x80}, ip, []byte{24, 0, 2, 0x80}, ip, []byte{6, 0, 18, 0, 0, 7, 0, 0}))
	f.Add(slices.Concat(h, []byte{24, 0, 1, 0x80}, ip))
	f.Add([]byte{unix.AF_INET6, 0, 0, 0, 4, 0, 1, 0x80, 4, 0, 2, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parse(b)
		if err != nil {
			return
		}
		if !c.Orig.Src.IsValid() || !c.Reply.Src.IsValid() {
			t.Error("a connection without addresses")
		}
		again, err := parse(append(deleteRequest(&c), b[4:]...))
		if err != nil || again.Orig != c.Orig {
			t.Errorf("%v: %+v of %+v", err, again, c)
		}
	})
}
