package sandbox

import (
	"os"
	"sync"

	"github.com/mobileops/mobileops/internal/osthread"
	"golang.org/x/sys/unix"
)

// emptyNetwork is a network namespace in which nobody ever made an interface.
// Its loopback is down, and those who enter it have no right to change that, so
// that programs which share it cannot reach each other through it.
var emptyNetwork = sync.OnceValues(func() (ns *os.File, err error) {
	err = osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare(CLONE_NEWNET)", err)
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return ns, err
})

// enterEmptyNetwork moves the thread there.
func enterEmptyNetwork() error {
	ns, err := emptyNetwork()
	if err != nil {
		return err
	}
	return os.NewSyscallError("setns", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET))
}
