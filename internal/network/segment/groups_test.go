package segment

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// TestABridgeLearnsNothingFromFramesToItsGroups sends a frame to the group of
// LLDP in the name of another workload. No rule sees it, so by what a bridge
// learns of it the next frames for the other one would come to the sender.
func TestABridgeLearnsNothingFromFramesToItsGroups(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"", ", stp: true"} {
		n := lab.New(t)
		m := newMachine(t, n.Host("host"))
		web, eve := n.Host("web"), n.Host("eve")
		m.apply(parse(t, "lab", workloads(`dev: {subnets: [10.60.0.0/24]`+options+`}`, web, eve)))
		mac := strings.TrimSpace(sh(t, web, "cat /sys/class/net/eth0/address"))
		victim, err := net.ParseMAC(mac)
		if err != nil {
			t.Fatal(err)
		}
		m.sh("ip link set mo-dev type bridge forward_delay 200") // of spanning tree: two seconds
		for _, h := range []*lab.Host{web, eve} {
			for end := time.Now().Add(time.Minute); !strings.Contains(m.sh("bridge link show dev mo-p-"+h.Name), "state forwarding"); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the port of %s does not forward", h.Name)
				}
			}
			ping(t, h, "10.60.0.1")
		}
		packet := lab.Datagram(netip.MustParseAddrPort("10.60.0.3:7"), netip.MustParseAddrPort("10.60.0.1:9"), []byte("learn"))
		for last := range byte(16) {
			if last == 0 && options == "" {
				continue // without spanning tree that group is like any other: rules see its frames
			}
			frame := lab.Ethernet(net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, last}, victim, unix.ETH_P_IP, packet)
			if err := eve.Do(func() error { return sendFrame("eth0", frame) }); err != nil {
				t.Fatal(err)
			}
		}
		ping(t, eve, "10.60.0.1") // the frames before have been looked at by now
		for line := range strings.Lines(m.sh("bridge fdb show br mo-dev")) {
			if strings.HasPrefix(line, mac) && !strings.Contains(line, "dev mo-p-web ") {
				t.Errorf("%q: the bridge believes that web is elsewhere: %s", options, line)
			}
		}
	}
}

// sendFrame sends a frame from an interface of this thread's namespace.
func sendFrame(device string, frame []byte) error {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index})
}
