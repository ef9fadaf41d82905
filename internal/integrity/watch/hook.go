package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
)

// Hook is a command that is run for each record, one at a time, in order.
type Hook struct {
	Args    []string                       // program and arguments; no shell looks at them
	Env     func(*Record) []string         // its whole environment
	Encode  func(*Record) ([]byte, error)  // what it reads from its standard input
	Timeout time.Duration                  // then it and its process group are killed; 0: 30 s
	Failed  func(r *Record, reason string) // told of each failure; nothing else comes of it
}

const (
	maxHooked   = 4096 // records that wait for the command
	hookTimeout = 30 * time.Second
	hookEnd     = 10 * time.Second // for those that wait when the watch ends
	maxHookSaid = 1 << 10          // of what it printed, in a message
)

// hookQueue holds the records that the command has not seen yet.
type hookQueue struct {
	h *Hook
	w *watcher

	mu   sync.Mutex
	wake sync.Cond
	list []*Record
	lost int // not given to the command, because too many waited
	over bool
	end  time.Time
}

func newHookQueue(h *Hook, w *watcher) *hookQueue {
	q := &hookQueue{h: h, w: w}
	q.wake.L = &q.mu
	return q
}

func (q *hookQueue) put(r *Record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) >= maxHooked {
		q.lost++
		return
	}
	q.list = append(q.list, r)
	q.wake.Signal()
}

func (q *hookQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over, q.end = true, time.Now().Add(hookEnd)
	q.wake.Signal()
}

// run gives the records to the command until the queue is closed and empty.
func (q *hookQueue) run() {
	for {
		q.mu.Lock()
		for len(q.list) == 0 && !q.over && q.lost == 0 {
			q.wake.Wait()
		}
		late := q.over && time.Now().After(q.end)
		lost := 0
		if late {
			q.lost += len(q.list)
			q.list = nil
		}
		if len(q.list) == 0 {
			lost, q.lost = q.lost, 0
		}
		if lost == 0 && len(q.list) == 0 {
			q.mu.Unlock()
			return
		}
		var r *Record
		if len(q.list) > 0 {
			r, q.list = q.list[0], q.list[1:]
		}
		q.mu.Unlock()
		if lost > 0 {
			q.w.tell(&Record{Kind: LostRecord, Severity: finding.Low, Found: lost,
				Text: fmt.Sprintf("%d records were not given to the command: it takes too long for how much happens", lost)})
		}
		if r == nil {
			continue
		}
		if err := q.one(r); err != nil && q.h.Failed != nil {
			q.h.Failed(r, err.Error())
		}
	}
}

// one runs the command for one record.
func (q *hookQueue) one(r *Record) error {
	in, err := q.h.Encode(r)
	if err != nil {
		return err
	}
	limit := q.h.Timeout
	if limit <= 0 {
		limit = hookTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, q.h.Args[0], q.h.Args[1:]...)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Env = q.h.Env(r)
	said := &clipped{}
	cmd.Stdout, cmd.Stderr = said, said
	// It is killed with all that it started, and the interrupt of a terminal is
	// for the watch alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("killed after %v", limit)
	}
	if errors.Is(err, syscall.EPIPE) {
		err = nil // it need not read what it is told
	}
	if err == nil {
		return nil
	}
	text := err.Error()
	if s := strings.TrimSpace(said.b.String()); s != "" {
		text += ": " + s
	}
	return errors.New(text)
}

// clipped keeps the beginning of what is written.
type clipped struct{ b bytes.Buffer }

func (c *clipped) Write(p []byte) (int, error) {
	c.b.Write(p[:min(len(p), max(0, maxHookSaid-c.b.Len()))])
	return len(p), nil
}
