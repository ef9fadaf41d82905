package sockets

import (
	"encoding/binary"
	"net/netip"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

// everyState are bits of the states 1 to 11. New connections of which the
// kernel holds no more than the handshake are told as SynReceived.
const everyState = 1<<12 - 2

// Sizes and attributes of linux/inet_diag.h.
const (
	requestSize  = 56  // struct inet_diag_req_v2
	messageSize  = 72  // struct inet_diag_msg
	diagInfo     = 2   // INET_DIAG_INFO: struct tcp_info
	diagV6Only   = 11  // INET_DIAG_SKV6ONLY
	diagMark     = 15  // INET_DIAG_MARK
	diagCgroup   = 21  // INET_DIAG_CGROUP_ID
	infoAcked    = 120 // offsets in struct tcp_info of linux/tcp.h: tcpi_bytes_acked
	infoReceived = 128
	infoSent     = 200 // since Linux 4.19, followed by those that were sent again
	destroyType  = 21  // SOCK_DESTROY
)

// dumpRequest is struct inet_diag_req_v2. Of raw sockets, its third byte of
// head is the protocol; 255 is all.
func dumpRequest(family, protocol uint8, states uint32, counters bool) []byte {
	b := make([]byte, requestSize)
	b[0], b[1] = family, protocol
	if counters && protocol == unix.IPPROTO_TCP {
		b[2] = 1 << (diagInfo - 1)
	}
	if protocol == unix.IPPROTO_RAW {
		b[3] = protocol
	}
	binary.NativeEndian.PutUint32(b[4:], states)
	return b
}

// destroyRequest asks for the end of exactly this socket.
func destroyRequest(s *Socket) []byte {
	b := make([]byte, requestSize)
	b[0], b[1] = s.Family, s.Proto
	binary.NativeEndian.PutUint32(b[4:], 1<<s.State)
	copy(b[8:], s.id[:])
	return b
}

// parse reads struct inet_diag_msg and its attributes.
func parse(m []byte, protocol uint8) (Socket, error) {
	h, attrs, err := netlink.After(m, messageSize)
	if err != nil {
		return Socket{}, err
	}
	s := Socket{
		Proto: protocol, Family: h[0], State: State(h[1]),
		Interface:    binary.NativeEndian.Uint32(h[40:]),
		Cookie:       uint64(binary.NativeEndian.Uint32(h[44:])) | uint64(binary.NativeEndian.Uint32(h[48:]))<<32,
		ReceiveQueue: binary.NativeEndian.Uint32(h[56:]), SendQueue: binary.NativeEndian.Uint32(h[60:]),
		UID: binary.NativeEndian.Uint32(h[64:]), Inode: uint64(binary.NativeEndian.Uint32(h[68:])),
		id: [48]byte(h[4:52]),
	}
	address := func(b []byte) netip.Addr {
		if s.Family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16([16]byte(b)).Unmap()
	}
	s.Local = netip.AddrPortFrom(address(h[8:24]), binary.BigEndian.Uint16(h[4:]))
	s.Remote = netip.AddrPortFrom(address(h[24:40]), binary.BigEndian.Uint16(h[6:]))
	for i := range attrs {
		switch a := &attrs[i]; a.Type {
		case diagV6Only:
			s.V6Only = len(a.Value) > 0 && a.Value[0] != 0
		case diagMark:
			s.Mark = a.Uint32()
		case diagCgroup:
			if len(a.Value) >= 8 {
				s.CgroupID = binary.NativeEndian.Uint64(a.Value)
			}
		case diagInfo:
			if len(a.Value) >= infoReceived+8 && protocol == unix.IPPROTO_TCP && s.State != Listen {
				s.Counted = true
				s.Sent, s.Received = binary.NativeEndian.Uint64(a.Value[infoAcked:]), binary.NativeEndian.Uint64(a.Value[infoReceived:])
				if len(a.Value) >= infoSent+16 {
					s.Sent = binary.NativeEndian.Uint64(a.Value[infoSent:]) - binary.NativeEndian.Uint64(a.Value[infoSent+8:])
				}
			}
		}
	}
	return s, nil
}
