package segment

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

// machineOn makes a host whose eth0 is the other side of a tap of h, with frames
// carried between both as a hypervisor does.
func machineOn(t *testing.T, l *lab.Lab, h *lab.Host, tap, mac string) *lab.Host {
	t.Helper()
	vm := l.Host(tap)
	var inside, outside *os.File
	err := h.Do(func() (err error) { outside, err = tapFile(tap); return err })
	if err == nil {
		err = vm.Do(func() (err error) { inside, err = tapFile("eth0"); return err })
	}
	if err != nil {
		t.Fatal(err)
	}
	vm.IP("link set eth0 address "+mac, "link set eth0 up")
	vm.Private("/etc/resolv.conf")
	vm.Empty("/run")
	var pumps sync.WaitGroup
	for _, way := range [][2]*os.File{{inside, outside}, {outside, inside}} {
		pumps.Go(func() {
			frame := make([]byte, 1<<16)
			for {
				n, err := way[0].Read(frame)
				if err != nil {
					return
				}
				way[1].Write(frame[:n]) // a frame that does not fit is lost, as anywhere
			}
		})
	}
	t.Cleanup(func() {
		inside.Close()
		outside.Close()
		pumps.Wait()
	})
	return vm
}

// tapFile opens a tap so that closing it ends what reads.
func tapFile(name string) (*os.File, error) {
	fd, err := openTap(name, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// TestMachinesOnTapsReachTheInternetAndNothingElse: two virtual machines on the
// taps of setup-vm get addresses of both families from "network serve", and packets
// of theirs pass as the preset says, and from nowhere else.
func TestMachinesOnTapsReachTheInternetAndNothingElse(t *testing.T) {
	if _, err := exec.LookPath("dhclient"); err != nil {
		t.Skip("NOT RUN: dhclient is not installed (see .ci/test-tools)")
	}
	l := lab.New(t)
	lan := l.Switch()
	h := lan.Host("host")
	out := newOutside(lan, h)
	before := everythingOf(t, h)

	// First everything is allowed, so that what is denied later proves something.
	setup := []string{"network", "setup-vm", "--tap", "a=52:54:00:00:00:0a", "--tap", "b=52:54:00:00:00:0b", "--print"}
	preset := h.Mobileops(setup...).Is(t, 0).Stdout
	document := func(name, text string) string {
		file := filepath.Join(h.Dir(), name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	h.Mobileops("network", "apply", document("open.yaml", preset+`
flows:
  - {from: zone=vm, to: zone=vm}
  - {from: zone=vm, to: host}
  - {from: host, to: zone=vm}
  - {from: zone=vm, to: 10.9.0.0/16}
  - {from: zone=vm, to: "fd09::/16"}
`)).Is(t, 0)
	serve := h.Command(context.Background(), lab.Binary(t), "network", "serve")
	serve.Stderr = os.Stderr
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { serve.Process.Kill(); serve.Wait() })

	a, b := machineOn(t, l, h, "mo-p-a", "52:54:00:00:00:0a"), machineOn(t, l, h, "mo-p-b", "52:54:00:00:00:0b")
	a4, a6 := addressed(t, a)
	b4, b6 := addressed(t, b)
	addr := netip.MustParseAddr
	gateway4, gateway6 := addr("10.202.0.1"), addr("fd6d:6f62:696c:2::1")
	pingsGateway := a.Ping(gateway4)
	internet := []*lab.Probe{
		a.TCP(out.Host, out.public4, 443), a.TCP(out.Host, out.public6, 443), b.TCP(out.Host, out.public4, 443), b.Ping(out.public6),
		pingsGateway, b.Ping(gateway6),
	}
	rest := []*lab.Probe{
		a.TCP(b, b4, 22), b.TCP(a, a6, 22), a.Ping(b6), b.UDP(a, a4, 5353),
		a.TCP(h, gateway4, 22), b.TCP(h, gateway6, 22), a.TCP(h, h.IPv4(), 22), a.TCP(h, h.IPv6(), 22),
		a.TCP(out.Host, out.IPv4(), 443), b.TCP(out.Host, out.IPv6(), 443),
		h.TCP(a, a4, 22), h.TCP(b, b6, 22),
	}
	lab.Open(t, append(rest, internet...)...)
	h.Mobileops("network", "apply", document("closed.yaml", preset)).Is(t, 0)
	lab.Open(t, internet...)
	lab.Blocked(t, rest...)

	// A machine that says it is another one, or the gateway, gets nowhere.
	a.IP("link set eth0 address 52:54:00:00:00:0b")
	lab.Blocked(t, internet[0], internet[1], pingsGateway)
	a.IP("link set eth0 address 52:54:00:00:00:0a")
	lab.Open(t, internet[0], pingsGateway, internet[2])
	a.IP("addr flush dev eth0 scope global", "addr add "+gateway4.String()+"/32 dev eth0", "route add default dev eth0")
	lab.Blocked(t, internet[0])
	lab.Open(t, internet[2])

	serve.Process.Signal(unix.SIGTERM)
	serve.Wait()
	h.Mobileops("network", "reset").Is(t, 0)
	same(t, "host", before, everythingOf(t, h))
}

// addressed waits until a host has an address of each family: by dhclient, and by
// the advertisements of its router.
func addressed(t *testing.T, h *lab.Host) (four, six netip.Addr) {
	t.Helper()
	pid := filepath.Join(h.Dir(), "pid")
	t.Cleanup(func() { h.Run("dhclient", "-x", "-pf", pid, "eth0") })
	client := h.Run("dhclient", "-4", "-1", "-lf", filepath.Join(h.Dir(), "leases"), "-pf", pid, "eth0")
	for deadline := time.Now().Add(2 * time.Minute); !four.IsValid() || !six.IsValid(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s has the addresses %s and %s: %s%s", h.Name, four, six, client.Stderr, sh(t, h, "ip addr"))
		}
		// An address that is still being looked for on the link is not yet one.
		settled := !strings.Contains(sh(t, h, "ip -6 addr show dev eth0"), "tentative")
		if err := h.Do(func() error {
			list, err := net.InterfaceAddrs()
			for _, each := range list {
				prefix, err := netip.ParsePrefix(each.String())
				switch a := prefix.Addr(); {
				case err != nil || a.IsLoopback() || a.IsLinkLocalUnicast():
				case a.Is4():
					four = a
				case settled:
					six = a
				}
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return four, six
}
