package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is a program in its sandbox. Somebody must wait for it.
type Process struct {
	pid     int
	leads   bool // a process group of its own
	groups  *groups
	uid     uint32
	filters int  // that we have ourselves
	adopted bool // what it leaves behind becomes ours: see endOrphans

	mu    sync.Mutex
	ended bool
}

// Exit is how a process ended.
type Exit struct {
	Status unix.WaitStatus
	Usage  unix.Rusage
}

// PID is the number of the process.
func (p *Process) PID() int { return p.pid }

// start starts a command on a thread that is confined, and lets it run when its
// limits are in force.
func (p *Process) start(cmd *exec.Cmd, made <-chan grouping, limit func(pid int) error, s Support) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	p.pid = cmd.Process.Pid
	cmd.Process.Release() // it is waited for here: see Wait
	g := <-made
	p.groups = g.groups
	limited := make(chan error, 1)
	go func() { limited <- limit(p.pid) }()
	if g.err != nil {
		return errors.Join(g.err, <-limited, p.abandon())
	}
	if s.Held {
		var ws unix.WaitStatus
		if _, err := wait4(p.pid, &ws, unix.WALL, nil); err != nil {
			return errors.Join(os.NewSyscallError("wait4", err), p.abandon())
		}
		if !ws.Stopped() {
			p.groups.end()
			count(p.uid, -1)
			return errors.New("it ended before it began")
		}
		// Who holds it may be killed now, which must not let it go.
		if err := unix.PtraceSetOptions(p.pid, unix.PTRACE_O_EXITKILL); err != nil {
			return errors.Join(os.NewSyscallError("ptrace(PTRACE_SETOPTIONS)", err), p.abandon())
		}
	}
	if len(g.dirs) == 0 && s.filters >= 0 { // before it runs
		if err := adoptOrphans(); err != nil {
			return errors.Join(err, p.abandon())
		}
		p.adopted = true
	}
	// This thread may not write to cgroups any more, another one may.
	added := make(chan error, 1)
	go func() { added <- p.groups.add(p.pid) }()
	err := errors.Join(<-added, <-limited)
	if err == nil && s.Held {
		err = os.NewSyscallError("ptrace(PTRACE_DETACH)", unix.PtraceDetach(p.pid))
	}
	if err != nil {
		return errors.Join(err, p.abandon())
	}
	return nil
}

// abandon ends a process that must not run.
func (p *Process) abandon() error {
	unix.Kill(p.pid, unix.SIGKILL)
	_, err := p.Wait()
	return err
}

// Wait waits for the end of the process, and then ends whatever it left behind.
// It is called once.
func (p *Process) Wait() (Exit, error) {
	var e Exit
	for {
		// The number stays taken until wait4, so that Signal meets no other.
		if err := waitEnd(p.pid); err != nil {
			return e, os.NewSyscallError("waitid", err)
		}
		p.mu.Lock()
		_, err := wait4(p.pid, &e.Status, unix.WALL|unix.WNOHANG, &e.Usage)
		if err == nil && (e.Status.Exited() || e.Status.Signaled()) {
			p.ended = true
			p.mu.Unlock()
			break
		}
		p.mu.Unlock()
		if err != nil {
			return e, os.NewSyscallError("wait4", err)
		}
		// It asked to be traced, which nobody does. It would hang for ever.
		unix.Kill(p.pid, unix.SIGKILL)
	}
	if p.leads {
		unix.Kill(-p.pid, unix.SIGKILL)
	}
	p.groups.end()
	count(p.uid, -1)
	if p.adopted {
		endOrphans(p.uid, p.filters)
		abandonOrphans()
	}
	return e, nil
}

// Signal sends a signal to the process, or to its group when it leads one. A
// process that has ended is os.ErrProcessDone.
func (p *Process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return os.ErrProcessDone
	}
	pid := p.pid
	if p.leads {
		pid = -pid
	}
	return unix.Kill(pid, s)
}

// wait4 is not interrupted.
func wait4(pid int, ws *unix.WaitStatus, options int, usage *unix.Rusage) (int, error) {
	for {
		n, err := unix.Wait4(pid, ws, options, usage)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// waitEnd waits for the end of a process, or for a stop that ptrace(2) makes,
// and leaves it to be reaped.
func waitEnd(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT|unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
