package dhcp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawSocket speaks ICMPv6 on one link.
type rawSocket struct {
	file    *os.File
	conn    syscall.RawConn
	ifindex int
	oob     []byte
}

func newRawSocket(fd, ifindex int) (*rawSocket, error) {
	f := os.NewFile(uintptr(fd), "raw socket")
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &rawSocket{file: f, conn: conn, ifindex: ifindex, oob: make([]byte, 128)}, nil
}

// receive returns the next message, from whom it came and its hop limit (-1:
// unknown).
func (r *rawSocket) receive(buf []byte) (b []byte, from netip.Addr, hops int, err error) {
	for {
		var n, oobn int
		var sa unix.Sockaddr
		var rerr error
		err := r.conn.Read(func(fd uintptr) bool {
			n, oobn, _, sa, rerr = unix.Recvmsg(int(fd), buf, r.oob, 0)
			return rerr != unix.EAGAIN && rerr != unix.EINTR
		})
		if errors.Is(rerr, unix.ENETDOWN) {
			continue
		}
		if err = errors.Join(err, rerr); err != nil {
			return nil, from, 0, err
		}
		if in6, ok := sa.(*unix.SockaddrInet6); ok {
			from = netip.AddrFrom16(in6.Addr)
		}
		hops = -1
		msgs, _ := unix.ParseSocketControlMessage(r.oob[:oobn])
		for _, m := range msgs {
			if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4 {
				hops = int(int32(binary.NativeEndian.Uint32(m.Data)))
			}
		}
		return buf[:n], from, hops, nil
	}
}

// send sends a message to an address on the link.
func (r *rawSocket) send(to netip.Addr, data []byte) error {
	sa := &unix.SockaddrInet6{Addr: to.As16(), ZoneId: uint32(r.ifindex)}
	var serr error
	err := r.conn.Write(func(fd uintptr) bool {
		serr = unix.Sendto(int(fd), data, 0, sa)
		return serr != unix.EAGAIN && serr != unix.EINTR
	})
	return errors.Join(err, serr)
}

func (r *rawSocket) close() { r.file.Close() }
