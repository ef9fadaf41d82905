package policy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
	"github.com/mobileops/mobileops/internal/network/segment"
)

// arrange reads a document and makes its layout.
func arrange(t testing.TB, document string) *segment.Layout {
	t.Helper()
	doc, err := segment.Parse("trial.yaml", []byte("version: 1\n"+document))
	if err != nil {
		t.Fatal(err)
	}
	l, err := segment.Arrange([]*segment.Document{doc}, segment.Given{Seed: []byte("trial")})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// site is a host with zones, and the workloads of them.
type site struct {
	t        testing.TB
	lab      *lab.Lab
	wan      *lab.Switch
	host     *lab.Host
	outside  *lab.Host // on a switch with the host, which is its router
	machines map[string]*lab.Host
	layout   *segment.Layout
}

// build makes links and namespaces as a layout says, without rules.
func build(t testing.TB, l *segment.Layout) *site {
	t.Helper()
	net := lab.New(t)
	wan := net.Switch()
	s := &site{t, net, wan, net.Router("host", wan), wan.Host("outside"), map[string]*lab.Host{}, l}
	s.outside.Via(s.host)
	s.links()
	return s
}

// second makes another host, of another layout, on the same switch.
func (s *site) second(l *segment.Layout) *site {
	s.t.Helper()
	other := &site{s.t, s.lab, s.wan, s.lab.Router("second", s.wan), s.outside, map[string]*lab.Host{}, l}
	other.links()
	return other
}

// links makes bridges and workloads.
func (s *site) links() {
	s.t.Helper()
	l := s.layout
	for i := range l.Zones {
		z := &l.Zones[i]
		s.host.IP("link add "+z.Bridge+" address "+z.MAC.String()+" type bridge mcast_snooping 0", "link set "+z.Bridge+" up")
		for _, n := range z.Subnets {
			if n.Gateway.IsValid() {
				nodad := ""
				if n.Gateway.Is6() {
					nodad = " nodad"
				}
				s.host.IP(fmt.Sprintf("addr add %s/%d dev %s%s", n.Gateway, n.Prefix.Bits(), z.Bridge, nodad))
			}
		}
	}
	for i := range l.Ports {
		s.attach(&l.Ports[i])
	}
}

// attach makes a workload.
func (s *site) attach(p *segment.Port) {
	s.t.Helper()
	z := s.layout.Zone(p.Zone)
	var addrs []string
	for _, n := range z.Subnets {
		for _, a := range p.Addr {
			if n.Prefix.Contains(a) {
				addrs = append(addrs, fmt.Sprintf("%s/%d", a, n.Prefix.Bits()))
			}
		}
	}
	m := s.host.Guest(p.Name, p.Device)
	if !p.MAC.IsZero() {
		m.IP("link set eth0 address " + p.MAC.String())
		m.NIC(0).MAC = net.HardwareAddr(p.MAC[:])
	}
	for _, a := range addrs {
		if prefix := netip.MustParsePrefix(a); prefix.Addr().Is4() {
			m.NIC(0).IPv4 = prefix.Addr()
			m.IP("addr add " + a + " broadcast + dev eth0")
		} else {
			m.NIC(0).IPv6 = prefix.Addr()
			m.IP("addr add " + a + " dev eth0 nodad")
		}
	}
	isolated := ""
	if z.IsolatePorts {
		isolated = " isolated on"
	}
	s.host.IP("link set "+p.Device+" master "+p.Bridge, "link set "+p.Device+" type bridge_slave learning on"+isolated)
	for _, n := range z.Subnets {
		if n.Gateway.IsValid() && slices.ContainsFunc(p.Addr, func(a netip.Addr) bool { return n.Prefix.Contains(a) }) {
			m.IP("route add default via " + n.Gateway.String() + " dev eth0")
		}
	}
	s.machines[p.Name] = m
}

// apply puts the rules of a layout into force.
func (s *site) apply(l *segment.Layout) {
	s.t.Helper()
	s.layout = l
	if err := s.host.Do(func() error { return Firewall{}.Apply(context.Background(), l) }); err != nil {
		s.t.Fatal(err)
	}
}

// nft runs nft in the host.
func (s *site) nft(args ...string) string {
	s.t.Helper()
	return s.host.Run("nft", args...).Is(s.t, 0).Stdout
}

// counted is what rules of a comment have counted, in packets.
func (s *site) counted(comment string) (n uint64) {
	s.t.Helper()
	if err := s.host.Do(func() error {
		have, err := readCounters()
		for key, list := range have {
			if strings.HasSuffix(key, comment) {
				for _, c := range list {
					n += c.Packets
				}
			}
		}
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	return n
}

func needs(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: %s is not installed (make test does it)", tool)
		}
	}
}

// setSwitch sets a switch of the kernel below /proc/sys.
func setSwitch(name, value string) error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) }

// contains reports whether one line of a text has both words.
func contains(text, a, b string) bool {
	for line := range strings.Lines(text) {
		if strings.Contains(line, a+" ") && strings.Contains(line, b) {
			return true
		}
	}
	return false
}
