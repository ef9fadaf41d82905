//go:build amd64 || arm64

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// victims is what an escape is tried on: things outside of the sandbox that the
// test made.
type victims struct {
	dir    string // readable and writable by everybody, with file and program in it
	file   string
	prog   string
	socket string // a listening unix socket
	name   string // a listening abstract one
	port   int    // a listening port of loopback
	pid    int    // a process of the same account as the one that tries
	passed int    // a connected TCP socket that it was handed
}

// escape is an attempt to do what was not allowed. It returns nil when it
// succeeded.
type escape struct {
	name  string
	layer Layer
	try   func(v victims) error
	// blocked are the errors that the layer answers with. None: it is killed.
	blocked []error
	// rootOnly escapes need to be root to begin with.
	rootOnly bool
}

// call makes a system call, and returns its error.
func call(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return errno
	}
	return nil
}

// cstring is one that the collector does not move: it is never freed.
func cstring(s string) uintptr {
	b, err := unix.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	kept = append(kept, b)
	return uintptr(unsafe.Pointer(b))
}

var kept []*byte

// sockaddr is the address of a unix socket, as the kernel reads it.
func sockaddr(path string) (uintptr, uintptr) {
	b := make([]byte, 2+len(path)+1)
	b[0] = unix.AF_UNIX
	copy(b[2:], path)
	if path[0] == '@' {
		b[2] = 0
		b = b[:2+len(path)]
	}
	kept = append(kept, &b[0])
	return uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))
}

func open(path string, flags int, mode uint32) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

var (
	byFilter   = []error{unix.EPERM}
	hiddenCall = []error{unix.ENOSYS}
	byLandlock = []error{unix.EACCES, unix.EPERM, unix.EXDEV}
)

// escapes are all that a hostile plugin tries.
func escapes() []escape {
	at := unix.AT_FDCWD
	list := []escape{
		// files
		{name: "read a file of others", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return open(v.file, unix.O_RDONLY, 0) }},
		{name: "list a directory of others", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return open(v.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0) }},
		{name: "write a file of others", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return open(v.file, unix.O_WRONLY, 0) }},
		{name: "make a file elsewhere", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return open(v.dir+"/new", unix.O_WRONLY|unix.O_CREAT, 0o600) }},
		{name: "truncate a file by path", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return unix.Truncate(v.file, 0) }},
		{name: "remove a file of others", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return unix.Unlink(v.file) }},
		{name: "move a file of others away", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return unix.Rename(v.file, v.file+".moved") }},
		{name: "move a file of others in", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return unix.Rename(v.file, "stolen") }},
		{name: "link a file of others in", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return unix.Link(v.prog, "linked") }},
		{name: "make a symbolic link", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return unix.Symlink("/etc/shadow", "symlink") }},
		{name: "make a directory elsewhere", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return unix.Mkdir(v.dir+"/made", 0o700) }},
		{name: "read /proc of itself", layer: Landlock, blocked: byLandlock, try: func(victims) error { return open("/proc/self/environ", unix.O_RDONLY, 0) }},
		{name: "write memory by /proc", layer: Landlock, blocked: byLandlock, try: func(victims) error { return open("/proc/self/mem", unix.O_RDWR, 0) }},
		{name: "reopen a descriptor by /proc", layer: Landlock, blocked: byLandlock, try: func(v victims) error {
			fd, err := unix.Open(v.file, unix.O_PATH, 0)
			if err != nil {
				return err
			}
			return open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY, 0)
		}},
		{name: "open a device", layer: Landlock, blocked: byLandlock, try: func(victims) error { return open("/dev/ptmx", unix.O_RDWR, 0) }},
		{name: "run a program that is not listed", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return runs(exec.Command(v.prog)) }},
		{name: "run a program that it wrote", layer: Landlock, blocked: byLandlock, try: func(victims) error {
			if err := os.WriteFile("own", []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
				return err
			}
			return runs(exec.Command("./own"))
		}},
		{name: "open by a struct of arguments (openat2)", layer: Seccomp, blocked: hiddenCall, try: func(v victims) error {
			_, err := unix.Openat2(at, v.file, &unix.OpenHow{Flags: unix.O_RDONLY})
			return err
		}},
		{name: "make a FIFO", layer: Seccomp, blocked: byFilter, try: func(victims) error { return unix.Mkfifo("fifo", 0o600) }},
		{name: "make a device", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(victims) error { return unix.Mknod("device", unix.S_IFCHR|0o600, 1<<8|3) }},
		{name: "change a mode", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			return errors.Join(open("mode", unix.O_CREAT|unix.O_WRONLY, 0o600), call(unix.SYS_FCHMODAT, uintptr(at), cstring("mode"), 0o777))
		}},
		{name: "change a mode by descriptor", layer: Seccomp, blocked: byFilter, try: func(victims) error { return unix.Fchmod(2, 0o666) }},
		{name: "change a mode by fchmodat2", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			return errors.Join(open("mode2", unix.O_CREAT|unix.O_WRONLY, 0o600), call(unix.SYS_FCHMODAT2, uintptr(at), cstring("mode2"), 0o777, 0))
		}},
		{name: "set the setuid bit as a file is made", layer: Seccomp, blocked: byFilter, try: func(victims) error { return open("setuid", unix.O_CREAT|unix.O_WRONLY, 0o4755) }},
		{name: "set the setgid bit of a directory", layer: Seccomp, blocked: byFilter, try: func(victims) error { return unix.Mkdir("setgid", 0o2755) }},
		{name: "set the setuid bit of a file without a name", layer: Seccomp, blocked: byFilter, try: func(victims) error { return open(".", unix.O_TMPFILE|unix.O_WRONLY, 0o4755) }},
		{name: "change an owner", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			return errors.Join(open("owner", unix.O_CREAT|unix.O_WRONLY, 0o600), unix.Fchownat(at, "owner", os.Getuid(), os.Getgid(), 0))
		}},
		{name: "change times", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			return errors.Join(open("times", unix.O_CREAT|unix.O_WRONLY, 0o600), unix.UtimesNanoAt(at, "times", make([]unix.Timespec, 2), 0))
		}},
		{name: "set an extended attribute", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			return errors.Join(open("attribute", unix.O_CREAT|unix.O_WRONLY, 0o600), unix.Setxattr("attribute", "user.x", []byte("1"), 0))
		}},
		{name: "set an attribute of a file by ioctl", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			flags := 0
			fd, err := unix.Open("flags", unix.O_CREAT|unix.O_RDWR, 0o600)
			return errors.Join(err, call(unix.SYS_IOCTL, uintptr(fd), unix.FS_IOC_SETFLAGS, uintptr(unsafe.Pointer(&flags))))
		}},
		{name: "open by a file handle", layer: Seccomp, blocked: byFilter, try: func(v victims) error { _, _, err := unix.NameToHandleAt(at, v.file, 0); return err }},
		{name: "watch a filesystem (fanotify)", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(victims) error { _, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF, 0); return err }},

		// the network and other programs
		{name: "connect to loopback", layer: Seccomp, blocked: byFilter, try: func(v victims) error { return dials("tcp", "127.0.0.1:"+strconv.Itoa(v.port)) }},
		{name: "send a datagram", layer: Seccomp, blocked: byFilter, try: func(v victims) error { return dials("udp", "127.0.0.1:"+strconv.Itoa(v.port)) }},
		{name: "listen", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err == nil {
				l.Close()
			}
			return err
		}},
		{name: "open a raw socket", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(victims) error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }},
		{name: "talk to the kernel by netlink", layer: Seccomp, blocked: byFilter, try: func(victims) error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, 0) }},
		{name: "use the cryptographic sockets of the kernel", layer: Seccomp, blocked: byFilter, try: func(victims) error { return socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0) }},
		{name: "connect to a unix socket", layer: Seccomp, blocked: byFilter, try: func(v victims) error { return dials("unix", v.socket) }},
		{name: "connect to an abstract socket", layer: Seccomp, blocked: byFilter, try: func(v victims) error { return dials("unix", v.name) }},
		{name: "send from a pair of datagram sockets", layer: Seccomp, blocked: byFilter, try: func(v victims) error {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			addr, length := sockaddr(v.socket)
			if err := call(unix.SYS_SENDTO, uintptr(fds[0]), cstring("x"), 1, 0, addr, length); !errors.Is(err, unix.EPROTOTYPE) { // it listens for streams
				return err
			}
			return nil
		}},
		{name: "send from a pair of raw sockets", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			_, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_RAW, 0)
			return err
		}},
		{name: "connect a socket that it was handed elsewhere", layer: Seccomp, blocked: byFilter, try: func(v victims) error {
			a := &unix.SockaddrInet4{Port: v.port, Addr: [4]byte{127, 0, 0, 1}}
			if err := unix.Connect(v.passed, a); !errors.Is(err, unix.EISCONN) {
				return err
			}
			return nil
		}},
		{name: "disconnect a socket that it was handed", layer: Seccomp, blocked: byFilter, try: func(v victims) error {
			var unspec [16]byte
			return call(unix.SYS_CONNECT, uintptr(v.passed), uintptr(unsafe.Pointer(&unspec[0])), 16)
		}},
		{name: "point a socket that it was handed elsewhere (TCP fast open)", layer: Seccomp, blocked: byFilter, try: func(v victims) error {
			err := call(unix.SYS_SENDMSG, uintptr(v.passed), uintptr(unsafe.Pointer(new(unix.Msghdr))), msgFastOpen)
			if errors.Is(err, unix.EPERM) {
				return err
			}
			return nil
		}},
		{name: "send to an address from a socket that it was handed", layer: Seccomp, blocked: byFilter, try: func(v victims) error {
			addr, length := sockaddr(v.socket)
			if err := call(unix.SYS_SENDTO, uintptr(v.passed), cstring("x"), 1, 0, addr, length); errors.Is(err, unix.EPERM) {
				return err
			}
			return nil
		}},

		// other processes
		{name: "end another process", layer: Landlock, blocked: byLandlock, try: func(v victims) error { return unix.Kill(v.pid, 0) }},
		{name: "end its parent", layer: Landlock, blocked: byLandlock, try: func(victims) error { return unix.Kill(os.Getppid(), 0) }},
		{name: "signal another process by a descriptor", layer: Landlock, blocked: byLandlock, try: func(v victims) error {
			fd, err := unix.PidfdOpen(v.pid, 0)
			if err != nil {
				return err
			}
			return unix.PidfdSendSignal(fd, 0, nil, 0)
		}},
		{name: "trace another process", layer: Seccomp, blocked: byFilter, try: func(v victims) error { return call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(v.pid), 0, 0) }},
		{name: "read the memory of another process", layer: Seccomp, blocked: byFilter, try: func(v victims) error {
			var b [1]byte
			iov := unix.Iovec{Base: &b[0], Len: 1}
			err := call(unix.SYS_PROCESS_VM_READV, uintptr(v.pid), uintptr(unsafe.Pointer(&iov)), 1, uintptr(unsafe.Pointer(&iov)), 1, 0)
			if errors.Is(err, unix.EFAULT) {
				err = nil // it was let at the memory, there was only nothing at that address
			}
			return err
		}},
		{name: "take a descriptor of another process", layer: Seccomp, blocked: byFilter, try: func(v victims) error {
			fd, err := unix.PidfdOpen(v.pid, 0)
			if err != nil {
				return err
			}
			return call(unix.SYS_PIDFD_GETFD, uintptr(fd), 0, 0)
		}},
		{name: "limit another process", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			pid, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
			if errno != 0 {
				return errno
			} else if pid == 0 {
				for {
					unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&unix.Timespec{Sec: 30})), 0, 0)
				}
			}
			return unix.Prlimit(int(pid), unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
		}},
		{name: "slow another process down", layer: Seccomp, blocked: byFilter, try: func(v victims) error { return unix.Setpriority(unix.PRIO_PROCESS, v.pid, 19) }},

		// the kernel
		{name: "mount", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(v victims) error { return unix.Mount("none", v.dir, "tmpfs", 0, "") }},
		{name: "bind a directory by file descriptors", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(v victims) error { return call(unix.SYS_OPEN_TREE, uintptr(at), cstring(v.dir), 1) }},
		{name: "change its root", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(victims) error { return unix.Chroot(".") }},
		{name: "make a user namespace", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			runtime.LockOSThread()
			return runs(&exec.Cmd{Path: "/proc/self/exe", Args: []string{"x", "-test.run=^$"}, SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}})
		}},
		{name: "make a namespace by clone3", layer: Seccomp, blocked: hiddenCall, try: func(victims) error {
			if err := call(unix.SYS_CLONE3, 0, 0); !errors.Is(err, unix.EINVAL) {
				return err
			}
			return nil
		}},
		{name: "leave for another namespace", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(victims) error {
			fd, err := unix.Open("/", unix.O_PATH, 0)
			if err != nil {
				return err
			}
			if err := unix.Setns(fd, unix.CLONE_NEWNET); !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.EINVAL) {
				return err
			}
			return nil
		}},
		{name: "use io_uring", layer: Seccomp, blocked: hiddenCall, try: func(victims) error {
			var params [120]byte
			return call(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])))
		}},
		{name: "add a key to a keyring", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			_, err := unix.AddKey("user", "x", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
			return err
		}},
		{name: "load a program into the kernel", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(victims) error {
			if err := call(unix.SYS_BPF, 9999, 0, 0); !errors.Is(err, unix.EINVAL) {
				return err
			}
			return nil
		}},
		{name: "load a module", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(victims) error {
			if err := unix.InitModule([]byte{0}, ""); !errors.Is(err, unix.ENOEXEC) && !errors.Is(err, unix.ENOSYS) {
				return err
			}
			return nil
		}},
		{name: "set the clock", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(victims) error {
			if err := call(unix.SYS_CLOCK_SETTIME, 9999, cstring("")); !errors.Is(err, unix.EINVAL) {
				return err
			}
			return nil
		}},
		{name: "reboot", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(victims) error {
			if err := call(unix.SYS_REBOOT, 1, 2, 3); !errors.Is(err, unix.EINVAL) {
				return err
			}
			return nil
		}},
		{name: "read the log of the kernel", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(victims) error { _, err := unix.Klogctl(10, nil); return err }},
		{name: "change its personality", layer: Seccomp, blocked: byFilter, try: func(victims) error { return call(unix.SYS_PERSONALITY, 0x0040000) }},
		{name: "handle its own page faults", layer: Seccomp, blocked: byFilter, try: func(victims) error { return call(unix.SYS_USERFAULTFD, 1) }},
		{name: "type at the terminal", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			c := byte('x')
			if err := call(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&c))); !errors.Is(err, unix.ENOTTY) {
				return err
			}
			return nil
		}},
		{name: "keep memory in a file without a name", layer: Seccomp, blocked: byFilter, try: func(victims) error { _, err := unix.MemfdCreate("x", 0); return err }},
		{name: "keep memory in a segment of System V", layer: Seccomp, blocked: byFilter, try: func(victims) error { _, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600); return err }},
		{name: "call a number that is not known yet", layer: Seccomp, blocked: hiddenCall, try: func(victims) error {
			if err := call(lastKnown + 1); err != nil && !errors.Is(err, unix.ENOSYS) {
				return nil // this kernel has it
			}
			return unix.ENOSYS
		}},

		// rights
		{name: "become root", layer: Accounts, blocked: byFilter, rootOnly: true, try: func(victims) error { return call(unix.SYS_SETUID, 0) }},
		{name: "gain rights by execve", layer: Capabilities, blocked: byFilter, rootOnly: true, try: func(victims) error {
			if set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_ADMIN, 0, 0, 0); err != nil || set != 0 {
				return err
			}
			return unix.EPERM
		}},
		{name: "gain rights by a setuid program", layer: NoNewPrivs, blocked: byFilter, try: func(victims) error {
			if on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || on == 0 {
				return err
			}
			return unix.EPERM
		}},

		// limits
		{name: "open too many files", layer: Rlimits, blocked: []error{unix.EMFILE}, try: func(victims) error {
			for range 300 {
				if _, err := unix.Dup(2); err != nil {
					return err
				}
			}
			return nil
		}},
		{name: "write too large a file", layer: Rlimits, blocked: []error{unix.EFBIG}, try: func(victims) error {
			f, err := os.Create("large")
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt(make([]byte, 1), 8<<20)
			var e syscall.Errno
			if errors.As(err, &e) {
				return e
			}
			return err
		}},
		{name: "raise its limits", layer: Rlimits, blocked: byFilter, try: func(victims) error {
			return unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 40, Max: 1 << 40})
		}},
		{name: "use the processor for ever", layer: Rlimits, try: func(victims) error {
			for { // seconds of the processor, however busy the machine is
				var used unix.Rusage
				if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil || used.Utime.Sec+used.Stime.Sec >= 4 {
					return err
				}
			}
		}},
		{name: "use all memory", layer: Cgroup, blocked: []error{unix.ENOMEM}, try: func(victims) error {
			size := 512 << 20
			b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err != nil {
				return err
			}
			for i := 0; i < size; i += 4096 {
				b[i] = 1
			}
			return nil
		}},
		{name: "start too many processes", layer: Cgroup, blocked: []error{unix.EAGAIN}, try: func(victims) error {
			for range 100 {
				if pid, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0); errno != 0 {
					return errno
				} else if pid == 0 {
					for {
						unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&unix.Timespec{Sec: 30})), 0, 0)
					}
				}
			}
			return nil
		}},
	}
	return append(append(list, escapesHere()...), escapesByPath()...)
}

func socket(domain, kind, proto int) error {
	fd, err := unix.Socket(domain, kind, proto)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func dials(network, address string) error {
	c, err := net.Dial(network, address)
	if err == nil {
		c.Close()
	}
	return err
}

// runs runs a command, and tells what it could not do from what it said.
func runs(c *exec.Cmd) error {
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

// victim reads what the test passes in the environment.
func victim() (v victims) {
	f := strings.Split(os.Getenv("SANDBOX_VICTIMS"), "|")
	v.dir, v.socket, v.name = f[0], f[1], f[2]
	v.file, v.prog = filepath.Join(v.dir, "file"), filepath.Join(v.dir, "program")
	v.port, _ = strconv.Atoi(f[3])
	v.pid, _ = strconv.Atoi(f[4])
	v.passed, _ = strconv.Atoi(f[5])
	return v
}

// attempt is what the hostile program does: it tries, and says how it ended as
// "NUMBER TEXT", 0 for success.
func attempt(name string) {
	for _, e := range append(escapes(), escapesOfMemory()...) {
		if e.name != name {
			continue
		}
		err := e.try(victim())
		var errno syscall.Errno
		switch {
		case err == nil:
			fmt.Print("0 done")
		case errors.As(err, &errno):
			fmt.Printf("%d %v", int(errno), err)
		default:
			fmt.Printf("-1 %v", err)
		}
		os.Exit(0)
	}
	fmt.Print("-1 no such escape")
	os.Exit(1)
}

// outcome reads what attempt wrote; a program that was killed wrote nothing.
func outcome(out string) (errno syscall.Errno, known bool) {
	number, _, _ := strings.Cut(string(bytes.TrimSpace([]byte(out))), " ")
	n, err := strconv.Atoi(number)
	return syscall.Errno(n), err == nil && n >= 0
}
