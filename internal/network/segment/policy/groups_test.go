package policy

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// TestFramesToGroupsOfBridgesReachNobody sends packets in frames that a bridge
// does not take for its own, but hands to the host as those of the port.
func TestFramesToGroupsOfBridgesReachNobody(t *testing.T) {
	t.Parallel()
	l := arrange(t, office+"  - {from: host, to: zone=test, port: 22/tcp}\n")
	s := build(t, l)
	eve := s.machines["eve"].NIC(0)
	var conn net.PacketConn
	if err := s.host.Do(func() (err error) {
		conn, err = net.ListenPacket("udp4", "0.0.0.0:9999")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send := func(to net.HardwareAddr, from netip.Addr, text string) {
		t.Helper()
		packet := lab.Datagram(netip.AddrPortFrom(from, 7), netip.AddrPortFrom(s.host.IPv4(), 9999), []byte(text))
		if err := eve.Send(lab.Ethernet(to, eve.MAC, unix.ETH_P_IP, packet), lab.Raw{}); err != nil {
			t.Fatal(err)
		}
	}
	groups := []byte{0, 2, 3, 0xe, 0xf}
	arrive := func() (n int) {
		t.Helper()
		for _, last := range groups {
			group := net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, last}
			send(group, eve.IPv4, "own")
			send(group, s.machines["web"].IPv4(), "forged")
		}
		b := make([]byte, 100)
		conn.SetReadDeadline(time.Now().Add(time.Second)) // a veth gives a frame on at once
		for {
			k, _, err := conn.ReadFrom(b)
			if err != nil {
				return n
			}
			if bytes.Equal(b[:k], []byte("own")) || bytes.Equal(b[:k], []byte("forged")) {
				n++
			}
		}
	}
	if n := arrive(); n == 0 {
		t.Fatal("without rules none arrives: this shows nothing")
	}
	s.apply(l)
	before := s.counted("frames for switches")
	if n := arrive(); n != 0 {
		t.Errorf("%d packets arrive", n)
	}
	if s.counted("frames for switches") == before {
		t.Error("nothing was counted")
	}
}
