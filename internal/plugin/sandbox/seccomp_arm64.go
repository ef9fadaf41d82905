package sandbox

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	x32Bit    = 0
	lastKnown = unix.SYS_OPEN_TREE_ATTR
)

// refusedHere are those that this architecture has besides.
var refusedHere = []uint32{unix.SYS_LOOKUP_DCOOKIE, unix.SYS_NFSSERVCTL}

// modes refuses setuid bits where files and directories are made.
func modes() (list []rule) {
	list = append(list, withMode(unix.SYS_OPENAT, 3, 2)...)
	return append(list, withMode(unix.SYS_MKDIRAT, 2, -1)...)
}
