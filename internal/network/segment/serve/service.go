package serve

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// service is one service of a zone, which is begun again when it ends.
type service struct {
	what   string
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	st    ServiceStatus
	index int                // of the interface that it is bound to
	again context.CancelFunc // ends this attempt
}

// start begins a service, and begins it again whenever it ends.
func (r *run) start(ctx context.Context, what string, z Zone, f func(ctx context.Context, ready func()) error) *service {
	ctx, cancel := context.WithCancel(ctx)
	s := &service{what: what, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.supervise(ctx, z.Interface, f, func(err error) { r.Notice("zone %s: %s: %v", z.Name, what, err) })
	}()
	return s
}

// stop ends services, and returns when they have ended.
func stop(list []*service) {
	for _, s := range list {
		s.cancel()
	}
	for _, s := range list {
		<-s.done
	}
}

var errMoved = errors.New("its interface is gone, or is another one now")

// supervise runs a service again and again, until the context is done.
func (s *service) supervise(ctx context.Context, ifname string, f func(ctx context.Context, ready func()) error, news func(error)) {
	wait := firstWait
	for {
		began := time.Now()
		attempt, cancel := context.WithCancel(ctx)
		s.mu.Lock()
		s.index, s.again = interfaceIndex(ifname), cancel
		s.mu.Unlock()
		err := f(attempt, func() { s.set(Serving, nil) })
		moved := attempt.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil && moved {
			err = errMoved
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		if time.Since(began) > steady {
			wait = firstWait
		}
		if s.set(Failed, err) {
			news(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, lastWait)
	}
}

// moved ends the attempt that runs when the interface is not the one that it is
// bound to. A socket that is bound to one that is gone hears nothing, and is not
// told.
func (s *service) moved(index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.st.State == Serving && s.index != index {
		s.again()
	}
}

// set enters a state, and reports whether it is news.
func (s *service) set(state State, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
		s.st.Failures++
	}
	news := s.st.State != state || s.st.Error != text
	if news {
		s.st.Since = time.Now().UTC().Truncate(time.Second)
	}
	s.st.State, s.st.Error = state, text
	return news
}

func (s *service) status() ServiceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.st
	if st.State == "" {
		st.State = Starting
	}
	return st
}

// interfaceIndex returns the index of an interface, 0 when there is none. It asks
// for that one alone (netdevice(7)): there may be thousands.
func interfaceIndex(name string) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0
	}
	return int(req.Uint32())
}
