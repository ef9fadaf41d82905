// Package segment divides the network of workloads into zones that are kept
// apart: containers, virtual machines and devices that hang on this host.
//
// What is wanted stands in a document, segments.yaml (docs/formats/segments.md):
// zones with a bridge and subnets, workloads that are attached to them, services
// for those that ask by DHCP and DNS, and the flows that are allowed. Nothing
// else passes: that is the default. Parse reads a document, Layout says what it
// comes to on a host (which device, which port, which address), Plan compares
// that with what is there, and Apply makes it so. Rules are the business of a
// Firewall, which sub-package policy implements; links and rules change in one
// order in which no zone is ever open.
//
// Invariants:
//
//   - what mobileops did not make is never changed or taken away: every
//     interface of ours has a name that begins with "mo-", an alias that says so
//     and an entry in state.db with its index, and only all three together make
//     it ours;
//   - what is about to be done is written down before it is done, so that an
//     apply that was killed is healed by the next one;
//   - an apply of what is in force changes nothing, and sends nothing that the
//     kernel would report as an event;
//   - what is taken away leaves everything else as it was.
//
// Sources: ip-link(8), bridge(8), rtnetlink(7), the kernel's
// Documentation/networking/{bridge,vxlan,ip-sysctl}.rst, RFC 7348 (VXLAN),
// RFC 1918, RFC 4193.
package segment

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Document is segments.yaml: everything one file asks for. Several documents
// can be in force at once, each under its name; Merge makes one of them.
type Document struct {
	Name        string `json:"name"`                  // under which it is in force; that of its file unless it says so
	Description string `json:"description,omitempty"` // free text

	// Internal are further networks that egress to the internet does not
	// reach, beside InternalNetworks: public addresses of one's own.
	Internal []netip.Prefix `json:"internal,omitempty"`

	Zones     []Zone     `json:"zones"`               // in the order of the file
	Workloads []Workload `json:"workloads,omitempty"` // in the order of the file
	Flows     []Flow     `json:"flows,omitempty"`     // all of them allow; their order means nothing
}

// Zone is a part of the network: a bridge, or one that a tunnel or a VLAN
// carries on to other hosts, and the subnets on it.
type Zone struct {
	Name string `json:"name"` // "dev"; its bridge is called "mo-dev"

	VXLAN *VXLAN `json:"vxlan,omitempty"` // at most one of VXLAN and VLAN is set;
	VLAN  *VLAN  `json:"vlan,omitempty"`  // with neither the zone ends at this host

	Subnets []Subnet `json:"subnets,omitempty"` // none: the bridge carries frames and this host has no address on it
	MTU     int      `json:"mtu,omitempty"`     // bytes; 0: 1500, less what the transport needs (see Layout)

	// NAT is set when what leaves the zone gets an address of this host, IPv4
	// and IPv6 (masquerade).
	NAT *NAT `json:"nat,omitempty"`

	// Egress is what every workload of the zone may reach outside of all
	// zones, beside what flows allow it.
	Egress Egress `json:"egress"`

	// IsolatePorts keeps the ports of the bridge from each other in the bridge
	// itself, whatever flows say; a document whose flows contradict it is
	// refused.
	IsolatePorts bool `json:"isolate_ports,omitempty"`

	STP bool `json:"stp,omitempty"` // spanning tree; off unless the zone is wired in a ring

	DHCP *DHCP `json:"dhcp,omitempty"` // this host gives out addresses; needs a subnet with a gateway
	DNS  *DNS  `json:"dns,omitempty"`  // this host answers for names, on the gateway addresses
}

// VXLAN carries a zone to other hosts in UDP (RFC 7348).
type VXLAN struct {
	ID      uint32       `json:"id"`                // the network identifier, 1 to 16777215
	Port    uint16       `json:"port"`              // UDP; 4789 unless said
	Device  string       `json:"device,omitempty"`  // the interface below; needed with Group
	Local   netip.Addr   `json:"local,omitzero"`    // the source address; invalid: the kernel chooses
	Remotes []netip.Addr `json:"remotes,omitempty"` // the other hosts, each gets what is for everybody
	Group   netip.Addr   `json:"group,omitzero"`    // or a multicast group; never both
}

// VLAN carries a zone to other hosts under a tag of IEEE 802.1Q.
type VLAN struct {
	ID     uint16 `json:"id"`     // 1 to 4094
	Parent string `json:"parent"` // the interface that carries the tags
}

// Subnet is a network of a zone and the address this host has in it.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix"`           // masked
	Gateway netip.Addr   `json:"gateway,omitzero"` // this host's address; invalid: none
}

// NAT says how what leaves a zone gets an address of this host.
type NAT struct {
	Out string `json:"out,omitempty"` // through this interface alone; empty: through whichever the route takes
}

// EgressMode is the kind of an egress policy.
type EgressMode string

// The egress policies.
const (
	EgressNone     EgressMode = "none"     // nothing outside of the zones
	EgressInternet EgressMode = "internet" // everything but InternalNetworks, Document.Internal, this host and the zones
	EgressList     EgressMode = "list"     // what Allow says, and nothing else
)

// Egress is what a zone may reach outside of all zones. The zero value is none.
type Egress struct {
	Mode  EgressMode `json:"mode"`
	Allow []Target   `json:"allow,omitempty"` // with EgressList
}

// Target is a network, and the ports in it: "192.0.2.0/24:443/tcp".
type Target struct {
	Prefix  netip.Prefix `json:"prefix"`
	Traffic Traffic      `json:"traffic,omitzero"`
}

// Protocol is a protocol above IP, in words.
type Protocol string

// The protocols. ProtocolICMP stands for ICMP and ICMPv6 both.
const (
	ProtocolAny  Protocol = ""
	ProtocolTCP  Protocol = "tcp"
	ProtocolUDP  Protocol = "udp"
	ProtocolSCTP Protocol = "sctp"
	ProtocolICMP Protocol = "icmp"
)

// Traffic is a protocol and the destination ports: "8000-8010/tcp", "icmp".
// The zero value is all traffic.
type Traffic struct {
	Protocol Protocol `json:"protocol,omitempty"`
	First    uint16   `json:"first,omitempty"` // ports; 0 and 0: all of the protocol
	Last     uint16   `json:"last,omitempty"`  // equal to First for a single port
}

// DHCP is the service that gives out addresses on a zone. IPv4 by DHCP; IPv6 by
// router advertisements, and by DHCPv6 when there is a Range6.
type DHCP struct {
	Range4       Range         `json:"range4,omitzero"`        // within one IPv4 subnet of the zone, without the gateway
	Range6       Range         `json:"range6,omitzero"`        // within one IPv6 subnet of the zone
	Lease        time.Duration `json:"lease_ns"`               // 1h unless said; 2m to 30 days
	RA           bool          `json:"router_advertisements"`  // true unless said, with an IPv6 subnet
	Reservations []Reservation `json:"reservations,omitempty"` // fixed addresses, those of workloads with a MAC included
	Options      DHCPOptions   `json:"options,omitzero"`
}

// Range is a span of addresses of one family, both ends included. The zero
// value is none.
type Range struct {
	First netip.Addr `json:"first"`
	Last  netip.Addr `json:"last"`
}

// Reservation is an address that belongs to one MAC address.
type Reservation struct {
	MAC       MAC          `json:"mac"`
	Addresses []netip.Addr `json:"addresses"` // at most one of each family, within the zone's subnets
	Hostname  string       `json:"hostname,omitempty"`
}

// DHCPOptions are what a lease says beside address, router and name server.
type DHCPOptions struct {
	NTP        []netip.Addr      `json:"ntp,omitempty"`    // option 42
	Search     []string          `json:"search,omitempty"` // option 119; the domain of DNS unless said
	Routes     []StaticRoute     `json:"routes,omitempty"` // option 121
	NextServer netip.Addr        `json:"next_server,omitzero"`
	Bootfile   string            `json:"bootfile,omitempty"` // option 67
	Raw        map[uint8]HexData `json:"raw,omitempty"`      // any other option of DHCPv4 by its number
}

// StaticRoute is a route that a lease carries (RFC 3442).
type StaticRoute struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via"`
}

// DNS is the service that answers for names on a zone.
type DNS struct {
	Domain   string           `json:"domain"`             // "dev.internal", without the last dot, lower case
	Upstream []netip.AddrPort `json:"upstream,omitempty"` // who is asked for other names; none: they do not exist
	Records  []Record         `json:"records,omitempty"`  // beside the names of workloads and leases
}

// Record is a name with addresses, or with another name.
type Record struct {
	Name      string       `json:"name"`                // without a dot it is in the domain of the zone; lower case
	Addresses []netip.Addr `json:"addresses,omitempty"` // A and AAAA
	Alias     string       `json:"alias,omitempty"`     // or CNAME
}

// Workload is something that has a port in a zone.
type Workload struct {
	Name   string  `json:"name"`
	Zone   string  `json:"zone"`
	Labels []Label `json:"labels,omitempty"` // sorted by key
	Attach Attach  `json:"attach"`

	// MAC is the address of the workload's own end: given for machines, made
	// from the names for namespaces. The zero value is not known.
	MAC MAC `json:"mac,omitzero"`

	// Addresses are fixed ones, at most one of each family. For a namespace
	// that has none one of each subnet is allocated and kept (see Port).
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// Label is a key with a value, such as app=web. The keys "zone" and "workload"
// are not labels: as endpoints they mean the names.
type Label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Attach says how a workload gets its port. Exactly one of the first five is
// set.
type Attach struct {
	Interface string `json:"interface,omitempty"` // an interface that exists on this host becomes the port: a tap, a veth end, a NIC
	Tap       bool   `json:"tap,omitempty"`       // mobileops makes a tap for a virtual machine
	Namespace string `json:"namespace,omitempty"` // a network namespace: a name of ip-netns(8), or a path such as /run/netns/web
	PID       int    `json:"pid,omitempty"`       // the network namespace of a process
	Container string `json:"container,omitempty"` // that of a container, by its id or the beginning of it (12 digits or more)

	Owner  string `json:"owner,omitempty"`  // the user who may open the tap; empty: root
	Inside string `json:"inside,omitempty"` // what the interface in a namespace is called; "eth0" unless said
}

// Namespaced reports whether the workload is a network namespace in which
// mobileops makes the interface, addresses and default routes.
func (a *Attach) Namespaced() bool { return a.Namespace != "" || a.PID != 0 || a.Container != "" }

// Flow is traffic that is allowed between two endpoints, and the answers to it.
type Flow struct {
	From    Endpoint  `json:"from"`
	To      Endpoint  `json:"to"`
	Traffic []Traffic `json:"traffic,omitempty"` // none: all
	Log     bool      `json:"log,omitempty"`     // each new connection is logged
	Line    int       `json:"line,omitempty"`    // where it stands in the file, for those who explain it

	Document string `json:"document,omitempty"` // which file that is; in a Layout alone
}

// Endpoint is one side of a flow: this host, the internet, a network, or the
// workloads that a selector fits. Exactly one of Host, Internet, Prefix and
// the selector (Zone, Workload, Labels: all that are set must fit) is set.
type Endpoint struct {
	Host     bool         `json:"host,omitempty"`
	Internet bool         `json:"internet,omitempty"`
	Prefix   netip.Prefix `json:"prefix,omitzero"`

	Zone     string  `json:"zone,omitempty"`
	Workload string  `json:"workload,omitempty"`
	Labels   []Label `json:"labels,omitempty"`
}

// Selector reports whether the endpoint stands for workloads.
func (e *Endpoint) Selector() bool { return e.Zone != "" || e.Workload != "" || len(e.Labels) > 0 }

// Whole reports whether the endpoint is a whole zone: also of those in it that
// are no workload of the document, such as machines that came by DHCP.
func (e *Endpoint) Whole() bool { return e.Zone != "" && e.Workload == "" && len(e.Labels) == 0 }

// Selects reports whether a selector fits a workload.
func (e *Endpoint) Selects(w *Workload) bool {
	if !e.Selector() || e.Zone != "" && e.Zone != w.Zone || e.Workload != "" && e.Workload != w.Name {
		return false
	}
	for _, l := range e.Labels {
		if !slices.Contains(w.Labels, l) {
			return false
		}
	}
	return true
}

// String returns the endpoint as it is written in a document.
func (e Endpoint) String() string {
	switch {
	case e.Host:
		return "host"
	case e.Internet:
		return "internet"
	case e.Prefix.IsValid():
		return e.Prefix.String()
	}
	var parts []string
	if e.Zone != "" {
		parts = append(parts, "zone="+e.Zone)
	}
	if e.Workload != "" {
		parts = append(parts, "workload="+e.Workload)
	}
	for _, l := range e.Labels {
		parts = append(parts, l.String())
	}
	return strings.Join(parts, ",")
}

// String returns "key=value".
func (l Label) String() string { return l.Key + "=" + l.Value }

// String returns the traffic as it is written in a document; "any" for all.
func (t Traffic) String() string {
	switch {
	case t.Protocol == ProtocolAny:
		return "any"
	case t.First == 0 && t.Last == 0:
		return string(t.Protocol)
	case t.First == t.Last:
		return fmt.Sprintf("%d/%s", t.First, t.Protocol)
	}
	return fmt.Sprintf("%d-%d/%s", t.First, t.Last, t.Protocol)
}

// String returns the flow in one line, as people speak of it.
func (f *Flow) String() string {
	var what []string
	for _, t := range f.Traffic {
		what = append(what, t.String())
	}
	if len(what) == 0 {
		what = []string{"any"}
	}
	return fmt.Sprintf("%s -> %s %s", f.From, f.To, strings.Join(what, ","))
}

// MAC is an address of IEEE 802. The zero value is none.
type MAC [6]byte

// ParseMAC reads "52:54:00:12:34:56".
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("%q is no MAC address such as 52:54:00:12:34:56", s)
	}
	return MAC(hw), nil
}

// String returns the address with colons, "" for none.
func (m MAC) String() string {
	if m.IsZero() {
		return ""
	}
	return net.HardwareAddr(m[:]).String()
}

// IsZero reports whether there is no address.
func (m MAC) IsZero() bool { return m == MAC{} }

// MarshalText is String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is ParseMAC; an empty text is none.
func (m *MAC) UnmarshalText(text []byte) (err error) {
	*m = MAC{}
	if len(text) > 0 {
		*m, err = ParseMAC(string(text))
	}
	return err
}

// HexData are bytes that are written as hexadecimal digits.
type HexData []byte

// MarshalText returns the digits.
func (d HexData) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(d)), nil }

// UnmarshalText reads digits.
func (d *HexData) UnmarshalText(text []byte) (err error) {
	*d, err = hex.DecodeString(string(text))
	return err
}

// InternalNetworks are the networks that "internet" never includes: private,
// shared, link-local, loopback, multicast and reserved ones (RFC 6890), and
// those of IPv6 that carry an address of IPv4 in them.
func InternalNetworks() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
		"::/96", "::ffff:0:0/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2002::/16",
		"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	} {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}
