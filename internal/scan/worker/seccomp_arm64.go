package worker

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	x32Bit    = 0
)

// refusedHere are those that this architecture has besides.
var refusedHere []uint32
