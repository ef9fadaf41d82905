package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// packet is what was heard, without the Ethernet header.
type packet struct {
	data []byte
	from MAC  // of the frame
	sums bool // checksums are filled in
}

// packetSocket hears one kind of packets on one interface, and sends them to
// addresses of the link. The kernel's own rules for addresses, routes and
// neighbours do not apply, which is what clients without an address need.
type packetSocket struct {
	file    *os.File
	conn    syscall.RawConn
	ifindex int
	proto   uint16
	buf     []byte
	oob     []byte
}

// The filters run in the kernel over the packet after the Ethernet header:
// nothing but what could be a request wakes the server.
var (
	// filter4 lets UDP to port 67 pass that begins as a BOOTP request and is no fragment.
	filter4 = []unix.SockFilter{
		{Code: 0x30, K: 9},             // A = protocol
		{Code: 0x15, Jf: 8, K: 17},     // UDP
		{Code: 0x28, K: 6},             // A = flags and fragment
		{Code: 0x45, Jt: 6, K: 0x3fff}, // none
		{Code: 0xb1, K: 0},             // X = length of the header
		{Code: 0x48, K: 2},             // A = destination port
		{Code: 0x15, Jf: 3, K: serverPort},
		{Code: 0x50, K: 8},        // A = op
		{Code: 0x15, Jf: 1, K: 1}, // BOOTREQUEST
		{Code: 0x06, K: 2048},
		{Code: 0x06, K: 0},
	}
	// filter6 lets UDP to port 547 pass that follows the IPv6 header at once.
	filter6 = []unix.SockFilter{
		{Code: 0x30, K: 6},         // A = next header
		{Code: 0x15, Jf: 3, K: 17}, // UDP
		{Code: 0x28, K: 42},        // A = destination port
		{Code: 0x15, Jf: 1, K: 547},
		{Code: 0x06, K: 2048},
		{Code: 0x06, K: 0},
	}
	// filterARP lets ARP for IPv4 on Ethernet pass.
	filterARP = []unix.SockFilter{
		{Code: 0x20, K: 0},
		{Code: 0x15, Jf: 1, K: 0x00010800},
		{Code: 0x06, K: 64},
		{Code: 0x06, K: 0},
	}
)

// listenPackets opens a socket for a protocol of Ethernet on an interface.
func listenPackets(ifindex int, proto uint16, filter []unix.SockFilter) (*packetSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, sockError("open a packet socket", err)
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err == nil {
		if err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap(proto), Ifindex: ifindex})
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, sockError("bind a packet socket", err)
	}
	// A storm of requests is answered from what fits; the rest is asked again.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	f := os.NewFile(uintptr(fd), "packet socket")
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &packetSocket{file: f, conn: conn, ifindex: ifindex, proto: proto, buf: make([]byte, 2048), oob: make([]byte, 256)}, nil
}

func sockError(what string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return failure.Errorf(failure.NotAllowed, "%s: %w (it needs root, or CAP_NET_RAW and CAP_NET_BIND_SERVICE)", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// swap turns a number into network byte order.
func swap(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

// receive returns the next packet that was meant for this host, valid until the
// next call. Without wait it returns false when there is none.
func (s *packetSocket) receive(wait bool) (p packet, ok bool, err error) {
	for {
		var n, oobn int
		var from unix.Sockaddr
		var rerr error
		err = s.conn.Read(func(fd uintptr) bool {
			n, oobn, _, from, rerr = unix.Recvmsg(int(fd), s.buf, s.oob, 0)
			return rerr != unix.EAGAIN && rerr != unix.EINTR || rerr == unix.EAGAIN && !wait
		})
		switch {
		case err != nil:
			return p, false, err
		case rerr == unix.EAGAIN:
			return p, false, nil
		case rerr == unix.EINTR:
			continue
		case rerr != nil:
			return p, false, fmt.Errorf("receive: %w", rerr)
		}
		ll, isLL := from.(*unix.SockaddrLinklayer)
		if !isLL || ll.Halen != 6 || ll.Pkttype != unix.PACKET_HOST && ll.Pkttype != unix.PACKET_BROADCAST && ll.Pkttype != unix.PACKET_MULTICAST {
			continue
		}
		p = packet{data: s.buf[:n], from: MAC(ll.Addr[:6]), sums: true}
		if status, tci, known := auxdata(s.oob[:oobn]); known {
			if status&unix.TP_STATUS_VLAN_VALID != 0 && tci&0xfff != 0 {
				continue // of another network
			}
			p.sums = status&unix.TP_STATUS_CSUMNOTREADY == 0
		}
		if p.from.unicast() {
			return p, true, nil
		}
	}
}

// auxdata reads what the kernel tells about a packet beside it.
func auxdata(oob []byte) (status uint32, tci uint16, ok bool) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, 0, false
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 20 {
			return binary.NativeEndian.Uint32(m.Data), binary.NativeEndian.Uint16(m.Data[16:]), true
		}
	}
	return 0, 0, false
}

var everybody = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// send sends a packet to an address of the link.
func (s *packetSocket) send(to MAC, data []byte) error {
	sa := &unix.SockaddrLinklayer{Protocol: swap(s.proto), Ifindex: s.ifindex, Halen: 6}
	copy(sa.Addr[:], to[:])
	var serr error
	err := s.conn.Write(func(fd uintptr) bool {
		serr = unix.Sendto(int(fd), data, 0, sa)
		return serr != unix.EAGAIN && serr != unix.EINTR
	})
	return errors.Join(err, serr)
}

// address returns the link-layer address of the interface as it is now: that of
// a bridge can change with its ports.
func (s *packetSocket) address() (mac MAC, ok bool) {
	err := s.conn.Control(func(fd uintptr) {
		sa, err := unix.Getsockname(int(fd))
		if ll, isLL := sa.(*unix.SockaddrLinklayer); err == nil && isLL && ll.Halen == 6 {
			mac, ok = MAC(ll.Addr[:6]), true
		}
	})
	return mac, ok && err == nil
}

func (s *packetSocket) close() { s.file.Close() }

// holdPort binds a UDP port on an interface, so that no other server gets it
// and the kernel does not answer that nobody listens. What arrives there is read
// from the packet socket; here the kernel drops it.
func holdPort(ctx context.Context, network, ifname string, port int) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var serr error
		err := c.Control(func(fd uintptr) {
			// Servers for other interfaces may have the port for all of them.
			serr = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, ifname))
			drop := []unix.SockFilter{{Code: 0x06, K: 0}}
			prog := unix.SockFprog{Len: 1, Filter: &drop[0]}
			serr = errors.Join(serr, unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog))
		})
		return errors.Join(err, serr)
	}}
	c, err := lc.ListenPacket(ctx, network, fmt.Sprintf(":%d", port))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, failure.Errorf(failure.Busy, "port %d on %s is taken by another DHCP server: %w", port, ifname, err)
	}
	if err != nil {
		return nil, sockError(fmt.Sprintf("port %d on %s", port, ifname), err)
	}
	return c, nil
}
