package logs

import (
	"sync"
	"time"

	engine "github.com/mobileops/mobileops/internal/logs"
)

// flushEvery is how long what was printed waits for more, when somebody reads
// along.
const flushEvery = 50 * time.Millisecond

// live hands over what a printer printed: the first match at once, and the last
// one too, however long the next takes to come.
type live struct {
	printer

	mu    sync.Mutex
	last  time.Time
	timer *time.Timer // nil: nothing waits
	err   error       // of a flush by the timer
}

func (l *live) match(m engine.Match) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if err := l.printer.match(m); err != nil || l.timer != nil {
		return err
	}
	wait := flushEvery - time.Since(l.last)
	if wait <= 0 {
		l.last = time.Now()
		return l.flush()
	}
	l.timer = time.AfterFunc(wait, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.timer != nil {
			l.timer, l.last = nil, time.Now()
			l.err = l.flush()
		}
	})
	return nil
}

func (l *live) end(r engine.Report) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	return l.printer.end(r)
}
