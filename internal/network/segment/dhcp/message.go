package dhcp

import (
	"encoding/binary"
	"encoding/hex"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

const (
	minMessage  = 576 // bytes of an IP packet that every client takes
	maxIdentity = 64  // bytes of a client identifier: RFC 4361 needs 2 to 37
)

// parseMessage reads a request of a client. It refuses what no client on this
// link has a reason to send.
func parseMessage(b []byte) (*dhcpv4.DHCPv4, error) {
	if len(b) > maxDatagram {
		return nil, &PacketError{maxDatagram, "too long"}
	}
	if len(b) < 240 {
		return nil, &PacketError{len(b), "too short"}
	}
	m, err := dhcpv4.FromBytes(b)
	switch {
	case err != nil:
		return nil, &PacketError{240, err.Error()}
	case m.OpCode != dhcpv4.OpcodeBootRequest:
		return nil, &PacketError{0, "not a request"}
	case m.HWType != iana.HWTypeEthernet || len(m.ClientHWAddr) != 6:
		return nil, &PacketError{1, "not of an Ethernet"}
	case !m.GatewayIPAddr.IsUnspecified():
		return nil, &PacketError{24, "relayed: zones have no relays"}
	case m.MessageType() == dhcpv4.MessageTypeNone:
		return nil, &PacketError{240, "no DHCP: it has no message type"}
	case len(m.Options.Get(dhcpv4.OptionClientIdentifier)) > maxIdentity:
		return nil, &PacketError{240, "the client identifier is too long"}
	}
	return m, nil
}

// clientKey names the client of a request (RFC 2131, 4.2).
func clientKey(m *dhcpv4.DHCPv4) string {
	if id := m.Options.Get(dhcpv4.OptionClientIdentifier); len(id) >= 2 {
		return hex.EncodeToString(id)
	}
	return "hw/" + m.ClientHWAddr.String()
}

// clientName is what the client calls itself, as a label of DNS; "" when it does
// not say, or says something else.
func clientName(m *dhcpv4.DHCPv4) string {
	if n := cleanName(string(m.Options.Get(dhcpv4.OptionHostName))); n != "" {
		return n
	}
	return fqdnName(m.Options.Get(dhcpv4.OptionFQDN))
}

// fqdnName reads the first label of option 81 (RFC 4702): three bytes, and a
// name as text or, with the E bit, as in DNS.
func fqdnName(b []byte) string {
	if len(b) < 4 {
		return ""
	}
	name := b[3:]
	if b[0]&4 != 0 {
		n := int(name[0])
		if n == 0 || n > 63 || n >= len(name) {
			return ""
		}
		name = name[1 : 1+n]
	}
	return cleanName(string(name))
}

// addr4 is an address of a message; invalid for 0.0.0.0 and for none.
func addr4(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// replies makes answers. It is made once, from the configuration.
type replies struct {
	server  netip.Addr
	asked   dhcpv4.Options // when the client asks for it, or for nothing in particular
	next    net.IP
	file    string
	options []uint8 // codes of asked, what is left out first when there is no room is last
}

func newReplies(c *Config) *replies {
	r := &replies{server: c.Gateway.Addr(), asked: dhcpv4.Options{}, file: c.Bootfile}
	if c.NextServer.Is4() {
		r.next = c.NextServer.AsSlice()
	}
	put := func(o dhcpv4.Options, code dhcpv4.OptionCode, value []byte) {
		if len(value) > 0 {
			o[code.Code()] = value
			r.options = append(r.options, code.Code())
		}
	}
	put(r.asked, dhcpv4.OptionSubnetMask, net.CIDRMask(c.Gateway.Bits(), 32))
	var router []byte
	if c.Router {
		router = r.server.AsSlice()
	}
	put(r.asked, dhcpv4.OptionRouter, router)
	put(r.asked, dhcpv4.OptionDomainNameServer, join4(c.DNS))
	put(r.asked, dhcpv4.OptionClasslessStaticRoute, routes(c))
	put(r.asked, dhcpv4.OptionBroadcastAddress, broadcast(c.Gateway).AsSlice())
	put(r.asked, dhcpv4.OptionDomainName, []byte(c.Domain))
	if c.MTU > 0 {
		put(r.asked, dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(c.MTU)))
	}
	put(r.asked, dhcpv4.OptionBootfileName, []byte(c.Bootfile))
	put(r.asked, dhcpv4.OptionNTPServers, join4(c.NTP))
	if len(c.Search) > 0 {
		put(r.asked, dhcpv4.OptionDNSDomainSearchList, (&rfc1035label.Labels{Labels: c.Search}).ToBytes())
	}
	for _, code := range slices.Sorted(maps.Keys(c.Raw)) {
		if _, ok := r.asked[code]; !ok && code != 0 && code != 255 {
			r.options = append(r.options, code)
			r.asked[code] = c.Raw[code]
		}
	}
	return r
}

func join4(list []netip.Addr) []byte {
	var b []byte
	for _, a := range list {
		if a.Is4() && len(b) < 16 {
			b = append(b, a.AsSlice()...)
		}
	}
	return b
}

// routes is option 121. Who understands it ignores the option for the router,
// so the default route is in it.
func routes(c *Config) []byte {
	if len(c.Routes) == 0 {
		return nil
	}
	list := slices.Clone(c.Routes)
	if c.Router && !slices.ContainsFunc(list, func(r Route) bool { return r.To.Bits() == 0 }) {
		list = append(list, Route{netip.PrefixFrom(netip.IPv4Unspecified(), 0), c.Gateway.Addr()})
	}
	var b []byte
	for _, r := range list {
		to := r.To.Masked().Addr().As4()
		b = append(b, byte(r.To.Bits()))
		b = append(b, to[:(r.To.Bits()+7)/8]...)
		b = append(b, r.Via.AsSlice()...)
	}
	return b
}

// reply makes an answer. With a lease of 0 nothing is said about time, as in the
// answer to an INFORM.
func (r *replies) reply(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType, your netip.Addr, lease time.Duration) []byte {
	out := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: m.HWType, TransactionID: m.TransactionID, Flags: m.Flags & 0x8000,
		ClientHWAddr: m.ClientHWAddr, GatewayIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero,
		Options: dhcpv4.Options{},
	}
	out.Options.Update(dhcpv4.OptMessageType(kind))
	out.Options.Update(dhcpv4.OptServerIdentifier(r.server.AsSlice()))
	// RFC 6842: sent back as it came.
	if id := m.Options.Get(dhcpv4.OptionClientIdentifier); id != nil {
		out.Options[dhcpv4.OptionClientIdentifier.Code()] = id
	}
	if kind == dhcpv4.MessageTypeNak {
		out.Options.Update(dhcpv4.OptMessage("this address is not yours"))
		return out.ToBytes()
	}
	if your.IsValid() {
		out.YourIPAddr = your.AsSlice()
	}
	if kind == dhcpv4.MessageTypeAck && len(m.ClientIPAddr) == 4 {
		out.ClientIPAddr = m.ClientIPAddr
	}
	if r.next != nil {
		out.ServerIPAddr = r.next
		out.BootFileName = r.file
	}
	if lease > 0 {
		out.Options.Update(dhcpv4.OptIPAddressLeaseTime(lease))
		out.Options.Update(dhcpv4.OptRenewTimeValue(lease / 2))
		out.Options.Update(dhcpv4.OptRebindingTimeValue(lease * 7 / 8))
	}
	room := minMessage
	if n, err := m.MaxMessageSize(); err == nil {
		room = min(max(room, int(n)), 1500)
	}
	room -= 28 + 240 + 1 // headers, and the end
	for _, value := range out.Options {
		room -= optionSize(value)
	}
	wanted := m.Options.Get(dhcpv4.OptionParameterRequestList)
	for _, code := range r.options {
		value := r.asked[code]
		if len(wanted) > 0 && !slices.Contains(wanted, code) && code != dhcpv4.OptionSubnetMask.Code() {
			continue
		}
		if n := optionSize(value); n <= room {
			out.Options[code] = value
			room -= n
		}
	}
	return out.ToBytes()
}

// optionSize is what a value needs, with code and length before each 255 bytes.
func optionSize(value []byte) int { return len(value) + 2*max(1, (len(value)+254)/255) }
