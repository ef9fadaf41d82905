package isolation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// TestFramesFindNoWayAround sends what goes past the rules for packets: frames
// of packet sockets, and interfaces on top of the one that is sealed.
func TestFramesFindNoWayAround(t *testing.T) {
	t.Parallel()
	s := stage(t)
	nic, there := s.host.NIC(0), s.attacker.NIC(0)
	datagram := func(a, b netip.Addr, token []byte) []byte {
		return lab.Datagram(netip.AddrPortFrom(a, 53), netip.AddrPortFrom(b, 53), token)
	}
	four := func(token []byte) []byte {
		return lab.Ethernet(there.MAC, nic.MAC, unix.ETH_P_IP, datagram(nic.IPv4, there.IPv4, token))
	}
	six := func(token []byte) []byte {
		return lab.Ethernet(there.MAC, nic.MAC, unix.ETH_P_IPV6, datagram(nic.IPv6, there.IPv6, token))
	}
	tagged := func(build func([]byte) []byte) func([]byte) []byte {
		return func(token []byte) []byte { return lab.VLAN(5, build(token)) }
	}
	ethertype := func(protocol uint16) func([]byte) []byte {
		return func(token []byte) []byte {
			return lab.Ethernet(there.MAC, nic.MAC, protocol, append(token, make([]byte, 46)...))
		}
	}
	arp := lab.ARP(lab.ARPRequest, nic.MAC, nic.IPv4, make([]byte, 6), s.mgmt.IPv4())
	var probes []*lab.Probe
	for _, how := range []lab.Raw{{}, {Bypass: true}, {Protocol: unix.ETH_P_ARP}, {Bypass: true, Protocol: unix.ETH_P_ARP}, {Bypass: true, Protocol: unix.ETH_P_IPV6}} {
		name := fmt.Sprintf("%+v ", how)
		probes = append(probes,
			nic.Frames(name+"IPv4", there, how, four),
			nic.Frames(name+"IPv6", there, how, six),
			nic.Frames(name+"IPv4 with a tag", there, how, tagged(four)),
			nic.Frames(name+"IPv6 with two tags", there, how, tagged(tagged(six))),
			nic.Frames(name+"nothing known", there, how, ethertype(0x88b5)),
			nic.Frames(name+"IPv4 that is none", there, how, ethertype(unix.ETH_P_IP)),
			nic.Frames(name+"ARP with luggage", there, how, func(token []byte) []byte {
				return lab.Ethernet(lab.Broadcast, nic.MAC, unix.ETH_P_ARP, append(slices.Clone(arp), bytes.Repeat(token, 30)...))
			}),
			nic.Frames(name+"ARP that is none", there, how, ethertype(unix.ETH_P_ARP)),
			nic.Frames(name+"ARP with a tag", there, how, func(token []byte) []byte {
				return lab.VLAN(5, lab.Ethernet(lab.Broadcast, nic.MAC, unix.ETH_P_ARP, append(slices.Clone(arp), token...)))
			}),
			nic.Frames(name+"a solicitation with luggage", there, how, func(token []byte) []byte {
				return lab.Ethernet(there.MAC, nic.MAC, unix.ETH_P_IPV6, lab.Packet(nic.IPv6, there.IPv6, unix.IPPROTO_ICMPV6, 255,
					slices.Concat([]byte{lab.NeighborSolicitation, 0, 0, 0, 0, 0, 0, 0}, there.IPv6.AsSlice(), token)))
			}),
			nic.Frames(name+"broadcast", there, how, func(token []byte) []byte {
				return lab.Ethernet(lab.Broadcast, nic.MAC, unix.ETH_P_IP, datagram(nic.IPv4, netip.MustParseAddr("255.255.255.255"), token))
			}),
			nic.Frames(name+"multicast of IPv4", there, how, func(token []byte) []byte {
				return lab.Ethernet([]byte{1, 0, 0x5e, 0, 0, 0xfb}, nic.MAC, unix.ETH_P_IP, datagram(nic.IPv4, netip.MustParseAddr("224.0.0.251"), token))
			}),
			nic.Frames(name+"multicast of IPv6", there, how, func(token []byte) []byte {
				return lab.Ethernet([]byte{0x33, 0x33, 0, 0, 0, 1}, nic.MAC, unix.ETH_P_IPV6, datagram(nic.IPv6, netip.MustParseAddr("ff02::1"), token))
			}),
			nic.Frames(name+"to management, of a sender who is not this host", there, how, func(token []byte) []byte {
				return lab.Ethernet(there.MAC, nic.MAC, unix.ETH_P_IP, datagram(netip.MustParseAddr("10.9.1.66"), s.mgmt.IPv4(), token))
			}),
			nic.Frames(name+"an error about nothing", there, how, func(token []byte) []byte {
				return lab.Ethernet(there.MAC, nic.MAC, unix.ETH_P_IPV6, lab.Packet(nic.IPv6, there.IPv6, unix.IPPROTO_ICMPV6, 64,
					append([]byte{2, 0, 0, 0, 0, 0, 5, 0}, token...)))
			}),
		)
	}
	lab.Open(t, probes...)
	s.isolate(t)
	lab.Blocked(t, probes...)
	lab.Open(t, s.friends()...)
	s.restore(t)
	lab.Open(t, probes...)
}

func TestLinksOnTopOfASealedOne(t *testing.T) {
	t.Parallel()
	for i, kind := range []string{"macvlan mode bridge", "macvlan mode passthru", "ipvlan mode l2", "ipvlan mode l3"} {
		t.Run(kind, func(t *testing.T) {
			s := stage(t)
			child := s.host.NIC(0).Child("child", kind, fmt.Sprintf("10.9.1.%d/24", 100+i), fmt.Sprintf("fd09:0:0:1::%d/64", 100+i))
			// Not even with those who may talk with the host itself.
			probes := append(lab.Talk(child, s.attacker), lab.Talk(child, s.mgmt)...)
			lab.Open(t, probes...)
			s.isolate(t)
			lab.Blocked(t, probes...)
			s.restore(t)
			lab.Open(t, probes...)
		})
	}
}

// TestNeighboursWhoAreNotAllowedHearNothing is about ARP and neighbour discovery: no word of it is
// exchanged with who is not allowed.
func TestNeighboursWhoAreNotAllowedHearNothing(t *testing.T) {
	t.Parallel()
	s := stage(t)
	friends := s.friends()
	host, attacker, mgmt := s.host.NIC(0), s.attacker.NIC(0), s.mgmt.NIC(0)
	asks := func(from *lab.NIC) []*lab.Probe {
		sniffer := from.Sniff()
		return []*lab.Probe{
			{Name: "who has, from " + from.Host.Name, Try: func(ctx context.Context) error {
				request := lab.ARP(lab.ARPRequest, from.MAC, from.IPv4, make([]byte, 6), host.IPv4)
				return exchange(ctx, from, sniffer, lab.Ethernet(lab.Broadcast, from.MAC, unix.ETH_P_ARP, request), func(f []byte) bool {
					return f[12] == 8 && f[13] == 6 && f[21] == lab.ARPReply && bytes.Equal(f[28:32], host.IPv4.AsSlice())
				})
			}},
			{Name: "solicitation, from " + from.Host.Name, Try: func(ctx context.Context) error {
				request := lab.NeighborSolicit(from.IPv6, host.IPv6, host.IPv6, from.MAC, 255)
				return exchange(ctx, from, sniffer, lab.Ethernet(host.MAC, from.MAC, unix.ETH_P_IPV6, request), func(f []byte) bool {
					return len(f) >= 78 && f[12] == 0x86 && f[54] == lab.NeighborAdvertisement && bytes.Equal(f[62:78], host.IPv6.AsSlice())
				})
			}},
		}
	}
	sought := func(target *lab.NIC) []*lab.Probe {
		sniffer := target.Sniff()
		return []*lab.Probe{
			{Name: "the host asks by ARP for " + target.Host.Name, Try: func(ctx context.Context) error {
				return s.seek(ctx, target.IPv4, sniffer, func(f []byte) bool {
					return f[12] == 8 && f[13] == 6 && f[21] == lab.ARPRequest && bytes.Equal(f[38:42], target.IPv4.AsSlice())
				})
			}},
			{Name: "the host solicits " + target.Host.Name, Try: func(ctx context.Context) error {
				return s.seek(ctx, target.IPv6, sniffer, func(f []byte) bool {
					return len(f) >= 78 && f[12] == 0x86 && f[54] == lab.NeighborSolicitation && bytes.Equal(f[62:78], target.IPv6.AsSlice())
				})
			}},
		}
	}
	foes := append(asks(attacker), sought(attacker)...)
	trusted := append(asks(mgmt), sought(mgmt)...)
	lab.Open(t, foes...)
	lab.Open(t, trusted...)

	s.isolate(t)
	lab.Blocked(t, foes...)
	lab.Open(t, trusted...)
	lab.Open(t, friends...)
	s.restore(t)
	lab.Open(t, foes...)
}

// exchange sends a frame and waits for an answer.
func exchange(ctx context.Context, from *lab.NIC, sniffer *lab.Sniffer, frame []byte, answer func([]byte) bool) error {
	sniffer.Forget()
	if err := from.Send(frame, lab.Raw{}); err != nil {
		return err
	}
	return sniffer.Wait(ctx, answer)
}

// seek has the host look for a neighbour that it knows nothing of.
func (s *scene) seek(ctx context.Context, target netip.Addr, sniffer *lab.Sniffer, question func([]byte) bool) error {
	s.host.Run("ip", "neigh", "flush", "to", target.String())
	sniffer.Forget()
	conn, err := s.host.Dial(ctx, "udp", netip.AddrPortFrom(target, 9).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("anybody?")); err != nil && !errors.Is(err, unix.EPERM) {
		return err
	}
	return sniffer.Wait(ctx, question)
}

// TestRoutersAreBelievedWhoWereBefore has a router advertise prefixes that the
// host uses as its default gateway, and another that nobody has chosen.
func TestRoutersAreBelievedWhoWereBefore(t *testing.T) {
	t.Parallel()
	s := stage(t)
	var last atomic.Uint32
	// Each advertisement offers a prefix that nobody has heard of.
	believed := func(router *lab.Host, seconds uint16) *lab.Probe {
		nic := router.NIC(0)
		return &lab.Probe{Name: "the host believes " + router.Name, Try: func(ctx context.Context) error {
			n := last.Add(1)
			prefix := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0x10, 0, byte(n >> 8), byte(n)})
			advert := lab.RouterAdvert(lab.LinkLocal(nic.MAC), nic.MAC, prefix, seconds)
			if err := nic.Send(lab.Ethernet([]byte{0x33, 0x33, 0, 0, 0, 1}, nic.MAC, unix.ETH_P_IPV6, advert), lab.Raw{}); err != nil {
				return err
			}
			for ctx.Err() == nil {
				if strings.Contains(s.host.Run("ip", "-6", "route").Stdout, prefix.String()+"/64") {
					return nil
				}
			}
			return errors.New("the host has no route to what was advertised")
		}}
	}
	router, rogue := believed(s.lan.Host("router"), 1800), believed(s.attacker, 0)
	lab.Open(t, router, rogue)
	s.isolate(t)
	lab.Blocked(t, rogue)
	lab.Open(t, router)
	lab.Open(t, s.friends()...)
	s.restore(t)
	lab.Open(t, rogue)
}

// TestAChildWithTheAddressOfTheHost is about a container that takes the address
// of its host, which may talk with management: no answer reaches it.
func TestAChildWithTheAddressOfTheHost(t *testing.T) {
	t.Parallel()
	s := stage(t)
	thief := s.host.NIC(0).Child("thief", "macvlan mode bridge", s.host.IPv4().String()+"/24")
	// Management has been told that the address is the child's.
	s.mgmt.Run("ip", "neigh", "replace", s.host.IPv4().String(), "lladdr", thief.NIC(0).MAC.String(), "dev", "eth0", "nud", "permanent").Is(t, 0)
	probe := thief.Ping(s.mgmt.IPv4())
	lab.Open(t, probe)
	s.isolate(t)
	lab.Blocked(t, probe)
	s.restore(t)
	lab.Open(t, probe)
}
