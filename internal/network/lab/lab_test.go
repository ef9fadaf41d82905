package lab_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

func TestHostsTalkUntilTheyCannot(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	lan := l.Switch()
	a, b := lan.Host("a"), lan.Host("b")
	talk := lab.Talk(a, b)
	if len(talk) != 12 {
		t.Fatalf("%d probes", len(talk))
	}
	stream := a.Stream(b, b.IPv4(), 9000)
	lab.Open(t, talk...)
	lab.Flowing(t, stream)
	if b.Run("nft", "add table inet t; add chain inet t in { type filter hook input priority 0; policy drop; }").Status != 0 {
		t.Skip("NOT RUN: whether blocked ways are told from open ones: nft is not installed or the kernel has no nf_tables")
	}
	lab.Blocked(t, talk...)
	lab.Stalled(t, stream)
	b.Run("nft", "flush ruleset").Is(t, 0)
	lab.Open(t, talk...)
	lab.Flowing(t, stream)
	lab.Flowing(t, a.Stream(b, b.IPv6(), 9001))
	b.Run("ss", "-K", "dport", "!=", "9001", "sport", "=", "9000").Is(t, 0)
	stream.Server.Dies(t)
	// Who writes or who reads is told why, and not always before the other.
	for end := time.Now().Add(time.Minute); !errors.Is(stream.Server.Err(), unix.ECONNABORTED); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("a destroyed connection: %v", stream.Server.Err())
		}
	}
	lab.Stalled(t, stream)
}

func TestSomeHaveOneFamilyAlone(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	lan := l.Switch()
	a, four, six := lan.Host("a"), lan.Host("four", lab.IPv4Only), lan.Host("six", lab.IPv6Only)
	for _, h := range []*lab.Host{four, six} {
		talk := lab.Talk(a, h)
		if len(talk) != 6 {
			t.Errorf("%d probes with %s", len(talk), h.Name)
		}
		lab.Open(t, talk...)
	}
	if out := four.Run("ip", "-6", "addr", "show", "dev", "eth0").Is(t, 0).Stdout; out != "" {
		t.Errorf("IPv6 addresses: %s", out)
	}
}

func TestRouters(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	near, far := l.Switch(), l.Switch()
	router := l.Router("router", near, far)
	a, b := near.Host("a"), far.Host("b")
	a.Via(router)
	b.Via(router)
	lab.Open(t, lab.Talk(a, b)...)
}

func TestRawFrames(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	lan := l.Switch()
	a, b := lan.Host("a"), lan.Host("b")
	nic, peer := a.NIC(0), b.NIC(0)
	from, to := netip.AddrPortFrom(a.IPv4(), 1), netip.AddrPortFrom(b.IPv4(), 2)
	child := nic.Child("child", "macvlan mode bridge", "10.9.1.77/24", "fd09:0:0:1::77/64")
	probes := append(lab.Talk(child, b),
		nic.Frames("plain", peer, lab.Raw{}, func(token []byte) []byte {
			return lab.Ethernet(peer.MAC, nic.MAC, unix.ETH_P_IP, lab.Datagram(from, to, token))
		}),
		nic.Frames("tagged, past the queue", peer, lab.Raw{Bypass: true}, func(token []byte) []byte {
			return lab.VLAN(5, lab.Ethernet(peer.MAC, nic.MAC, unix.ETH_P_IP, lab.Datagram(from, to, token)))
		}),
		nic.Frames("said to be ARP", peer, lab.Raw{Protocol: unix.ETH_P_ARP}, func(token []byte) []byte {
			return lab.Ethernet(lab.Broadcast, nic.MAC, unix.ETH_P_IP, lab.Datagram(from, to, token))
		}))
	lab.Open(t, probes...)

	// The packets are such that their receiver takes them.
	c := b.ListenPacket("udp", ":4000")
	for _, pair := range [][2]netip.Addr{{a.IPv4(), b.IPv4()}, {a.IPv6(), b.IPv6()}} {
		protocol := uint16(unix.ETH_P_IP)
		if pair[0].Is6() {
			protocol = unix.ETH_P_IPV6
		}
		frame := lab.Ethernet(peer.MAC, nic.MAC, protocol, lab.Datagram(netip.AddrPortFrom(pair[0], 1), netip.AddrPortFrom(pair[1], 4000), []byte("hello")))
		if err := nic.Send(frame, lab.Raw{}); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(time.Minute))
		got := make([]byte, 100)
		n, _, err := c.ReadFrom(got)
		if err != nil || string(got[:n]) != "hello" {
			t.Errorf("%v: %q, %v", pair, got[:n], err)
		}
	}
	sniffer := nic.Sniff()
	for _, ask := range [][]byte{
		lab.Ethernet(lab.Broadcast, nic.MAC, unix.ETH_P_ARP, lab.ARP(lab.ARPRequest, nic.MAC, a.IPv4(), make([]byte, 6), b.IPv4())),
		lab.Ethernet(peer.MAC, nic.MAC, unix.ETH_P_IPV6, lab.NeighborSolicit(lab.LinkLocal(nic.MAC), b.IPv6(), b.IPv6(), nic.MAC, 255)),
	} {
		if err := nic.Send(ask, lab.Raw{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := sniffer.Wait(ctx, func(f []byte) bool {
			arp := f[12] == 8 && f[13] == 6 && f[21] == lab.ARPReply
			return ask[12] == 8 && arp || ask[12] != 8 && len(f) > 54 && f[54] == lab.NeighborAdvertisement
		})
		if err != nil {
			t.Errorf("nobody answers to % x: %v", ask, err)
		}
		sniffer.Forget()
	}
	advert := lab.Ethernet([]byte{0x33, 0x33, 0, 0, 0, 1}, nic.MAC, unix.ETH_P_IPV6, lab.RouterAdvert(lab.LinkLocal(nic.MAC), nic.MAC, netip.MustParseAddr("2001:db8::"), 1800))
	if err := nic.Send(advert, lab.Raw{}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(b.Run("ip", "-6", "addr").Stdout, "2001:db8:"); {
		if time.Now().After(end) {
			t.Fatal("the router advertisement gave no address")
		}
	}
}

func TestCommandsAreInTheirHost(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Switch().Host("h")
	copied := h.Private("/etc/hostname")
	if err := os.WriteFile(copied, []byte("another\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.Empty("/mnt")
	h.Setenv("WORD", "said")
	r := h.Run("sh", "-c", `ls /sys/class/net; cat /etc/hostname; touch /mnt/here; ls /mnt; ls /sys/fs/cgroup | grep -v mobileops >cgroups; echo $WORD; echo told >&2; exit 3`).Is(t, 3)
	if want := "eth0\nlo\nanother\nhere\nsaid\n"; r.Stdout != want || r.Stderr != "told\n" {
		t.Errorf("%q and %q, want %q", r.Stdout, r.Stderr, want)
	}
	// Without those of other tests, which come and go.
	outside, err := exec.Command("sh", "-c", "ls /sys/fs/cgroup | grep -v mobileops").Output()
	if err != nil {
		t.Fatal(err)
	}
	if inside, err := os.ReadFile(filepath.Join(h.Dir(), "cgroups")); err != nil || string(inside) != string(outside) {
		t.Errorf("control groups: %q, %v; outside %q", inside, err, outside)
	}
	if _, err := os.Stat("/mnt/here"); err == nil {
		t.Error("it was written outside")
	}
	if _, err := os.Stat(filepath.Join(h.Dir(), "state")); err != nil {
		t.Error(err)
	}
}

func TestWhatRunsInALabEndsWithIt(t *testing.T) {
	t.Parallel()
	var pid int
	ended := make(chan struct{})
	t.Run("lab", func(t *testing.T) {
		h := lab.New(t).Switch().Host("h")
		cmd := h.Command(context.Background(), "sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid = cmd.Process.Pid
		go func() {
			cmd.Wait()
			close(ended)
		}()
		for {
			name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
			if err != nil {
				t.Fatal(err)
			}
			if string(name) == "sleep\n" {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if got := h.Processes(); len(got) != 1 || got[0] != pid {
			t.Errorf("processes %v run, want %d", got, pid)
		}
	})
	select {
	case <-ended: // it has its number and its name until somebody has waited for it
	case <-time.After(time.Minute):
		t.Errorf("process %d still runs", pid)
	}
}
