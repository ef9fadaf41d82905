// Package isolation cuts a host off from every network, except for those who
// administer it, and gives it back.
//
// One transaction of nf_tables makes three tables, all named
// mobileops_isolation:
//
//	inet    chains at prerouting, forward and output: what this host routes,
//	        receives and sends, on interfaces that appear later, too; programs
//	        read "not permitted" at once
//	netdev  chains at ingress and egress of every interface: what inet chains
//	        never see, such as frames from AF_PACKET sockets and those of macvlan
//	        and ipvlan children
//	bridge  a chain at forward: what passes from port to port
//
// Every chain accepts by policy, and ends with a rule that drops what is of a
// protocol in the set "armed". That is the switch: its one element covers all
// protocols, with a time-out while isolation waits for confirmation. When nobody
// confirms, the kernel forgets the element and connectivity is back, with no
// process alive. Confirming replaces the element by a lasting one, in one
// transaction that fails when it has run out.
//
// Before that rule come those for what stays possible: peers (management, the
// session of whoever isolates, --allow), as addresses or as services of either
// side; ARP and neighbour discovery with gateways and peers, of bounded size and
// with the hop limit checked; renewal of addresses that have a lifetime; path MTU
// errors about traffic with peers; frames between this host and its switch.
// On netdev, only what comes from and goes to addresses of this host itself: a
// container or a virtual machine gains nothing from what its host may do.
//
// What this cannot do: a program with CAP_NET_RAW still sees frames that arrive,
// since packet sockets are served before any rule; it cannot answer. A program
// with CAP_NET_ADMIN can take rules away; while a guard runs (Guard), it cannot
// change these tables, short of killing it.
//
// Invariants: no packet passes between the old and the new state of rules; tables
// of others are never touched; what is said to be in force was read back from the
// kernel.
package isolation

import (
	"net/netip"
	"time"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/nft"
)

// TableName is the name of the three tables.
const TableName = "mobileops_isolation"

// The tables.
var (
	inet   = nft.Table{Family: nft.INet, Name: TableName}
	netdev = nft.Table{Family: nft.NetDev, Name: TableName}
	bridge = nft.Table{Family: nft.Bridge, Name: TableName}
)

func tables() []nft.Table { return []nft.Table{inet, netdev, bridge} }

// Priorities of the chains: after connection tracking (-200) and before address
// translation (-100); on netdev and bridge before everything.
const (
	inetPriority  = -190
	earlyPriority = -500
)

// Options say how a host is isolated.
type Options struct {
	Allow   []Peer        // who may talk with this host
	Confirm time.Duration // how long it lasts unless confirmed; 0: for good
	// KeepEstablished lets connections go on that this host has now.
	KeepEstablished bool
	Names           []netip.Addr // name servers that may be asked
	// Session returns the connection of whoever isolates, nil when there is none.
	// It is asked when all else is known: to find it takes long.
	Session func() *Session
	Strict  bool // no DHCP and no router advertisements either
	Replace bool // isolation in force is replaced
	Owned   bool // tables get flags for a guard to own them
	// Remembered is what is known from before a reboot, when there are neither
	// addresses nor routes yet.
	Remembered Remembered
}

// Remembered is what was seen of the surroundings when isolation began.
type Remembered struct {
	Own      []netip.Addr `json:"own,omitempty"`
	Gateways []netip.Addr `json:"gateways,omitempty"`
	Routers  []netip.Addr `json:"routers,omitempty"`
	Dynamic4 []string     `json:"dynamic4,omitempty"` // names of interfaces
	Dynamic6 []string     `json:"dynamic6,omitempty"`
}

// Peer is somebody who may talk with an isolated host.
type Peer struct {
	Prefix netip.Prefix `json:"prefix"`
	// First and Last are ports of a service; 0: everything is allowed.
	First uint16 `json:"first_port,omitempty"`
	Last  uint16 `json:"last_port,omitempty"`
	Proto uint8  `json:"protocol,omitempty"` // unix.IPPROTO_TCP or IPPROTO_UDP
	Why   string `json:"why"`                // "--allow", "profile", "management", "session", "probe", "controller", "name server"
}

// Session is a connection by which an administrator came.
type Session struct {
	Peer netip.Addr `json:"peer"`
	Port uint16     `json:"port"`                // of this host, TCP
	Mosh uint16     `json:"mosh_port,omitempty"` // of this host, UDP, when it goes on by mosh(1)
	From string     `json:"from"`                // how it was found: "SSH_CONNECTION", or the process that has it
	PID  int        `json:"pid,omitempty"`       // of that process
}

// merged returns the addresses of peers that everything is allowed to, or all of
// them, as ranges of IPv4 and IPv6.
func merged(peers []Peer, all bool) (v4, v6 []addresses.Range) {
	var list []addresses.Range
	for _, p := range peers {
		if p.First == 0 || all {
			list = append(list, addresses.Of(p.Prefix))
		}
	}
	return addresses.Split(addresses.Merge(list))
}
