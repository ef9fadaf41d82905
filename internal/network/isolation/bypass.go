package isolation

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// bypassing names the processes that hold AF_XDP sockets: what they send goes to
// the driver without passing any rule (net/xdp/xsk.c), so that it takes ending
// them to cut them off. Making such a socket takes CAP_NET_RAW.
func bypassing() (list []string) {
	if n, err := inUse("/proc/thread-self/net/protocols", "XDP"); err == nil && n == 0 {
		return nil
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	for _, dir := range processes {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || !holdsXDP(pid) {
			continue
		}
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		list = append(list, fmt.Sprintf("%s (pid %d) can send by AF_XDP past all rules: end it", strings.TrimSpace(string(name)), pid))
	}
	return list
}

// inUse returns how many sockets of a protocol there are, from a file as
// /proc/net/protocols; 0 when the kernel does not know it.
func inUse(path, protocol string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) > 2 && words[0] == protocol {
			return strconv.Atoi(words[2])
		}
	}
	return 0, nil
}

func holdsXDP(pid int) (held bool) {
	eachSocket(pid, func(fd int) bool {
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		held = err == nil && domain == unix.AF_XDP
		return !held
	})
	return held
}
