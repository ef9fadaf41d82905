package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/supervise/pipe"
)

// drainTime is how long the pipes of a process that has ended are read when
// somebody who could not be ended holds them.
const drainTime = time.Second

// panicked is a panic of a function of the owner, as an error.
type panicked struct {
	value any
	stack string
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// guarded calls a function of the owner, whose panics are its own service's.
func guarded[T any](f func() (T, error)) (result T, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{v, string(debug.Stack())}
		}
	}()
	return f()
}

// answer is what a function in a goroutine of its own came to.
type answer[T any] struct {
	value T
	err   error
}

// background calls a function of the owner in a goroutine of its own, since it
// may hang.
func background[T any](f func() (T, error)) <-chan answer[T] {
	c := make(chan answer[T], 1)
	go func() {
		v, err := guarded(f)
		c <- answer[T]{v, err}
	}()
	return c
}

// run is one process of a service, from its start until nothing of it is left.
type run struct {
	u       *unit
	service Service
	record  record
	family  *family

	deadline time.Time // of Start and Ready
	process  Process
	exited   chan struct{} // closed after exit and exitErr were set
	exit     Exit
	exitErr  error

	pipes  []*os.File // our ends
	copies sync.WaitGroup
}

// outcome is how a run went.
type outcome struct {
	err     error         // why it ended; nil: cleanly, by itself
	asked   bool          // it was told to stop
	exit    *Exit         // of its main process, if it got that far
	ready   time.Duration // for how long it was ready
	fatal   bool          // a start must not be tried again: something of it is left
	process bool          // there was a process
}

func newRun(u *unit, service Service) *run {
	mark := newMark()
	return &run{
		u: u, service: service, family: &family{mark: mark}, exited: make(chan struct{}),
		record: record{
			Name: service.Name, Boot: u.s.boot, Mark: mark,
			StopMS: service.StopTimeout.Milliseconds(), Since: time.Now(),
		},
	}
}

// once runs the service until its process ends, or until ctx is done, and ends
// what is left of it.
func (r *run) once(ctx context.Context) (o outcome) {
	s := r.u.s
	r.deadline = time.Now().Add(r.service.ReadyTimeout)
	if err := r.record.write(s.options.RunDir); err != nil {
		o.err = fmt.Errorf("record of the process: %w", err)
		return o
	}
	err := r.start(ctx)
	if err == nil {
		o.process = true
		r.u.started(r.process.PID())
		r.u.log.remark("started, process %d", r.process.PID())
		var since time.Time
		since, err = r.live(ctx)
		if !since.IsZero() {
			o.ready = time.Since(since)
		}
	}
	o.asked = ctx.Err() != nil
	if o.asked {
		r.u.set(Stopping, "")
	}
	left := r.finish()
	if left != nil {
		o.err, o.fatal = errors.Join(err, left), true
		return o
	}
	if r.process != nil {
		exit := r.exit
		o.exit = &exit
		r.u.log.remark("%s", exit)
		switch {
		case r.exitErr != nil:
			err = errors.Join(err, r.exitErr)
		case err != nil: // why it was ended says more than how
		case !exit.Clean():
			err = errors.New(exit.String())
		}
	}
	o.err = err
	return o
}

// start starts the process.
func (r *run) start(ctx context.Context) error {
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		outW.Close()
		return err
	}
	r.pipes = []*os.File{outR, errR}
	for i, stream := range []string{Stdout, Stderr} {
		r.copies.Go(func() { r.u.log.copyFrom(stream, pipe.NewReader(r.pipes[i])) })
	}
	ctx, cancel := context.WithDeadline(ctx, r.deadline)
	defer cancel()
	over := r.u.s.reaper.starting()
	begun := background(func() (Process, error) {
		defer over()
		defer outW.Close()
		defer errW.Close()
		p, err := r.service.Start(ctx, Setup{Stdout: outW, Stderr: errW, Mark: r.record.Mark})
		if err == nil && p == nil {
			err = errors.New("there is no process")
		}
		if err == nil {
			r.u.s.reaper.know(p.PID())
		}
		return p, err
	})
	var a answer[Process]
	select {
	case a = <-begun:
	case <-ctx.Done():
		select { // it should have heard
		case a = <-begun:
		case <-time.After(r.service.StopTimeout):
			go r.late(begun)
			return fmt.Errorf("its start did not end within %v", r.service.ReadyTimeout+r.service.StopTimeout)
		}
	}
	if a.err != nil {
		r.stack(a.err)
		return fmt.Errorf("cannot be started: %w", a.err)
	}
	r.adopt(a.value)
	r.record.PID, r.record.Start, r.record.Cgroup = r.family.pid, r.family.start, r.family.cgroup
	if err := r.record.write(r.u.s.options.RunDir); err != nil {
		return fmt.Errorf("record of the process: %w", err)
	}
	return nil
}

// adopt takes over a process that was started, and waits for its end.
func (r *run) adopt(p Process) {
	r.process = p
	_, releaser := p.(Releaser)
	cgroup, _ := guarded(func() (string, error) {
		if c, ok := p.(Confined); ok {
			return c.Cgroup(), nil
		}
		return "", nil
	})
	r.family.begin(p.PID(), cgroup)
	go func() {
		exit, err := guarded(p.Wait)
		if !releaser {
			r.family.reaped()
		}
		r.exit, r.exitErr = exit, err
		close(r.exited)
	}()
}

// late ends a process whose start took longer than anybody waited for.
func (r *run) late(begun <-chan answer[Process]) {
	a := <-begun
	if a.err != nil {
		return
	}
	other := newRun(r.u, r.service)
	other.record = r.record
	other.family.mark = r.record.Mark
	other.adopt(a.value)
	if err := other.finish(); err != nil {
		r.u.log.remark("%v", err)
	}
}

// live waits until the process is ready, and then until it ends or is to end.
// It returns since when it was ready, and why it is to end unless by ctx.
func (r *run) live(ctx context.Context) (ready time.Time, err error) {
	if r.service.Ready != nil {
		within, cancel := context.WithDeadline(ctx, r.deadline)
		defer cancel()
		said := background(func() (struct{}, error) { return struct{}{}, r.service.Ready(within, r.process) })
		late := time.NewTimer(time.Until(r.deadline))
		defer late.Stop()
		select {
		case <-ctx.Done():
			return ready, nil
		case <-r.exited:
			return ready, fmt.Errorf("ended before it was ready: %s", r.exit)
		case <-late.C:
			return ready, fmt.Errorf("not ready within %v", r.service.ReadyTimeout)
		case a := <-said:
			switch {
			case ctx.Err() != nil:
				return ready, nil
			case errors.Is(a.err, context.DeadlineExceeded):
				return ready, fmt.Errorf("not ready within %v", r.service.ReadyTimeout)
			case a.err != nil:
				r.stack(a.err)
				return ready, fmt.Errorf("not ready: %w", a.err)
			}
		}
		cancel()
	}
	ready = time.Now()
	r.u.set(Ready, "")
	return ready, r.watch(ctx)
}

// watch asks the service how it is until it ends.
func (r *run) watch(ctx context.Context) error {
	interval := r.service.CheckInterval
	if r.service.Check == nil || interval <= 0 {
		select {
		case <-ctx.Done():
		case <-r.exited:
		}
		return nil
	}
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.exited:
			return nil
		case <-ticks.C:
		}
		within, cancel := context.WithTimeout(ctx, interval)
		said := background(func() (struct{}, error) { return struct{}{}, r.service.Check(within, r.process) })
		late := time.NewTimer(interval)
		var err error
		select {
		case <-ctx.Done():
		case <-r.exited:
		case a := <-said:
			if err = a.err; errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("no answer to a check within %v", interval)
			} else if err != nil {
				r.stack(err)
				err = fmt.Errorf("check: %w", err)
			}
		case <-late.C:
			err = fmt.Errorf("no answer to a check within %v", interval)
		}
		late.Stop()
		cancel()
		if ctx.Err() != nil || over(r.exited) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// stack keeps where a function of the owner panicked.
func (r *run) stack(err error) {
	var p *panicked
	if !errors.As(err, &p) {
		return
	}
	for line := range strings.Lines(p.stack) {
		r.u.log.remark("%s", strings.TrimSuffix(line, "\n"))
	}
}

// finish ends whatever there is of the run, and reports what stays.
func (r *run) finish() error {
	var list []proc
	var err error
	timeout := r.service.StopTimeout
	if r.process == nil {
		// A start that failed may have left something behind.
		list, err = r.family.end(r.u.s.census, timeout, nil, nil)
	} else {
		_, releaser := r.process.(Releaser)
		list, err = r.family.end(r.u.s.census, timeout, func(sig syscall.Signal) error {
			if !releaser && over(r.exited) {
				return os.ErrProcessDone // its number may be somebody else's
			}
			_, err := guarded(func() (struct{}, error) { return struct{}{}, r.process.Signal(sig) })
			return err
		}, r.exited)
	}
	// What the process said before it ended is there already; who else holds
	// the pipes has nothing to say any more.
	for _, p := range r.pipes {
		_ = p.SetReadDeadline(time.Now().Add(drainTime))
	}
	r.copies.Wait()
	for _, p := range r.pipes {
		p.Close()
	}
	if err != nil || len(list) > 0 {
		return leftBehind(list, err)
	}
	if rel, ok := r.process.(Releaser); ok {
		if _, err := guarded(func() (struct{}, error) { return struct{}{}, rel.Release() }); err != nil {
			r.u.log.remark("release: %v", err)
		}
	}
	if r.process != nil {
		r.u.s.reaper.forget(r.process.PID())
	}
	r.record.remove(r.u.s.options.RunDir)
	return nil
}

// leftBehind says which processes could not be ended.
func leftBehind(list []proc, err error) error {
	var pids []string
	for _, p := range list {
		pids = append(pids, fmt.Sprint(p.pid))
	}
	msg := "its end cannot be seen"
	if len(pids) > 0 {
		msg = "the kernel does not let it end: process " + strings.Join(pids, ", ")
	}
	if err != nil {
		msg += ": " + err.Error()
	}
	return failure.Hint(failure.New(failure.Failed, msg), "it is not started again before that is gone; see what it waits for in /proc/PID/stack")
}

// look has the run see its descendants.
func (r *run) look(t table) {
	if over(r.exited) {
		return
	}
	r.family.members(t, 1, os.Getpid())
}
