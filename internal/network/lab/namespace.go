package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/osthread"
	"golang.org/x/sys/unix"
)

// namespace is one network namespace, held open by its file.
type namespace struct {
	name  string
	file  *os.File
	inode uint64
}

// namespace makes one, with its loopback up.
func (l *Lab) namespace(name string) (*namespace, error) {
	n := &namespace{name: name}
	err := osthread.Run(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(n.file.Fd()), &st); err != nil {
		return nil, err
	}
	n.inode = st.Ino
	l.mu.Lock()
	l.spots = append(l.spots, n)
	l.mu.Unlock()
	for _, s := range [][2]string{
		{"net/ipv6/conf/all/accept_dad", "0"}, {"net/ipv6/conf/default/accept_dad", "0"},
		{"net/ipv6/conf/all/dad_transmits", "0"}, {"net/ipv6/conf/default/dad_transmits", "0"},
	} {
		if err := n.sysctl(s[0], s[1]); err != nil && !os.IsNotExist(err) {
			return nil, err
		}
	}
	return n, n.ip("link set lo up")
}

// path leads to the namespace from any process: what ip(8) and nsenter(1) take.
func (n *namespace) path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd())
}

// do runs f on a thread that is in the namespace. Sockets that it makes stay
// there, and so do processes that it starts.
func (n *namespace) do(f func() error) error {
	return osthread.Run(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("%s: setns: %w", n.name, err)
		}
		return f()
	})
}

// sysctl sets what is below /proc/sys, where net/ is that of the namespace.
func (n *namespace) sysctl(name, value string) error {
	return n.do(func() error { return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0) })
}

// settled waits until an interface that is up, and whose other end is, has come
// to its rest: the kernel makes its link-local address, and the routes to it, a
// moment after it has seen that the other end is up.
func (n *namespace) settled(name string) error {
	const tentative = 0x40 // IFA_F_TENTATIVE
	return n.do(func() error {
		off, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6")
		if err != nil || string(off) != "0\n" {
			return nil // it gets none
		}
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
			list, err := os.ReadFile("/proc/thread-self/net/if_inet6")
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(list)) {
				f := strings.Fields(line) // address, index, prefix length, scope, flags, name
				if flags, err := strconv.ParseUint(f[4], 16, 32); err == nil && flags&tentative == 0 && f[5] == name && strings.HasPrefix(f[0], "fe80") {
					return nil
				}
			}
		}
		return fmt.Errorf("%s: %s has no link-local address after %v", n.name, name, patience)
	})
}

// ip runs commands of ip(8), in one go.
func (n *namespace) ip(commands ...string) error {
	return n.do(func() error {
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: ip %s: %w: %s", n.name, strings.Join(commands, "; "), err, out)
		}
		return nil
	})
}
