package supervise

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/thejerf/suture/v4"
)

// statusLines of the log are in the status of a service that failed.
const statusLines = 20

// unit is a service with everything that is known of it.
type unit struct {
	s   *Supervisor
	log *serviceLog

	turn chan struct{} // who holds it starts and stops

	mu      sync.Mutex
	service Service
	status  Status
	active  *activation // nil: nobody wants it to run
	current *run
	left    *run // something of this one could not be ended
}

func newUnit(s *Supervisor, service Service) *unit {
	return &unit{
		s: s, service: service, turn: make(chan struct{}, 1),
		log:    newServiceLog(s.LogPath(service.Name), s.options.LogSize, s.options.LogFiles),
		status: Status{Name: service.Name, State: Stopped, Since: time.Now()},
	}
}

// take takes the turn to start and stop the service.
func (u *unit) take(ctx context.Context) error {
	select {
	case u.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return failure.Errorf(failure.Busy, "service %s: it is being started or stopped: %w", u.name(), ctx.Err())
	}
}

func (u *unit) give() { <-u.turn }

func (u *unit) name() string { return u.status.Name } // never changes

// now returns the status.
func (u *unit) now() Status {
	u.mu.Lock()
	st := u.status.copy()
	u.mu.Unlock()
	st.Dropped = u.log.droppedLines()
	return st
}

// change changes the status and tells everybody.
func (u *unit) change(f func(*Status)) {
	u.mu.Lock()
	f(&u.status)
	u.mu.Unlock()
	u.s.publish(u)
}

// set enters a state.
func (u *unit) set(state State, message string) {
	u.change(func(st *Status) {
		if st.State != state {
			st.Since = time.Now()
		}
		st.State, st.Message, st.Next, st.Last = state, message, nil, nil
	})
}

// started says that there is a process. It may have said how it is before that
// is known here, so its health stays; that of the one before it went with it.
func (u *unit) started(pid int) {
	now := time.Now()
	u.change(func(st *Status) { st.PID, st.Started = pid, &now })
}

// start begins to run the service. The turn is held.
func (u *unit) start() error {
	u.mu.Lock()
	if u.active != nil {
		select {
		case <-u.active.done:
		default:
			state := u.status.State
			u.mu.Unlock()
			return failure.Errorf(failure.Busy, "service %s: %w (it is %s)", u.name(), ErrRunning, state)
		}
	}
	a := &activation{u: u, done: make(chan struct{})}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	u.active = a
	u.status.Restarts, u.status.Exit, u.status.Health = 0, nil, nil
	u.mu.Unlock()
	u.set(Starting, "")
	u.s.tree.Add(a)
	return nil
}

// stop ends the service, and waits until it has ended or ctx is done. The turn
// is held. A service that does not run, but failed, is stopped from then on.
func (u *unit) stop(ctx context.Context) error {
	u.mu.Lock()
	a := u.active
	u.mu.Unlock()
	if a == nil {
		return failure.Errorf(failure.Busy, "service %s: %w", u.name(), ErrStopped)
	}
	a.cancel()
	select {
	case <-a.done:
	case <-ctx.Done():
		return failure.Errorf(failure.Busy, "service %s is still stopping: %w", u.name(), ctx.Err())
	}
	if err := u.clear(); err != nil {
		return failure.Errorf(failure.Failed, "service %s: %w", u.name(), err)
	}
	u.mu.Lock()
	state := u.status.State
	u.active = nil
	u.mu.Unlock()
	switch {
	case state == Failed:
		u.set(Stopped, "")
	case !a.stopped:
		return failure.Errorf(failure.Busy, "service %s: %w", u.name(), ErrStopped)
	}
	return nil
}

// clear ends what an earlier run left behind, if the kernel lets it by now.
func (u *unit) clear() error {
	u.mu.Lock()
	left := u.left
	u.mu.Unlock()
	if left == nil {
		return nil
	}
	if err := left.finish(); err != nil {
		return err
	}
	u.mu.Lock()
	u.left, u.status.PID = nil, 0
	u.mu.Unlock()
	return nil
}

// activation is a service from its start by somebody until its last end. It is
// what suture keeps running: Serve is called again after each end that asks
// for it, and after a panic.
type activation struct {
	u      *unit
	ctx    context.Context // until it is told to stop
	cancel context.CancelFunc
	done   chan struct{} // closed when it is over; what follows is set before

	stopped bool // because it was told to
	dirty   bool // within Serve, so that a panic is seen afterwards

	next     time.Time     // the start to come
	wait     time.Duration // the last wait
	restarts []time.Time   // within the window
}

// String names the service for suture.
func (a *activation) String() string { return a.u.name() }

// errAgain asks suture to call Serve again. The time to wait was decided here:
// that of suture would be one for all services.
var errAgain = errors.New("to be started again")

// Serve runs the service once (suture.Service).
func (a *activation) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	var o outcome
	if a.dirty {
		time.Sleep(panicPause)
		o.err = errors.New("the supervision of it panicked")
		a.u.mu.Lock()
		r := a.u.current
		a.u.mu.Unlock()
		if r != nil {
			if err := r.finish(); err != nil {
				o.err, o.fatal = errors.Join(o.err, err), true
				a.u.mu.Lock()
				a.u.left = r
				a.u.mu.Unlock()
			}
		}
		o.asked = ctx.Err() != nil
	} else {
		a.dirty = true
		o = a.once(ctx)
	}
	again := a.again(o)
	a.dirty = false
	if again {
		return errAgain
	}
	return a.end()
}

// panicPause keeps a mistake of ours, if it shows every time, from using up a
// processor.
const panicPause = 100 * time.Millisecond

func (a *activation) end() error {
	a.cancel()
	close(a.done)
	return suture.ErrDoNotRestart
}

// once waits until it is time, and runs the service.
func (a *activation) once(ctx context.Context) outcome {
	u := a.u
	if d := time.Until(a.next); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return outcome{asked: true}
		}
	}
	u.mu.Lock()
	service := u.service
	r := newRun(u, service)
	u.current = r
	if !a.next.IsZero() {
		u.status.Restarts++
	}
	u.mu.Unlock()
	u.set(Starting, "")
	if !u.s.await(ctx, u, service.After) {
		return outcome{asked: true}
	}
	if err := u.clear(); err != nil {
		return outcome{err: err, fatal: true}
	}
	o := r.once(ctx)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.current = nil
	if o.fatal {
		u.left = r
	}
	return o
}

// again decides what comes after a run, and reports whether another one does.
func (a *activation) again(o outcome) bool {
	u, now := a.u, time.Now()
	u.mu.Lock()
	service := u.service
	u.mu.Unlock()
	enter := func(state State, message string, next *time.Time) {
		var last []Line
		if state == Failed || state == BackingOff {
			last = u.log.last(statusLines)
		}
		if message != "" {
			u.log.remark("%s: %s", state, message)
		}
		u.log.settle() // who asks for the log now finds all of it
		u.change(func(st *Status) {
			st.State, st.Since, st.Message, st.Next, st.Last = state, now, message, next, last
			st.Started, st.Health, st.Exit = nil, nil, o.exit
			if !o.fatal {
				st.PID = 0
			}
		})
	}
	switch {
	case o.fatal:
		enter(Failed, o.err.Error(), nil)
		return false
	case o.asked:
		a.stopped = true
		enter(Stopped, "", nil)
		return false
	case service.Restart == Never && o.err != nil:
		enter(Failed, o.err.Error(), nil)
		return false
	case service.Restart != Always && o.err == nil:
		enter(Stopped, "it ended by itself", nil)
		return false
	}
	why := "it ended by itself"
	if o.err != nil {
		why = o.err.Error()
	}
	var recent []time.Time
	for _, t := range a.restarts {
		if now.Sub(t) < service.Limit.Window {
			recent = append(recent, t)
		}
	}
	if limit := service.Limit.Count; limit > 0 && len(recent) >= limit {
		enter(Failed, fmt.Sprintf("%s; given up after %d restarts within %v", why, len(recent), service.Limit.Window), nil)
		return false
	}
	a.restarts = append(recent, now)
	switch {
	case a.wait <= 0 || o.ready >= service.Backoff.Reset:
		a.wait = service.Backoff.Start
	default:
		a.wait = min(2*a.wait, service.Backoff.Max)
	}
	a.next = now.Add(a.wait + rand.N(a.wait/8+1))
	next := a.next
	enter(BackingOff, why, &next)
	return true
}
