package isolation

import (
	"os"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/nft"
	"golang.org/x/sys/unix"
)

// mayChange fails for whoever cannot change rules: before a lock is taken, a
// guard is signalled, or anything is said about what is going to happen.
func mayChange() error { return Allowed("changed") }

// Allowed fails for whoever can neither change nor read rules; what, "changed" or
// "read", is what the message says of them.
func Allowed(what string) error {
	var caps [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &caps[0]); err != nil || caps[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0 {
		return nil // the kernel has the last word
	}
	return notAllowed(what)
}

// notAllowed says who may: root of a user namespace that does not own the
// network is root by name alone.
func notAllowed(what string) error {
	if unix.Geteuid() != 0 {
		return failure.Hint(failure.Errorf(failure.NotAllowed, "rules can be %s by root alone", what), "run it as root")
	}
	return failure.Hint(failure.Errorf(failure.NotAllowed, "rules cannot be %s from here: CAP_NET_ADMIN is missing for this network", what),
		"run it on the host, not in a container or a user namespace")
}

// guardOfTables returns the process that owns the tables, when it is a guard: the
// lock cannot tell when the disk was full as it was taken, or when it is in
// another state directory. The owner is the port of a netlink socket, which for
// the first of a process is its number (netlink_autobind in af_netlink.c).
func guardOfTables() (pid int, ok bool) {
	r, err := nft.OpenReader()
	if err != nil {
		return 0, false
	}
	defer r.Close()
	for _, t := range tables() {
		info, _, err := r.Table(t)
		if err != nil || info.Owner == 0 {
			continue
		}
		pid := int(info.Owner)
		return pid, pid != os.Getpid() && isGuard(pid)
	}
	return 0, false
}
