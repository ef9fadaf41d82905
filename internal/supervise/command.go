package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"github.com/mobileops/mobileops/internal/osthread"
	"golang.org/x/sys/unix"
)

// Program returns a Start for services that are a program: cmd makes its
// command, which StartCommand starts.
func Program(cmd func() *exec.Cmd) func(context.Context, Setup) (Process, error) {
	return func(_ context.Context, setup Setup) (Process, error) { return StartCommand(cmd(), setup, "") }
}

// StartCommand starts a command as the process of a service: in a session of
// its own, which is a process group too, with its output to the log, the mark
// in its environment, and none of our descriptors. With cgroup, the path of a
// directory of cgroup 2 that exists, it and its descendants are in that.
//
// The kernel sends it SIGTERM when the supervisor dies (PR_SET_PDEATHSIG), if
// SysProcAttr asks for no other signal. That signal comes when the thread ends
// that forked, so all commands are started by one thread, which lasts as long
// as the supervisor. It reaches the main process alone, and is lost when that
// executes a program with a setuid bit or capabilities: what is left then is
// ended by the next supervisor (see the package comment). It is not SIGKILL,
// since a service that is asked ends its own children too.
//
// The command must not be one of exec.CommandContext with a context that ends
// before the process does.
func StartCommand(cmd *exec.Cmd, setup Setup, cgroup string) (Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	attr := cmd.SysProcAttr
	attr.Setsid, attr.Setpgid = true, false
	if attr.Pdeathsig == 0 {
		attr.Pdeathsig = syscall.SIGTERM
	}
	if cgroup != "" {
		dir, err := os.OpenFile(cgroup, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, fmt.Errorf("cgroup: %w", err)
		}
		defer dir.Close()
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	}
	// Files rather than writers: exec starts no copying then, for whose end
	// Wait would stand as long as a grandchild holds the pipe.
	cmd.Stdout, cmd.Stderr = setup.Stdout, setup.Stderr
	if setup.Mark != "" {
		cmd.Env = append(cmd.Environ(), setup.Mark)
	}
	started := make(chan error, 1)
	forker()(func() {
		if err := osthread.SealDescriptors(); err != nil {
			started <- err
			return
		}
		started <- cmd.Start()
	})
	if err := <-started; err != nil {
		return nil, explain(err)
	}
	return &command{cmd: cmd, cgroup: cgroup}, nil
}

// forker returns what runs functions on the thread that lasts.
var forker = sync.OnceValue(func() func(func()) {
	todo := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range todo {
			f()
		}
	}()
	return func(f func()) { todo <- f }
})

// explain says what an error of execve(2) means for whoever wrote the service.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (is it executable?)", err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w (or the interpreter that its first line names)", err)
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%w (a script begins with #! and its interpreter)", err)
	}
	return err
}

// command is the Process of an exec.Cmd. Its main process is reaped by Release
// alone, so that the number of its group stays its own while it is signalled.
type command struct {
	cmd    *exec.Cmd
	cgroup string

	mu     sync.Mutex
	reaped bool
}

func (c *command) PID() int       { return c.cmd.Process.Pid }
func (c *command) Cgroup() string { return c.cgroup }

func (c *command) Wait() (Exit, error) {
	e, err := waitid(unix.P_PID, c.cmd.Process.Pid, unix.WNOWAIT)
	return e.exit, err
}

func (c *command) Signal(sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return os.ErrProcessDone
	}
	return unix.Kill(-c.cmd.Process.Pid, sig)
}

func (c *command) Release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return nil
	}
	err := c.cmd.Wait()
	c.reaped = true
	var status *exec.ExitError
	if errors.As(err, &status) {
		return nil // Wait told it
	}
	return err
}

// ended is a child that has ended, as waitid(2) says it.
type ended struct {
	pid  int
	exit Exit
}

// waitid is waitid(2) for children that have ended. With WNOHANG the number is
// 0 when there is none; with WNOWAIT the child is left to be reaped.
func waitid(idType, id, options int) (ended, error) {
	const exited = 1 // CLD_EXITED
	var info unix.Siginfo
	for {
		err := unix.Waitid(idType, id, &info, unix.WEXITED|options, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return ended{exit: Exit{Code: -1}}, err
		}
		break
	}
	// The union of siginfo_t comes after three numbers, aligned as a pointer
	// is: the process, its user, its status.
	numbers := (*[unsafe.Sizeof(info) / 4]int32)(unsafe.Pointer(&info))
	union := numbers[(12+unsafe.Sizeof(uintptr(0))-1)/unsafe.Sizeof(uintptr(0))*unsafe.Sizeof(uintptr(0))/4:]
	e := ended{pid: int(union[0])}
	if status := union[2]; info.Code == exited {
		e.exit = Exit{Code: int(status)}
	} else {
		e.exit = Exit{Code: -1, Signal: syscall.Signal(status)}
	}
	return e, nil
}
