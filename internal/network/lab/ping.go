package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// Ping is a probe that sends an echo request (RFC 792, RFC 4443) of the host
// to an address and waits for the reply.
func (h *Host) Ping(to netip.Addr) *Probe {
	return &Probe{Name: fmt.Sprintf("ping %s → %s", h.Name, to), Try: func(ctx context.Context) error {
		return h.ping(ctx, to)
	}}
}

func (h *Host) ping(ctx context.Context, to netip.Addr) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	conn, err := h.Dial(ctx, network, to.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	conn.SetDeadline(end)
	token := []byte(rand.Text())
	message := append([]byte{request, 0, 0, 0, 'm', 'o', 0, 1}, token...)
	if to.Is4() { // for IPv6 the kernel makes it
		binary.BigEndian.PutUint16(message[2:], Checksum(message))
	}
	if _, err := conn.Write(message); err != nil {
		return err
	}
	for b := make([]byte, 2048); ; {
		n, _, err := conn.(*net.IPConn).ReadFrom(b)
		if err != nil {
			return err
		}
		if n >= 8 && b[0] == reply && bytes.Equal(b[8:n], token) {
			return nil
		}
	}
}

// Checksum is that of the Internet protocols (RFC 1071).
func Checksum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
