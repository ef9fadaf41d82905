package block_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/block"
	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/state"
)

func TestMain(m *testing.M) { lab.Main(m) }

// scene is a switch with the host that blocks, a peer that is blocked and a friend.
type scene struct {
	*lab.Lab
	lan                *lab.Switch
	host, peer, friend *lab.Host
}

func stage(t *testing.T) *scene {
	t.Helper()
	l := lab.New(t)
	lab.Binary(t)
	lan := l.Switch()
	s := &scene{Lab: l, lan: lan, host: lan.Host("host"), peer: lan.Host("peer"), friend: lan.Host("friend")}
	// What the machine's own file names must not be in the way.
	if err := os.WriteFile(s.host.Private("/etc/resolv.conf"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

func ruleset(t *testing.T, h *lab.Host) string {
	t.Helper()
	return h.Run("nft", "-s", "list", "ruleset").Is(t, 0).Stdout
}

func feed(t *testing.T, h *lab.Host, name string, lines ...string) string {
	t.Helper()
	path := filepath.Join(h.Dir(), name)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// engine is one for a host, to be used in its Do.
func engine(h *lab.Host, never ...netip.Prefix) *block.Engine {
	return block.New(block.Options{Store: state.New(filepath.Join(h.Dir(), "state"), state.Options{}), Never: never, ResolvConf: []string{}})
}

// reconcile runs Engine.Reconcile in a host.
func reconcile(t *testing.T, h *lab.Host, never ...netip.Prefix) (changed []string) {
	t.Helper()
	if err := h.Do(func() (err error) {
		changed, err = engine(h, never...).Reconcile(context.Background())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return changed
}

// cutOff blocks with flags of network isolate-threat.
func (s *scene) cutOff(t *testing.T, flags ...string) lab.Result {
	t.Helper()
	return s.host.Mobileops(append([]string{"network", "isolate-threat"}, flags...)...).Is(t, 0)
}

func (s *scene) lift(t *testing.T, names ...string) {
	t.Helper()
	s.host.Mobileops(append([]string{"network", "block", "remove"}, names...)...).Is(t, 0)
}

func TestAddressesAreCutOffInBothDirectionsAndAtOnce(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes, friends := lab.Talk(s.host, s.peer), lab.Talk(s.host, s.friend)
	s.host.Run("nft", "add table inet theirs; add chain inet theirs c { type filter hook input priority 0; }").Is(t, 0)
	before := ruleset(t, s.host)
	out, in := s.host.Stream(s.peer, s.peer.IPv4(), 9000), s.peer.Stream(s.host, s.host.IPv6(), 9001)
	fine := s.host.Stream(s.friend, s.friend.IPv4(), 9000)
	lab.Open(t, append(foes, friends...)...)
	out.Flows(t)
	in.Flows(t)
	fine.Flows(t)
	r := s.cutOff(t, "--ip", s.peer.IPv4().String(), "--ip", s.peer.IPv6().String(), "--cidr", "198.51.100.0/24", "--ip", "255.255.255.255", "--ttl", "1h", "--reason", "case 17")
	if !strings.Contains(r.Stdout, "connections of this host ended") {
		t.Errorf("it said %s", r.Stdout)
	}
	out.Client.Dies(t)
	in.Server.Dies(t)
	lab.Blocked(t, foes...)
	lab.Open(t, friends...)
	fine.Flows(t)
	// What is in force can be listed and loaded again.
	listed := s.host.Run("nft", "-s", "list", "table", "inet", "mobileops_blocks").Is(t, 0).Stdout
	path := feed(t, s.host, "listed.nft", "delete table inet mobileops_blocks", listed)
	s.host.Run("nft", "-f", path).Is(t, 0)
	if again := s.host.Run("nft", "-s", "list", "table", "inet", "mobileops_blocks").Is(t, 0).Stdout; again != listed {
		t.Errorf("listed:\n%s\nloaded again:\n%s", listed, again)
	}
	s.host.Mobileops("network", "isolate-threat", "--ip", s.peer.IPv4().String(), "--ttl", "1m").Is(t, 8)
	s.lift(t, s.peer.IPv4().String(), s.peer.IPv6().String(), "198.51.100.0/24", "255.255.255.255")
	lab.Open(t, foes...)
	if after := ruleset(t, s.host); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
}

// TestContainers stands for those of any engine: a namespace behind a veth pair
// and NAT.
func TestContainersBehindNAT(t *testing.T) {
	t.Parallel()
	s := stage(t)
	s.host.Forward()
	box := s.host.Guest("box", "veth7", "10.88.0.2/24")
	s.host.IP("addr add 10.88.0.1/24 dev veth7")
	box.IP("route add default via 10.88.0.1")
	s.host.Run("nft", fmt.Sprintf(`add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; add rule ip nat post ip saddr 10.88.0.0/24 oifname "eth0" masquerade;
add chain ip nat pre { type nat hook prerouting priority -100; }; add rule ip nat pre ip daddr %s tcp dport 8080 dnat to 10.88.0.2:80`, s.host.IPv4())).Is(t, 0)
	outward := box.TCP(s.peer, s.peer.IPv4(), 80)
	ping := box.Ping(s.peer.IPv4())
	box.Serve(80)
	published := &lab.Probe{Name: "published port from the peer", Try: func(ctx context.Context) error { return connect(ctx, s.peer, s.host.IPv4(), 8080) }}
	friendly := &lab.Probe{Name: "published port from the friend", Try: func(ctx context.Context) error { return connect(ctx, s.friend, s.host.IPv4(), 8080) }}
	lab.Open(t, outward, ping, published, friendly)
	stream := box.Stream(s.peer, s.peer.IPv4(), 9000)
	stream.Flows(t)
	s.cutOff(t, "--ip", s.peer.IPv4().String())
	lab.Stalled(t, stream)
	lab.Blocked(t, outward, ping, published)
	lab.Open(t, friendly, box.TCP(s.friend, s.friend.IPv4(), 80))
	s.lift(t, s.peer.IPv4().String())
	// The container itself, by its address: published, too, after DNAT.
	lab.Open(t, outward, published, friendly)
	s.cutOff(t, "--ip", "10.88.0.2")
	lab.Blocked(t, outward, published, friendly)
}

// connect makes a connection and waits for what the server sends back.
func connect(ctx context.Context, from *lab.Host, to netip.Addr, port uint16) error {
	c, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(to, port).String())
	if err != nil {
		return err
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		c.SetDeadline(d)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 5))
	return err
}

func TestBridgedMachines(t *testing.T) {
	t.Parallel()
	s := stage(t)
	// A VM on a bridge of the host, whose uplink is a port of it, too.
	s.host.IP("link add br0 type bridge", "link set br0 up")
	vm := s.host.Guest("vm", "tap0", "10.77.0.2/24")
	other := s.host.Guest("other", "tap1", "10.77.0.3/24")
	s.host.IP("link set tap0 master br0", "link set tap1 master br0")
	ways := lab.Talk(vm, other)
	lab.Open(t, ways...)
	s.cutOff(t, "--ip", "10.77.0.3")
	lab.Blocked(t, ways...)
	s.lift(t, "10.77.0.3")
	lab.Open(t, ways...)
	s.host.Mobileops("network", "block", "import", feed(t, s.host, "f.txt", "10.77.0.0/24", "203.0.113.9"), "--name", "f").Is(t, 0)
	lab.Open(t, ways...) // private addresses are not blocked by a feed
	s.cutOff(t, "--mac", other.NIC(0).MAC.String())
	lab.Blocked(t, ways...)
	s.lift(t, other.NIC(0).MAC.String())
	lab.Open(t, ways...)
}

func TestMACAddresses(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := lab.Talk(s.host, s.peer)
	lab.Open(t, foes...)
	s.cutOff(t, "--mac", strings.ToUpper(s.peer.NIC(0).MAC.String()))
	lab.Blocked(t, foes...)
	lab.Open(t, lab.Talk(s.host, s.friend)...)
	// ARP is below IP, and cut as well.
	s.host.IP("neigh flush dev eth0")
	if r := s.host.Run("arping", "-c", "1", "-w", "2", "-I", "eth0", s.peer.IPv4().String()); r.Status == 0 {
		t.Errorf("ARP is answered: %s", r.Stdout)
	}
}

func TestPortsAreCutOff(t *testing.T) {
	t.Parallel()
	s := stage(t)
	blocked := []*lab.Probe{s.host.TCP(s.peer, s.peer.IPv4(), 445), s.peer.TCP(s.host, s.host.IPv6(), 445), s.host.UDP(s.peer, s.peer.IPv6(), 445)}
	open := []*lab.Probe{s.host.TCP(s.peer, s.peer.IPv4(), 446), s.peer.UDP(s.host, s.host.IPv4(), 53)}
	stream := s.host.Stream(s.peer, s.peer.IPv4(), 8445)
	lab.Open(t, append(blocked, open...)...)
	stream.Flows(t)
	s.cutOff(t, "--port", "445", "--port", "tcp/8445", "--port", "53/tcp")
	lab.Blocked(t, blocked...)
	lab.Open(t, open...)
	stream.Client.Dies(t)
	// What was dropped goes on to be counted when rules change.
	count := func() (n uint64) {
		if err := s.host.Do(func() error {
			st, err := engine(s.host).Status(context.Background())
			for _, d := range st.Dropped {
				if d.Why == "port" {
					n = d.Packets
				}
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		return n
	}
	before := count()
	s.cutOff(t, "--ip", "203.0.113.1")
	s.lift(t, "53/tcp", "203.0.113.1")
	if after := count(); before == 0 || after < before {
		t.Errorf("%d packets were counted, then %d", before, after)
	}
}

func TestInterfaces(t *testing.T) {
	t.Parallel()
	s := stage(t)
	second := s.Switch()
	s.host.AddNIC(second)
	far := second.Host("far")
	ways := []*lab.Probe{far.TCP(s.host, s.host.NIC(1).IPv4, 80), s.host.Ping(far.IPv6())}
	frame := s.host.NIC(1).Frames("a raw frame", far.NIC(0), lab.Raw{Bypass: true}, func(token []byte) []byte {
		return lab.Ethernet(far.NIC(0).MAC, s.host.NIC(1).MAC, 0x88b5, token)
	})
	lab.Open(t, ways...)
	s.cutOff(t, "--iface", "eth1")
	lab.Blocked(t, ways...)
	lab.Open(t, lab.Talk(s.host, s.friend)...)
	if !frame.Passes() { // PACKET_QDISC_BYPASS skips the egress hook, too
		t.Log("raw frames that bypass the queueing discipline are cut as well")
	}
	s.host.Setenv("SSH_CONNECTION", fmt.Sprintf("%s 50000 %s 22", s.friend.IPv4(), s.host.IPv4()))
	if r := s.host.Mobileops("network", "isolate-threat", "--iface", "eth0").Is(t, 2); !strings.Contains(r.Stderr, "this session comes by eth0") {
		t.Error(r.Stderr)
	}
	s.host.Mobileops("network", "isolate-threat", "--port", "22").Is(t, 2)
	s.host.Mobileops("network", "isolate-threat", "--ip", s.friend.IPv4().String()).Is(t, 2)
}

func TestTimeIsOverWithoutAnyProcess(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := lab.Talk(s.host, s.peer)
	lab.Open(t, foes...)
	s.cutOff(t, "--ip", s.peer.IPv4().String(), "--cidr", s.peer.IPv6().String()+"/128", "--ttl", "15s")
	lab.Blocked(t, foes...)
	lab.Open(t, foes...) // Open tries for a minute
	for deadline := time.Now().Add(time.Minute); ; {
		r := s.host.Mobileops("network", "block", "show", s.peer.IPv4().String())
		if r.Status == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still shown: %s", r.Stdout)
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.host.Mobileops("network", "block", "import", feed(t, s.host, "f", s.peer.IPv4().String()), "--ttl", "1h").Is(t, 3)
}

// TestWhatCarriesTheSession is not cut off, though the address of this host is on
// another interface, and the gateway is known by IPv6 alone.
func TestWhatCarriesTheSession(t *testing.T) {
	t.Parallel()
	s := stage(t)
	nic := s.host.NIC(0)
	s.host.IP("link add br0 type bridge", "link set br0 address "+nic.MAC.String(), "addr flush dev eth0", "link set eth0 master br0", "link set br0 up",
		"addr add "+nic.IPv6.String()+"/64 dev br0 nodad", "route add default via "+s.friend.IPv6().String())
	vm := s.host.Guest("vm", "vnet0", "fd09:0:0:1::200/64")
	s.host.IP("link set vnet0 master br0")
	friends := []*lab.Probe{s.host.TCP(s.friend, s.friend.IPv6(), 80), s.friend.Ping(nic.IPv6)}
	foes := []*lab.Probe{vm.TCP(s.host, nic.IPv6, 80), s.host.Ping(vm.IPv6())}
	lab.Open(t, friends...)
	lab.Open(t, foes...)
	s.host.Setenv("SSH_CONNECTION", fmt.Sprintf("2001:db8::5 50000 %s 22", nic.IPv6))
	for flag, value := range map[string]string{"--mac": s.friend.NIC(0).MAC.String(), "--iface": "eth0"} {
		lab.Open(t, friends[0]) // so that the host knows the gateway
		if r := s.host.Mobileops("network", "isolate-threat", flag, value); r.Status != 2 || !strings.Contains(r.Stderr, "that would cut off what this host needs") {
			t.Errorf("%s %s: %+v", flag, value, r)
		}
	}
	lab.Open(t, friends...)
	s.cutOff(t, "--iface", "vnet0")
	lab.Blocked(t, foes...)
	lab.Open(t, friends...)
}

func TestWhatMustNotBeBlockedIsNot(t *testing.T) {
	t.Parallel()
	s := stage(t)
	// Public addresses, since private ones are in no feed.
	s.host.IP("addr add 203.0.113.1/24 dev eth0")
	s.peer.IP("addr add 203.0.113.2/24 dev eth0")
	s.friend.IP("addr add 203.0.113.3/24 dev eth0")
	foe := s.host.TCP(s.peer, netip.MustParseAddr("203.0.113.2"), 80)
	friend := s.host.TCP(s.friend, netip.MustParseAddr("203.0.113.3"), 80)
	back := s.friend.TCP(s.host, netip.MustParseAddr("203.0.113.1"), 80)
	lab.Open(t, foe, friend, back)
	s.host.Setenv("MOBILEOPS_NETWORK_NEVER_BLOCK", "203.0.113.3")
	path := feed(t, s.host, "evil.netset", "203.0.113.0/24", "203.0.113.3", "0.0.0.0/1", "::/0", "10.0.0.0/8")
	r := s.host.Mobileops("network", "block", "import", path, "--output", "json").Is(t, 0)
	var doc struct {
		Feeds []struct {
			Name    string `json:"name"`
			LeftOut []struct{ What, Why string }
		}
	}
	if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil || doc.Feeds[0].Name != "evil" || !strings.Contains(r.Stdout, `"network.never_block"`) || !strings.Contains(r.Stdout, `"an address of this host"`) || !strings.Contains(r.Stdout, "0.0.0.0/1") {
		t.Errorf("%v: %s", err, r.Stdout)
	}
	lab.Blocked(t, foe)
	lab.Open(t, friend, back)
	lab.Open(t, lab.Talk(s.host, s.friend)...)
	// One that becomes protected later passes, though sets have it.
	s.host.Setenv("MOBILEOPS_NETWORK_NEVER_BLOCK", "203.0.113.2 203.0.113.3")
	if changed := reconcile(t, s.host, netip.MustParsePrefix("203.0.113.2/31")); len(changed) == 0 {
		t.Error("nothing changed")
	}
	lab.Open(t, foe)
	s.host.Mobileops("network", "isolate-threat", "--ip", "203.0.113.2").Is(t, 2)
	lab.Open(t, foe)
	s.cutOff(t, "--ip", "203.0.113.2", "--force")
	lab.Blocked(t, foe)
	s.host.Mobileops("network", "isolate-threat", "--cidr", "0.0.0.0/0").Is(t, 2)
	s.host.Mobileops("network", "isolate-threat", "--cidr", "::/0").Is(t, 2)
	s.host.Mobileops("network", "isolate-threat", "--ip", "203.0.113.1").Is(t, 2)
	s.host.Mobileops("network", "isolate-threat", "--uid", "0").Is(t, 2)
}
