// Package sandbox starts a program that can do what it was allowed, and nothing
// else: it reads and writes beneath paths that are listed, runs programs that
// are listed, makes no sockets, changes no rights of files, reaches no other
// process, and has limits for memory, processor, files and processes.
//
// Each of several layers is enough for a part of that, and most of what matters
// is held by two:
//
//	no_new_privs  setuid programs and file capabilities give nothing
//	capabilities  the bounding set is empty: nothing comes back through execve
//	landlock      files by path, signals to others, abstract sockets, TCP
//	seccomp       system calls: see the tables in seccomp_*.go
//	rlimits       memory, processor time, descriptors, sizes, processes
//	cgroup        memory and processes of all that the program starts, together
//	account       a user of its own, when root starts it
//	network       a network namespace with nothing in it, when root starts it
//
// They are put on one thread of ours, which then forks and ends: Landlock, the
// filter, capabilities and the namespace belong to a thread and are inherited
// by what it starts. Limits belong to a process, so the new one is held at its
// first instruction by ptrace(2) until they are in force. Nothing of the
// program has run by then.
//
// What a program leaves behind ends with it: by its cgroup, or, where there is
// none, because it becomes a child of ours then (orphans.go).
//
// Sources: landlock(7), seccomp(2), prctl(2), capabilities(7), prlimit(2),
// ptrace(2), cgroups(7), network_namespaces(7).
package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/osthread"
	"golang.org/x/sys/unix"
)

// Policy is what a program may do. Paths are absolute; a directory means all
// that is beneath it. What is not there is not an error: it can't be read.
type Policy struct {
	Read  []string // files and directories that may be read
	Write []string // also written, made and removed, but for links and devices
	Exec  []string // programs that may be run
	// Data is a directory that the program may write to, and the one it starts
	// in. It may be empty: then it starts in /.
	Data string
	// Account is who the program is. Nil keeps the caller; only root can choose.
	Account *Account
	// ReadAny lets an account of its own read what is listed though the modes
	// of files do not: it has CAP_DAC_READ_SEARCH, fenced in by Landlock.
	ReadAny bool
	Limits  Limits
	// Without are layers that somebody accepted to do without on this host,
	// as Support.Gaps named them. Start refuses when another one is missing.
	Without []Layer
}

// Account is a user and a group, by number.
type Account struct{ UID, GID uint32 }

// Limits bound what a program uses; zero is no limit.
type Limits struct {
	Memory    uint64        // bytes, of all its processes where there is a cgroup, of each otherwise
	CPU       time.Duration // processor time of each of its processes, in whole seconds, rounded up
	Tasks     uint64        // processes and threads
	Files     uint64        // open descriptors of each process
	FileBytes uint64        // the size of a file that it writes
}

// Command is what is to be started.
type Command struct {
	Program string   // absolute path of a program, or of a script that begins with #!
	Args    []string // without the name
	Env     []string // all of it
	Stdin   *os.File // nil: /dev/null, as are the next two
	Stdout  *os.File
	Stderr  *os.File
	Extra   []*os.File // descriptors 3 and on
	// Group gives it a process group of its own. Without one, what is typed at
	// the terminal of the caller (Ctrl-C) reaches it too.
	Group bool
}

// Start starts a program. What it cannot enforce, and nobody accepted to do
// without, is an error of kind failure.NotReady that names the layer.
func Start(c Command, p Policy) (*Process, error) { return start(c, p, Detect()) }

// start is Start on a host that has no more than support.
func start(c Command, p Policy, support Support) (*Process, error) {
	if gaps := support.missing(&p); len(gaps) > 0 {
		return nil, failure.Errorf(failure.NotReady, "%s cannot be enforced on this host: %s", gaps[0].Permission, gaps[0].Why)
	}
	needs, err := inspect(c.Program)
	if err != nil {
		return nil, err
	}
	// Cgroups and the thread that puts limits are made while this one is.
	made := make(chan grouping, 1)
	go func() {
		g, err := newGroups(filepath.Base(c.Program), &p, support)
		made <- grouping{g, err}
	}()
	limit := p.Limits.putter(p.Account, support)
	proc := &Process{leads: c.Group, uid: p.uid(), filters: support.filters}
	count(proc.uid, 1)
	err = osthread.Run(func() error {
		cmd := &exec.Cmd{
			Path: c.Program, Args: append([]string{filepath.Base(c.Program)}, c.Args...), Env: slices.Clone(c.Env), ExtraFiles: c.Extra,
			SysProcAttr: &syscall.SysProcAttr{Setpgid: c.Group, Ptrace: support.Held},
		}
		if cmd.Env == nil {
			cmd.Env = []string{} // nil would be ours
		}
		// A nil *os.File in an interface is not nil.
		if c.Stdin != nil {
			cmd.Stdin = c.Stdin
		}
		if c.Stdout != nil {
			cmd.Stdout = c.Stdout
		}
		if c.Stderr != nil {
			cmd.Stderr = c.Stderr
		}
		if err := confine(cmd, &p, needs, support); err != nil {
			return err
		}
		return proc.start(cmd, made, limit, support)
	})
	if err != nil {
		if proc.pid == 0 {
			limit(0)
			g := <-made
			g.remove()
			count(proc.uid, -1)
		}
		return nil, explain(c.Program, err)
	}
	return proc, nil
}

// confine puts every layer but limits on the thread.
func confine(cmd *exec.Cmd, p *Policy, needs *needs, s Support) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // the directory and the umask of this thread alone
		return os.NewSyscallError("unshare", err)
	}
	dir := "/"
	if p.Data != "" {
		dir = p.Data
	}
	if err := unix.Chdir(dir); err != nil {
		return &fs.PathError{Op: "chdir", Path: dir, Err: err}
	}
	unix.Umask(0o077)
	if err := osthread.SealDescriptors(); err != nil {
		return fmt.Errorf("open descriptors: %w", err)
	}
	if s.Root {
		if err := enterEmptyNetwork(); err != nil {
			return err
		}
		var keep uint32
		if p.ReadAny && p.Account != nil && s.Landlock >= 3 {
			keep = 1 << unix.CAP_DAC_READ_SEARCH
			cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_DAC_READ_SEARCH}
		}
		if err := dropCapabilities(keep); err != nil {
			return err
		}
		if p.Account != nil {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: p.Account.UID, Gid: p.Account.GID, Groups: []uint32{}}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", err)
	}
	if s.Landlock > 0 {
		if err := restrictFiles(s, p, needs); err != nil {
			return err
		}
	}
	if s.Seccomp {
		return restrictCalls(s.Memory)
	}
	return nil
}

// dropCapabilities leaves nothing that execve(2) could give back, neither to
// root nor by capabilities of files. What is kept (of the first 32) is only
// inheritable, for whoever raises it to ambient.
func dropCapabilities(keep uint32) error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&h, &sets[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	// What is effective is still needed to change the account; an execve with
	// nothing inheritable and nothing in the bounding set takes it away. This
	// comes first: what is in neither set cannot be made inheritable.
	sets[0].Inheritable, sets[1].Inheritable = keep&sets[0].Permitted, 0
	if err := unix.Capset(&h, &sets[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return os.NewSyscallError("prctl(PR_CAP_AMBIENT)", err)
	}
	for c := uintptr(0); ; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EINVAL) && c > unix.CAP_CHOWN {
			return nil // the kernel knows no more of them
		} else if err != nil {
			return os.NewSyscallError("prctl(PR_CAPBSET_DROP)", err)
		}
	}
}

// explain says what an error of execve(2) means for whoever wrote the program.
func explain(program string, err error) error {
	switch {
	case failure.KindOf(err) != failure.Failed:
		return err
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("start %s: %w (a script begins with #! and its interpreter)", program, err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("start %s: %w (or the interpreter that it names)", program, err)
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("start %s: %w (its account runs too many processes already)", program, err)
	}
	return fmt.Errorf("start %s: %w", program, err)
}
