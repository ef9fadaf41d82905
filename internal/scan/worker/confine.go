package worker

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"unsafe"

	"github.com/mobileops/mobileops/internal/osthread"
	"golang.org/x/sys/unix"
)

// support is what of the layers this host has.
type support struct {
	root     bool // capabilities can be dropped
	landlock int  // version of the interface, 0 when there is none
	seccomp  bool
	pids     bool // a namespace of processes can be made
}

// detect finds that out, once.
var detect = sync.OnceValue(func() support {
	s := support{root: os.Geteuid() == 0, seccomp: haveFilter()}
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == 0 {
		s.landlock = int(version)
	}
	s.pids = s.root && osthread.Run(func() error { return unix.Unshare(unix.CLONE_NEWPID) }) == nil
	return s
})

// mayLeaveNetwork says whether a network namespace can be made.
var mayLeaveNetwork = sync.OnceValue(func() bool {
	return osthread.Run(func() error { return unix.Unshare(unix.CLONE_NEWNET) }) == nil
})

// Layer is one of the means that hold a worker.
type Layer struct {
	Name  string `json:"name"`
	Holds string `json:"holds"`         // what the worker cannot do
	Gap   string `json:"gap,omitempty"` // why it can all the same, or in part; "" when it cannot
}

// Confinement tells what holds a worker on this host that is not to use the network.
func (w *Worker) Confinement() []Layer {
	s := w.support
	files := Layer{Name: "landlock", Holds: "writing to files other than its own, and running other programs"}
	switch {
	case s.landlock == 0:
		files.Gap = "the kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, and landlock in the list lsm=): it can write whatever its account can"
	case s.landlock < 3:
		files.Gap = fmt.Sprintf("version %d of Landlock knows no truncation (Linux 6.2 does): it can empty files that its account can write", s.landlock)
	}
	calls := Layer{Name: "seccomp", Holds: "making sockets, and changing modes, owners and attributes of files"}
	if !s.seccomp {
		calls.Gap = "there is no seccomp filter for this kernel or architecture"
	}
	processes := Layer{Name: "processes", Holds: "signals to other processes, and leaving some behind"}
	switch {
	case s.pids:
	case s.landlock >= 6:
		processes.Gap = "there is no namespace of processes: one that left its parents and its group outlives it"
	default:
		processes.Gap = "there is neither a namespace of processes nor version 6 of Landlock (Linux 6.12): it can end processes of its account"
	}
	list := []Layer{files, calls, processes}
	if s.root {
		network := Layer{Name: "network", Holds: "reaching any network"}
		if !mayLeaveNetwork() {
			network.Gap = "no network namespace can be made here"
			if s.seccomp {
				network.Gap += ", the seccomp filter holds it alone"
			}
		}
		list = append(list, Layer{Name: "capabilities", Holds: "everything that only root can, but for reading files"}, network)
	}
	return list
}

// confine puts the layers on the thread it runs on, which must end afterwards.
// program is the descriptor of the executable.
func (s support) confine(j *job, program int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // the directory and the umask of this thread alone
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return &fs.PathError{Op: "chdir", Path: "/", Err: err}
	}
	unix.Umask(0o077)
	if err := osthread.SealDescriptors(); err != nil {
		return fmt.Errorf("open descriptors: %w", err)
	}
	if j.limits.Background {
		background()
	}
	if s.root && !j.remote {
		_ = unix.Unshare(unix.CLONE_NEWNET) // see Confinement
	}
	if s.root {
		if err := dropCapabilities(1 << unix.CAP_DAC_READ_SEARCH); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", err)
	}
	if s.landlock > 0 {
		if err := restrictFiles(s.landlock, j, program); err != nil {
			return err
		}
	}
	if s.seccomp {
		return restrictCalls(j.remote)
	}
	return nil
}

// background makes the thread, and what it starts, take the processor and the disk
// when others don't want them: setpriority(2), ioprio_set(2). Where that is not
// possible, it goes on as the others do.
func background() {
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	const whoProcess, classIdle, classShift = 1, 3, 13 // linux/ioprio.h
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, classIdle<<classShift)
}

// dropCapabilities leaves those that are kept, of the first 32, and nothing else that
// execve(2) could give back: root gets there what is in the bounding set.
func dropCapabilities(keep uint32) error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&h, &sets[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	// What is permitted is still needed for a namespace of processes, and ends with
	// execve, when it is in neither of these.
	sets[0].Inheritable, sets[1].Inheritable = 0, 0
	if err := unix.Capset(&h, &sets[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return os.NewSyscallError("prctl(PR_CAP_AMBIENT)", err)
	}
	for c := uintptr(0); ; c++ {
		if c < 32 && keep&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EINVAL) && c > unix.CAP_CHOWN {
			return nil // the kernel knows no more of them
		} else if err != nil {
			return os.NewSyscallError("prctl(PR_CAPBSET_DROP)", err)
		}
	}
}

const (
	readFiles = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// To write is also to make, to move and to remove. No devices, sockets and FIFOs.
	writeFiles = readFiles | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REFER
	// What a rule for a file, not a directory, can have.
	ofFiles = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_EXECUTE
)

// handled are all rights that a version of the interface knows: what is not handled
// is allowed. A remote image is fetched by TCP connections.
func handled(abi int, remote bool) (a unix.LandlockRulesetAttr) {
	a.Handled_access_fs = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1 // version 1: the first thirteen
	if abi >= 2 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 4 {
		a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP
		if !remote {
			a.Handled_access_net |= unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
	}
	if abi >= 5 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 6 {
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return a
}

// restrictFiles lets the thread, and what it starts, read everything that its account
// can, write where the job says, and run the worker.
func restrictFiles(abi int, j *job, program int) error {
	attr := handled(abi, j.remote)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(fd))
	allow := func(rights uint64, path string, at int) error {
		var st unix.Stat_t
		if err := unix.Fstat(at, &st); err != nil {
			return &fs.PathError{Op: "stat", Path: path, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			rights &= ofFiles
		}
		rule := unix.LandlockPathBeneathAttr{Allowed_access: rights & attr.Handled_access_fs, Parent_fd: int32(at)}
		_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
		if errno != 0 {
			return &fs.PathError{Op: "landlock_add_rule", Path: path, Err: errno}
		}
		return nil
	}
	allowPath := func(rights uint64, path string) error {
		at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil // what needs it will say so
		}
		if err != nil {
			return &fs.PathError{Op: "open", Path: path, Err: err}
		}
		defer unix.Close(at)
		return allow(rights, path, at)
	}
	everywhere := uint64(readFiles)
	if j.remote { // programs that know the credentials of registries: docker-credential-*
		everywhere |= unix.LANDLOCK_ACCESS_FS_EXECUTE
	}
	errs := []error{
		allowPath(everywhere, "/"),
		allowPath(readFiles|unix.LANDLOCK_ACCESS_FS_WRITE_FILE, "/dev/null"),
		allow(unix.LANDLOCK_ACCESS_FS_READ_FILE|unix.LANDLOCK_ACCESS_FS_EXECUTE, Name, program),
	}
	if path := interpreter(program); path != "" {
		errs = append(errs, allowPath(unix.LANDLOCK_ACCESS_FS_READ_FILE|unix.LANDLOCK_ACCESS_FS_EXECUTE, path))
	}
	for _, path := range j.write {
		errs = append(errs, allowPath(writeFiles, path))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if _, _, errno = unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return os.NewSyscallError("landlock_restrict_self", errno)
	}
	return nil
}

// interpreter returns what the kernel runs to load the program: elf(5). One that was
// built without C, as a release is, has none.
func interpreter(program int) string {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", program), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), Name)
	defer f.Close()
	header, err := elf.NewFile(f)
	if err != nil {
		return ""
	}
	for _, p := range header.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz <= unix.PathMax {
			path := make([]byte, p.Filesz)
			if _, err := p.ReadAt(path, 0); err == nil {
				return strings.TrimRight(string(path), "\x00")
			}
		}
	}
	return ""
}

// environment is what the worker sees. Only who fetches an image needs to know where
// its registry, its proxies and its credentials are.
func environment(j *job, ours []string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "TMPDIR=" + j.temp}
	home := "HOME=" + j.temp
	if j.remote {
		for _, v := range ours {
			name, _, _ := strings.Cut(v, "=")
			switch name {
			case "HOME":
				home = v
			case "DOCKER_CONFIG", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "REGISTRY_AUTH_FILE",
				"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS", "SSL_CERT_FILE", "SSL_CERT_DIR",
				"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy":
				env = append(env, v)
			}
		}
	}
	env = append(env, home)
	if j.limits.Memory > 0 {
		// The garbage collector works harder before the limit is met.
		env = append(env, fmt.Sprintf("GOMEMLIMIT=%d", j.limits.Memory/10*9))
	}
	if j.parallel > 0 {
		env = append(env, fmt.Sprintf("GOMAXPROCS=%d", j.parallel))
	}
	return env
}
