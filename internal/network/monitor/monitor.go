// Package monitor takes snapshots of how a host is connected: its interfaces
// and bridges, where packets go, what listens and what flows, with the processes
// that do it, and how much per second.
//
// A Sampler asks the kernel: rtnetlink(7) for links, addresses, routes and
// neighbours, sock_diag(7) for sockets, conntrack for connections that pass, and
// proc(5) for processes. Nothing is changed. What is told is that of the network
// namespace of the process. A container with a network of its own is seen by
// what passes this host: its connections are flows that are forwarded, with the
// container named where its addresses are known to this host.
//
// What could not be seen is in Missing, and never passed over in silence: a
// table without the processes of others looks like one in which there are none.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/netlink"
	"github.com/mobileops/mobileops/internal/network/conntrack"
	"github.com/mobileops/mobileops/internal/network/sockets"
)

// Parts are what a snapshot can have.
type Parts struct{ Interfaces, Routes, Listeners, Flows bool }

// AllParts are all of them.
var AllParts = Parts{true, true, true, true}

// Force is something that mobileops keeps in force in the ruleset.
type Force struct {
	Name    string    `json:"name"` // "isolation", "blocks", "segments"
	Detail  string    `json:"detail,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Until   time.Time `json:"until,omitzero"`   // when it ends by itself
	Dropped uint64    `json:"dropped,omitzero"` // packets so far
}

// Options are what a Sampler looks at.
type Options struct {
	Parts  Parts
	Filter Filter // of listeners and flows
	// Force tells what of mobileops is in force; nil: it is not asked. An error
	// makes the snapshot incomplete.
	Force func(context.Context) ([]Force, error)
}

// Missing is something that a snapshot could have and has not.
type Missing struct {
	What string `json:"what"` // "processes", "connections"
	Why  string `json:"why"`
}

// Snapshot is how the host is connected at one moment. Parts that were not
// asked for are nil.
type Snapshot struct {
	Time time.Time `json:"time"`
	// Seconds since the snapshot before, which rates are of; 0 in the first one.
	Seconds    float64     `json:"seconds"`
	Force      []Force     `json:"force,omitzero"`
	Interfaces []Interface `json:"interfaces,omitzero"`
	Bridges    []Bridge    `json:"bridges,omitzero"`
	Routes     []Route     `json:"routes,omitzero"`
	Listeners  []Listener  `json:"listeners,omitzero"`
	Flows      []Flow      `json:"flows,omitzero"`
	Tracking   *Tracking   `json:"tracking,omitempty"` // of flows
	Missing    []Missing   `json:"missing,omitempty"`
}

// Tracking is what the kernel does about connections.
type Tracking struct {
	Connections bool `json:"connections"` // it can keep track of them; without, those that are forwarded are not known
	Bytes       bool `json:"bytes"`       // it counts what passes in those that begin now
}

// Complete tells whether nothing is missing.
func (s *Snapshot) Complete() bool { return len(s.Missing) == 0 }

// miss notes what missing rights, or a list that changes faster than it can be
// read, kept from being seen. Any other error is returned.
func (s *Snapshot) miss(what, why string, err error) error {
	switch {
	case errors.Is(err, netlink.ErrChanging):
		s.Missing = append(s.Missing, Missing{what, err.Error()})
	case failure.KindOf(err) == failure.NotAllowed:
		s.Missing = append(s.Missing, Missing{what, why})
	default:
		return err
	}
	return nil
}

// Sampler takes one snapshot after the other and works out what passed between
// two of them. It is for one goroutine.
type Sampler struct {
	opts     Options
	last     time.Time
	counters map[string]counter // of the snapshot before
}

// New returns a Sampler.
func New(opts Options) *Sampler { return &Sampler{opts: opts} }

// Take takes a snapshot. What the process has no right to see is in Missing;
// anything else that could not be read is an error.
func (s *Sampler) Take(ctx context.Context) (*Snapshot, error) {
	snap := &Snapshot{Time: time.Now()}
	if !s.last.IsZero() {
		snap.Seconds = snap.Time.Sub(s.last).Seconds()
	}
	p := s.opts.Parts
	if s.opts.Force != nil {
		var err error
		if snap.Force, err = s.opts.Force(ctx); failure.KindOf(err) == failure.NotAllowed {
			snap.Missing = append(snap.Missing, Missing{"force", "only root sees what mobileops keeps in force"})
		} else if err != nil {
			snap.Missing = append(snap.Missing, Missing{"force", err.Error()})
		}
	}
	l, err := readLinks(p.Interfaces || p.Flows)
	if err != nil {
		return nil, err
	}
	if p.Interfaces {
		snap.Interfaces, snap.Bridges = l.interfaces, l.bridges
		if l.peersUnknown {
			snap.Missing = append(snap.Missing, Missing{"namespaces", "only root sees which containers and namespaces the other ends of cables are in"})
		}
	}
	if p.Routes {
		snap.Routes, err = readRoutes(l)
		if err := snap.miss("routes", "only root sees routes", err); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p.Listeners || p.Flows {
		if err := s.sockets(snap, l); err != nil {
			return nil, err
		}
	}
	s.rates(snap)
	s.last = snap.Time
	return snap, ctx.Err()
}

// sockets reads listeners and flows.
func (s *Sampler) sockets(snap *Snapshot, l *links) error {
	list, err := sockets.List()
	if err != nil {
		return err
	}
	var tracked []conntrack.Connection
	if s.opts.Parts.Flows {
		tracked, err = conntrack.List()
		snap.Tracking = &Tracking{Connections: true, Bytes: conntrack.Accounting()}
		if errors.Is(err, conntrack.ErrUnavailable) {
			snap.Tracking, err = &Tracking{}, nil
		}
		if err := snap.miss("connections", "only root sees connections that the kernel keeps track of, such as those that are forwarded", err); err != nil {
			return err
		}
	}
	found, whole := sockets.OwnersIn("/proc")
	owners := processes(found)
	if !whole {
		snap.Missing = append(snap.Missing, Missing{"processes", "only root sees which programs of other users have a socket open"})
	}
	if s.opts.Parts.Listeners {
		snap.Listeners = s.opts.Filter.listeners(listeners(list, owners, l))
	}
	if s.opts.Parts.Flows {
		snap.Flows = s.opts.Filter.flows(flows(list, tracked, owners, l))
	}
	return nil
}

// counter is what has been counted of one thing.
type counter struct {
	in, out uint64
	by      string
}

// Rate is how much passed between two snapshots, in bytes per second.
type Rate struct {
	In  float64 `json:"in"`
	Out float64 `json:"out"`
}

// rates works out what passed since the last snapshot. What was not there then,
// or is counted by something else or from zero again, has no rate.
func (s *Sampler) rates(snap *Snapshot) {
	now := map[string]counter{}
	rate := func(key string, c counter) *Rate {
		now[key] = c
		old, known := s.counters[key]
		if !known || snap.Seconds <= 0 || c.by != old.by || c.in < old.in || c.out < old.out {
			return nil
		}
		return &Rate{In: float64(c.in-old.in) / snap.Seconds, Out: float64(c.out-old.out) / snap.Seconds}
	}
	for i := range snap.Interfaces {
		n := &snap.Interfaces[i]
		n.Rate = rate(fmt.Sprintf("interface %d %s", n.Index, n.Name), counter{n.Counters.ReceivedBytes, n.Counters.SentBytes, ""})
	}
	for i := range snap.Flows {
		if f := &snap.Flows[i]; f.CountedBy != "" {
			f.Rate = rate(f.key, counter{*f.ReceivedBytes, *f.SentBytes, f.CountedBy})
		}
	}
	s.counters = now
}
