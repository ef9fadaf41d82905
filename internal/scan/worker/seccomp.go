//go:build amd64 || arm64

package worker

import (
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refused are calls that a worker may not make: seccomp(2). This is no list of all
// that could do harm, as most of that needs capabilities which it doesn't have, and
// Landlock holds the rest of what concerns files. It is what neither looks at.
var refused = []uint32{
	// owners, modes, times and attributes of files, of which root owns most
	unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT,
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_SETXATTRAT,
	unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_REMOVEXATTRAT, unix.SYS_FILE_SETATTR,
	unix.SYS_MKNODAT,
	// other processes
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	// mounts, roots and namespaces: a user namespace gives capabilities back
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_UNSHARE, unix.SYS_SETNS,
	// the parts of the kernel in which most was found wrong
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_BPF, unix.SYS_USERFAULTFD, unix.SYS_PERF_EVENT_OPEN,
	unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_OPEN_BY_HANDLE_AT,
}

// hidden are calls that programs do without when the kernel has none: their
// arguments are in memory, where a filter cannot look, or they do what others are
// refused.
var hidden = []uint32{unix.SYS_CLONE3, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// offline are those that a worker without a network does not need.
var offline = []uint32{unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN}

// Offsets in struct seccomp_data: seccomp(2).
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetFirst  = 16 // the first argument, its low half
	offsetSecond = 24
)

// fsIocFsSetXattr is FS_IOC_FSSETXATTR of linux/fs.h.
const fsIocFsSetXattr = 0x401C5820

// filter writes the filter. "int 0x80" and the x32 interface reach the same calls by
// other numbers: who tries them is killed. It has few instructions, all of which the
// kernel runs at every call that isn't always allowed.
func filter(remote bool) []unix.SockFilter {
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		eq   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		set  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
	)
	p := []unix.SockFilter{
		{Code: load, K: offsetArch},
		{Code: eq, Jt: 1, K: auditArch},
		{Code: ret, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: offsetNumber},
	}
	if x32Bit != 0 {
		p = append(p, unix.SockFilter{Code: set, Jf: 1, K: x32Bit}, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_KILL_PROCESS})
	}
	answer := func(action uint32, numbers ...uint32) {
		for _, n := range numbers {
			p = append(p, unix.SockFilter{Code: eq, Jf: 1, K: n}, unix.SockFilter{Code: ret, K: action})
		}
	}
	const refuse, unknown = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	answer(refuse, slices.Concat(refused, refusedHere)...)
	answer(unknown, hidden...)
	if !remote {
		answer(refuse, offline...)
	}
	// Who writes files durably says which modes they have; with our umask they have
	// those of the worker alone anyway. It is told that all went well.
	answer(unix.SECCOMP_RET_ERRNO, unix.SYS_FCHMOD)
	p = append(p,
		// clone(2) may make processes and threads, but no user namespace.
		unix.SockFilter{Code: eq, Jf: 4, K: unix.SYS_CLONE},
		unix.SockFilter{Code: load, K: offsetFirst},
		unix.SockFilter{Code: set, Jf: 1, K: unix.CLONE_NEWUSER},
		unix.SockFilter{Code: ret, K: refuse},
		unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		// ioctl(2) sets attributes of files (immutable), and types at terminals.
		unix.SockFilter{Code: eq, Jf: 6, K: unix.SYS_IOCTL},
		unix.SockFilter{Code: load, K: offsetSecond},
		unix.SockFilter{Code: eq, Jt: 3, K: unix.FS_IOC_SETFLAGS},
		unix.SockFilter{Code: eq, Jt: 2, K: fsIocFsSetXattr},
		unix.SockFilter{Code: eq, Jt: 1, K: unix.TIOCSTI},
		unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: ret, K: refuse},
		unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	)
	return p
}

// haveFilter says whether the kernel takes a filter.
func haveFilter() bool {
	action := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return errno == 0
}

// restrictCalls puts the filter on the thread, and on what it starts.
func restrictCalls(remote bool) error {
	p := filter(remote)
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	// Not unix.Prctl: what a uintptr points to moves with the stack of who calls.
	if _, _, err := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog))); err != 0 {
		return os.NewSyscallError("prctl(PR_SET_SECCOMP)", err)
	}
	return nil
}
