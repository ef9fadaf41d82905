package segment

import (
	"errors"

	vnl "github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// firstGroup is where the search for a group of interfaces begins that nobody
// uses: "mo" in ASCII.
const firstGroup = 0x6d6f0000

// unusedGroup returns a group in which no interface is.
func (h *host) unusedGroup() uint32 {
	used := map[uint32]bool{}
	for _, l := range h.links {
		used[l.group] = true
	}
	g := uint32(firstGroup)
	for used[g] {
		g++
	}
	return g
}

// deleteLinks removes the interfaces that were looked at, and no others that
// have got their names since. That one is gone already is no error.
//
// The kernel waits for all processors once for each request, which takes 20 ms,
// so that it is asked to remove them together: as members of a group.
func deleteLinks(list []*link, group uint32) error {
	if len(list) > 1 {
		for _, l := range list {
			if err := vnl.LinkSetGroup(byIndex(l), int(group)); err != nil && !errors.Is(err, unix.ENODEV) {
				return err
			}
		}
		req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		if err == nil || errors.Is(err, unix.ENODEV) {
			return nil
		}
	}
	for _, l := range list {
		if err := vnl.LinkDel(byIndex(l)); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}

// byIndex is an interface by its number alone.
func byIndex(l *link) vnl.Link {
	a := vnl.NewLinkAttrs()
	a.Index = l.index
	return &vnl.GenericLink{LinkAttrs: a}
}
