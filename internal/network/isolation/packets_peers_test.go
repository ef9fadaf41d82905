package isolation_test

import (
	"net/netip"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
)

func TestOnlyThoseWhoAreAllowedTalk(t *testing.T) {
	t.Parallel()
	s := stage(t)
	friends, foes := s.friends(), s.foes()
	inside := []*lab.Probe{s.host.Ping(s.host.IPv4()), s.host.TCP(s.host, netip.MustParseAddr("127.8.8.8"), lab.EchoPort)}
	for _, a := range []string{"127.0.0.1", "::1", s.host.IPv4().String(), s.host.IPv6().String()} {
		addr := netip.MustParseAddr(a)
		inside = append(inside, s.host.TCP(s.host, addr, lab.EchoPort), s.host.UDP(s.host, addr, lab.EchoPort))
	}
	lab.Open(t, friends...)
	lab.Open(t, foes...)
	lab.Open(t, inside...)
	// Each with the end of it that is on the host.
	type connection struct {
		*lab.Stream
		local func(*lab.Stream) *lab.End
	}
	client, server := func(s *lab.Stream) *lab.End { return s.Client }, func(s *lab.Stream) *lab.End { return s.Server }
	cut := []connection{
		{s.host.Stream(s.attacker, s.attacker.IPv4(), 9001), client}, {s.host.Stream(s.attacker, s.attacker.IPv6(), 9002), client},
		{s.attacker.Stream(s.host, s.host.IPv4(), 9003), server}, {s.attacker.Stream(s.host, s.host.IPv6(), 9004), server},
	}
	kept := []*lab.Stream{
		s.host.Stream(s.mgmt, s.mgmt.IPv4(), 9001), s.host.Stream(s.mgmt, s.mgmt.IPv6(), 9002),
		s.mgmt.Stream(s.host, s.host.IPv4(), 9005), s.mgmt.Stream(s.host, s.host.IPv6(), 9006),
	}
	stalled := make([]*lab.Stream, len(cut))
	for i, c := range cut {
		stalled[i] = c.Stream
	}
	lab.Flowing(t, append(stalled, kept...)...)

	s.isolate(t, "--reason", "drill")
	for _, c := range cut {
		c.local(c.Stream).Dies(t)
	}
	lab.Blocked(t, foes...)
	lab.Open(t, friends...)
	lab.Open(t, inside...)
	lab.Stalled(t, stalled...)
	lab.Flowing(t, kept...)
	// Who is forgotten by both must be found again.
	for _, h := range []*lab.Host{s.host, s.mgmt} {
		h.Run("ip", "neigh", "flush", "all").Is(t, 0)
	}
	lab.Open(t, friends...)

	// It is in force already; to change who may talk has to be said.
	s.host.Mobileops(append([]string{"network", "isolate"}, allow(s.attacker)...)...).Is(t, 8)
	lab.Blocked(t, foes...)
	s.host.Mobileops(append([]string{"network", "isolate", "--replace"}, allow(s.attacker)...)...).Is(t, 0)
	lab.Stalled(t, kept...)
	lab.Blocked(t, friends...)
	lab.Open(t, foes...)

	s.restore(t)
	lab.Open(t, friends...)
	lab.Open(t, foes...)
	s.host.Mobileops("network", "restore").Is(t, 1)
}

func TestOfAPeerOneServiceCanBeAllowed(t *testing.T) {
	t.Parallel()
	s := stage(t)
	const service, other = 8443, 8444
	var open, shut []*lab.Probe
	for _, pair := range [][2]*lab.Host{{s.host, s.mgmt}, {s.mgmt, s.host}} {
		from, to := pair[0], pair[1]
		for _, a := range []netip.Addr{to.IPv4(), to.IPv6()} {
			open = append(open, from.TCP(to, a, service))
			shut = append(shut, from.UDP(to, a, service), from.TCP(to, a, other), from.Ping(a))
		}
	}
	shut = append(shut, s.host.TCP(s.attacker, s.attacker.IPv4(), service), s.attacker.TCP(s.host, s.host.IPv6(), service))
	lab.Open(t, open...)
	lab.Open(t, shut...)
	s.isolate(t, "--allow", s.mgmt.IPv4().String()+"/32:8443/tcp", "--allow", "["+s.mgmt.IPv6().String()+"/128]:8443/tcp")
	lab.Open(t, open...)
	lab.Blocked(t, shut...)
	s.restore(t)
	lab.Open(t, shut...)
}

func TestWhatIsEstablishedCanBeKept(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	kept := []*lab.Stream{
		s.host.Stream(s.attacker, s.attacker.IPv4(), 9001), s.host.Stream(s.attacker, s.attacker.IPv6(), 9002),
		s.attacker.Stream(s.host, s.host.IPv4(), 9003), s.attacker.Stream(s.host, s.host.IPv6(), 9004),
	}
	again := s.host.TCP(s.attacker, s.attacker.IPv4(), 9001)
	lab.Open(t, again)
	lab.Flowing(t, kept...)
	s.isolate(t, "--keep-established")
	lab.Blocked(t, append(foes, again)...)
	lab.Flowing(t, kept...)
	// It is exactly those connections: to the same service there is no other.
	kept[0].Client.Conn.Close()
	lab.Blocked(t, again)
	lab.Flowing(t, kept[1:]...)
	s.restore(t)
	lab.Open(t, foes...)
}

func TestAllowedNetworks(t *testing.T) {
	t.Parallel()
	s := stage(t)
	friends, foes := s.friends(), s.foes()
	var four, six []*lab.Probe
	for _, h := range []*lab.Host{s.mgmt, s.attacker} {
		four = append(four, s.host.TCP(h, h.IPv4(), 7), h.UDP(s.host, s.host.IPv4(), 7), h.Ping(s.host.IPv4()))
		six = append(six, s.host.TCP(h, h.IPv6(), 7), h.UDP(s.host, s.host.IPv6(), 7), h.Ping(s.host.IPv6()))
	}
	lab.Open(t, append(append(append(friends, foes...), four...), six...)...)
	mgmt := s.mgmt.IPv4().String()
	for _, tc := range []struct {
		name       string
		flags      []string
		open, shut []*lab.Probe
	}{
		{"overlapping", []string{"--allow", mgmt + "/32", "--allow", "10.9.1.0/30", "--allow", "10.9.1.2/31", "--allow", mgmt, "--allow", "10.8.0.0/15"}, four, six},
		{"neighbouring", []string{"--allow", "10.9.1.0/31", "--allow", "10.9.1.2/32", "--allow", "10.9.1.4/30"}, friends[:3], foes},
		{"the last address", []string{"--allow", "255.255.255.255/32", "--allow", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"}, nil, append(append([]*lab.Probe{}, four...), six...)},
		{"everything of IPv4", []string{"--allow", "0.0.0.0/0"}, four, six},
		{"everything of IPv6", []string{"--allow", "::/0"}, six, four},
		{"everything", []string{"--allow", "0.0.0.0/0", "--allow", "::/0", "--allow", mgmt + "/32"}, append(friends, foes...), nil},
	} {
		s.isolate(t, append(tc.flags, "--no-guard")...)
		lab.Open(t, tc.open...)
		lab.Blocked(t, tc.shut...)
		s.restore(t)
		if t.Failed() {
			t.Fatalf("with %s allowed: %v", tc.name, tc.flags)
		}
	}
	for _, wrong := range []string{"10.9.1.0/33", "10.9.1.2/32:99999/tcp", "10.9.1.2:22/sctpp", "mgmt", "", "10.9.1.2:", "[fd09::1", "10.9.1.2:9-8/tcp"} {
		if got := s.host.Mobileops("network", "isolate", "--allow", wrong); got.Status == 0 {
			t.Errorf("--allow %q is taken", wrong)
			s.restore(t)
		}
	}
	lab.Open(t, foes...)
}

func TestAPeerWithIPv6Alone(t *testing.T) {
	t.Parallel()
	s := stage(t)
	six, other := s.lan.Host("six", lab.IPv6Only), s.lan.Host("other", lab.IPv6Only)
	friends, foes := lab.Talk(s.host, six), append(lab.Talk(s.host, other), s.foes()...)
	lab.Open(t, friends...)
	lab.Open(t, foes...)
	s.isolate(t, allow(six)...)
	lab.Blocked(t, foes...)
	s.host.Run("ip", "neigh", "flush", "all").Is(t, 0)
	six.Run("ip", "neigh", "flush", "all").Is(t, 0)
	lab.Open(t, friends...)
	s.restore(t)
	lab.Open(t, foes...)
}
