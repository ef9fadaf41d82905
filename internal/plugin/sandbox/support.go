package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Layer is one of the means by which a policy is enforced.
type Layer string

const (
	NoNewPrivs   Layer = "no_new_privs"
	Capabilities Layer = "capabilities"
	Landlock     Layer = "landlock"
	Seccomp      Layer = "seccomp"
	Rlimits      Layer = "rlimits"
	Cgroup       Layer = "cgroup"
	Accounts     Layer = "account"
	Network      Layer = "network"
)

// Support is what of the layers this host has, for whoever asks.
type Support struct {
	Root     bool // accounts, namespaces and the bounding set can be changed
	Landlock int  // version of the interface, 0 when there is none
	Seccomp  bool
	Held     bool // a program can be held until its limits are in force
	Memory   bool // a cgroup can limit memory
	Tasks    bool // a cgroup can limit processes
	groups   hierarchies
	resource bool // limits of other accounts can be changed
	filters  int  // that we run under ourselves; -1: it cannot be known
}

// Detect finds out what this host has. It asks the kernel once.
var Detect = sync.OnceValue(func() Support {
	s := Support{Root: os.Geteuid() == 0, Held: mayTrace()}
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == 0 {
		s.Landlock = int(version)
	}
	if haveFilter {
		action := uint32(unix.SECCOMP_RET_KILL_PROCESS)
		_, _, errno = unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
		s.Seccomp = errno == 0
	}
	s.resource = mayLimit()
	s.filters = -1
	if own, err := readStatus(0); err == nil {
		s.filters = own.filters
	}
	s.groups = findHierarchies()
	s.Memory, s.Tasks = s.groups.memory.dir != "", s.groups.tasks.dir != ""
	return s
})

// mayTrace says whether children can be held by ptrace(2): Yama may forbid it,
// to all (3) or to all but root (2).
func mayTrace() bool {
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return true
	}
	switch string(bytes.TrimSpace(scope)) {
	case "2":
		return os.Geteuid() == 0
	case "3":
		return false
	}
	return true
}

// mayLimit says whether we may change limits of processes of other accounts.
func mayLimit() bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	return unix.Capget(&h, &sets[0]) == nil && sets[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// Gap is something that a policy says and that this host cannot enforce.
type Gap struct {
	Permission string `json:"permission"` // what is not held: "files", "network", "memory"
	Layer      Layer  `json:"layer"`      // what would have held it
	Why        string `json:"why"`        // what the host lacks, and what that lets a program do
	// Weaker is true when it is enforced, though less strictly than it should.
	Weaker bool `json:"weaker"`
}

// Gaps returns what cannot be enforced of a policy on this host, the worst
// first.
func (s Support) Gaps(p *Policy) (gaps []Gap) {
	add := func(weaker bool, layer Layer, permission, format string, args ...any) {
		gaps = append(gaps, Gap{Permission: permission, Layer: layer, Why: fmt.Sprintf(format, args...), Weaker: weaker})
	}
	switch {
	case s.Landlock == 0:
		add(false, Landlock, "files", "the kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, and landlock in the list lsm=): the program could read and write whatever its account can")
	case s.Landlock < 3:
		add(false, Landlock, "files", "version %d of Landlock knows no truncation (Linux 6.2 does): the program could empty files that its account can write", s.Landlock)
	}
	if !s.Seccomp {
		add(false, Seccomp, "system calls", "there is no seccomp filter for this kernel or architecture: the program could open sockets, and change modes and times of files")
	}
	if s.Landlock > 0 && s.Landlock < 6 && (!s.Root || p.Account == nil) {
		add(false, Landlock, "signals", "version %d of Landlock knows no signals (Linux 6.12 does): the program could end processes of your account", s.Landlock)
	}
	if s.Landlock > 0 && s.Landlock < 6 && p.Account != nil && !s.resource {
		add(true, Landlock, "signals", "version %d of Landlock knows no signals (Linux 6.12 does) and we lack CAP_SYS_RESOURCE: while the program is started, others of its account could end who starts it", s.Landlock)
	}
	if !s.Held && p.Limits != (Limits{}) {
		add(false, Rlimits, "limits", "kernel.yama.ptrace_scope forbids to hold the program until its limits are in force: what it starts in its first moment could escape them")
	}
	if p.Account == nil && s.Root {
		add(true, Accounts, "account", "the program runs as root, though with no capabilities: it owns the files of root that it is allowed to reach")
	}
	if !s.Memory && p.Limits.Memory > 0 {
		add(true, Cgroup, "memory", "no memory cgroup can be made here: the limit holds for each process of the program, not for all of them together")
	}
	if !s.Tasks && p.Limits.Tasks > 0 && p.Account == nil {
		add(true, Cgroup, "processes", "no pids cgroup can be made here and the program has no account of its own: how many processes it starts is not limited")
	}
	if !s.Tasks && !s.Memory {
		if s.Seccomp && s.filters >= 0 {
			add(true, Cgroup, "end", "no cgroup can be made here: what the program leaves behind is ended only with the last program of its account that the same mobileops runs, and goes on when mobileops is killed")
		} else {
			add(true, Cgroup, "end", "no cgroup can be made here: what the program starts in a session of its own goes on when the program has ended")
		}
	}
	return gaps
}

// missing returns the gaps that nobody accepted. What is only weaker need not
// be accepted.
func (s Support) missing(p *Policy) (gaps []Gap) {
	for _, g := range s.Gaps(p) {
		if !g.Weaker && !slices.Contains(p.Without, g.Layer) {
			gaps = append(gaps, g)
		}
	}
	return gaps
}
