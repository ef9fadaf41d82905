package worker

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// mostLine bounds a line of progress: a path has at most 4096 bytes, each of which
// may take six in JSON.
const mostLine = 64 << 10

// news is the progress of a worker. Whoever wants to know it may be slow: he gets the
// latest, and the worker never waits for him.
type news struct {
	mu     sync.Mutex
	came   sync.Cond
	latest protocol.Progress
	when   time.Time
	fresh  bool
	closed bool
}

func newNews() *news {
	n := &news{when: time.Now()}
	n.came.L = &n.mu
	return n
}

// read reads lines until the end. What is no line of progress is passed over.
func (n *news) read(r io.Reader) {
	lines := bufio.NewReaderSize(r, mostLine)
	for {
		line, err := lines.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		var p protocol.Progress
		if !long && len(line) > 0 && json.Unmarshal(line, &p) == nil && p != (protocol.Progress{}) {
			n.mu.Lock()
			n.latest, n.when, n.fresh = p, time.Now(), true
			n.came.Signal()
			n.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// tell calls f with what is new, until close and the last of it.
func (n *news) tell(f func(protocol.Progress)) {
	for {
		n.mu.Lock()
		for !n.fresh && !n.closed {
			n.came.Wait()
		}
		p, fresh := n.latest, n.fresh
		n.fresh = false
		n.mu.Unlock()
		if !fresh {
			return
		}
		if f != nil {
			f(p)
		}
	}
}

func (n *news) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	n.came.Signal()
}

// quiet is how long nothing came.
func (n *news) quiet() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Since(n.when)
}

// at says what the worker was at, for the end of a sentence.
func (n *news) at() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest.Item == "" {
		return ""
	}
	return ", at " + visible(n.latest.Item)
}
