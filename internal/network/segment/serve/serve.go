// Package serve runs the services of all zones that ask for them: DHCP with
// router advertisements, and DNS.
//
// Each service is run by itself: one that fails is started again, after a pause
// that grows to half a minute, and none of the others notices. What is in force is
// looked at every second; a zone that has changed gets new services with its old
// leases, and one that has not goes on undisturbed. Nothing is told to the clients
// when the services end: the gateway still forwards, and leases still hold.
//
// How the services are is written to a file, which is replaced as a whole; that
// needs nobody who answers, works when the process hangs, and can be read by
// anybody who may. Leases are in the files of package dhcp.
package serve

import (
	"context"
	"encoding/json"

	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment/dhcp"
	"github.com/mobileops/mobileops/internal/network/segment/dns"
)

// Zone is what one zone asks for.
type Zone struct {
	Name      string
	Interface string // its bridge
	DHCP      *dhcp.Config
	DNS       *dns.Config // without its functions
}

// Options are what Run needs.
type Options struct {
	// Zones returns what is in force. Changed identifies that cheaply: as long as
	// it returns the same, Zones is not asked.
	Zones   func(context.Context) ([]Zone, error)
	Changed func() string

	StatusFile string // replaced when something has changed; its directory exists

	Ready  func()                           // all services were started once, or failed
	Alive  func()                           // every second
	Notice func(format string, args ...any) // what an operator should know
}

const (
	tick      = time.Second
	firstWait = 200 * time.Millisecond
	lastWait  = 30 * time.Second
	steady    = time.Minute // a service that ran as long begins with a short pause again
	readyWait = 10 * time.Second
)

// Run serves until the context is done, which is no error.
func Run(ctx context.Context, o Options) error {
	r := &run{Options: o, running: map[string]*zoneRun{}, began: time.Now()}
	defer r.stopAll()
	defer os.Remove(o.StatusFile)
	next := time.NewTicker(tick)
	defer next.Stop()
	seen, ready := "", false
	for first := true; ; first = false {
		if now := o.Changed(); first || now != seen {
			zones, err := o.Zones(ctx)
			switch {
			case err == nil:
				r.reconcile(ctx, zones)
				seen = now
			case ctx.Err() != nil:
				return nil
			case first && failure.KindOf(err) != failure.Busy:
				return err
			default: // what was in force goes on
				o.Notice("%v", err)
			}
		}
		if !ready && (r.settled() || time.Since(r.began) > readyWait) {
			ready = true
			r.writeStatus()
			o.Ready()
		}
		if ready {
			r.writeStatus()
		}
		r.checkInterfaces()
		o.Alive()
		pause := next.C
		var soon <-chan time.Time
		if !ready {
			soon = time.After(20 * time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-pause:
		case <-soon:
		}
	}
}

type run struct {
	Options
	running map[string]*zoneRun
	began   time.Time
	written []byte
}

// zoneRun is a zone that is being served.
type zoneRun struct {
	zone   Zone
	dhcp   *service // nil: not asked for
	dns    *service
	leases atomic.Pointer[dhcp.Server]
	names  atomic.Pointer[dns.Server]

	neighbours neighbours
}

func (z *zoneRun) services() (list []*service) {
	for _, s := range []*service{z.dhcp, z.dns} {
		if s != nil {
			list = append(list, s)
		}
	}
	return list
}

// reconcile begins what is wanted and does not run, and ends what runs and is
// not wanted. A service whose configuration is the same goes on.
func (r *run) reconcile(ctx context.Context, zones []Zone) {
	wanted := map[string]bool{}
	for _, z := range zones {
		wanted[z.Name] = true
		have := r.running[z.Name]
		if have == nil || have.zone.Interface != z.Interface {
			if have != nil {
				stop(have.services())
			}
			have = &zoneRun{}
			r.running[z.Name] = have
		}
		var old []*service
		newDHCP, newDNS := !same(have.zone.DHCP, z.DHCP), !same(have.zone.DNS, z.DNS)
		if newDHCP && have.dhcp != nil {
			old, have.dhcp = append(old, have.dhcp), nil
		}
		if newDNS && have.dns != nil {
			old, have.dns = append(old, have.dns), nil
		}
		stop(old)
		have.zone = z
		if newDHCP && z.DHCP != nil {
			c := *z.DHCP
			have.dhcp = r.start(ctx, "DHCP", z, func(ctx context.Context, ready func()) error { return have.runDHCP(ctx, c, r.Notice, ready) })
		}
		if newDNS && z.DNS != nil {
			c := *z.DNS
			c.Lookup = func(label string) []netip.Addr { return have.lookup(label, z.Interface, c.Clients) }
			c.Reverse = func(a netip.Addr) string { return have.reverse(a, z.Interface, c.Clients) }
			have.dns = r.start(ctx, "DNS", z, func(ctx context.Context, ready func()) error { return have.runDNS(ctx, c, ready) })
		}
	}
	for name, have := range r.running {
		if !wanted[name] {
			stop(have.services())
			delete(r.running, name)
		}
	}
}

// same reports whether two configurations are the same, of which neither has
// functions yet.
func same[T any](a, b *T) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && slices.Equal(x, y)
}

func (r *run) stopAll() {
	var all []*service
	for _, z := range r.running {
		all = append(all, z.services()...)
	}
	stop(all)
}

func (z *zoneRun) runDHCP(ctx context.Context, c dhcp.Config, notice func(string, ...any), ready func()) error {
	s, err := dhcp.New(c, notice)
	if err != nil {
		return err
	}
	defer s.Close()
	z.leases.Store(s)
	// After the end others still ask it for names, until the next one is there.
	return s.Run(ctx, ready)
}

func (z *zoneRun) runDNS(ctx context.Context, c dns.Config, ready func()) error {
	s, err := dns.New(c)
	if err != nil {
		return err
	}
	z.names.Store(s)
	return s.Run(ctx, ready)
}

// settled reports whether every service has started or failed.
func (r *run) settled() bool {
	for _, z := range r.running {
		for _, s := range z.services() {
			if s.status().State == Starting {
				return false
			}
		}
	}
	return true
}

// checkInterfaces begins services anew whose interface is another one than that
// which they are bound to: a bridge that was removed and made again.
func (r *run) checkInterfaces() {
	for _, z := range r.running {
		index := interfaceIndex(z.zone.Interface)
		for _, s := range z.services() {
			s.moved(index)
		}
	}
}

// writeStatus replaces the file when something is different.
func (r *run) writeStatus() {
	data, err := json.Marshal(r.status())
	if err != nil || slices.Equal(data, r.written) {
		return
	}
	if err := durable.WriteFile(r.StatusFile, append(data, '\n'), 0o600); err != nil {
		if r.written != nil {
			r.Notice("%v", err)
		}
		r.written = nil
		return
	}
	r.written = data
}
