package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/osthread"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"golang.org/x/sys/unix"
)

const (
	// grace is how long a worker has to end by itself. With what it takes to kill it
	// and to notice, that stays below a second.
	grace = 700 * time.Millisecond
	// drain is how long its pipes are read on when it has ended: what it wrote is in
	// them, and somebody whom it started may still have them.
	drain = 10 * time.Second
	// mostOutput is the largest report, when nobody says otherwise.
	mostOutput = 1 << 30
)

// job is one process.
type job struct {
	what     string // for messages: "scan of /srv"
	request  *protocol.Request
	temp     string
	write    []string // where it may write
	remote   bool     // it may use the network
	parallel int
	limits   Limits
	progress func(protocol.Progress)
}

// run starts the worker, hands it its request and returns its answer.
func (w *Worker) run(ctx context.Context, j *job) (*answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", j.what, err)
	}
	request, err := json.Marshal(j.request)
	if err != nil {
		return nil, err
	}
	program, err := w.open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", j.what, err)
	}
	defer program.Close()
	pipes, err := newPipes()
	if err != nil {
		return nil, err
	}
	defer pipes.close()
	oom := oomKills()
	p, err := w.start(j, program, pipes)
	pipes.closeTheirs()
	if err != nil {
		return nil, fmt.Errorf("%s: start %s: %w", j.what, w.path, explain(err))
	}
	r := &running{worker: w, job: j, process: p, news: newNews(), words: &lastWords{}, end: make(chan struct{}), abandoned: make(chan struct{})}
	if err := limit(p.pid, j.limits); err != nil {
		r.stop(fmt.Errorf("put limits on it: %w", err))
	}
	var readers sync.WaitGroup
	var got answer
	var gotErr error
	most := positive(j.limits.Output, mostOutput)
	readers.Go(func() {
		got, gotErr = readAnswer(pipes.stdout.ours, most)
		if errors.Is(gotErr, errTooLong) {
			r.stop(failure.Errorf(failure.Failed, "its report is larger than %d bytes", most))
		}
		_, _ = io.Copy(io.Discard, pipes.stdout.ours)
	})
	readers.Go(func() { _, _ = io.Copy(r.words, pipes.stderr.ours) })
	readers.Go(func() { r.news.read(pipes.progress.ours) })
	told := make(chan struct{})
	go func() {
		defer close(told)
		r.news.tell(j.progress)
	}()
	go func() {
		select {
		case <-r.end: // without limits it gets nothing to do
		default:
			_, _ = pipes.stdin.ours.Write(request)
		}
		pipes.stdin.ours.Close()
	}()
	go r.watch(ctx)
	type exit struct {
		state *os.ProcessState
		err   error
	}
	waited := make(chan exit, 1)
	go func() {
		state, err := p.wait()
		waited <- exit{state, err}
	}()
	var e exit
	select {
	case e = <-waited:
	case <-r.abandoned:
		pipes.close()
	}
	// Everybody who could write has ended, so what is left is read to its end.
	finished := make(chan struct{})
	go func() { readers.Wait(); close(finished) }()
	patience := drain
	if r.stopped() {
		patience = grace / 7
	}
	select {
	case <-finished:
	case <-time.After(patience):
		pipes.close()
		<-finished
	}
	r.news.close()
	<-told
	if e.err != nil {
		return nil, fmt.Errorf("%s: wait for %s: %w", j.what, Name, e.err)
	}
	if err := r.verdict(ctx, e.state, &got, gotErr, oomKills() > oom); err != nil {
		return nil, fmt.Errorf("%s: %w", j.what, err)
	}
	return &got, nil
}

func positive(a, b int64) int64 {
	if a > 0 {
		return a
	}
	return b
}

// explain says what an error of execve(2) means.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EACCES):
		return failure.Hint(err, "is it on a filesystem that is mounted noexec?")
	case errors.Is(err, unix.ENOEXEC):
		return failure.Hint(err, "it is built for another machine, or no program at all")
	}
	return err
}

// process is a worker that runs. Somebody must wait for it.
type process struct {
	cmd  *exec.Cmd
	pid  int
	alls bool          // it has a namespace of processes, which ends with it
	gone chan struct{} // closed when it has ended, which lets the thread go that it would end with

	mu    sync.Mutex
	ended bool
}

// start starts the process on a thread that stays until it has ended.
func (w *Worker) start(j *job, program *os.File, pipes *pipes) (*process, error) {
	p := &process{gone: make(chan struct{}), alls: w.support.pids}
	started := make(chan error, 1)
	go func() {
		aborted := osthread.Run(func() error {
			err := w.spawn(j, p, program, pipes)
			started <- err
			if err == nil {
				<-p.gone
			}
			return nil
		})
		if aborted != nil {
			started <- aborted
		}
	}()
	return p, <-started
}

// spawn forks on a thread that it confines.
func (w *Worker) spawn(j *job, p *process, program *os.File, pipes *pipes) error {
	files := []*os.File{pipes.stdin.theirs, pipes.stdout.theirs, pipes.stderr.theirs, pipes.progress.theirs}
	// Before the new process executes, its first descriptors are put in place, which
	// must not be where that of the program is. It is closed by execve.
	above := 0
	for _, f := range files {
		above = max(above, int(f.Fd()))
	}
	fd, err := unix.FcntlInt(program.Fd(), unix.F_DUPFD_CLOEXEC, above+64)
	if err != nil {
		return os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
	}
	defer unix.Close(fd)
	if err := w.support.confine(j, fd); err != nil {
		return err
	}
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if p.alls {
		attr.Cloneflags = unix.CLONE_NEWPID
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		p.cmd = &exec.Cmd{
			Path: fmt.Sprintf("/proc/self/fd/%d", fd), Args: []string{Name}, Env: environment(j, w.options.Environ),
			Stdin: files[0], Stdout: files[1], Stderr: files[2], ExtraFiles: files[3:], SysProcAttr: attr,
		}
		// Another goroutine that forks just now holds what was open for writing a
		// moment ago until it executes: go.dev/issue/22315.
		if err = p.cmd.Start(); !errors.Is(err, unix.ETXTBSY) || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		return err
	}
	p.pid = p.cmd.Process.Pid
	return nil
}

// signal sends a signal to the group of the process, of which it is the leader, and
// to what descends from it.
func (p *process) signal(sig syscall.Signal, others []descendant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		_ = unix.Kill(-p.pid, sig)
	}
	for _, d := range others {
		d.signal(sig)
	}
}

// wait waits for the end of the process, and ends what is left of its group.
func (p *process) wait() (*os.ProcessState, error) {
	defer close(p.gone)
	// The number stays taken until it is reaped, so that signals meet no other.
	for {
		err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = unix.Kill(-p.pid, unix.SIGKILL)
	p.ended = true
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return p.cmd.ProcessState, err
}

// pipes are those between us and the worker.
type pipes struct{ stdin, stdout, stderr, progress pipe }

type pipe struct{ ours, theirs *os.File }

func newPipes() (*pipes, error) {
	p := new(pipes)
	var err error
	if p.stdin.theirs, p.stdin.ours, err = os.Pipe(); err != nil {
		return nil, err
	}
	for _, each := range []*pipe{&p.stdout, &p.stderr, &p.progress} {
		if each.ours, each.theirs, err = os.Pipe(); err != nil {
			p.close()
			p.closeTheirs()
			return nil, err
		}
	}
	return p, nil
}

// close closes our ends, which ends whoever reads them.
func (p *pipes) close() {
	for _, each := range []pipe{p.stdin, p.stdout, p.stderr, p.progress} {
		each.ours.Close()
	}
}

func (p *pipes) closeTheirs() {
	for _, each := range []pipe{p.stdin, p.stdout, p.stderr, p.progress} {
		each.theirs.Close()
	}
}
