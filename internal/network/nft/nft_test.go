package nft_test

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/nft"
	"golang.org/x/sys/unix"
)

// alone runs f on a thread in a network namespace of its own, with a pair of
// interfaces d0 and d1; programs that f starts are in it, too.
func alone(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if unix.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		run(t, "", "ip", "link", "set", "lo", "up")
		run(t, "", "ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
		f(t)
	}()
	<-done
}

// run runs a program and returns what it wrote.
func run(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %v: %v\n%s\n%s", name, args, err, out, input)
	}
	return string(out)
}

func commit(t *testing.T, b *nft.Batch) error {
	t.Helper()
	c, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Commit(b)
}

var (
	inet   = nft.Table{Family: nft.INet, Name: "trial"}
	netdev = nft.Table{Family: nft.NetDev, Name: "trial"}
	bridge = nft.Table{Family: nft.Bridge, Name: "trial"}
)

// everything uses each thing that the package can write.
func everything() *nft.Batch {
	b := nft.NewTextBatch()
	for _, t := range []nft.Table{inet, netdev, bridge} {
		b.AddTable(t, 0, "a trial")
	}
	set := func(t nft.Table, name string, flags nft.SetFlags, key ...nft.Type) nft.Set {
		s := nft.Set{Table: t, Name: name, Key: key, Flags: flags}
		b.AddSet(s)
		return s
	}
	addr := netip.MustParseAddr
	v4 := set(inet, "v4", nft.Interval|nft.Timeout, nft.IPv4Addr)
	b.AddElements(v4, 3, func(i int) nft.Element {
		return []nft.Element{
			nft.AddrRange(addr("10.0.0.0"), addr("10.0.0.9"), time.Hour),
			nft.AddrRange(addr("10.0.1.1"), addr("10.0.1.1"), 0),
			nft.AddrRange(addr("255.255.255.0"), addr("255.255.255.255"), 0),
		}[i]
	})
	v6 := set(inet, "v6", nft.Interval, nft.IPv6Addr)
	b.AddElements(v6, 1, func(int) nft.Element {
		return nft.AddrRange(addr("::"), addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 0)
	})
	service := set(inet, "service", nft.Interval, nft.IPv4Addr, nft.INetProto, nft.Service)
	b.AddElements(service, 2, func(i int) nft.Element {
		return []nft.Element{
			{Key: nft.Key(nft.Addr(addr("10.1.0.0")), nft.Proto(6), nft.Num16(80)), End: nft.Key(nft.Addr(addr("10.1.255.255")), nft.Proto(6), nft.Num16(89))},
			{Key: nft.Key(nft.Addr(addr("10.2.0.1")), nft.Proto(17), nft.Num16(53))},
		}[i]
	})
	names := set(inet, "names", 0, nft.IfName)
	b.AddElements(names, 1, func(int) nft.Element { return nft.One(nft.Interface("d0"), 0) })
	users := set(inet, "users", nft.Timeout, nft.UID)
	b.AddElements(users, 1, func(int) nft.Element { return nft.One(nft.Host32(1000), time.Minute) })
	macs := set(bridge, "macs", 0, nft.EtherAddr)
	b.AddElements(macs, 1, func(int) nft.Element {
		return nft.One(nft.MAC(net.HardwareAddr{2, 0, 0, 0, 0, 1}), 0)
	})
	armed := set(netdev, "armed", nft.Interval|nft.Timeout, nft.EtherType)
	b.AddElements(armed, 1, func(int) nft.Element {
		return nft.Element{Key: nft.Key(nft.Ether(0)), End: nft.Key(nft.Ether(0xffff)), Timeout: time.Minute}
	})

	peers := set(inet, "peers", nft.Timeout, nft.IPv4Addr)
	b.AddAddresses(peers, slices.Values([]netip.Addr{addr("10.3.0.1"), addr("10.3.0.2")}), time.Hour)
	peers6 := set(inet, "peers6", 0, nft.IPv6Addr)
	b.AddAddresses(peers6, slices.Values([]netip.Addr{addr("fd00::1"), addr("fd00::2"), addr("fd00::3")}), 0)
	b.DeleteAddresses(peers6, slices.Values([]netip.Addr{addr("fd00::2")}))
	gone := set(inet, "gone", nft.Interval, nft.IPv4Addr)
	b.DeleteSet(gone)

	b.AddChain(inet, "pre", &nft.Hook{At: "prerouting", Priority: -190})
	b.AddChain(inet, "outgoing", &nft.Hook{At: "output", Priority: -5, Drop: true})
	b.AddChain(inet, "nat_out", &nft.Hook{Type: "nat", At: "postrouting", Priority: 100})
	b.AddChain(inet, "nat_in", &nft.Hook{Type: "nat", At: "prerouting", Priority: -100})
	b.AddChain(inet, "aside", nil)
	rule := func(chain string, exprs ...nft.Expr) { b.AddRule(inet, chain, "", exprs...) }
	b.AddRule(inet, "pre", "own traffic", nft.Is(nft.InName, nft.Interface("lo")), nft.Accept())
	rule("pre", nft.Is(nft.InName, nft.Interface("mo-*")), nft.Count(), nft.Jump("aside"))
	rule("pre", nft.In(v4, nft.IPv4Saddr), nft.Count(), nft.Accept())
	rule("pre", nft.NotIn(v6, nft.IPv6Saddr), nft.Drop())
	rule("pre", nft.In(peers, nft.IPv4Saddr), nft.CountFrom(1<<40, 1<<50), nft.Drop())
	rule("pre", nft.In(peers6, nft.IPv6Daddr), nft.IsNot(nft.DestinationKind, nft.Local()), nft.Drop())
	rule("pre", nft.Is(nft.EtherSaddr, nft.MAC(net.HardwareAddr{2, 0, 0, 0, 0, 2})), nft.Drop())
	rule("pre", nft.In(service, nft.IPv4Saddr, nft.L4Proto, nft.Dport), nft.Accept())
	rule("pre", nft.In(names, nft.InName), nft.Return())
	rule("pre", nft.Within(nft.IPv6Saddr, netip.MustParsePrefix("fe80::/10")), nft.Is(nft.IPv6HopLimit, nft.Num8(255)), nft.Is(nft.ICMPv6Type, nft.Num8(134)), nft.Accept())
	rule("pre", nft.Within(nft.IPv4Daddr, netip.MustParsePrefix("10.0.0.0/8")), nft.IsNot(nft.TCPDport, nft.Num16(22)), nft.Goto("aside"))
	rule("pre", nft.TCPStarts(true), nft.Between(nft.TCPSport, nft.Num16(1), nft.Num16(1023)), nft.Drop())
	rule("pre", nft.TCPStarts(false), nft.Drop())
	rule("pre", nft.LaterFragment(), nft.Drop())
	rule("pre", nft.LaterFragment6(), nft.Drop())
	rule("pre", nft.Version(4), nft.Drop())
	rule("pre", nft.Is(nft.NFProto, nft.IPVersion(false)), nft.Drop())
	rule("pre", nft.Is(nft.NFProto, nft.IPVersion(true)), nft.Drop())
	rule("pre", nft.Version(6), nft.Drop())
	rule("pre", nft.State(nft.Established|nft.Related), nft.Accept())
	rule("pre", nft.Translated(), nft.Accept())
	rule("pre", nft.Is(nft.L4Proto, nft.Proto(58)), nft.WithinTransport(8, netip.MustParsePrefix("fd00::1/128")), nft.Accept())
	rule("pre", nft.Is(nft.L4Proto, nft.Proto(1)), nft.WithinTransport(24, netip.MustParsePrefix("10.0.0.0/13")), nft.Accept())
	rule("pre", nft.Is(nft.DestinationKind, nft.Local()), nft.Accept())
	rule("pre", nft.Is(nft.MetaMark, nft.Host32(7)), nft.AtRate(5, time.Minute, 3), nft.Log("trial: "))
	rule("pre", nft.LogGroup(4, "x"), nft.Reject())
	rule("pre", nft.SetMark(9))
	rule("outgoing", nft.In(users, nft.SocketUID), nft.Drop())
	rule("outgoing", nft.Is(nft.ICMPType, nft.Num8(3)), nft.Accept())
	rule("nat_out", nft.Is(nft.OutName, nft.Interface("d0")), nft.Masquerade())
	rule("nat_in", nft.Is(nft.UDPDport, nft.Num16(53)), nft.DNAT(netip.MustParseAddrPort("10.9.0.1:5353")))
	rule("nat_in", nft.Is(nft.UDPDport, nft.Num16(54)), nft.DNAT(netip.MustParseAddrPort("[fd00::1]:0")))

	b.AddChain(netdev, "ingress_all", &nft.Hook{At: "ingress", Priority: -500, Devices: []string{"d0", "d1"}})
	b.AddChain(netdev, "egress_d0", &nft.Hook{At: "egress", Priority: -500, Devices: []string{"d0"}})
	b.AddChain(netdev, "arps", nil)
	b.AddRule(netdev, "ingress_all", "", nft.Is(nft.EtherTypeOf, nft.Ether(unix.ETH_P_ARP)), nft.Jump("arps"))
	b.AddRule(netdev, "arps", "", nft.ShorterThan(64), nft.Is(nft.ARPOp, nft.Num16(1)), nft.Is(nft.ARPSaddrIP, nft.Addr(addr("10.0.0.1"))), nft.Accept())
	b.AddRule(netdev, "egress_d0", "", nft.Is(nft.SourceKind, nft.Local()), nft.Is(nft.IPv4Daddr, nft.Addr(addr("10.0.0.1"))), nft.Accept())
	b.AddRule(netdev, "ingress_all", "", nft.Is(nft.PacketKind, nft.OtherHost()), nft.Drop())
	b.AddRule(netdev, "egress_d0", "", nft.ToSwitch(), nft.Accept())
	b.AddRule(netdev, "egress_d0", "", nft.AtMost(nft.IPv6Length, nft.Num16(40)), nft.Is(nft.ICMPv6Type, nft.Num8(136)), nft.Accept())
	b.AddRule(netdev, "egress_d0", "cut", nft.In(armed, nft.Protocol), nft.Count(), nft.Drop())
	b.AddChain(bridge, "passing", &nft.Hook{At: "forward", Priority: -500})
	b.AddRule(bridge, "passing", "", nft.In(macs, nft.EtherSaddr), nft.Drop())
	b.AddRule(bridge, "passing", "", nft.Is(nft.IPv4Saddr, nft.Addr(addr("10.0.0.1"))), nft.Is(nft.UDPDport, nft.Num16(53)), nft.Drop())
	types := set(bridge, "types", 0, nft.EtherType)
	b.AddElements(types, 2, func(i int) nft.Element { return nft.One(nft.Ether([]uint16{unix.ETH_P_IP, unix.ETH_P_ARP}[i]), 0) })
	ends := set(bridge, "ends", 0, nft.IfName, nft.EtherAddr)
	b.AddElements(ends, 1, func(int) nft.Element {
		return nft.Element{Key: nft.Key(nft.Interface("d0"), nft.MAC(net.HardwareAddr{2, 0, 0, 0, 0, 1}))}
	})
	b.AddChain(bridge, "arps", nil)
	b.AddChain(bridge, "coming", &nft.Hook{At: "prerouting", Priority: -310})
	ways := nft.Set{Table: bridge, Name: "ways", Key: []nft.Type{nft.IfName, nft.IPv4Addr}, Verdicts: true}
	b.AddSet(ways)
	b.AddElements(ways, 2, func(i int) nft.Element {
		return nft.Element{Key: nft.Key(nft.Interface("d0"), nft.Addr(addr([]string{"10.0.0.1", "10.0.0.2"}[i]))), Verdict: []nft.Verdict{nft.GoTo("arps"), nft.JumpTo("arps")}[i]}
	})
	single := nft.Set{Table: bridge, Name: "single", Key: []nft.Type{nft.IfName}, Verdicts: true}
	b.AddSet(single)
	b.AddElements(single, 1, func(i int) nft.Element {
		return nft.Element{Key: nft.Key(nft.Interface("d1")), Verdict: nft.JumpTo("arps")}
	})
	b.AddRule(bridge, "coming", "", nft.NotIn(types, nft.FrameType), nft.Drop())
	b.AddRule(bridge, "coming", "", nft.Is(nft.FrameType, nft.Ether(unix.ETH_P_ARP)), nft.Goto("arps"))
	b.AddRule(bridge, "coming", "", nft.NotIn(ends, nft.InName, nft.EtherSaddr), nft.Drop())
	b.AddRule(bridge, "coming", "", nft.By(ways, nft.InName, nft.IPv4Saddr))
	b.AddRule(bridge, "coming", "", nft.By(single, nft.OutName))
	b.AddRule(bridge, "coming", "", nft.Is(nft.PacketKind, nft.Num8(unix.PACKET_OTHERHOST)), nft.SetEtherDaddr(net.HardwareAddr{2, 0, 0, 0, 0, 1}), nft.SetForHost(), nft.Accept())
	b.AddRule(bridge, "coming", "", nft.IsNot(nft.PacketKind, nft.Num8(unix.PACKET_HOST)), nft.Drop())
	b.AddRule(bridge, "arps", "", nft.ARPForIPv4(), nft.Return())
	b.AddRule(bridge, "arps", "", nft.NotIn(ends, nft.InName, nft.ARPSaddrEther), nft.Drop())
	return b
}

// listed is the ruleset without what changes by itself.
func listed(t *testing.T) string { return run(t, "", "nft", "-s", "list", "ruleset") }

func TestTextSaysWhatIsSent(t *testing.T) {
	batch := everything()
	text := batch.Text()
	var ours, theirs string
	alone(t, func(t *testing.T) {
		if err := commit(t, batch); err != nil {
			t.Error(err)
		}
		ours = listed(t)
		// What is listed can be loaded.
		run(t, "flush ruleset\n"+ours, "nft", "-f", "-")
		if again := listed(t); again != ours {
			t.Errorf("listed and loaded again:\n%s\nwas\n%s", again, ours)
		}
	})
	alone(t, func(t *testing.T) {
		run(t, text, "nft", "-f", "-")
		theirs = listed(t)
	})
	if ours != theirs || !strings.Contains(ours, "255.255.255.0") {
		t.Errorf("sent:\n%s\nby nft of the text:\n%s\ntext:\n%s", ours, theirs, text)
	}
}

// TestExpressionsAreThoseOfNFT compares what the kernel was given, expression by
// expression, where the listing would hide a difference.
func TestExpressionsAreThoseOfNFT(t *testing.T) {
	batch := everything()
	text := batch.Text()
	program := func(t *testing.T) string {
		// Numbers of sets and the like differ from run to run.
		var keep []string
		for line := range strings.Lines(run(t, "", "nft", "--debug=netlink", "list", "ruleset")) {
			// This nft turns a byte round to where it was.
			if strings.HasPrefix(strings.TrimSpace(line), "[") && !strings.Contains(line, ", 2, 1)") {
				keep = append(keep, strings.TrimSpace(line))
			}
		}
		return strings.Join(keep, "\n")
	}
	var ours, theirs string
	alone(t, func(t *testing.T) {
		if err := commit(t, batch); err != nil {
			t.Error(err)
		}
		ours = program(t)
	})
	alone(t, func(t *testing.T) { run(t, text, "nft", "-f", "-"); theirs = program(t) })
	a, b := strings.Split(ours, "\n"), strings.Split(theirs, "\n")
	if len(a) < 100 {
		t.Fatalf("only %d expressions:\n%s", len(a), ours)
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("expression %d: %s\nnft: %s\nafter: %s", i, a[i], b[i], strings.Join(a[max(0, i-3):i], "\n"))
		}
	}
	if len(a) != len(b) {
		t.Errorf("%d expressions, nft makes %d", len(a), len(b))
	}
}

func TestAllOrNothing(t *testing.T) {
	alone(t, func(t *testing.T) {
		b := nft.NewBatch()
		b.AddTable(inet, 0, "")
		b.AddChain(inet, "pre", nil)
		b.AddRule(inet, "pre", "", nft.Jump("nowhere"))
		b.AddChain(inet, "after", nil)
		err := commit(t, b)
		var refused *nft.Error
		if !errors.As(err, &refused) || !errors.Is(err, unix.ENOENT) || !strings.Contains(refused.What, "jump nowhere") {
			t.Errorf("error: %v", err)
		}
		if got := listed(t); got != "" {
			t.Errorf("left behind:\n%s", got)
		}
	})
}

// TestAfterARefusal commits on a connection on which the kernel has refused
// several messages at once: the answers to those are not for what comes next.
func TestAfterARefusal(t *testing.T) {
	alone(t, func(t *testing.T) {
		c, err := nft.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		tables := func() *nft.Batch {
			b := nft.NewBatch()
			for _, name := range []string{"one", "two", "three"} {
				b.CreateTable(nft.Table{Family: nft.INet, Name: name}, 0, "")
			}
			return b
		}
		for i, want := range []error{nil, unix.EEXIST, unix.EEXIST} {
			if err := c.Commit(tables()); !errors.Is(err, want) {
				t.Errorf("commit %d: %v, want %v", i, err, want)
			}
		}
		b := nft.NewBatch()
		b.DeleteTable(nft.Table{Family: nft.INet, Name: "two"})
		if err := c.Commit(b); err != nil {
			t.Errorf("after refusals: %v", err)
		}
	})
}

func TestNamesThatNFTCannotReadBackAreRefused(t *testing.T) {
	for _, name := range []string{"fwd", "in", "", "a b", "accept", "1st", "x;y", strings.Repeat("n", 128)} {
		b := nft.NewBatch()
		b.AddChain(inet, name, nil)
		if err := (*nft.Conn)(nil).Commit(b); err == nil {
			t.Errorf("chain %q was taken", name)
		}
	}
}

func TestOwnedTables(t *testing.T) {
	alone(t, func(t *testing.T) {
		owner, err := nft.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		b := nft.NewBatch()
		b.AddTable(inet, nft.Owner|nft.Persist, "mine")
		if err := owner.Commit(b); err != nil {
			t.Error(err)
		}
		run(t, "", "nft", "flush", "ruleset")
		r, err := nft.OpenReader()
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		info, ok, err := r.Table(inet)
		if !ok || err != nil || info.Owner == 0 || info.Comment != "mine" {
			t.Errorf("after a foreign flush: %+v %v %v", info, ok, err)
		}
		b = nft.NewBatch()
		b.DeleteTable(inet)
		if err := commit(t, b); !errors.Is(err, unix.EPERM) {
			t.Errorf("a stranger deletes it: %v", err)
		}
		owner.Close()
		if info, ok, err = r.Table(inet); !ok || err != nil || info.Owner != 0 {
			t.Errorf("after the owner left: %+v %v %v", info, ok, err)
		}
		b = nft.NewBatch()
		b.AddTable(inet, nft.Owner|nft.Persist, "")
		heir, err := nft.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer heir.Close()
		if err := heir.Commit(b); err != nil {
			t.Errorf("an heir: %v", err)
		}
		if info, _, _ = r.Table(inet); info.Owner == 0 {
			t.Errorf("the heir does not own it: %+v", info)
		}
	})
}

// TestLargeSets sends what needs several messages and a large buffer at once.
func TestLargeSets(t *testing.T) {
	alone(t, func(t *testing.T) {
		const n = 30000
		b := nft.NewBatch()
		b.AddTable(inet, 0, "")
		s := nft.Set{Table: inet, Name: "many", Key: []nft.Type{nft.IPv4Addr}, Flags: nft.Interval | nft.Timeout}
		b.AddSet(s)
		b.AddElements(s, n, func(i int) nft.Element {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 14), byte(i >> 6), byte(i << 2)})
			return nft.AddrRange(a, a.Next(), time.Hour)
		})
		if err := commit(t, b); err != nil {
			t.Error(err)
		}
		r, err := nft.OpenReader()
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		held, err := r.Elements(s)
		if err != nil {
			t.Error(err)
		}
		first, last := 0, 0
		for _, h := range held {
			if h.Last {
				last++
			} else if first++; h.Timeout != time.Hour || h.Expires <= 0 || h.Expires > time.Hour {
				t.Errorf("%+v", h)
				return
			}
		}
		if first != n || last != n {
			t.Errorf("%d ranges begin and %d end, not %d", first, last, n)
		}
	})
}
