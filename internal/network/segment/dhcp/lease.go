package dhcp

import (
	"fmt"
	"net/netip"
	"time"
)

// State is what is known about an address.
type State string

// The states of an address. Offered is never on the disk: the client did not
// take it yet.
const (
	Offered  State = "offered"
	Bound    State = "bound"
	Ended    State = "ended"    // released or run out; remembered for its client
	Declined State = "declined" // somebody uses it without a lease
)

// Lease is an address and who has it.
type Lease struct {
	Address netip.Addr `json:"address"`
	State   State      `json:"state"`
	// Client is the client identifier of DHCPv4 in hexadecimal digits, "hw/"
	// and the hardware address when it sent none; DUID and IAID of DHCPv6 with
	// a slash between them.
	Client string    `json:"client"`
	MAC    MAC       `json:"mac"`            // of the frames it sent
	Port   string    `json:"port,omitempty"` // of the bridge, when it is known
	Name   string    `json:"name,omitempty"` // a label of DNS
	Since  time.Time `json:"since"`          // when it was given to that client first
	Until  time.Time `json:"until"`

	place int // in the heap of those that run out, -1: not in it
	later *Lease
	prior *Lease // the list of those that ended
}

// MarshalText is String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads an address with colons.
func (m *MAC) UnmarshalText(text []byte) error {
	var b MAC
	if len(text) != 17 {
		return fmt.Errorf("%q is no MAC address", text)
	}
	for i := range b {
		hi, lo := digit(text[3*i]), digit(text[3*i+1])
		if hi < 0 || lo < 0 || i < 5 && text[3*i+2] != ':' {
			return fmt.Errorf("%q is no MAC address", text)
		}
		b[i] = byte(hi<<4 | lo)
	}
	*m = b
	return nil
}

func digit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// active reports whether nobody else can have the address now.
func (l *Lease) active(now time.Time) bool { return l.State != Ended && now.Before(l.Until) }
