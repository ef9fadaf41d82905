package conntrack

import (
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/netlink"
	"github.com/mobileops/mobileops/internal/network/bulk"
	"golang.org/x/sys/unix"
)

// maxRounds bounds how often Delete looks again: as long as rules let packets
// pass, the kernel makes new entries.
const maxRounds = 16

// Delete makes the kernel forget the connections that match says. What of them
// comes next is looked at by the rules as if it were new. It lists and deletes
// again until a round finds nothing new, 16 times at most.
//
// It returns how many were deleted, also beside an error. A connection that was
// forgotten meanwhile is none. match can be called again for one.
func Delete(match func(*Connection) bool) (deleted int, err error) {
	c, err := open()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for range maxRounds {
		n, err := deleteRound(c, match)
		deleted += n
		if n == 0 || err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

func deleteRound(c *netlink.Conn, match func(*Connection) bool) (deleted int, err error) {
	all, err := list(c)
	if err != nil {
		return 0, err
	}
	var chosen []*Connection
	var requests [][]byte
	for i := range all {
		if match(&all[i]) {
			chosen = append(chosen, &all[i])
			requests = append(requests, deleteRequest(&all[i]))
		}
	}
	answers, err := bulk.Send(unix.NETLINK_NETFILTER, message(msgDelete), 0, requests)
	if err != nil {
		err = fmt.Errorf("delete connections: %w", err)
	}
	failed := 0
	for i, answer := range answers {
		switch {
		case answer == nil:
			deleted++
		case errors.Is(answer, unix.ENOENT): // forgotten meanwhile
		default:
			if failed++; err == nil { // they fail all alike
				err = explained(fmt.Sprintf("delete %s → %s", chosen[i].Orig.Src, chosen[i].Orig.Dst), answer)
			}
		}
	}
	if failed > 1 {
		err = fmt.Errorf("%w, and %d more could not be deleted", err, failed-1)
	}
	return deleted, err
}
