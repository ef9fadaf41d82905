package sockets

import (
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/netlink"
	"github.com/mobileops/mobileops/internal/network/bulk"
	"golang.org/x/sys/unix"
)

// maxRounds bounds how often Destroy looks again: a program that opens
// connections faster than they can be destroyed must not keep it for ever.
const maxRounds = 16

// Destroy ends the connections that match says: TCP in every state but
// listening, and UDP and UDP-Lite that are connected. Their programs read an
// error (ECONNABORTED), and TCP tells the other end by a reset, as far as rules
// let it out. It lists and destroys again until a round finds nothing new,
// since programs connect anew meanwhile, 16 times at most.
//
// Of a connection of MPTCP every path ends at once, and nothing passes any more;
// its program learns of it after net.mptcp.close_timeout, which is a minute.
//
// It returns how many were destroyed, also beside an error. A socket that went
// by itself is none. Without the right to do it the error is of kind
// failure.NotAllowed, and on a kernel that cannot destroy sockets it wraps
// ErrUnavailable. match is called again for a socket that could not be found in
// an earlier round; the Sockets that it sees have no counters.
func Destroy(match func(*Socket) bool) (destroyed int, err error) {
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for range maxRounds {
		n, err := destroyRound(c, match)
		destroyed += n
		if n == 0 || err != nil {
			return destroyed, err
		}
	}
	return destroyed, nil
}

func destroyRound(c *netlink.Conn, match func(*Socket) bool) (destroyed int, err error) {
	var all, chosen []Socket
	for _, p := range []struct {
		protocol uint8
		states   uint32
	}{
		{unix.IPPROTO_TCP, everyState &^ (1<<Listen | 1<<Close)},
		{unix.IPPROTO_UDP, 1 << Established},
		{unix.IPPROTO_UDPLITE, 1 << Established},
	} {
		if all, err = list(c, all, p.protocol, p.states, false); err != nil {
			return 0, err
		}
	}
	var requests [][]byte
	for i := range all {
		if match(&all[i]) {
			chosen = append(chosen, all[i])
			requests = append(requests, destroyRequest(&all[i]))
		}
	}
	answers, err := bulk.Send(unix.NETLINK_SOCK_DIAG, destroyType, 0, requests)
	if err != nil {
		err = fmt.Errorf("destroy sockets: %w", err)
	}
	failed := 0
	for i, answer := range answers {
		switch {
		case answer == nil:
			destroyed++
		case errors.Is(answer, unix.ENOENT): // it went by itself, or the next round finds it
		case errors.Is(answer, unix.EOPNOTSUPP) && (chosen[i].State == TimeWait || chosen[i].State == SynReceived):
			// Kernels before 6.9 keep what is left of a connection that has ended,
			// and handshakes of which no program knows.
		case errors.Is(answer, unix.EOPNOTSUPP):
			return destroyed, fmt.Errorf("destroy sockets: %w: it lacks CONFIG_INET_DIAG_DESTROY", ErrUnavailable)
		case errors.Is(answer, unix.EPERM):
			return destroyed, failure.Errorf(failure.NotAllowed, "destroy sockets: only root may do that: %w", answer)
		default:
			if failed++; err == nil { // they fail all alike
				err = fmt.Errorf("destroy %s → %s: %w", chosen[i].Local, chosen[i].Remote, answer)
			}
		}
	}
	if failed > 1 {
		err = fmt.Errorf("%w, and %d more could not be destroyed", err, failed-1)
	}
	return destroyed, err
}
