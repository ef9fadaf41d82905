// Package bulk sends the kernel many netlink(7) requests of one kind in few
// system calls and tells what it answered to each: what destroying thousands of
// sockets and connections needs. Package netlink only reads; this is its
// counterpart, and the few packages below internal/network that may change
// something are the only ones that use it.
//
// Requests are independent of each other: one that fails keeps no other from
// being carried out. For transactions see package nft.
//
// Sources: netlink(7), linux/netlink.h.
package bulk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// together is how many requests go with one system call. The kernel answers
	// each of them before the call returns, so the answers must fit into the
	// buffer of the socket, of which each takes about 1 kB.
	together = 96
	patience = 5 * time.Second // the kernel answers at once or not at all
)

// Send sends a request of type typ with flags besides NLM_F_REQUEST and
// NLM_F_ACK for each body, over a socket of a protocol such as
// unix.NETLINK_SOCK_DIAG. It returns what the kernel said to each, in their
// order: nil or a unix.Errno. The error is for what went wrong before an answer.
func Send(protocol int, typ, flags uint16, bodies [][]byte) ([]error, error) {
	if len(bodies) == 0 {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	if err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	// Answers without the request that they are for are smaller; kernels before
	// 4.2 do not know the option.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)

	answers := make([]error, len(bodies))
	var msg []byte
	for first := 0; first < len(bodies); first += together {
		last := min(first+together, len(bodies))
		msg = msg[:0]
		for i := first; i < last; i++ {
			msg = appendRequest(msg, typ, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK, uint32(i+1), bodies[i])
		}
		if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return answers[:first], os.NewSyscallError("sendto", err)
		}
		if err := receive(fd, answers, first, last); err != nil {
			return answers[:first], err
		}
	}
	return answers, nil
}

func appendRequest(b []byte, typ, flags uint16, seq uint32, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, body...)
	return append(b, make([]byte, align(len(body))-len(body))...)
}

func align(n int) int { return (n + 3) &^ 3 }

// receive waits for the answers to requests first to last-1.
func receive(fd int, answers []error, first, last int) error {
	var b [4096]byte
	for left := last - first; left > 0; {
		n, from, err := unix.Recvfrom(fd, b[:], 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return fmt.Errorf("the kernel gave no answer within %v", patience)
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		// Other processes can send to this socket, too.
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			continue
		}
		got, err := read(b[:n], answers, first, last)
		if err != nil {
			return err
		}
		left -= got
	}
	return nil
}

// read takes the messages of a datagram apart and counts the answers in it.
func read(b []byte, answers []error, first, last int) (got int, err error) {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN+4 {
			return got, fmt.Errorf("netlink: %d bytes where an answer should begin", len(b))
		}
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN+4 || size > len(b) {
			return got, fmt.Errorf("netlink: an answer of %d bytes in %d", size, len(b))
		}
		i := int(binary.NativeEndian.Uint32(b[8:])) - 1
		if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR && i >= first && i < last {
			if code := int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])); code < 0 {
				answers[i] = unix.Errno(-code)
			}
			got++
		}
		b = b[min(align(size), len(b)):]
	}
	return got, nil
}
