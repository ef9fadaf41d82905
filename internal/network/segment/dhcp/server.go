package dhcp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment/rate"
)

// Counters are what a Server has done since it was made.
type Counters struct {
	Received  int64 `json:"received"`  // messages that could be read
	Offers    int64 `json:"offers"`    // with DHCPv6: advertisements of addresses
	Acks      int64 `json:"acks"`      // with DHCPv6: replies
	Naks      int64 `json:"naks"`      // refusals of an address
	Releases  int64 `json:"releases"`  //
	Declines  int64 `json:"declines"`  // addresses that a client found to be taken
	Conflicts int64 `json:"conflicts"` // addresses that were found to be taken before they were offered
	Exhausted int64 `json:"exhausted"` // requests without an answer, as the pool was empty
	Limited   int64 `json:"limited"`   // requests without an answer, as the client or its port had its share
	Spoofed   int64 `json:"spoofed"`   // messages in another station's name
	Malformed int64 `json:"malformed"` // packets that could not be read
	Adverts   int64 `json:"adverts"`   // router advertisements
}

// Server serves one interface. Its methods are safe for concurrent use.
type Server struct {
	cfg     Config
	now     func() time.Time
	notice  func(format string, args ...any)
	replies *replies
	byMAC   *rate.Limiter[MAC]
	byPort  *rate.Limiter[string]

	mu       sync.Mutex
	v4, v6   *table
	names    map[string]*Lease
	fixed    map[string]bool // names that clients may not take
	given    map[MAC]string  // names of reservations
	pending  map[netip.Addr]*probe
	counters Counters

	disk    sync.Mutex
	journal *journal

	ports *ports
	own   MAC // of the interface
	pack4 *packetSocket
	pack6 *packetSocket
	arp   *packetSocket
}

// New checks a configuration, and opens or makes the file of leases. Notice is
// told what an operator should know, and must not block; nil: nobody is. The
// Server must be closed.
func New(c Config, notice func(format string, args ...any)) (*Server, error) {
	c.Reservations, c.Gateway6, c.Routes = slices.Clone(c.Reservations), slices.Clone(c.Gateway6), slices.Clone(c.Routes)
	if c.Pool6.size() > maxPool {
		c.Pool6.Last = c.Pool6.at(maxPool - 1)
	}
	c.defaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	if notice == nil {
		notice = func(string, ...any) {}
	}
	s := &Server{
		cfg: c, now: time.Now, notice: notice,
		byMAC: rate.New[MAC](float64(c.Rate), float64(c.Rate)*4, 4096), byPort: rate.New[string](float64(c.Rate), float64(c.Rate)*4, 4096),
		names: map[string]*Lease{}, fixed: map[string]bool{}, given: map[MAC]string{}, pending: map[netip.Addr]*probe{},
	}
	if c.Limits.Rate >= 1<<30 {
		s.byMAC, s.byPort = rate.New[MAC](0, 0, 0), rate.New[string](0, 0, 0)
	}
	if c.Gateway.IsValid() {
		s.replies = newReplies(&c)
	}
	s.v4, s.v6 = newTable(&c, c.Pool, true), newTable(&c, c.Pool6, false)
	for _, n := range c.Names {
		s.fixed[n] = true
	}
	for _, r := range c.Reservations {
		if r.Name != "" {
			s.fixed[r.Name], s.given[r.MAC] = true, r.Name
		}
	}
	j, list, err := openJournal(c.File)
	if err != nil {
		return nil, err
	}
	s.journal = j
	now := s.now()
	var l4, l6 []Lease
	for _, l := range list {
		if l.Address.Is4() {
			l4 = append(l4, l)
		} else {
			l6 = append(l6, l)
		}
	}
	s.v4.load(l4, now)
	s.v6.load(l6, now)
	for _, t := range []*table{s.v4, s.v6} {
		for _, l := range t.byAddr {
			if l.State == Bound && l.Name != "" {
				s.names[l.Name] = l
			}
		}
	}
	return s, nil
}

// Close closes the file of leases. Run must have returned.
func (s *Server) Close() error { return s.journal.close() }

// Run answers on the interface until the context is done, which is no error.
// Ready is called once everything that can be heard is heard. An interface that
// is not there is an error of kind failure.NotReady.
func (s *Server) Run(ctx context.Context, ready func()) error {
	ifi, err := net.InterfaceByName(s.cfg.Interface)
	if err != nil {
		return failure.Errorf(failure.NotReady, "DHCP on %s: %w", s.cfg.Interface, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return failure.Errorf(failure.NotReady, "DHCP on %s: it is no Ethernet", s.cfg.Interface)
	}
	s.own = MAC(ifi.HardwareAddr)
	s.ports = newPorts(ifi.Index)
	defer s.ports.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var loops []func() error
	var closers []func()
	defer func() {
		for _, c := range closers {
			c()
		}
		s.dropProbes()
	}()
	open := func(start func() (func() error, func(), error)) error {
		loop, stop, err := start()
		if err == nil {
			loops, closers = append(loops, loop), append(closers, stop)
		}
		return err
	}
	if s.replies != nil && (s.cfg.Pool.First.IsValid() || len(s.v4.reserved) > 0) {
		err = errors.Join(err, open(func() (func() error, func(), error) { return s.start4(ctx, ifi) }))
		err = errors.Join(err, open(func() (func() error, func(), error) { return s.startARP(ifi) }))
	}
	if len(s.cfg.Gateway6) > 0 && s.cfg.Advertise {
		err = errors.Join(err, open(func() (func() error, func(), error) { return s.startAdvertising(ctx, ifi) }))
	}
	if len(s.cfg.Gateway6) > 0 && (s.cfg.Advertise || s.cfg.Pool6.First.IsValid() || len(s.v6.reserved) > 0) {
		err = errors.Join(err, open(func() (func() error, func(), error) { return s.start6(ctx, ifi) }))
	}
	if err != nil {
		return fmt.Errorf("DHCP on %s: %w", s.cfg.Interface, err)
	}
	ended := make(chan error, len(loops))
	for _, loop := range loops {
		go func() { ended <- guarded(loop) }()
	}
	if ready != nil {
		ready()
	}
	left := len(loops)
	select {
	case <-ctx.Done():
	case err = <-ended:
		left--
	}
	stopped := ctx.Err() != nil
	cancel()
	for _, c := range closers {
		c()
	}
	closers = nil
	for ; left > 0; left-- {
		<-ended
	}
	if stopped {
		return nil
	}
	return fmt.Errorf("DHCP on %s: %w", s.cfg.Interface, err)
}

// guarded turns a panic into an error: what one packet can do to one zone, it
// does not do to the others.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v: %s", p, debug.Stack())
		}
	}()
	return f()
}

// Leases returns what is known about addresses, in their order. A lease whose
// time has passed is Ended; offers are left out.
func (s *Server) Leases() []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	var list []Lease
	for _, t := range []*table{s.v4, s.v6} {
		t.expire(now)
		for _, l := range t.byAddr {
			if l.State != Offered {
				c := *l
				c.later, c.prior = nil, nil
				list = append(list, c)
			}
		}
	}
	slices.SortFunc(list, func(a, b Lease) int { return a.Address.Compare(b.Address) })
	return list
}

// Counters returns what was done so far.
func (s *Server) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counters
}

// Lookup returns the addresses of a client by the name under which it has a
// lease now, and its MAC address, by which others of its addresses can be found.
func (s *Server) Lookup(name string) ([]netip.Addr, MAC) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.names[name]
	now := s.now()
	if l == nil || l.Name != name || l.State != Bound || !l.active(now) {
		return nil, MAC{}
	}
	list := []netip.Addr{l.Address}
	for _, other := range s.v6.byAddr {
		if other != l && other.MAC == l.MAC && other.State == Bound && other.active(now) && len(list) < 8 {
			list = append(list, other.Address)
		}
	}
	return list, l.MAC
}

// NameOf returns the name of the client that has an address now, "" for none.
func (s *Server) NameOf(a netip.Addr) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.v6
	if a.Is4() {
		t = s.v4
	}
	l := t.byAddr[a]
	if l == nil || l.State != Bound || !l.active(s.now()) {
		return ""
	}
	if l.Name == "" && a.Is6() {
		return s.nameOf(l.MAC)
	}
	return l.Name
}

// NameOfMAC returns the name under which a station has a lease now, "" for none.
func (s *Server) NameOfMAC(mac MAC) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nameOf(mac)
}

func (s *Server) nameOf(mac MAC) string {
	now := s.now()
	for _, t := range []*table{s.v4, s.v6} {
		if t.macs[mac] == 0 {
			continue
		}
		for _, l := range t.running {
			if l.MAC == mac && l.State == Bound && l.Name != "" && l.active(now) {
				return l.Name
			}
		}
	}
	return ""
}

// nameFor is the name that a client gets: that of its reservation, else the one
// that it asks for when nobody else has it.
func (s *Server) nameFor(mac MAC, asked string, now time.Time) string {
	if n, ok := s.given[mac]; ok {
		return n
	}
	if asked == "" || s.fixed[asked] {
		return ""
	}
	if l := s.names[asked]; l != nil && l.Name == asked && l.State == Bound && l.active(now) && l.MAC != mac {
		return ""
	}
	return asked
}

// bound enters the name of a lease that was just given.
func (s *Server) bound(l *Lease) {
	if l.Name == "" {
		return
	}
	if len(s.names) > 2*maxPool {
		maps.DeleteFunc(s.names, func(n string, l *Lease) bool { return l.Name != n })
	}
	s.names[l.Name] = l
}

// takeChanges hands what changed to the journal. The caller holds mu.
func (s *Server) takeChanges() {
	for _, t := range []*table{s.v4, s.v6} {
		if len(t.changed) > 0 {
			s.disk.Lock()
			s.journal.add(t.changed)
			s.disk.Unlock()
			t.changed = t.changed[:0]
		}
	}
}

// commit makes durable what was handed to the journal, and writes the file anew
// when it has become long. Nothing may be acknowledged when it fails.
func (s *Server) commit() error {
	s.disk.Lock()
	err := s.journal.commit()
	full := err == nil && s.journal.full()
	s.disk.Unlock()
	if !full {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeChanges()
	list := slices.Concat(slices.Collect(maps.Values(s.v4.byAddr)), slices.Collect(maps.Values(s.v6.byAddr)))
	s.disk.Lock()
	defer s.disk.Unlock()
	if err := s.journal.commit(); err != nil {
		return err
	}
	if err := s.journal.rewrite(list); err != nil {
		// What was committed is on the disk; the old file goes on.
		s.notice("%v", err)
	}
	return nil
}
