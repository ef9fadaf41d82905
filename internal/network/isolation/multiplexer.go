package isolation

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// isMultiplexer reports whether a process of that name is of a terminal multiplexer
// (tmux(1), screen(1)). Its server, which all terminals of it descend from, has
// none itself, and descends from nobody's session.
func isMultiplexer(name string) bool {
	return strings.HasPrefix(name, "tmux") || strings.EqualFold(name, "screen")
}

// typingIn is the session of whoever typed last in a terminal multiplexer: it
// holds the terminals of those who are attached, and sshd is above what runs there.
// It is nil when nobody is attached by a connection.
func typingIn(server, nested int) (found *Session) {
	if nested <= 0 {
		return nil
	}
	typed := map[int]time.Time{} // numbers of pseudo-terminals
	dir := filepath.Join("/proc", strconv.Itoa(server), "fd")
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		number, err := strconv.Atoi(strings.TrimPrefix(target, "/dev/pts/"))
		// When a terminal was last read from is when somebody typed (tty_io.c).
		var stat unix.Stat_t
		if err == nil && unix.Stat(filepath.Join(dir, e.Name()), &stat) == nil {
			typed[number] = time.Unix(stat.Atim.Unix())
		}
	}
	if len(typed) == 0 {
		return nil
	}
	var last time.Time
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		pid, _ := strconv.Atoi(filepath.Base(p))
		at, ok := typed[terminal(pid)]
		if !ok || found != nil && !at.After(last) {
			continue
		}
		if s := above(pid, nil, nested); s != nil {
			found, last = s, at
		}
	}
	return found
}

// terminal is the number of the pseudo-terminal that controls a process; -1: none.
func terminal(pid int) int {
	const slaves = 136 // the major number of all of them (Documentation/admin-guide/devices.txt)
	device := statField(pid, 7)
	if device>>8&0xfff != slaves {
		return -1
	}
	return device&0xff | device>>12&0xfff00
}

// datagrams is the UDP port of this host that a process waits at; 0: none.
func datagrams(pid int) (port uint16) {
	eachSocket(pid, func(fd int) bool {
		if proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err == nil && proto == unix.IPPROTO_UDP && isHere(fd) {
			if local, err := unix.Getsockname(fd); err == nil {
				_, port = addrOf(local)
			}
		}
		return port == 0
	})
	return port
}

// environment is a variable that a process was started with.
func environment(pid int, name string) string {
	data, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	for v := range bytes.SplitSeq(data, []byte{0}) {
		if value, ok := bytes.CutPrefix(v, []byte(name+"=")); ok {
			return string(value)
		}
	}
	return ""
}
