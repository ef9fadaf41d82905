package source

import (
	"context"
	"slices"
	"sync"
)

// instance is one thing that is read: a file, a journal, a device.
type instance interface {
	// turn reads on, at most some hundred KiB, hands the records to the outbox
	// and reports whether there is more. It is never called twice at a time.
	turn() (more bool)
	// packed reports whether reading takes memory from turn to turn, so that
	// only one of its like is read at a time.
	packed() bool
}

// queue lets instances take turns. Compressed files come one after the other,
// and take every other turn.
type queue struct {
	mu      sync.Mutex
	wake    sync.Cond
	ready   []instance
	large   []instance // the first one is being read
	active  bool       // somebody has the first of large
	state   map[instance]turnState
	busy    int
	last    bool // the last turn was that of a large one
	stopped bool
}

type turnState uint8

const (
	waiting   turnState = iota + 1
	reading             // a reader has it
	readAgain           // and it was put again meanwhile
)

func newQueue() *queue {
	q := &queue{state: map[instance]turnState{}}
	q.wake.L = &q.mu
	return q
}

// put queues an instance, unless it is in the queue already. It never blocks.
func (q *queue) put(i instance) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch q.state[i] {
	case 0:
		q.append(i)
	case reading:
		q.state[i] = readAgain
	}
}

// append queues an instance that is not in the queue. What is compressed is
// found out by its first turn: q.mu is held here, that of the file is not free.
func (q *queue) append(i instance) {
	q.state[i] = waiting
	q.ready = append(q.ready, i)
	q.wake.Broadcast()
}

// next returns the instance whose turn it is, or nil when the queue was
// stopped.
func (q *queue) next() instance {
	for {
		i, known := q.pick()
		if i == nil || known || !i.packed() {
			return i
		}
		q.mu.Lock()
		q.busy--
		q.state[i] = waiting
		q.large = append(q.large, i)
		q.wake.Broadcast()
		q.mu.Unlock()
	}
}

// pick takes an instance out of the queue; known says that it is a large one.
func (q *queue) pick() (i instance, known bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.stopped {
		if len(q.large) > 0 && !q.active && (!q.last || len(q.ready) == 0) {
			i, q.active, q.last = q.large[0], true, true
			q.busy++
			q.state[i] = reading
			return i, true
		}
		if len(q.ready) > 0 {
			i = q.ready[0]
			q.ready = slices.Delete(q.ready, 0, 1)
			q.last = false
			q.busy++
			q.state[i] = reading
			return i, false
		}
		q.wake.Wait()
	}
	return nil, false
}

// done gives an instance back after its turn.
func (q *queue) done(i instance, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
	again := more || q.state[i] == readAgain
	if len(q.large) > 0 && q.large[0] == i {
		q.active = false
		if again {
			q.state[i] = waiting
		} else {
			q.large = slices.Delete(q.large, 0, 1)
			delete(q.state, i)
		}
	} else if again {
		q.append(i)
	} else {
		delete(q.state, i)
	}
	q.wake.Broadcast()
}

// drained waits until nothing is to be read, or the queue was stopped.
func (q *queue) drained(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.wake.Broadcast()
	})
	defer stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.stopped && ctx.Err() == nil && (q.busy > 0 || len(q.ready) > 0 || len(q.large) > 0) {
		q.wake.Wait()
	}
	return ctx.Err()
}

// stop ends all waiting.
func (q *queue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.wake.Broadcast()
}
