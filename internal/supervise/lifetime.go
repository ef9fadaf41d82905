package supervise

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// Run ends what a supervisor before this one left behind, answers clients and
// runs services until ctx is done or a client asks for the end. Then it stops
// all services, each after those that were started after it, and all others at
// the same time. It returns an error when something could not be ended; the
// next supervisor tries again.
func (s *Supervisor) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.running || s.closing {
		s.mu.Unlock()
		return failure.New(failure.Usage, "a supervisor runs once")
	}
	s.running = true
	s.mu.Unlock()
	if s.options.Subreaper {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			s.warn("descendants of services whose parents end become those of the first process: %v", err)
		}
	}
	err := s.sweep()
	if err != nil {
		s.warn("%v", err)
	}

	inside, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var background sync.WaitGroup
	if s.options.Subreaper {
		background.Go(func() { s.reaper.serve(inside, s) })
	}
	over := s.tree.ServeBackground(inside)
	if s.socket != nil {
		background.Go(func() { s.answer(inside) })
	}

	select {
	case <-ctx.Done():
	case <-s.shutdown:
	}
	err = s.stopAll()
	close(s.ended)
	if s.socket != nil {
		s.socket.close()
	}
	stop()
	<-over
	background.Wait()
	if s.options.Subreaper {
		if left := s.reaper.end(s.census, DefaultStopTimeout); len(left) > 0 {
			err = errors.Join(err, leftBehind(left, nil))
		}
		s.reaper.reap()
	}
	for _, u := range s.all() {
		u.log.close()
	}
	s.watch.close()
	s.release()
	close(s.gone)
	return err
}

// Shutdown has Run end, as a client does.
func (s *Supervisor) Shutdown() { s.once.Do(func() { close(s.shutdown) }) }

// stopAll stops every service.
func (s *Supervisor) stopAll() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	units := s.all()
	stopped := map[string]chan struct{}{}
	before := map[string][]string{} // those that have to be stopped first
	for _, u := range units {
		stopped[u.name()] = make(chan struct{})
		u.mu.Lock()
		for _, name := range u.service.After {
			before[name] = append(before[name], u.name())
		}
		u.mu.Unlock()
	}
	errs := make([]error, len(units))
	var all sync.WaitGroup
	for i, u := range units {
		all.Go(func() {
			defer close(stopped[u.name()])
			for _, name := range before[u.name()] {
				<-stopped[name]
			}
			// Whoever has the turn is starting it, which ends at once, or
			// stopping it, which ends in time.
			_ = u.take(context.Background())
			defer u.give()
			if err := u.stop(context.Background()); err != nil && !errors.Is(err, ErrStopped) {
				errs[i] = err
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// sweep ends what a supervisor that was killed left running. The lock of the
// directory is held, so no other supervisor is responsible for it.
func (s *Supervisor) sweep() error {
	records, err := readRecords(s.options.RunDir)
	errs := []error{err}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, r := range records {
		if r.Boot != s.boot {
			r.remove(s.options.RunDir) // the numbers are those of another boot
			continue
		}
		all.Go(func() {
			if err := s.sweepOne(r); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// sweepOne ends what is left of one process.
func (s *Supervisor) sweepOne(r record) error {
	f := &family{pid: r.PID, start: r.Start, mark: r.Mark, cgroup: r.Cgroup}
	t, err := s.census.take()
	if err != nil {
		return fmt.Errorf("service %s: list of processes: %w", r.Name, err)
	}
	if list := f.members(t); len(list) > 0 { // by the mark, whoever their parents are
		s.warn("service %s: %d processes of a supervisor that was killed are ended, the first is %d", r.Name, len(list), list[0].pid)
		left, err := f.end(s.census, time.Duration(r.StopMS)*time.Millisecond, nil, nil)
		if err != nil || len(left) > 0 {
			return fmt.Errorf("service %s, started by a supervisor that was killed: %w", r.Name, leftBehind(left, err))
		}
	}
	r.remove(s.options.RunDir)
	return nil
}

// lookAround has every service see its descendants, so that it knows them when
// their parents are gone.
func (s *Supervisor) lookAround() {
	t, err := s.census.take()
	if err != nil {
		return
	}
	for _, u := range s.all() {
		u.mu.Lock()
		r := u.current
		u.mu.Unlock()
		if r != nil {
			r.look(t)
		}
	}
}

// await waits until none of the services is about to become ready. It returns
// false when ctx is done before that.
func (s *Supervisor) await(ctx context.Context, u *unit, names []string) bool {
	for {
		changed := s.changes()
		var pending string
		for _, name := range names {
			if st, err := s.Status(name); err == nil && !st.State.settled() {
				pending = name
			}
		}
		if pending == "" {
			return ctx.Err() == nil
		}
		if message := "waits for " + pending; u.now().Message != message {
			u.set(Starting, message)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
