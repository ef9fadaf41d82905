package sandbox

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_X86_64
	x32Bit    = 0x40000000 // of the numbers of the x32 interface
	lastKnown = unix.SYS_OPEN_TREE_ATTR
)

// refusedHere are those that this architecture has besides.
var refusedHere = []uint32{
	unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT, unix.SYS_MKNOD,
	unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB, unix.SYS_CREATE_MODULE, unix.SYS_NFSSERVCTL, unix.SYS_LOOKUP_DCOOKIE,
}

// modes refuses setuid bits where files and directories are made.
func modes() (list []rule) {
	list = append(list, withMode(unix.SYS_OPEN, 2, 1)...)
	list = append(list, withMode(unix.SYS_OPENAT, 3, 2)...)
	list = append(list, withMode(unix.SYS_CREAT, 1, -1)...)
	list = append(list, withMode(unix.SYS_MKDIR, 1, -1)...)
	return append(list, withMode(unix.SYS_MKDIRAT, 2, -1)...)
}
