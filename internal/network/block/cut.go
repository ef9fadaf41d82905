package block

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/network/addresses"
	"github.com/mobileops/mobileops/internal/network/conntrack"
	"github.com/mobileops/mobileops/internal/network/sockets"
	"github.com/mobileops/mobileops/internal/threat"
	"golang.org/x/sys/unix"
)

// cutting says which connections are to end.
type cutting struct {
	blocked, never []addresses.Range
	feed           *list
	ports          map[service]bool
	uids           map[uint32]bool
	cgroups        map[uint64]bool
	inodes         map[uint64]bool // of sockets of blocked processes
	interfaces     map[uint32]bool
}

// service is a port of a protocol.
type service struct {
	proto uint8
	port  uint16
}

// servicesOf are those of a target of type Port: TCP and UDP when it names none.
func servicesOf(t threat.Indicator) (out []service) {
	port, proto, _ := strings.Cut(t.Value, "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || t.Type != threat.Port {
		return nil
	}
	if proto != "udp" {
		out = append(out, service{unix.IPPROTO_TCP, uint16(n)})
	}
	if proto != "tcp" {
		out = append(out, service{unix.IPPROTO_UDP, uint16(n)})
	}
	return out
}

// cuttingOf makes it of blocks.
func cuttingOf(blocks []Block, feed *list, never []addresses.Range) *cutting {
	c := &cutting{never: never, feed: feed, ports: map[service]bool{}, uids: map[uint32]bool{}, cgroups: map[uint64]bool{}, interfaces: map[uint32]bool{}}
	var forced []addresses.Range
	var confined []string
	all := links()
	for _, b := range blocks {
		if r, ok := rangeOf(b.Target); ok {
			if b.Forced {
				forced = append(forced, r)
			} else {
				c.blocked = append(c.blocked, r)
			}
		}
		for _, a := range b.Parts.Addresses {
			forced = append(forced, addresses.Range{First: a, Last: a})
		}
		for _, g := range b.Parts.Cgroups {
			c.cgroups[g.Inode] = true
			confined = append(confined, g.Path)
		}
		switch b.Target.Type {
		case threat.Port:
			for _, s := range servicesOf(b.Target) {
				c.ports[s] = true
			}
		case threat.UID:
			n, _ := strconv.ParseUint(b.Target.Value, 10, 32)
			c.uids[uint32(n)] = true
		case threat.Interface:
			for _, l := range all {
				if l.name == b.Target.Value {
					c.interfaces[l.index] = true
				}
			}
		}
	}
	c.blocked = addresses.Merge(append(addresses.Without(addresses.Merge(c.blocked), never), forced...))
	if len(confined) > 0 { // sockets keep the control group in which they were opened
		c.inodes = map[uint64]bool{}
		for inode, owners := range sockets.Owners() {
			if slices.ContainsFunc(owners, func(p sockets.Process) bool {
				at, err := cgroupOf(p.PID)
				return err == nil && slices.ContainsFunc(confined, func(path string) bool { return at == path || strings.HasPrefix(at, path+"/") })
			}) {
				c.inodes[inode] = true
			}
		}
	}
	return c
}

func (c *cutting) address(a netip.Addr) bool {
	if !a.IsValid() || a.IsLoopback() {
		return false
	}
	a = a.Unmap().WithZone("")
	return addresses.Find(c.blocked, a) || c.feed != nil && c.feed.has(a)
}

func (c *cutting) socket(s *sockets.Socket) bool {
	if c.uids[s.UID] && s.Inode != 0 || s.CgroupID != 0 && c.cgroups[s.CgroupID] || s.Inode != 0 && c.inodes[s.Inode] {
		return true
	}
	remote := s.Remote.Addr()
	if !remote.IsValid() || remote.IsUnspecified() || remote.IsLoopback() {
		return false
	}
	return c.address(remote) || c.address(s.Local.Addr()) || c.ports[service{s.Proto, s.Remote.Port()}] || c.ports[service{s.Proto, s.Local.Port()}] || c.interfaces[s.Interface] && s.Interface != 0
}

func (c *cutting) tracked(t *conntrack.Connection) bool {
	for _, tuple := range []conntrack.Tuple{t.Orig, t.Reply} {
		if c.address(tuple.Src.Addr()) || c.address(tuple.Dst.Addr()) {
			return true
		}
	}
	return c.ports[service{t.Orig.Proto, t.Orig.Dst.Port()}]
}

// cut ends the connections with what is blocked. Rules stop their packets in any
// case; this tells the programs.
func (c *cutting) cut() (destroyed, forgotten int, err error) {
	destroyed, err = sockets.Destroy(c.socket)
	if err != nil {
		err = fmt.Errorf("packets are dropped, but programs are not told: %w", err)
	}
	forgotten, failed := conntrack.Delete(c.tracked)
	if failed != nil && !errors.Is(failed, conntrack.ErrUnavailable) {
		err = errors.Join(err, failed)
	}
	return destroyed, forgotten, err
}

// openBefore names what a process had open before it was confined that its new
// control group does not cover: sockets keep that in which they were made, and
// those that listen, or are not connected, are not destroyed.
func openBefore(pid int) (out []string) {
	inodes := map[uint64]int{}
	family := descendants(pid)
	for inode, owners := range sockets.Owners() {
		for _, o := range owners {
			if slices.Contains(family, o.PID) {
				inodes[inode] = o.PID
			}
		}
	}
	if len(inodes) == 0 {
		return nil
	}
	all, err := sockets.List()
	if err != nil {
		return []string{fmt.Sprintf("sockets that process %d had opened before: %v", pid, err)}
	}
	names := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_UDPLITE: "udplite", unix.IPPROTO_RAW: "raw"}
	for i := range all {
		if owner, ok := inodes[all[i].Inode]; ok && all[i].Listens() && len(out) < 20 {
			out = append(out, fmt.Sprintf("process %d had opened %s %s before, by which it can still be reached or send (block the port, or end the process)", owner, names[all[i].Proto], all[i].Local))
		}
	}
	return out
}
