// Package netlink asks the kernel for lists over netlink(7) and takes the
// answers apart: as much of it as reading needs, and nothing that could change
// anything. Requests are dumps; one that the kernel marks as inconsistent,
// since something changed in between, is asked for again.
//
// Answers come from the kernel, yet every length in them is checked: other
// programs can shape what is in them.
//
// Sources: netlink(7), rtnetlink(7), sock_diag(7), linux/netlink.h.
package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrChanging is wrapped when the kernel's list changed during every attempt to
// read it.
var ErrChanging = errors.New("it changed each time it was read")

const (
	attempts   = 10
	maxMessage = 1 << 20         // bytes of one datagram of answers
	maxAnswer  = 1 << 30         // bytes of all answers to one request
	patience   = 5 * time.Second // for each datagram: the kernel answers at once or not at all
)

// Conn is a netlink socket for one protocol. It is for one goroutine.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// Dial opens a socket for a protocol such as unix.NETLINK_ROUTE.
func Dial(protocol int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := &Conn{fd: fd, buf: make([]byte, 64<<10)}
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	if err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	); err != nil {
		c.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	// Strict checking makes the kernel refuse what it does not understand
	// rather than ignore it; old kernels do not know the option.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return c, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Dump asks for a list: typ is the message type, body what follows the message
// header. It returns the bodies of the answers, each without its header. An
// error of the kernel is a unix.Errno in the chain.
func (c *Conn) Dump(typ uint16, body []byte) ([][]byte, error) {
	return c.ask(typ, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, body)
}

// Get asks for one thing.
func (c *Conn) Get(typ uint16, body []byte) ([]byte, error) {
	list, err := c.ask(typ, unix.NLM_F_REQUEST|unix.NLM_F_ACK, body)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

func (c *Conn) ask(typ, flags uint16, body []byte) ([][]byte, error) {
	for range attempts {
		list, err := c.once(typ, flags, body)
		if !errors.Is(err, errInterrupted) {
			return list, err
		}
	}
	return nil, ErrChanging
}

var errInterrupted = errors.New("the list changed while it was read")

func (c *Conn) once(typ, flags uint16, body []byte) ([][]byte, error) {
	c.seq++
	msg := make([]byte, 0, unix.NLMSG_HDRLEN+len(body))
	msg = binary.NativeEndian.AppendUint32(msg, uint32(unix.NLMSG_HDRLEN+len(body)))
	msg = binary.NativeEndian.AppendUint16(msg, typ)
	msg = binary.NativeEndian.AppendUint16(msg, flags)
	msg = binary.NativeEndian.AppendUint32(msg, c.seq)
	msg = binary.NativeEndian.AppendUint32(msg, 0)
	msg = append(msg, body...)
	if err := unix.Sendto(c.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	a := answer{seq: c.seq}
	for !a.done {
		b, err := c.receive()
		if err != nil {
			return nil, err
		}
		if err := a.read(b); err != nil {
			return nil, err
		}
	}
	if a.interrupted {
		return nil, errInterrupted
	}
	return a.list, nil
}

// receive returns the next datagram, which is valid until the next call.
func (c *Conn) receive() ([]byte, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_PEEK|unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			return nil, fmt.Errorf("the kernel gave no answer within %v", patience)
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if n > maxMessage {
			return nil, fmt.Errorf("an answer of %d bytes", n)
		}
		if n > len(c.buf) {
			c.buf = make([]byte, n)
		}
		n, from, err := unix.Recvfrom(c.fd, c.buf, 0)
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		// Other processes can send to this socket, too.
		if a, ok := from.(*unix.SockaddrNetlink); ok && a.Pid == 0 {
			return c.buf[:n], nil
		}
	}
}

// answer gathers the messages that answer one request.
type answer struct {
	seq         uint32
	list        [][]byte
	bytes       int
	done        bool
	interrupted bool
}

func (a *answer) read(b []byte) error {
	for len(b) > 0 && !a.done {
		if len(b) < unix.NLMSG_HDRLEN {
			return fmt.Errorf("netlink: %d bytes where a message should begin", len(b))
		}
		size := int(binary.NativeEndian.Uint32(b))
		typ, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return fmt.Errorf("netlink: a message of %d bytes in %d", size, len(b))
		}
		body, seq := b[unix.NLMSG_HDRLEN:size], binary.NativeEndian.Uint32(b[8:])
		b = b[min(align(size), len(b)):]
		if seq != a.seq {
			continue // of a request that was given up
		}
		a.interrupted = a.interrupted || flags&unix.NLM_F_DUMP_INTR != 0
		switch typ {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			a.done = true
			if len(body) < 4 {
				if typ == unix.NLMSG_DONE {
					return nil
				}
				return errors.New("netlink: an error message without an error")
			}
			if code := int32(binary.NativeEndian.Uint32(body)); code < 0 {
				return os.NewSyscallError("netlink", unix.Errno(-code))
			}
		case unix.NLMSG_NOOP:
		case unix.NLMSG_OVERRUN:
			return errors.New("netlink: answers were lost")
		default:
			if a.bytes += len(body); a.bytes > maxAnswer {
				return fmt.Errorf("netlink: more than %d bytes of answers", maxAnswer)
			}
			a.list = append(a.list, append([]byte(nil), body...))
		}
	}
	return nil
}

func align(n int) int { return (n + 3) &^ 3 }
