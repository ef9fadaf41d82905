package monitor

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/mobileops/mobileops/internal/netlink"
	"github.com/mobileops/mobileops/internal/network/sockets"
	"golang.org/x/sys/unix"
)

// Attributes of linux/net_namespace.h.
const (
	netnsID  = 1
	netnsPID = 2
	netnsFD  = 3
)

// namedNamespaces is where ip-netns(8) keeps its namespaces.
const namedNamespaces = "/run/netns"

// findPeers says where the other ends of cables are: their name, and the
// namespace that they are in.
func (l *links) findPeers(c *netlink.Conn) {
	var spaces map[int32]Peer
	for k := range l.interfaces {
		p := l.interfaces[k].Peer
		if p == nil {
			continue
		}
		if !p.elsewhere {
			p.Name = l.names[p.Index]
			continue
		}
		if spaces == nil {
			spaces = namespaces(c)
		}
		s := spaces[p.nsid]
		p.Namespace, p.Container, p.PID, p.Process = s.Namespace, s.Container, s.PID, s.Process
		var err error
		if p.Name, err = nameIn(c, p.nsid, p.Index); errors.Is(err, fs.ErrPermission) {
			l.peersUnknown = true
		}
	}
}

// nameIn asks for the name of an interface of another namespace, which only
// root may. It is empty when there is none any more.
func nameIn(c *netlink.Conn, nsid int32, index uint32) (string, error) {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], index)
	body = netlink.Put(body, unix.IFLA_TARGET_NETNSID, binary.NativeEndian.AppendUint32(nil, uint32(nsid)))
	m, err := c.Get(unix.RTM_GETLINK, body)
	if err != nil || m == nil {
		return "", err
	}
	_, attrs, err := netlink.After(m, unix.SizeofIfInfomsg)
	for _, a := range attrs {
		if a.Type == unix.IFLA_IFNAME {
			return a.Text(), err
		}
	}
	return "", err
}

// namespaces finds the network namespaces that processes are in, or that have a
// name, by the number that this namespace has for them.
func namespaces(c *netlink.Conn) map[int32]Peer {
	found := map[int32]Peer{}
	seen := map[uint64]int32{} // inode of a namespace → our number of it; -1: none
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st syscall.Stat_t
		if err := syscall.Stat("/proc/"+e.Name()+"/ns/net", &st); err != nil {
			continue // it has ended, or is that of another user
		}
		id, known := seen[st.Ino]
		if !known {
			id = numberOf(c, netnsPID, uint32(pid))
			seen[st.Ino] = id
		}
		if p, known := found[id]; id >= 0 && (!known || pid < p.PID) {
			process := sockets.Look("/proc", pid)
			found[id] = Peer{PID: pid, Process: process.Name, Container: process.Container}
		}
	}
	names, _ := os.ReadDir(namedNamespaces)
	for _, e := range names {
		fd, err := unix.Open(filepath.Join(namedNamespaces, e.Name()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if id := numberOf(c, netnsFD, uint32(fd)); id >= 0 {
			p := found[id]
			p.Namespace = e.Name()
			found[id] = p
		}
		unix.Close(fd)
	}
	return found
}

// numberOf asks for the number that this namespace has for another one; -1:
// none, since nothing connects the two.
func numberOf(c *netlink.Conn, attr uint16, value uint32) int32 {
	body := netlink.Put(make([]byte, 4), attr, binary.NativeEndian.AppendUint32(nil, value)) // struct rtgenmsg, padded
	m, err := c.Get(unix.RTM_GETNSID, body)
	if err != nil || m == nil {
		return -1
	}
	_, attrs, err := netlink.After(m, 4)
	for k := range attrs {
		if err == nil && attrs[k].Type == netnsID {
			return int32(attrs[k].Uint32())
		}
	}
	return -1
}
