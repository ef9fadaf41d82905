package main

import (
	"encoding/binary"
	"errors"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// atOnce is how many questions are on the way at a time.
const atOnce = 16

// dial connects this thread's namespace with the resolver.
func dial() (*net.UDPConn, error) {
	c, err := net.Dial("udp4", gateway+":53")
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

func question() []byte {
	b, err := new(mdns.Msg).SetQuestion("www.example.org.", mdns.TypeA).Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// waitForAnswer waits until the resolver has an answer, in its cache.
func waitForAnswer() error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 512)
	for range 200 {
		c.Write(question())
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := c.Read(buf); err == nil && n > 40 && buf[3]&15 == 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("no answer within ten seconds")
}

// loadDNS keeps questions on the way, and counts answers.
func loadDNS(span time.Duration) (n, lost int, err error) {
	c, err := dial()
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	q, buf := question(), make([]byte, 512)
	for range atOnce {
		c.Write(q)
	}
	for end := time.Now().Add(span); time.Now().Before(end); {
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Read(buf); err != nil {
			lost += atOnce
			for range atOnce {
				c.Write(q)
			}
			continue
		}
		n++
		c.Write(q)
	}
	return n, lost, nil
}

// loadDHCP plays one client after the other, each with a MAC address of its own.
func loadDHCP(span time.Duration) (n, lost int, err error) {
	ifi, err := net.InterfaceByName("eth0")
	if err != nil {
		return 0, 0, err
	}
	proto := binary.NativeEndian.Uint16([]byte{8, 0})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: ifi.Index}); err != nil {
		return 0, 0, err
	}
	timeout := unix.NsecToTimeval(int64(200 * time.Millisecond))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	// Answers go to addresses that this station does not have.
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}); err != nil {
		return 0, 0, err
	}
	next := uint32(0)
	send := func(mac net.HardwareAddr, m *dhcpv4.DHCPv4) {
		frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac...)
		frame = append(frame, 8, 0)
		b := m.ToBytes()
		head := make([]byte, 28)
		head[0], head[8], head[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(head[2:], uint16(28+len(b)))
		copy(head[16:], []byte{255, 255, 255, 255})
		binary.BigEndian.PutUint16(head[10:], headerSum(head[:20]))
		binary.BigEndian.PutUint16(head[20:], 68)
		binary.BigEndian.PutUint16(head[22:], 67)
		binary.BigEndian.PutUint16(head[24:], uint16(8+len(b)))
		unix.Sendto(fd, append(append(frame, head...), b...), 0, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: ifi.Index})
	}
	discover := func() {
		next++
		mac := net.HardwareAddr{2, 1, byte(next >> 24), byte(next >> 16), byte(next >> 8), byte(next)}
		m, _ := dhcpv4.NewDiscovery(mac, dhcpv4.WithBroadcast(true), dhcpv4.WithTransactionID(dhcpv4.TransactionID(mac[2:])))
		send(mac, m)
	}
	for range atOnce {
		discover()
	}
	buf := make([]byte, 2048)
	for end := time.Now().Add(span); time.Now().Before(end) && next < 60000; {
		k, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			lost += atOnce
			for range atOnce {
				discover()
			}
			continue
		}
		if k < 42 || buf[23] != 17 || binary.BigEndian.Uint16(buf[34:]) != 67 {
			continue
		}
		m, err := dhcpv4.FromBytes(buf[42:k])
		if err != nil {
			continue
		}
		switch m.MessageType() {
		case dhcpv4.MessageTypeOffer:
			r, _ := dhcpv4.NewRequestFromOffer(m, dhcpv4.WithBroadcast(true), dhcpv4.WithTransactionID(m.TransactionID))
			send(m.ClientHWAddr, r)
		case dhcpv4.MessageTypeAck:
			n++
			discover()
		}
	}
	return n, lost, nil
}

func headerSum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
