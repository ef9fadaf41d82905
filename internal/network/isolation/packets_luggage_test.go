package isolation_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// TestWhatStaysPossibleCarriesNoLuggage sends what neighbours and routers are
// found by with more behind the end of the packet, which its header says nothing
// of, and to those whom only a router reaches. A switch may cut what is behind
// the end, so a cable it is.
func TestWhatStaysPossibleCarriesNoLuggage(t *testing.T) {
	t.Parallel()
	s := stage(t)
	station := s.host.Guest("station", "wire", "10.8.1.2/24", "fd08::2/64").NIC(0)
	wire := &lab.NIC{Host: s.host, Name: "wire", MAC: net.HardwareAddr{2, 0, 0, 0, 7, 7}, IPv6: netip.MustParseAddr("fe80::7:7")}
	s.host.IP("link set wire address "+wire.MAC.String(), "addr add fe80::7:7/64 dev wire nodad", "route add 2001:db8:77::/48 via fe80::99 dev wire proto ra")
	ping := func(to string, limit, typ byte, body ...byte) []byte {
		packet := lab.Packet(wire.IPv6, netip.MustParseAddr(to), unix.IPPROTO_ICMPV6, limit, slices.Concat([]byte{typ, 0, 0, 0, 0, 0, 0, 0}, body))
		return lab.Ethernet(station.MAC, wire.MAC, unix.ETH_P_IPV6, packet)
	}
	with := func(frame []byte) func([]byte) []byte {
		return func(token []byte) []byte { return slices.Concat(frame, token, make([]byte, 64)) }
	}
	const listenerReport2 = 143
	probes := []*lab.Probe{
		wire.Frames("a solicitation", station, lab.Raw{}, with(ping(station.IPv6.String(), 255, lab.NeighborSolicitation, station.IPv6.AsSlice()...))),
		wire.Frames("an advertisement", station, lab.Raw{}, with(ping("fe80::99", 255, lab.NeighborAdvertisement, wire.IPv6.AsSlice()...))),
		wire.Frames("an advertisement without length", station, lab.Raw{}, func(token []byte) []byte {
			frame := slices.Concat(ping("fe80::99", 255, lab.NeighborAdvertisement, wire.IPv6.AsSlice()...), token, make([]byte, 64))
			frame[18], frame[19] = 0, 0
			return frame
		}),
		wire.Frames("a router solicitation", station, lab.Raw{}, with(ping("ff02::2", 255, lab.RouterSolicitation))),
		wire.Frames("a listener report", station, lab.Raw{}, func(token []byte) []byte {
			return append(ping("ff02::16", 1, listenerReport2, make([]byte, 180)...), token...)
		}),
	}
	sniffer := station.Sniff()
	var last atomic.Uint32
	probes = append(probes, &lab.Probe{Name: "a router solicitation to far away", Try: func(ctx context.Context) error {
		to := netip.MustParseAddr(fmt.Sprintf("2001:db8:77::%x", last.Add(1)))
		if err := wire.Send(ping(to.String(), 255, lab.RouterSolicitation, 's', 'e', 'c', 'r', 'e', 't', 's', '!'), lab.Raw{}); err != nil {
			return err
		}
		return sniffer.Wait(ctx, func(f []byte) bool { return len(f) > 54 && bytes.Equal(f[38:54], to.AsSlice()) })
	}})
	lab.Open(t, probes...)
	s.isolate(t, "--allow", station.IPv6.String()+"/128")
	// To whom everything is allowed, luggage is, too.
	lab.Open(t, probes[0])
	lab.Blocked(t, probes[1:]...)
	s.restore(t)
	lab.Open(t, probes...)
}
