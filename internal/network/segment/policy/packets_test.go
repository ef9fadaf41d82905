package policy

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
	"golang.org/x/sys/unix"
)

const office = `
zones:
  dev:
    subnets: [10.60.0.0/24, "fd00:60::/64"]
  test:
    subnets: [10.61.0.0/24, "fd00:61::/64"]
workloads:
  web: {zone: dev, namespace: web, labels: {app: web}}
  db: {zone: dev, namespace: db, labels: {app: db}}
  eve: {zone: dev, namespace: eve}
  job: {zone: test, namespace: job}
flows:
`

// pass are probes of one host to another by all that TCP, UDP and echo have.
func pass(from, to *lab.Host, port uint16) (list []*lab.Probe) {
	for _, a := range []netip.Addr{to.IPv4(), to.IPv6()} {
		if a.IsValid() {
			list = append(list, from.TCP(to, a, port), from.UDP(to, a, port))
		}
	}
	return list
}

func pings(from, to *lab.Host) []*lab.Probe {
	return []*lab.Probe{from.Ping(to.IPv4()), from.Ping(to.IPv6())}
}

func TestNothingPassesWithoutAFlow(t *testing.T) {
	t.Parallel()
	l := arrange(t, office+"  - {from: host, to: zone=test, port: 22/tcp}\n")
	s := build(t, l)
	web, db, job := s.machines["web"], s.machines["db"], s.machines["job"]
	var all []*lab.Probe
	for _, pair := range [][2]*lab.Host{{web, db}, {web, job}} {
		all = append(all, lab.Talk(pair[0], pair[1])...)
	}
	gateway4, gateway6 := l.Zones[0].Subnets[0].Gateway, l.Zones[0].Subnets[1].Gateway
	host := []*lab.Probe{
		web.TCP(s.host, gateway4, 22), web.UDP(s.host, gateway6, 111), web.TCP(s.host, l.Zones[1].Subnets[0].Gateway, 22), web.TCP(s.host, s.host.IPv4(), 22), web.TCP(s.host, s.host.IPv6(), 22),
		s.host.TCP(web, web.IPv4(), 22), s.host.Ping(web.IPv6()),
		web.Ping(s.outside.IPv4()), web.TCP(s.outside, s.outside.IPv6(), 80), s.outside.TCP(web, web.IPv4(), 80), s.outside.Ping(web.IPv6()),
	}
	lab.Open(t, all...)
	lab.Open(t, host...)
	s.apply(l)
	lab.Blocked(t, all...)
	lab.Blocked(t, host...)
	// Echo of the gateway is a service, and a flow is a flow.
	lab.Open(t, web.Ping(gateway4), web.Ping(gateway6), s.host.TCP(job, job.IPv4(), 22), s.host.TCP(job, job.IPv6(), 22))
	// Who is not known yet is not even found.
	for _, p := range pass(s.machines["eve"], db, 80) {
		if p.Passes() {
			t.Errorf("%s passes", p.Name)
		}
	}
	for _, comment := range []string{"deny within dev", "deny dev>dev", "deny dev>test", "deny test>dev", "deny dev>host", "deny host>dev", "deny dev>outside", "deny outside>dev"} {
		if s.counted(comment) == 0 {
			t.Errorf("%s has counted nothing", comment)
		}
	}
}

func TestFlowsGoOneWay(t *testing.T) {
	t.Parallel()
	l := arrange(t, office+`
  - {from: app=web, to: app=db, port: [5432/tcp, 53/udp]}
  - {from: zone=test, to: app=db, port: icmp}
`)
	for _, filter := range []string{"0", "1"} {
		t.Run("br_netfilter "+filter, func(t *testing.T) {
			s := build(t, l)
			for _, name := range []string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"} {
				if err := s.host.Do(func() error { return setSwitch(name, filter) }); err != nil {
					if filter == "1" {
						t.Skipf("NOT RUN: bridges do not filter here: %v", err)
					}
				}
			}
			web, db, eve, job := s.machines["web"], s.machines["db"], s.machines["eve"], s.machines["job"]
			allowed := []*lab.Probe{web.TCP(db, db.IPv4(), 5432), web.TCP(db, db.IPv6(), 5432), web.UDP(db, db.IPv4(), 53), web.UDP(db, db.IPv6(), 53)}
			allowed = append(allowed, pings(job, db)...)
			denied := slices.Concat(pass(db, web, 5432), pass(eve, db, 5432), pass(web, db, 80), pings(web, db), pings(db, job), pass(job, db, 5432), pass(web, eve, 5432))
			denied = append(denied, web.UDP(db, db.IPv4(), 5432), web.TCP(db, db.IPv6(), 53))
			lab.Open(t, slices.Concat(allowed, denied)...)
			s.apply(l)
			lab.Open(t, allowed...)
			lab.Blocked(t, denied...)
			if n := s.counted("app=web -> app=db 5432/tcp"); n == 0 {
				t.Error("the flow has counted nothing")
			}
			// What counted goes on counting.
			before := s.counted("app=web -> app=db 53/udp")
			s.apply(l)
			if n := s.counted("app=web -> app=db 53/udp"); n < before || n == 0 {
				t.Errorf("counted %d packets, and %d after the rules were loaded again", before, n)
			}
		})
	}
}

func TestHairpinByTheGatewayIsDenied(t *testing.T) {
	t.Parallel()
	l := arrange(t, office+"  - {from: app=web, to: app=db, port: 5432/tcp}\n")
	s := build(t, l)
	web, db, eve := s.machines["web"], s.machines["db"], s.machines["eve"]
	router := net.HardwareAddr(l.Zones[0].MAC[:])
	var probes []*lab.Probe
	for _, pair := range [][2]netip.Addr{{eve.IPv4(), db.IPv4()}, {eve.IPv6(), db.IPv6()}} {
		typ := uint16(unix.ETH_P_IP)
		if pair[0].Is6() {
			typ = unix.ETH_P_IPV6
		}
		probes = append(probes, eve.NIC(0).Frames("by the gateway's address", db.NIC(0), lab.Raw{}, func(token []byte) []byte {
			return lab.Ethernet(router, eve.NIC(0).MAC, typ, lab.Datagram(netip.AddrPortFrom(pair[0], 7), netip.AddrPortFrom(pair[1], 5432), token))
		}))
	}
	lab.Open(t, probes...)
	s.apply(l)
	lab.Blocked(t, probes...)
	// A host route by the gateway is the same, by what programs do.
	eve.IP("route add "+db.IPv4().String()+" via "+l.Zones[0].Subnets[0].Gateway.String()+" dev eth0", "route add "+db.IPv6().String()+" via "+l.Zones[0].Subnets[1].Gateway.String()+" dev eth0")
	web.IP("route add "+db.IPv4().String()+" via "+l.Zones[0].Subnets[0].Gateway.String()+" dev eth0", "route add "+db.IPv6().String()+" via "+l.Zones[0].Subnets[1].Gateway.String()+" dev eth0")
	allowed := []*lab.Probe{web.TCP(db, db.IPv4(), 5432), web.TCP(db, db.IPv6(), 5432)}
	denied := pass(eve, db, 5432)
	lab.Open(t, allowed...)
	for _, p := range denied {
		if p.Passes() {
			t.Errorf("%s passes", p.Name)
		}
	}
}

// TestForgedFramesAreDropped sends what a hostile workload would, by a packet
// socket, to a workload that it may talk to and to one that it may not.
func TestForgedFramesAreDropped(t *testing.T) {
	t.Parallel()
	// Everybody may talk to everybody over IP: what is dropped is so because
	// it is forged.
	l := arrange(t, office+"  - {from: zone=dev, to: zone=dev}\n")
	s := build(t, l)
	web, db, eve := s.machines["web"].NIC(0), s.machines["db"].NIC(0), s.machines["eve"].NIC(0)
	z := l.Zones[0]
	router, gateway4, gateway6 := net.HardwareAddr(z.MAC[:]), z.Subnets[0].Gateway, z.Subnets[1].Gateway
	v4, v6 := uint16(unix.ETH_P_IP), uint16(unix.ETH_P_IPV6)
	datagram := func(from, to netip.Addr, sport, dport uint16, token []byte) []byte {
		return lab.Datagram(netip.AddrPortFrom(from, sport), netip.AddrPortFrom(to, dport), token)
	}
	link := lab.LinkLocal(eve.MAC)
	all := netip.MustParseAddr("ff02::1")
	group := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	outer := netip.MustParseAddr("8.8.8.8")
	frames := map[string]func(token []byte) []byte{
		"source MAC of web":         func(b []byte) []byte { return lab.Ethernet(db.MAC, web.MAC, v4, datagram(eve.IPv4, db.IPv4, 7, 9, b)) },
		"source MAC of the gateway": func(b []byte) []byte { return lab.Ethernet(db.MAC, router, v4, datagram(eve.IPv4, db.IPv4, 7, 9, b)) },
		"source MAC of nobody": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, net.HardwareAddr{2, 9, 9, 9, 9, 9}, v4, datagram(eve.IPv4, db.IPv4, 7, 9, b))
		},
		"source of web":                func(b []byte) []byte { return lab.Ethernet(db.MAC, eve.MAC, v4, datagram(web.IPv4, db.IPv4, 7, 9, b)) },
		"source of web by the gateway": func(b []byte) []byte { return lab.Ethernet(router, eve.MAC, v4, datagram(web.IPv4, db.IPv4, 7, 9, b)) },
		"source of the gateway":        func(b []byte) []byte { return lab.Ethernet(db.MAC, eve.MAC, v4, datagram(gateway4, db.IPv4, 7, 9, b)) },
		"source outside":               func(b []byte) []byte { return lab.Ethernet(db.MAC, eve.MAC, v4, datagram(outer, db.IPv4, 7, 9, b)) },
		"source 6 of web":              func(b []byte) []byte { return lab.Ethernet(db.MAC, eve.MAC, v6, datagram(web.IPv6, db.IPv6, 7, 9, b)) },
		"source 6 of the gateway":      func(b []byte) []byte { return lab.Ethernet(db.MAC, eve.MAC, v6, datagram(gateway6, db.IPv6, 7, 9, b)) },
		"link-local": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, v6, datagram(link, lab.LinkLocal(db.MAC), 7, 9, b))
		},
		"to everybody, IPv6": func(b []byte) []byte { return lab.Ethernet(group, eve.MAC, v6, datagram(link, all, 7, 9, b)) },
		"broadcast": func(b []byte) []byte {
			return lab.Ethernet(lab.Broadcast, eve.MAC, v4, datagram(eve.IPv4, netip.MustParseAddr("10.60.0.255"), 7, 9, b))
		},
		"VLAN 5": func(b []byte) []byte {
			return lab.VLAN(5, lab.Ethernet(db.MAC, eve.MAC, v4, datagram(eve.IPv4, db.IPv4, 7, 9, b)))
		},
		"VLAN 0": func(b []byte) []byte {
			return lab.VLAN(0, lab.Ethernet(db.MAC, eve.MAC, v4, datagram(eve.IPv4, db.IPv4, 7, 9, b)))
		},
		"VLAN in VLAN": func(b []byte) []byte {
			return lab.VLAN(5, lab.VLAN(6, lab.Ethernet(db.MAC, eve.MAC, v4, datagram(eve.IPv4, db.IPv4, 7, 9, b))))
		},
		"local experimental type": func(b []byte) []byte { return lab.Ethernet(db.MAC, eve.MAC, 0x88b5, append(make([]byte, 46), b...)) },
		"LLC": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, 60, append([]byte{0x42, 0x42, 3}, append(make([]byte, 46), b...)...))
		},
		"ARP: eve has web's address": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, unix.ETH_P_ARP, append(lab.ARP(lab.ARPReply, eve.MAC, web.IPv4, db.MAC, db.IPv4), b...))
		},
		"ARP: eve is the gateway": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, unix.ETH_P_ARP, append(lab.ARP(lab.ARPReply, eve.MAC, gateway4, db.MAC, db.IPv4), b...))
		},
		"ARP: with web's MAC within": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, unix.ETH_P_ARP, append(lab.ARP(lab.ARPReply, web.MAC, eve.IPv4, db.MAC, db.IPv4), b...))
		},
		"ARP: a request to all": func(b []byte) []byte {
			return lab.Ethernet(lab.Broadcast, eve.MAC, unix.ETH_P_ARP, append(lab.ARP(lab.ARPRequest, eve.MAC, gateway4, make(net.HardwareAddr, 6), db.IPv4), b...))
		},
		"ARP of another kind": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, unix.ETH_P_ARP, append([]byte{0, 6, 8, 0, 6, 4, 0, 2}, b...))
		},
		"ND: eve has web's address": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, v6, advert(eve.IPv6, db.IPv6, web.IPv6, eve.MAC, 255, b))
		},
		"ND: eve is the gateway": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, v6, advert(eve.IPv6, db.IPv6, gateway6, eve.MAC, 255, b))
		},
		"ND: as the gateway": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, v6, advert(gateway6, db.IPv6, gateway6, eve.MAC, 255, b))
		},
		"ND: from link-local": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, v6, advert(link, db.IPv6, web.IPv6, eve.MAC, 255, b))
		},
		"ND: solicits as web": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, v6, solicit(web.IPv6, db.IPv6, db.IPv6, eve.MAC, 255, b))
		},
		"ND: passed on by a router": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, v6, solicit(eve.IPv6, db.IPv6, db.IPv6, eve.MAC, 64, b))
		},
		"router advertisement": func(b []byte) []byte {
			return lab.Ethernet(group, eve.MAC, v6, routerAdvert(link, b))
		},
		"router advertisement, to db": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, v6, routerAdvert(link, b))
		},
		"DHCP answer": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, v4, datagram(eve.IPv4, db.IPv4, 67, 68, b))
		},
		"DHCP answer to everybody": func(b []byte) []byte {
			return lab.Ethernet(lab.Broadcast, eve.MAC, v4, datagram(eve.IPv4, netip.MustParseAddr("255.255.255.255"), 67, 68, b))
		},
		"DHCPv6 answer": func(b []byte) []byte {
			return lab.Ethernet(db.MAC, eve.MAC, v6, datagram(eve.IPv6, db.IPv6, 547, 546, b))
		},
	}
	var probes []*lab.Probe
	for name, build := range frames {
		probes = append(probes, eve.Frames(name, db, lab.Raw{}, build))
	}
	// Through the gateway's own address some do not arrive even without rules.
	open := slices.DeleteFunc(slices.Clone(probes), func(p *lab.Probe) bool {
		return slices.Contains([]string{"source of web by the gateway", "source MAC of the gateway"}, nameOf(p))
	})
	lab.Open(t, open...)
	s.apply(l)
	talk := lab.Talk(s.machines["eve"], s.machines["db"])
	lab.Open(t, talk...)
	lab.Blocked(t, open...)
	for _, p := range probes {
		if p.Passes() {
			t.Errorf("%s passes", p.Name)
		}
	}
	lab.Open(t, talk...)
}

// option puts the bytes by which a frame is known into an option of neighbour
// discovery: what follows a packet is cut off on the way.
func option(b []byte) []byte {
	out := make([]byte, 32)
	out[0], out[1] = 200, 4 // of no meaning; in units of eight bytes
	copy(out[2:], b)
	return out
}

func advert(from, to, target netip.Addr, mac net.HardwareAddr, limit byte, token []byte) []byte {
	return lab.Packet(from, to, unix.IPPROTO_ICMPV6, limit, slices.Concat([]byte{lab.NeighborAdvertisement, 0, 0, 0, 0x60, 0, 0, 0}, target.AsSlice(), []byte{2, 1}, mac, option(token)))
}

func solicit(from, to, target netip.Addr, mac net.HardwareAddr, limit byte, token []byte) []byte {
	return lab.Packet(from, to, unix.IPPROTO_ICMPV6, limit, slices.Concat([]byte{lab.NeighborSolicitation, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice(), []byte{1, 1}, mac, option(token)))
}

func routerAdvert(from netip.Addr, token []byte) []byte {
	return lab.Packet(from, netip.MustParseAddr("ff02::1"), unix.IPPROTO_ICMPV6, 255, slices.Concat([]byte{lab.RouterAdvertisement, 0, 0, 0, 64, 0, 7, 8}, make([]byte, 8), option(token)))
}

func nameOf(p *lab.Probe) string {
	for i := range p.Name {
		if len(p.Name[i:]) > 5 && p.Name[i:i+5] == " eve " {
			return p.Name[:i]
		}
	}
	return p.Name
}

// TestNeighboursAreNotPoisoned looks at the tables of the victims.
func TestNeighboursAreNotPoisoned(t *testing.T) {
	t.Parallel()
	l := arrange(t, office+"  - {from: zone=dev, to: zone=dev}\n")
	s := build(t, l)
	s.apply(l)
	web, db, eve := s.machines["web"], s.machines["db"], s.machines["eve"]
	lab.Open(t, pings(db, web)...)
	gateway := l.Zones[0].Subnets[0].Gateway
	lab.Open(t, db.Ping(gateway))
	for range 3 {
		for _, to := range []net.HardwareAddr{db.NIC(0).MAC, lab.Broadcast, net.HardwareAddr(l.Zones[0].MAC[:])} {
			for _, claimed := range []netip.Addr{web.IPv4(), gateway} {
				for _, op := range []uint16{lab.ARPReply, lab.ARPRequest} {
					if err := eve.NIC(0).Send(lab.Ethernet(to, eve.NIC(0).MAC, unix.ETH_P_ARP, lab.ARP(op, eve.NIC(0).MAC, claimed, db.NIC(0).MAC, db.IPv4())), lab.Raw{}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := eve.NIC(0).Send(lab.Ethernet(to, eve.NIC(0).MAC, unix.ETH_P_IPV6, lab.NeighborAdvert(eve.IPv6(), db.IPv6(), web.IPv6(), eve.NIC(0).MAC, 255)), lab.Raw{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	lab.Open(t, pings(db, web)...) // the frames before have been looked at by now
	for _, h := range []*lab.Host{db, s.host} {
		table := h.Run("ip", "neigh").Is(t, 0).Stdout
		for _, a := range []string{web.IPv4().String(), web.IPv6().String(), gateway.String()} {
			if contains(table, a, eve.NIC(0).MAC.String()) {
				t.Errorf("%s believes that %s is at eve's:\n%s", h.Name, a, table)
			}
		}
	}
}

// TestNobodySpeaksAboutConnectionsOfOthers sends errors about a connection by
// one that has nothing to do with it.
func TestNobodySpeaksAboutConnectionsOfOthers(t *testing.T) {
	t.Parallel()
	l := arrange(t, office+"  - {from: app=web, to: app=db, port: 53/udp}\n")
	s := build(t, l)
	web, db, eve := s.machines["web"].NIC(0), s.machines["db"].NIC(0), s.machines["eve"].NIC(0)
	router := net.HardwareAddr(l.Zones[0].MAC[:])
	var probes []*lab.Probe
	for _, six := range []bool{false, true} {
		from, about, to := eve.IPv4, netip.AddrPortFrom(web.IPv4, 4000), netip.AddrPortFrom(db.IPv4, 53)
		typ, proto, kind := uint16(unix.ETH_P_IP), byte(unix.IPPROTO_ICMP), byte(3)
		if six {
			from, about, to = eve.IPv6, netip.AddrPortFrom(web.IPv6, 4000), netip.AddrPortFrom(db.IPv6, 53)
			typ, proto, kind = unix.ETH_P_IPV6, unix.IPPROTO_ICMPV6, 1
		}
		begin := lab.Datagram(about, to, []byte("a question"))
		probes = append(probes, eve.Frames("error", web, lab.Raw{}, func(token []byte) []byte {
			if err := web.Send(lab.Ethernet(db.MAC, web.MAC, typ, begin), lab.Raw{}); err != nil {
				t.Error(err)
			}
			message := slices.Concat([]byte{kind, 3, 0, 0, 0, 0, 0, 0}, lab.Datagram(about, to, token))
			if !six {
				sum := lab.Checksum(message)
				message[2], message[3] = byte(sum>>8), byte(sum)
			}
			return lab.Ethernet(router, eve.MAC, typ, lab.Packet(from, about.Addr(), proto, 64, message))
		}))
	}
	lab.Open(t, probes...)
	s.apply(l)
	lab.Blocked(t, probes...)
}

func TestARemovedFlowCutsConnections(t *testing.T) {
	t.Parallel()
	l := arrange(t, office+`
  - {from: app=web, to: app=db, port: 5432/tcp}
  - {from: zone=test, to: app=db, port: 5433/tcp}
`)
	s := build(t, l)
	s.apply(l)
	web, db, job := s.machines["web"], s.machines["db"], s.machines["job"]
	gone, stays := web.Stream(db, db.IPv4(), 5432), job.Stream(db, db.IPv6(), 5433)
	gone6 := web.Stream(db, db.IPv6(), 5432)
	lab.Flowing(t, gone, gone6, stays)
	less := *l
	less.Flows = l.Flows[1:]
	s.apply(&less)
	lab.Stalled(t, gone, gone6)
	lab.Flowing(t, stays)
}

func TestWorkloadsWithoutKnownAddress(t *testing.T) {
	t.Parallel()
	const document = `
zones:
  dev:
    subnets: [10.60.0.0/24, "fd00:60::/64"]
workloads:
  web: {zone: dev, namespace: web}
  vm: {zone: dev, interface: vm0}
  eve: {zone: dev, interface: eve0}
flows:
  - {from: zone=dev, to: workload=web, port: 80/tcp}
`
	l := arrange(t, document)
	s := build(t, l)
	web, vm, eve := s.machines["web"], s.machines["vm"], s.machines["eve"]
	for i, h := range []*lab.Host{vm, eve} {
		h.NIC(0).IPv4, h.NIC(0).IPv6 = netip.AddrFrom4([4]byte{10, 60, 0, byte(70 + i)}), netip.MustParseAddr([]string{"fd00:60::70", "fd00:60::71"}[i])
		h.IP("addr add "+h.IPv4().String()+"/24 dev eth0", "addr add "+h.IPv6().String()+"/64 dev eth0 nodad")
	}
	typ4, typ6 := uint16(unix.ETH_P_IP), uint16(unix.ETH_P_IPV6)
	token := func(from netip.Addr, to netip.Addr, b []byte) []byte {
		return lab.Datagram(netip.AddrPortFrom(from, 9), netip.AddrPortFrom(to, 80), b)
	}
	n, w := eve.NIC(0), web.NIC(0)
	forged := []*lab.Probe{
		n.Frames("source of web", vm.NIC(0), lab.Raw{}, func(b []byte) []byte {
			return lab.Ethernet(vm.NIC(0).MAC, n.MAC, typ4, token(web.IPv4(), vm.IPv4(), b))
		}),
		n.Frames("source outside", w, lab.Raw{}, func(b []byte) []byte {
			return lab.Ethernet(w.MAC, n.MAC, typ4, token(netip.MustParseAddr("10.77.0.1"), web.IPv4(), b))
		}),
		n.Frames("MAC of web", w, lab.Raw{}, func(b []byte) []byte {
			return lab.Ethernet(vm.NIC(0).MAC, w.MAC, typ4, token(eve.IPv4(), vm.IPv4(), b))
		}),
		n.Frames("ARP for web", vm.NIC(0), lab.Raw{}, func(b []byte) []byte {
			return lab.Ethernet(vm.NIC(0).MAC, n.MAC, unix.ETH_P_ARP, append(lab.ARP(2, n.MAC, web.IPv4(), vm.NIC(0).MAC, vm.IPv4()), b...))
		}),
		n.Frames("ND for web", vm.NIC(0), lab.Raw{}, func(b []byte) []byte {
			return lab.Ethernet(vm.NIC(0).MAC, n.MAC, typ6, advert(eve.IPv6(), vm.IPv6(), web.IPv6(), n.MAC, 255, b))
		}),
	}
	allowed := []*lab.Probe{vm.TCP(web, web.IPv4(), 80), vm.TCP(web, web.IPv6(), 80)}
	denied := slices.Concat(pass(web, vm, 80), pass(eve, vm, 80), []*lab.Probe{vm.UDP(web, web.IPv6(), 80)})
	lab.Open(t, slices.Concat(allowed, denied)...)
	lab.Open(t, forged[0], forged[1], forged[3], forged[4])
	s.apply(l)
	lab.Open(t, allowed...)
	lab.Blocked(t, denied...)
	lab.Blocked(t, forged[0], forged[1], forged[3], forged[4])
	if forged[2].Passes() {
		t.Error("with the MAC address of web it passes")
	}
}
