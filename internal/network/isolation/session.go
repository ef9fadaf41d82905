package isolation

import (
	"bytes"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/network/sockets"
	"golang.org/x/sys/unix"
)

// FindSession finds the connection by which an administrator came: the one that
// connection, the value of SSH_CONNECTION (ssh(1)), names, or, where sudo has
// taken that away, a TCP connection from outside that this process or one of
// those it descends from holds. That it came from outside is told by a listener
// at its port, or by its being sshd's. In a terminal multiplexer, it is that of
// whoever types there, and with mosh, its port is one of the session, too. It is
// nil when there is none: at a console, or when cron or a daemon started it,
// whatever that has connected to. Going through all connections of the host would
// take longer than isolating it, so sockets of those processes are asked.
func FindSession(connection string) *Session {
	const nested = 4 // multiplexers in each other
	return above(os.Getpid(), fromSSH(connection), nested)
}

// above is the session that a process descends from; named is the one that its
// environment names, or nil.
func above(pid int, named *Session, nested int) *Session {
	mosh := uint16(0)
	for ; pid > 1; pid = parent(pid) {
		switch name := nameOf(pid); {
		case isMultiplexer(name) && terminal(pid) < 0:
			// SSH_CONNECTION is that of who began, maybe days ago.
			if s := typingIn(pid, nested-1); s != nil {
				return s
			}
		case name == "mosh-server":
			if mosh = datagrams(pid); named == nil {
				named = fromSSH(environment(pid, "SSH_CONNECTION"))
			}
		case named == nil:
			named = heldBy(pid, name)
		}
	}
	if named != nil {
		named.Mosh = mosh
	}
	return named
}

// heldBy is the session whose connection a process holds; nil: it holds none.
func heldBy(pid int, name string) *Session {
	isServer := strings.HasPrefix(name, "sshd")
	if peer, port, ok := connected(pid, func(port uint16) bool { return isServer || listens(port) }); ok {
		return &Session{Peer: peer, Port: port, PID: pid, From: name + " (pid " + strconv.Itoa(pid) + ")"}
	}
	return nil
}

// nameOf is the name of a process; "" when it cannot be told.
func nameOf(pid int) string {
	return string(bytes.TrimSpace(readProc(pid, "comm")))
}

// readProc is the beginning of a small file of /proc/PID; nil when it cannot be
// read. It calls the kernel itself: with the preparations of package os this takes
// twice as long, for each process on the way to sshd, until a host is cut off.
func readProc(pid int, file string) []byte {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/"+file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	content := make([]byte, 512)
	n, err := unix.Read(fd, content)
	if err != nil {
		return nil
	}
	return content[:n]
}

// Seen reports whether there is a connection of the session now: what
// SSH_CONNECTION says can be of another day, as in a terminal multiplexer.
func (s *Session) Seen() bool {
	list, err := sockets.List(unix.IPPROTO_TCP)
	return err == nil && slices.ContainsFunc(list, func(c sockets.Socket) bool {
		return c.State == sockets.Established && c.Remote.Addr().WithZone("") == s.Peer && c.Local.Port() == s.Port
	})
}

// fromSSH reads "client address, client port, server address, server port".
func fromSSH(connection string) *Session {
	words := strings.Fields(connection)
	if len(words) != 4 {
		return nil
	}
	peer, err := netip.ParseAddr(words[0])
	port, err2 := strconv.ParseUint(words[3], 10, 16)
	if err != nil || err2 != nil || port == 0 || peer.IsLoopback() {
		return nil
	}
	return &Session{Peer: peer.Unmap().WithZone(""), Port: uint16(port), From: "SSH_CONNECTION"}
}

// parent returns the parent of a process, 0 when it cannot be told.
func parent(pid int) int {
	return statField(pid, 4)
}

// statField is a number of /proc/PID/stat, counted as in proc(5); 0 when it cannot
// be told.
func statField(pid, n int) int {
	data := readProc(pid, "stat")
	// The name, in parentheses, can hold anything; it is the second.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < n-2 {
		return 0
	}
	number, _ := strconv.Atoi(string(fields[n-3]))
	return number
}

// listens reports whether something waits for connections at a port of this host.
func listens(port uint16) bool {
	list, err := sockets.Listening()
	return err == nil && slices.ContainsFunc(list, func(s sockets.Socket) bool { return s.Local.Port() == port })
}

// connected returns the peer of a TCP connection that a process holds, and the
// port of this host, which must be one that others connect to.
func connected(pid int, inbound func(port uint16) bool) (peer netip.Addr, port uint16, ok bool) {
	eachSocket(pid, func(fd int) bool {
		peer, port, ok = ends(fd)
		ok = ok && isHere(fd) && inbound(port)
		return !ok
	})
	return peer, port, ok
}

// eachSocket calls f with a descriptor of each socket that a process holds, until
// it returns false.
func eachSocket(pid int, f func(fd int) bool) {
	process := -1 // opened when there is a socket to ask for
	for _, number := range socketsOf(pid) {
		if process < 0 {
			var err error
			if process, err = unix.PidfdOpen(pid, 0); err != nil {
				return
			}
			defer unix.Close(process)
		}
		fd, err := unix.PidfdGetfd(process, number, 0)
		if err != nil {
			continue
		}
		more := f(fd)
		unix.Close(fd)
		if !more {
			return
		}
	}
}

// socketsOf returns the descriptors of a process that are sockets.
func socketsOf(pid int) (list []int) {
	path := "/proc/" + strconv.Itoa(pid) + "/fd"
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	var entries [8 << 10]byte
	var target [16]byte // as much of it as tells a socket
	for {
		n, err := unix.ReadDirent(dir, entries[:])
		if err != nil || n <= 0 {
			return list
		}
		_, _, names := unix.ParseDirent(entries[:n], -1, nil)
		for _, name := range names {
			n, err := unix.Readlinkat(dir, name, target[:])
			number, err2 := strconv.Atoi(name)
			if err == nil && err2 == nil && bytes.HasPrefix(target[:n], []byte("socket:[")) {
				list = append(list, number)
			}
		}
	}
}

// ends returns the peer and the own port of a connected TCP socket.
func ends(fd int) (peer netip.Addr, port uint16, ok bool) {
	if proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || proto != unix.IPPROTO_TCP {
		return peer, 0, false
	}
	remote, err := unix.Getpeername(fd)
	local, err2 := unix.Getsockname(fd)
	if err != nil || err2 != nil {
		return peer, 0, false
	}
	peer, _ = addrOf(remote)
	_, port = addrOf(local)
	return peer, port, peer.IsValid() && !peer.IsLoopback() && port != 0
}

// isHere reports whether a socket is in the network namespace of this process:
// who enters a container by nsenter(1) came by a connection of another network.
func isHere(fd int) bool {
	ns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		return true // kernels before 4.10 cannot tell
	}
	defer unix.Close(ns)
	var theirs, ours unix.Stat_t
	return unix.Fstat(ns, &theirs) == nil && unix.Stat("/proc/self/ns/net", &ours) == nil && theirs.Dev == ours.Dev && theirs.Ino == ours.Ino
}

func addrOf(s unix.Sockaddr) (netip.Addr, uint16) {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(s.Addr), uint16(s.Port)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(s.Addr).Unmap(), uint16(s.Port)
	}
	return netip.Addr{}, 0
}
