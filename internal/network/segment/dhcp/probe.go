package dhcp

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxProbes = 256 // at once
	maxRounds = 4   // addresses that are tried for one request
)

// probe is an address that will be offered unless somebody is found to use it.
type probe struct {
	x     *exchange
	round int
	timer *time.Timer
	again *time.Timer
}

func (s *Server) startARP(ifi *net.Interface) (loop func() error, stop func(), err error) {
	p, err := listenPackets(ifi.Index, unix.ETH_P_ARP, filterARP)
	if err != nil {
		return nil, nil, err
	}
	s.arp = p
	return func() error {
		for {
			pkt, ok, err := p.receive(true)
			if errors.Is(err, unix.ENETDOWN) {
				continue
			}
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if mac, addr, err := parseARP(pkt.data); err == nil {
				s.seen(mac, addr)
			}
		}
	}, p.close, nil
}

// probe asks the link who has an address, and reports whether the request can
// go on. The caller holds mu.
func (x *exchange) probe(addr netip.Addr, round int) bool {
	s := x.Server
	if s.cfg.Probe < 0 {
		return true
	}
	if len(s.pending) >= maxProbes {
		s.counters.Limited++
		return false
	}
	ask := func() {
		if own, ok := s.arp.address(); ok {
			s.arp.send(everybody, appendProbe(nil, own, addr))
		}
	}
	ask()
	p := &probe{x: x, round: round}
	p.again = time.AfterFunc(s.cfg.Probe/2, ask)
	p.timer = time.AfterFunc(s.cfg.Probe, func() { s.unclaimed(addr, p) })
	s.pending[addr] = p
	return true
}

// unclaimed offers an address that nobody answered for.
func (s *Server) unclaimed(addr netip.Addr, p *probe) {
	s.mu.Lock()
	if s.pending[addr] != p {
		s.mu.Unlock()
		return
	}
	delete(s.pending, addr)
	l := s.v4.byAddr[addr]
	now := s.now()
	ok := l != nil && l.State == Offered && l.Client == p.x.client && l.active(now)
	var a answer
	if ok {
		p.x.now = now
		a, ok = p.x.offer(addr)
	}
	s.mu.Unlock()
	if ok {
		s.pack4.send(a.to, a.data)
	}
}

// seen is called for everybody who says to have an address. When that is about
// to be offered to somebody else, another is looked for.
func (s *Server) seen(mac MAC, addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pending[addr]
	if p == nil || mac == p.x.mac || mac == s.own {
		return
	}
	now := s.now()
	port := s.ports.of(mac, now)
	if port != "" && s.v4.ports[port] >= s.v4.perPort || s.v4.macs[mac] >= s.v4.perPort {
		return // one that says to have everything keeps nobody else from getting an address
	}
	p.stop()
	delete(s.pending, addr)
	s.counters.Conflicts++
	s.v4.decline(addr, mac, port, now)
	s.takeChanges()
	s.notice("DHCP on %s: %s is used by %s without a lease", s.cfg.Interface, addr, mac)
	if p.round+1 < maxRounds {
		p.x.now = now
		p.x.wish = netip.Addr{}
		if a, ok := p.x.discover(p.round + 1); ok {
			s.pack4.send(a.to, a.data)
		}
	}
}

func (p *probe) stop() {
	p.timer.Stop()
	p.again.Stop()
}

func (s *Server) dropProbes() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pending {
		p.stop()
	}
	clear(s.pending)
}
