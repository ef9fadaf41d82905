package dhcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// batch is how many messages are answered with one sync of the disk at most.
const batch = 64

// answer is a message for a client.
type answer struct {
	to   MAC
	data []byte // an IP packet
}

func (s *Server) start4(ctx context.Context, ifi *net.Interface) (loop func() error, stop func(), err error) {
	held, err := holdPort(ctx, "udp4", ifi.Name, serverPort)
	if err != nil {
		return nil, nil, err
	}
	p, err := listenPackets(ifi.Index, unix.ETH_P_IP, filter4)
	if err != nil {
		held.Close()
		return nil, nil, err
	}
	s.pack4 = p
	stop = func() { p.close(); held.Close() }
	return func() error { return s.serve(p, s.handle4) }, stop, nil
}

// serve reads messages and sends the answers, after what they say is on the
// disk: one sync for all that were there.
func (s *Server) serve(p *packetSocket, handle func(packet, time.Time) (answer, bool)) error {
	var out []answer
	for {
		out = out[:0]
		for n := 0; n < batch; n++ {
			pkt, ok, err := p.receive(n == 0)
			if err != nil {
				if errors.Is(err, unix.ENETDOWN) {
					continue // it comes up again, or goes away
				}
				return err
			}
			if !ok {
				break
			}
			if a, ok := s.locked(handle, pkt); ok {
				out = append(out, a)
			}
		}
		if err := s.commit(); err != nil {
			// Clients ask again; by then there may be room.
			s.notice("DHCP on %s: %d answers are held back: %v", s.cfg.Interface, len(out), err)
			continue
		}
		for _, a := range out {
			p.send(a.to, a.data) // a loss like any other on the way
		}
	}
}

func (s *Server) locked(handle func(packet, time.Time) (answer, bool), p packet) (answer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := handle(p, s.now())
	s.takeChanges()
	return a, ok
}

// allowed counts a message against the shares of who sent it.
func (s *Server) allowed(mac MAC, now time.Time) (port string, ok bool) {
	port = s.ports.of(mac, now)
	if port != "" && !s.byPort.Allow(port, now) || !s.byMAC.Allow(mac, now) {
		s.counters.Limited++
		return port, false
	}
	return port, true
}

// handle4 answers one packet. The caller holds mu.
func (s *Server) handle4(p packet, now time.Time) (answer, bool) {
	port, ok := s.allowed(p.from, now)
	if !ok {
		return answer{}, false
	}
	src, dst, payload, err := parseUDP(p.data, serverPort, p.sums)
	if err != nil {
		s.counters.Malformed++
		return answer{}, false
	}
	m, err := parseMessage(payload)
	if err != nil {
		s.counters.Malformed++
		return answer{}, false
	}
	s.counters.Received++
	if MAC(m.ClientHWAddr) != p.from {
		s.counters.Spoofed++
		return answer{}, false
	}
	if dst.Addr() != s.replies.server && dst.Addr() != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && dst.Addr() != broadcast(s.cfg.Gateway) {
		return answer{}, false
	}
	x := &exchange{Server: s, m: m, src: src.Addr(), now: now,
		request: request{client: clientKey(m), mac: p.from, port: port, wish: addr4(m.RequestedIPAddress())}}
	x.name = s.nameFor(x.mac, clientName(m), now)
	s.v4.expire(now)
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return x.discover(0)
	case dhcpv4.MessageTypeRequest:
		return x.selected()
	case dhcpv4.MessageTypeDecline:
		x.decline()
	case dhcpv4.MessageTypeRelease:
		x.release()
	case dhcpv4.MessageTypeInform:
		return x.inform()
	}
	return answer{}, false
}

// exchange is a message that is being answered (RFC 2131, 4.3).
type exchange struct {
	*Server
	request
	m   *dhcpv4.DHCPv4
	src netip.Addr
	now time.Time
}

// discover reserves an address for the client, and offers it once nobody was
// found to use it. Round counts the addresses that were taken.
func (x *exchange) discover(round int) (answer, bool) {
	if id := addr4(x.m.ServerIdentifier()); id.IsValid() && id != x.replies.server {
		return answer{}, false
	}
	addr, own, err := x.v4.choose(&x.request, x.now)
	switch {
	case errors.Is(err, errExhausted):
		x.counters.Exhausted++
		return answer{}, false
	case err != nil:
		x.counters.Limited++
		return answer{}, false
	}
	if p := x.pending[addr]; p != nil && p.x.client == x.client {
		p.x.m = x.m // it asks again while others are being asked
		return answer{}, false
	}
	if own {
		// What it has, it keeps until its end; an offer only says so.
		if l := x.v4.byAddr[addr]; l.State == Offered || l.Client != x.client {
			x.v4.hold(addr, &x.request, Offered, x.now, x.now.Add(offerTime))
		}
		return x.offer(addr)
	}
	if !x.probe(addr, round) {
		return answer{}, false
	}
	x.v4.hold(addr, &x.request, Offered, x.now, x.now.Add(offerTime))
	if x.cfg.Probe < 0 {
		return x.offer(addr)
	}
	return answer{}, false
}

func (x *exchange) offer(addr netip.Addr) (answer, bool) {
	x.counters.Offers++
	return x.reply(dhcpv4.MessageTypeOffer, addr, x.cfg.Lease), true
}

// selected answers a REQUEST, of which there are four kinds.
func (x *exchange) selected() (answer, bool) {
	server, requested, client := addr4(x.m.ServerIdentifier()), x.wish, addr4(x.m.ClientIPAddr)
	mine := x.v4.byClient[x.client]
	switch {
	case server.IsValid() && server != x.replies.server: // it took the offer of another
		if mine != nil && mine.State == Offered {
			x.v4.forget(mine)
		}
		return answer{}, false
	case server.IsValid(): // SELECTING
		if !requested.IsValid() {
			requested = client
		}
		return x.bind(requested, mine)
	case requested.IsValid() && !client.IsValid(): // INIT-REBOOT
		if !x.cfg.Gateway.Masked().Contains(requested) {
			return x.refuse()
		}
		if mine == nil {
			return answer{}, false // "MUST remain silent"
		}
		if mine.Address != requested {
			return x.refuse()
		}
		return x.bind(requested, mine)
	case client.IsValid(): // RENEWING, REBINDING
		if x.src.IsValid() && !x.src.IsUnspecified() && x.src != client {
			x.counters.Spoofed++
			return answer{}, false
		}
		return x.bind(client, mine)
	}
	return answer{}, false
}

// bind gives an address to the client when it may have it.
func (x *exchange) bind(addr netip.Addr, mine *Lease) (answer, bool) {
	if !addr.IsValid() || !x.v4.available(addr, &x.request) {
		return x.refuse()
	}
	// What is reserved for it comes before what it had until now.
	if a, ok := x.v4.reserved[x.mac]; ok && a != addr && x.v4.available(a, &x.request) {
		return x.refuse()
	}
	if (mine == nil || mine.Address != addr || !mine.active(x.now)) && x.v4.reserved[x.mac] != addr && !x.v4.within(&x.request) {
		if mine == nil || !mine.active(x.now) {
			x.counters.Limited++
			return x.refuse()
		}
	}
	x.bound(x.v4.hold(addr, &x.request, Bound, x.now, x.now.Add(x.cfg.Lease)))
	x.counters.Acks++
	return x.reply(dhcpv4.MessageTypeAck, addr, x.cfg.Lease), true
}

func (x *exchange) refuse() (answer, bool) {
	x.counters.Naks++
	return x.reply(dhcpv4.MessageTypeNak, netip.Addr{}, 0), true
}

// decline: the client found that somebody has the address.
func (x *exchange) decline() {
	l := x.v4.byAddr[x.wish]
	if addr4(x.m.ServerIdentifier()) != x.replies.server || l == nil || l.Client != x.client || !l.active(x.now) {
		return
	}
	x.counters.Declines++
	x.v4.decline(x.wish, x.mac, x.port, x.now)
	x.notice("DHCP on %s: %s says that somebody else uses %s", x.cfg.Interface, x.mac, x.wish)
}

func (x *exchange) release() {
	l := x.v4.byAddr[addr4(x.m.ClientIPAddr)]
	if addr4(x.m.ServerIdentifier()) != x.replies.server || l == nil || l.Client != x.client || l.MAC != x.mac || !l.active(x.now) {
		return
	}
	x.counters.Releases++
	x.v4.release(l, x.now)
}

// inform: the client has an address by other means, and asks for the rest.
func (x *exchange) inform() (answer, bool) {
	client := addr4(x.m.ClientIPAddr)
	if !client.IsValid() || x.src != client || !x.cfg.Gateway.Masked().Contains(client) || client == x.replies.server {
		return answer{}, false
	}
	x.counters.Acks++
	return x.replyTo(client, x.replies.reply(x.m, dhcpv4.MessageTypeAck, netip.Addr{}, 0)), true
}

// reply puts a message where the client hears it (RFC 2131, 4.1): the address
// that it has, everybody when it says so or is refused, else the address that it
// is given, at the station that asked.
func (x *exchange) reply(kind dhcpv4.MessageType, addr netip.Addr, lease time.Duration) answer {
	data := x.replies.reply(x.m, kind, addr, lease)
	client := addr4(x.m.ClientIPAddr)
	switch {
	case kind == dhcpv4.MessageTypeNak:
		return x.replyTo(netip.Addr{}, data)
	case client.IsValid():
		return x.replyTo(client, data)
	case x.m.IsBroadcast():
		return x.replyTo(netip.Addr{}, data)
	}
	return x.replyTo(addr, data)
}

// replyTo makes a packet for an address, or for everybody when it is invalid.
func (x *exchange) replyTo(addr netip.Addr, data []byte) answer {
	to := x.mac
	if !addr.IsValid() {
		addr, to = netip.AddrFrom4([4]byte{255, 255, 255, 255}), everybody
	}
	return answer{to, appendUDP(nil, netip.AddrPortFrom(x.replies.server, serverPort), netip.AddrPortFrom(addr, clientPort), data)}
}
