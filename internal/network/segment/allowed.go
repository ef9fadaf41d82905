package segment

import (
	"errors"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// nsGetUserns is NS_GET_USERNS of ioctl_ns(2).
const nsGetUserns = 0xb701

// MayChange fails for whoever cannot set up networks, with the failure kind
// NotAllowed: before anything is read, planned or said. Root is needed, for the
// state is root's, and CAP_NET_ADMIN for this network, which root of a container
// or a user namespace does not have.
func MayChange() error {
	if unix.Geteuid() != 0 {
		return failure.Hint(failure.Errorf(failure.NotAllowed, "needs root"), "run it as root")
	}
	if Capable(unix.CAP_NET_ADMIN) && ownNetwork() {
		return nil
	}
	return failure.Hint(failure.Errorf(failure.NotAllowed, "needs root of this network: CAP_NET_ADMIN is missing for it"),
		"run it on the host, not in a container or a user namespace")
}

// Capable reports whether this process has capabilities in force, such as
// unix.CAP_NET_RAW. When the kernel does not tell, it has the last word.
func Capable(list ...int) bool {
	var caps [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return true
	}
	for _, c := range list {
		if caps[c/32].Effective&(1<<(c%32)) == 0 {
			return false
		}
	}
	return true
}

// ownNetwork reports whether the network belongs to the user namespace of this
// process, or to one within: only there do its capabilities hold. The kernel
// names no user namespace that is outside.
func ownNetwork() bool {
	ns, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(ns)
	owner, err := unix.IoctlRetInt(ns, nsGetUserns)
	if err != nil {
		return !errors.Is(err, unix.EPERM)
	}
	unix.Close(owner)
	return true
}
