package supervise

import (
	"context"
	"sync"

	"github.com/mobileops/mobileops/internal/failure"
)

const (
	watchQueue  = 256 // changes that wait for one who watches
	maxWatchers = 128
)

// watchers are told of every change of a status. Nobody waits for them: one
// that is too slow is dropped.
type watchers struct {
	mu     sync.Mutex
	list   map[chan Status]string // the service, or ""
	closed bool
}

// Watch gives how services are, and then every change, until ctx is done, the
// supervisor ends, or changes have waited too long to be read: then the channel
// is closed. With a name it is about that service alone. Metrics that change
// are no change of a status.
func (s *Supervisor) Watch(ctx context.Context, name string) (<-chan Status, error) {
	if name != "" {
		if _, err := s.unit(name); err != nil {
			return nil, err
		}
	}
	c := make(chan Status, watchQueue+maxServices)
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, ErrClosing
	}
	if len(w.list) >= maxWatchers {
		return nil, failure.Errorf(failure.Busy, "%d are watching already", maxWatchers)
	}
	if w.list == nil {
		w.list = map[chan Status]string{}
	}
	w.list[c] = name
	for _, st := range s.List() { // nothing is published meanwhile
		if name == "" || st.Name == name {
			c <- st
		}
	}
	context.AfterFunc(ctx, func() { w.drop(c) })
	return c, nil
}

func (w *watchers) drop(c chan Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.list[c]; ok {
		delete(w.list, c)
		close(c)
	}
}

func (w *watchers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for c := range w.list {
		close(c)
	}
	w.list = nil
}

// publish tells of a change of a service.
func (s *Supervisor) publish(u *unit) {
	s.watch.tell(u)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (w *watchers) tell(u *unit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := u.now() // under the lock, so that the last that is told is how it is
	for c, name := range w.list {
		if name != "" && name != st.Name {
			continue
		}
		select {
		case c <- st:
		default:
			delete(w.list, c)
			close(c)
		}
	}
}

// changes is closed at the next change of any status.
func (s *Supervisor) changes() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
