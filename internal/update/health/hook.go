package health

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/osthread"
	"github.com/mobileops/mobileops/internal/supervise/pipe"
	"golang.org/x/sys/unix"
)

// How long commands take, where a Hook says nothing.
const (
	DefaultHookTimeout = 30 * time.Second
	Grace              = 5 * time.Second // from SIGTERM to SIGKILL
	drain              = time.Second     // for output, when the command has ended and others hold its pipe
)

// searchPath is where a command finds programs, whoever calls mobileops.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Variables are what a command is told about the update: its environment holds
// these, PATH, HOME and LANG, and nothing else.
type Variables struct {
	Name    string // MOBILEOPS_UPDATE_NAME: name of the package
	Version string // MOBILEOPS_UPDATE_VERSION: version that is to be live
	From    string // MOBILEOPS_UPDATE_FROM: generation that is left
	To      string // MOBILEOPS_UPDATE_TO: generation that is entered
	Tree    string // MOBILEOPS_UPDATE_TREE: path of the tree
	Phase   string // MOBILEOPS_UPDATE_PHASE: "before", "after" or "health"
}

// Environ returns the variables as Hook.Env takes them. Those without a value
// are there and empty, so that scripts run with "set -u".
func (v Variables) Environ() []string {
	return []string{
		"MOBILEOPS_UPDATE_NAME=" + v.Name,
		"MOBILEOPS_UPDATE_VERSION=" + v.Version,
		"MOBILEOPS_UPDATE_FROM=" + v.From,
		"MOBILEOPS_UPDATE_TO=" + v.To,
		"MOBILEOPS_UPDATE_TREE=" + v.Tree,
		"MOBILEOPS_UPDATE_PHASE=" + v.Phase,
	}
}

// Hook is a command that is run once.
type Hook struct {
	Command    []string            // program and arguments; no shell looks at them, and PATH is not searched
	Beneath    *os.Root            // what a program with a relative name is found in; nil: it has to be absolute
	Dir        string              // working directory; "": that of Beneath, and else /
	Timeout    time.Duration       // 0: DefaultHookTimeout
	Grace      time.Duration       // to end in, after SIGTERM; 0: Grace
	Env        []string            // beside PATH, HOME and LANG; see Variables
	Credential *syscall.Credential // whom it runs as; nil: who we are
	Started    func(pid int)       // told its process, which is its group, too, as soon as it runs; may be nil

	drain time.Duration // 0: drain; for tests
}

// HookError tells how a command failed.
type HookError struct {
	Command  string         // as it was asked for
	Status   int            // exit status; -1 when it did not exit by itself
	Signal   syscall.Signal // that ended it, and was not sent by us
	TimedOut time.Duration  // after this it was ended, by its own time-out or that of ctx; 0: it was not
	Err      error          // why it could not be started, or that ctx was cancelled; may be nil
	Last     string         // last lines of its output, not escaped
}

func (e *HookError) Error() string {
	var what string
	switch {
	case e.TimedOut > 0:
		what = fmt.Sprintf("ended, since it took longer than %v", e.TimedOut)
	case e.Err != nil:
		what = e.Err.Error()
	case e.Signal != 0:
		what = fmt.Sprintf("ended by signal %d (%v)", int(e.Signal), e.Signal)
	default:
		what = fmt.Sprintf("exit status %d", e.Status)
	}
	if e.Last != "" {
		what += ": " + e.Last
	}
	return e.Command + ": " + what
}

func (e *HookError) Unwrap() error { return e.Err }

// RunHook runs the command and waits for it, and for what it started in its
// process group. It succeeds when the command exits with 0 in time; every
// other error is a *HookError of kind failure.Failed, and of kind
// failure.Interrupted when ctx was cancelled, after which the command is ended
// as well. What it printed is in the output in any case.
//
// What the command leaves running in its group is killed: only that keeps a
// hook from changing the tree after it was said to be done. Processes that
// made a session of their own are not followed.
func RunHook(ctx context.Context, h Hook) (Output, error) {
	if h.Timeout <= 0 {
		h.Timeout = DefaultHookTimeout
	}
	if h.Grace <= 0 {
		h.Grace = Grace
	}
	if h.drain <= 0 {
		h.drain = drain
	}
	var out Output
	fail := &HookError{Status: -1}
	if len(h.Command) == 0 || h.Command[0] == "" {
		return out, failure.New(failure.Usage, "a hook without a command")
	}
	fail.Command = h.Command[0]
	if err := ctx.Err(); err != nil {
		fail.Err = err
		return out, failure.Wrap(failure.Failed, fail)
	}
	path, err := find(h.Command[0], h.Beneath)
	if err != nil {
		fail.Err = err
		return out, failure.Wrap(failure.Failed, fail)
	}
	cmd := &exec.Cmd{
		Path: path,
		Args: append([]string{path}, h.Command[1:]...),
		Env:  append([]string{"PATH=" + searchPath, "HOME=/", "LANG=C.UTF-8"}, h.Env...),
		Dir:  h.Dir,
		// A session is a process group too, and has no terminal to ask at.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Credential: h.Credential},
	}
	if cmd.Dir == "" {
		cmd.Dir = "/"
		if h.Beneath != nil {
			// By handle, since its path may lead elsewhere by now.
			dir, err := h.Beneath.Open(".")
			if err != nil {
				fail.Err = err
				return out, failure.Wrap(failure.Failed, fail)
			}
			defer dir.Close()
			cmd.Dir = fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		fail.Err = err
		return out, failure.Wrap(failure.Failed, fail)
	}
	cmd.Stdout, cmd.Stderr = w, w
	began := time.Now()
	err = start(cmd)
	w.Close()
	if err != nil {
		r.Close()
		fail.Err = explain(err)
		return out, failure.Wrap(failure.Failed, fail)
	}
	if h.Started != nil { // it is not reaped before the end, so the number is its own
		h.Started(cmd.Process.Pid)
	}
	captured := make(chan Output, 1)
	go func() { captured <- capture(pipe.NewReader(r)) }()

	over, stop := context.WithTimeout(ctx, h.Timeout)
	defer stop()
	exited := make(chan struct{})
	go func() { awaitExit(cmd.Process.Pid); close(exited) }()
	ended := false
	select {
	case <-exited:
	case <-over.Done():
		ended = true
		if errors.Is(ctx.Err(), context.Canceled) {
			fail.Err = ctx.Err()
		} else {
			fail.TimedOut = time.Since(began).Round(time.Millisecond)
		}
		// The process is not reaped yet, so its number, which is that of the
		// group, belongs to nobody else.
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGTERM)
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGCONT) // a stopped one does not see it otherwise
		select {
		case <-exited:
		case <-time.After(h.Grace):
		}
	}
	out, finished := Output{}, false
	if !ended {
		// Those that it left behind may be about to say something.
		select {
		case out = <-captured:
			finished = true
		case <-time.After(h.drain):
		case <-over.Done():
		}
	}
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	<-exited
	_ = cmd.Wait() // reaps it; the state says the rest
	if !finished {
		// One that made its own session may hold the pipe for ever.
		_ = r.SetReadDeadline(time.Now().Add(drain / 4))
		out = <-captured
	}
	r.Close()
	out.Elapsed = time.Since(began)

	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ended && status.Exited() && status.ExitStatus() == 0 {
		return out, nil
	}
	if status.Exited() {
		fail.Status = status.ExitStatus()
	} else if status.Signaled() && !ended {
		fail.Signal = status.Signal()
	}
	fail.Last = out.last()
	return out, failure.Wrap(failure.Failed, fail)
}

// start starts the command with umask 022 and none of our descriptors. A umask
// belongs to a process; a thread can have its own, and passes it on to what it
// starts.
func start(cmd *exec.Cmd) error {
	return osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("umask: %w", err)
		}
		unix.Umask(0o022)
		if err := osthread.SealDescriptors(); err != nil {
			return fmt.Errorf("open descriptors: %w", err)
		}
		return cmd.Start()
	})
}

// awaitExit waits until the process has ended, and leaves it to be reaped.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// find returns the path of the program. A relative one is opened beneath the
// directory, by a handle: what leads out of it is refused. The path is then
// that of what was opened, free of links, so that a switch of generations in
// between does not matter.
func find(name string, beneath *os.Root) (string, error) {
	if strings.HasPrefix(name, "/") {
		return name, nil
	}
	if beneath == nil {
		return "", errors.New("not an absolute path, and there is no tree to find it in")
	}
	// A FIFO would block an opening without O_NONBLOCK.
	f, err := beneath.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return "", fmt.Errorf("cannot be opened in %s: %w", beneath.Name(), err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a file")
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return "", err
	}
	if there, err := os.Lstat(path); err != nil || !os.SameFile(info, there) {
		return "", errors.New("moved while it was opened")
	}
	return path, nil
}

// explain says what an error of execve(2) means for whoever wrote the hook.
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
