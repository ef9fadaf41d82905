//go:build amd64 || arm64

package sandbox

import (
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter is a list of calls that are refused, in seccomp_ARCH.go, before
// which stands the architecture and behind which stands everything newer than
// the list: a call that nobody has looked at is one that does not exist.
//
// A list of what is refused alone would be no filter at all: "int 0x80" and the
// x32 interface reach the same calls by other numbers. Whoever tries is killed.

// action is what a filter says of a call.
type action = uint32

const (
	allow   action = unix.SECCOMP_RET_ALLOW
	kill    action = unix.SECCOMP_RET_KILL_PROCESS
	refuse  action = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	unknown action = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS) // what programs have another way for
	without action = unix.SECCOMP_RET_ERRNO | uint32(unix.EOPNOTSUPP)
)

// Offsets in struct seccomp_data: seccomp(2).
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// test is a condition on an argument of a call. The halves of 64 bits are
// looked at one by one, as the filter's words have 32.
type test struct {
	argument int
	mask     uint32 // of the low half
	value    uint32 // the test holds when low half & mask == value, or, with not, when it does not
	not      bool
	high     bool // look at the high half
}

// rule is what happens to one call. All of its tests must hold.
type rule struct {
	number uint32
	tests  []test
	action action
}

// program is a filter that is being written.
type program []unix.SockFilter

func (p *program) load(offset uint32) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset})
}

func (p *program) result(a action) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: a})
}

// unless jumps over the next n instructions when the comparison does not hold.
func (p *program) unless(compare uint16, k uint32, n int) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | compare | unix.BPF_K, Jf: uint8(n), K: k})
}

// add writes a rule of the call that is being decided.
func (p *program) add(r rule) {
	const each = 3 // load, mask, jump
	for i, t := range r.tests {
		offset := uint32(offsetArgs + 8*t.argument)
		if t.high {
			offset += 4
		}
		p.load(offset)
		*p = append(*p, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: t.mask})
		// To behind the result, when the test does not hold.
		past := uint8(each*(len(r.tests)-1-i) + 1)
		jump := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: past, K: t.value}
		if t.not {
			jump.Jt, jump.Jf = past, 0
		}
		*p = append(*p, jump)
	}
	p.result(r.action)
}

// span is a run of calls, from a number to the next span, and what decides them.
type span struct {
	from uint32
	code program
}

// tree writes the search for the span of the number in the accumulator. The
// kernel runs a filter once for each call that there is when it is loaded, to
// remember which are always allowed: with a list instead of a tree, that takes
// longer than to start a program.
func tree(spans []span) program {
	if len(spans) == 1 {
		return spans[0].code
	}
	half := len(spans) / 2
	low, high := tree(spans[:half]), tree(spans[half:])
	var p program
	if len(low) <= 255 {
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: uint8(len(low)), K: spans[half].from})
	} else { // a condition does not jump that far
		p.unless(unix.BPF_JGE, spans[half].from, 1)
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(low))})
	}
	return append(append(p, low...), high...)
}

// spans sorts the rules by the number of their call.
func spans(sharedMemory bool) (list []span) {
	var always program
	always.result(allow)
	byNumber := map[uint32]program{}
	for _, r := range conditional(sharedMemory) {
		p := byNumber[r.number]
		p.add(r)
		byNumber[r.number] = p
	}
	for n, p := range byNumber {
		byNumber[n] = append(p, always...)
	}
	for _, s := range []struct {
		numbers []uint32
		action  action
	}{{refused, refuse}, {refusedHere, refuse}, {hidden, unknown}, {lacking, without}} {
		for _, n := range s.numbers {
			byNumber[n] = program{{Code: unix.BPF_RET | unix.BPF_K, K: s.action}}
		}
	}
	same := func(p program) bool { return len(list) > 0 && slices.Equal(list[len(list)-1].code, p) }
	for n := uint32(0); n <= lastKnown; n++ {
		p, ok := byNumber[n]
		if !ok {
			p = always
		}
		if !same(p) {
			list = append(list, span{n, p})
		}
	}
	return append(list, span{lastKnown + 1, program{{Code: unix.BPF_RET | unix.BPF_K, K: unknown}}})
}

// filter writes the whole filter. Without a cgroup that counts it, memory that
// processes share by no file would be outside of every limit, and is refused.
func filter(sharedMemory bool) program {
	var p program
	p.load(offsetArch)
	p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: auditArch})
	p.result(kill)
	p.load(offsetNumber)
	if x32Bit != 0 {
		p.unless(unix.BPF_JSET, x32Bit, 1)
		p.result(kill)
	}
	return append(p, tree(spans(sharedMemory))...)
}

// The two filters that there are, each written once.
var (
	withShared    = sync.OnceValue(func() program { return filter(true) })
	withoutShared = sync.OnceValue(func() program { return filter(false) })
)

// namespaces are the flags of clone(2) that make some.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// msgFastOpen connects without connect(2): a socket that was handed over and
// whose peer has gone could be pointed elsewhere by it.
const msgFastOpen = 0x20000000

// whole is a mask that leaves everything.
const whole = 0xFFFFFFFF

// conditional are the rules that look at arguments, on every architecture.
func conditional(sharedMemory bool) []rule {
	var list []rule
	if !sharedMemory {
		// A stack is no data to the limit of data.
		list = append(list, rule{unix.SYS_MMAP, []test{{argument: 3, mask: unix.MAP_GROWSDOWN, value: unix.MAP_GROWSDOWN}}, refuse})
		list = append(list, rule{unix.SYS_MMAP, []test{{argument: 3, mask: unix.MAP_SHARED | unix.MAP_ANONYMOUS, value: unix.MAP_SHARED | unix.MAP_ANONYMOUS}}, refuse})
	}
	// New namespaces bring capabilities over what is in them. One bit is
	// enough, so there is a rule for each.
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if namespaces&bit != 0 {
			list = append(list, rule{unix.SYS_CLONE, []test{{argument: 0, mask: bit, value: bit}}, refuse})
		}
	}
	// Nobody here waits for a child that the program gives us.
	list = append(list, rule{unix.SYS_CLONE, []test{{argument: 0, mask: unix.CLONE_PARENT, value: unix.CLONE_PARENT}}, refuse})
	// A pair of datagram sockets sends to any path that it is given with
	// sendto(2), so that only pairs of streams are made.
	const kind = 0xF // the type of a socket without its flags
	list = append(list,
		rule{unix.SYS_SOCKETPAIR, []test{{argument: 0, mask: whole, value: unix.AF_UNIX, not: true}}, refuse},
		rule{unix.SYS_SOCKETPAIR, []test{{argument: 1, mask: kind, value: unix.SOCK_STREAM, not: true}, {argument: 1, mask: kind, value: unix.SOCK_SEQPACKET, not: true}}, refuse},
		// To no address but the one that a socket is connected to.
		rule{unix.SYS_SENDTO, []test{{argument: 4, mask: whole, not: true}}, refuse},
		rule{unix.SYS_SENDTO, []test{{argument: 4, mask: whole, not: true, high: true}}, refuse},
		rule{unix.SYS_SENDTO, []test{{argument: 3, mask: msgFastOpen, value: msgFastOpen}}, refuse},
		rule{unix.SYS_SENDMSG, []test{{argument: 2, mask: msgFastOpen, value: msgFastOpen}}, refuse},
		rule{unix.SYS_SENDMMSG, []test{{argument: 3, mask: msgFastOpen, value: msgFastOpen}}, refuse},
		// What is typed at a terminal, attributes of files, and the contents
		// of the console are changed by these.
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: unix.TIOCSTI}}, refuse},
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: unix.TIOCLINUX}}, refuse},
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: unix.TIOCSETD}}, refuse},
		// Whose the terminal is, how large, and whether others may open it.
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: unix.TIOCSPGRP}}, refuse},
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: unix.TIOCSCTTY}}, refuse},
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: unix.TIOCSWINSZ}}, refuse},
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: unix.TIOCEXCL}}, refuse},
		// Output that a program has stopped no key starts again.
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: unix.TCXONC}}, refuse},
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: ofConsole, value: 'K' << 8}}, refuse}, // keyboard and screen: ioctl_console(2)
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: ofConsole, value: 'V' << 8}}, refuse},
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: unix.FS_IOC_SETFLAGS}}, refuse},
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: fsIocFsSetXattr}}, refuse},
		// Only to be held by who starts it, to end with who holds it, and to be
		// let go: Start does the first in the program's process, the others on
		// this thread.
		rule{unix.SYS_PTRACE, []test{
			{argument: 0, mask: whole, value: unix.PTRACE_TRACEME, not: true},
			{argument: 0, mask: whole, value: unix.PTRACE_SETOPTIONS, not: true},
			{argument: 0, mask: whole, value: unix.PTRACE_DETACH, not: true},
		}, refuse},
		rule{unix.SYS_PTRACE, []test{{argument: 0, mask: whole, value: unix.PTRACE_SETOPTIONS}, {argument: 3, mask: whole, value: unix.PTRACE_O_EXITKILL, not: true}}, refuse},
		rule{unix.SYS_PTRACE, []test{{argument: 0, mask: whole, value: unix.PTRACE_SETOPTIONS}, {argument: 3, mask: whole, not: true, high: true}}, refuse},
		// Of others.
		rule{unix.SYS_PRLIMIT64, []test{{argument: 0, mask: whole, not: true}}, refuse},
		rule{unix.SYS_SETPRIORITY, []test{{argument: 0, mask: whole, value: unix.PRIO_PROCESS, not: true}}, refuse}, // groups and accounts
		rule{unix.SYS_SETPRIORITY, []test{{argument: 1, mask: whole, not: true}}, refuse},
		rule{unix.SYS_IOPRIO_SET, []test{{argument: 0, mask: whole, value: ioprioProcess, not: true}}, refuse},
		rule{unix.SYS_IOPRIO_SET, []test{{argument: 1, mask: whole, not: true}}, refuse},
		rule{unix.SYS_SCHED_SETAFFINITY, []test{{argument: 0, mask: whole, not: true}}, refuse},
		rule{unix.SYS_SCHED_SETSCHEDULER, []test{{argument: 0, mask: whole, not: true}}, refuse},
		rule{unix.SYS_SCHED_SETPARAM, []test{{argument: 0, mask: whole, not: true}}, refuse},
		rule{unix.SYS_SCHED_SETATTR, []test{{argument: 0, mask: whole, not: true}}, refuse},
		// Who opens a file on which somebody has a lease waits for them.
		rule{unix.SYS_FCNTL, []test{{argument: 1, mask: whole, value: unix.F_SETLEASE}}, refuse},
		// Signals by what is read from a terminal or a socket, to whomever, which
		// go on when the program has ended.
		rule{unix.SYS_FCNTL, []test{{argument: 1, mask: whole, value: unix.F_SETFL}, {argument: 2, mask: unix.O_ASYNC, value: unix.O_ASYNC}}, refuse},
		rule{unix.SYS_FCNTL, []test{{argument: 1, mask: whole, value: unix.F_SETOWN}}, refuse},
		rule{unix.SYS_FCNTL, []test{{argument: 1, mask: whole, value: unix.F_SETOWN_EX}}, refuse},
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: fioAsync}}, refuse},
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: fioSetOwn}}, refuse},
		rule{unix.SYS_IOCTL, []test{{argument: 1, mask: whole, value: siocSetOwn}}, refuse},
		// Room behind the end of a file is not in the limit of its size.
		rule{unix.SYS_FALLOCATE, []test{{argument: 1, mask: unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE, value: unix.FALLOC_FL_KEEP_SIZE}}, without},
		// Another personality is another set of protections; asking is not.
		rule{unix.SYS_PERSONALITY, []test{{argument: 0, mask: whole, not: true}, {argument: 0, mask: whole, value: whole, not: true}}, refuse},
	)
	return append(list, modes()...)
}

// ioprioProcess is IOPRIO_WHO_PROCESS of linux/ioprio.h.
const ioprioProcess = 1

// FIOASYNC, FIOSETOWN and SIOCSPGRP of asm-generic/ioctls.h and sockios.h.
const fioAsync, fioSetOwn, siocSetOwn = 0x5452, 0x8901, 0x8902

// ofConsole is a mask that leaves the family of an ioctl of the console.
const ofConsole = whole &^ 0xFF

// fsIocFsSetXattr is FS_IOC_FSSETXATTR of linux/fs.h.
const fsIocFsSetXattr = 0x401C5820

// withMode refuses setuid and setgid bits in an argument of a call. Only with
// O_CREAT in the argument flags is there a mode, when flags is not negative.
func withMode(number uint32, mode, flags int) (list []rule) {
	for _, bit := range []uint32{unix.S_ISUID, unix.S_ISGID} {
		tests := []test{{argument: mode, mask: bit, value: bit}}
		if flags >= 0 {
			tests = append(tests, test{argument: flags, mask: unix.O_CREAT, value: unix.O_CREAT})
		}
		list = append(list, rule{number, tests, refuse})
		if flags >= 0 { // a file without a name can be given one
			const unnamed = unix.O_TMPFILE &^ unix.O_DIRECTORY
			list = append(list, rule{number, []test{{argument: mode, mask: bit, value: bit}, {argument: flags, mask: unnamed, value: unnamed}}, refuse})
		}
	}
	return list
}

// haveFilter says that there is a filter for this architecture.
const haveFilter = true

// restrictCalls puts the filter on the thread, and on what it starts.
func restrictCalls(sharedMemory bool) error {
	p := withoutShared()
	if sharedMemory {
		p = withShared()
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	// Not unix.Prctl: what a uintptr points to moves with the stack of who calls.
	if _, _, err := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog))); err != 0 {
		return os.NewSyscallError("prctl(PR_SET_SECCOMP)", err)
	}
	return nil
}

// refused are calls that nobody in a sandbox may make, on every architecture.
var refused = []uint32{
	// other processes and their memory
	unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PROCESS_MRELEASE, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD,
	unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES, unix.SYS_PERF_EVENT_OPEN,
	// mounts and roots
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR, unix.SYS_FSOPEN,
	unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_STATMOUNT, unix.SYS_LISTMOUNT,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_ACCT,
	// namespaces
	unix.SYS_UNSHARE, unix.SYS_SETNS,
	// the kernel: keyrings, programs in it, modules, time, names
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_BPF, unix.SYS_USERFAULTFD, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_REBOOT, unix.SYS_SYSLOG, unix.SYS_VHANGUP,
	// sockets: those that were handed over are connected, and stay so
	unix.SYS_SOCKET, unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
	// what Landlock does not look at: owners, modes, times, attributes
	unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT,
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_SETXATTRAT,
	unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_REMOVEXATTRAT,
	unix.SYS_MKNODAT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK,
	unix.SYS_INOTIFY_ADD_WATCH, // tells of names in directories that cannot be read
	// memory outside of limits and of files: System V and POSIX queues, memfd
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_SEMGET, unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_SEMCTL, unix.SYS_MSGGET, unix.SYS_MSGSND, unix.SYS_MSGRCV, unix.SYS_MSGCTL,
	unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK, unix.SYS_MEMFD_CREATE, unix.SYS_MEMFD_SECRET,
}

// hidden are calls that programs do without when the kernel has none: their
// arguments are in memory, where a filter cannot look.
var hidden = []uint32{
	unix.SYS_MAP_SHADOW_STACK, // memory that is no data, as a stack
	unix.SYS_IO_SETUP,         // the whole host has so many (fs.aio-max-nr), and databases need them
	unix.SYS_CLONE3, unix.SYS_OPENAT2, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
}

// lacking are calls that programs do without where a filesystem does not have
// what they are about. Landlock does not look at them, and who reads attributes
// of a path may read those of any file.
var lacking = []uint32{
	unix.SYS_GETXATTR, unix.SYS_LGETXATTR, unix.SYS_GETXATTRAT, unix.SYS_LISTXATTR, unix.SYS_LLISTXATTR, unix.SYS_LISTXATTRAT,
}
