package segment

import (
	"context"
	"net/netip"
	"slices"
)

// Layout is what documents come to on this host: every name of a device, every
// port and every address is known, before any of it exists. Rules and services
// are made from it. It is kept in state.db for as long as it is in force, and
// is in the order of zones and workloads of the documents.
type Layout struct {
	Internal []netip.Prefix `json:"internal,omitempty"` // as in Document
	Zones    []ZoneLayout   `json:"zones"`
	Ports    []Port         `json:"ports,omitempty"`
	Flows    []Flow         `json:"flows,omitempty"`

	// Opened are interfaces that pass packets on for the sake of zones alone:
	// before, this host was no router. Rules drop what comes in by one of them
	// and would leave by one of Beside, the interfaces of this host's own
	// networks. Both are empty on a host that was a router.
	Opened []string `json:"opened,omitempty"`
	Beside []string `json:"beside,omitempty"`
}

// ZoneLayout is a zone on this host.
type ZoneLayout struct {
	Zone
	Document string `json:"document"`         // the document that asks for it
	Bridge   string `json:"bridge"`           // "mo-dev"
	MAC      MAC    `json:"mac"`              // of the bridge; rules send frames within the zone there
	Uplink   string `json:"uplink,omitempty"` // the port that carries it to other hosts: "mo-vx100", "mo-vl20"; frames from there are other hosts' business
	LinkMTU  int    `json:"link_mtu"`         // of bridge and ports, bytes
}

// Port is a workload on this host.
type Port struct {
	Workload
	Document string `json:"document"`
	Device   string `json:"device"`           // the port of the bridge, in this namespace: "mo-p-web", or the interface that was named
	Bridge   string `json:"bridge"`           // whose port it is
	Inside   string `json:"inside,omitempty"` // the interface in the workload's namespace; empty when mobileops makes none

	// Addr are the addresses that the workload has, fixed, reserved or
	// allocated. None: it gets one by DHCP, or none is known.
	Addr []netip.Addr `json:"addr,omitempty"`

	// Nameservers are what belongs into its resolv.conf.
	Nameservers []netip.Addr `json:"nameservers,omitempty"`
}

// Zone returns a zone by its name, nil when there is none.
func (l *Layout) Zone(name string) *ZoneLayout {
	for i := range l.Zones {
		if l.Zones[i].Name == name {
			return &l.Zones[i]
		}
	}
	return nil
}

// Of returns the part of the layout that documents ask for; all of it without
// names.
func (l *Layout) Of(documents ...string) *Layout {
	if len(documents) == 0 {
		return l
	}
	part := &Layout{Internal: l.Internal}
	for _, z := range l.Zones {
		if slices.Contains(documents, z.Document) {
			part.Zones = append(part.Zones, z)
		}
	}
	for _, p := range l.Ports {
		if slices.Contains(documents, p.Document) {
			part.Ports = append(part.Ports, p)
		}
	}
	return part
}

// Change is one difference between what is wanted and what is there.
type Change struct {
	Sign byte   `json:"-"` // '+' something is made, '-' taken away, '~' changed
	Text string `json:"text"`
}

// Firewall enforces a layout: default deny, flows, egress, NAT. It works in the
// network namespace that it is called in, and touches nothing but its own
// tables.
//
// Apply is called after the links of what is removed are gone and before those
// of what is added exist, so rules name devices that need not be there.
type Firewall interface {
	// Plan returns what Apply would change, nothing when exactly these rules
	// are in force. It changes nothing and works without being root where the
	// kernel lets it. An error of kind failure.NotReady names a feature of the
	// kernel that is missing.
	Plan(ctx context.Context, l *Layout) ([]Change, error)

	// Apply puts the rules of the layout in place of those that are in force,
	// in one transaction: on an error these still are.
	Apply(ctx context.Context, l *Layout) error

	// Remove takes the tables away. That there are none is no error.
	Remove(ctx context.Context) error

	// Digest identifies the rules that are in force, "" when there are none.
	// It is the same for the same rules, whatever counters and elements with a
	// time-out say.
	Digest(ctx context.Context) (string, error)
}
