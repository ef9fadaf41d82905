package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

const (
	cursorBucket = "plugin_cursors"
	coalesce     = 200 * time.Millisecond // a cursor is written at most that often,
	coalesceMost = 2 * time.Second        // and less often where the disk is slow: writing takes the lease
	flushTimeout = 15 * time.Second       // for the last time, at the end
)

// storedCursor is how far a reader of events has come.
type storedCursor struct {
	Cursor string    `json:"cursor"`
	Time   time.Time `json:"time"` // when it was written
}

// loadCursor returns the cursor of a name, and whether there is one.
func loadCursor(tx *state.Tx, name string) (p position, known bool, err error) {
	b := tx.Bucket([]byte(cursorBucket))
	if b == nil {
		return p, false, nil
	}
	v := b.Get([]byte(name))
	if v == nil {
		return p, false, nil
	}
	var c storedCursor
	if err = json.Unmarshal(v, &c); err == nil {
		p, err = parsePosition(c.Cursor)
	}
	if err != nil {
		return p, false, failure.Hint(failure.Errorf(failure.Untrustworthy, "the cursor of %s is damaged: %v", name, err), "look: mobileops state check")
	}
	return p, true, nil
}

func saveCursor(tx *state.Tx, name string, p position) error {
	b, err := tx.CreateBucketIfNotExists([]byte(cursorBucket))
	if err != nil {
		return err
	}
	v, err := json.Marshal(storedCursor{p.String(), time.Now().UTC()})
	if err != nil {
		return err
	}
	return b.Put([]byte(name), v)
}

// Forget removes the cursors of a plugin, and what was put aside for it, when
// it is uninstalled: those of the name itself and of every name that begins
// with it and a slash.
func Forget(tx *state.Tx, name string) error {
	for _, bucket := range []string{cursorBucket, deadBucket} {
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			continue
		}
		var names [][]byte // collected first: a cursor does not survive deletions
		c := b.Cursor()
		for k, _ := c.Seek([]byte(name)); bytes.HasPrefix(k, []byte(name)); k, _ = c.Next() {
			if len(k) == len(name) || k[len(name)] == '/' {
				names = append(names, bytes.Clone(k))
			}
		}
		for _, k := range names {
			err := error(nil)
			if bucket == deadBucket {
				err = b.DeleteBucket(k)
			} else {
				err = b.Delete(k)
			}
			if err != nil {
				return fmt.Errorf("forget %s: %w", k, err)
			}
		}
	}
	return nil
}

// cursorSaver writes a cursor down in the background, so that nobody waits for
// the disk or for the lease. What is not written yet is delivered again.
type cursorSaver struct {
	store  Store
	name   string
	failed func(error)
	flush  time.Duration // for writing once

	wake   chan struct{}
	closed chan struct{}
	once   sync.Once

	writing sync.Mutex // held by write, so that who returns from it knows
	mu      sync.Mutex
	want    *position // nil: everything is written
}

func newCursorSaver(store Store, name string, failed func(error)) *cursorSaver {
	return &cursorSaver{store: store, name: name, failed: failed, flush: flushTimeout, wake: make(chan struct{}, 1), closed: make(chan struct{})}
}

// set notes that p is to be written.
func (c *cursorSaver) set(p position) {
	c.mu.Lock()
	c.want = &p
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// close makes run write what is left, and end.
func (c *cursorSaver) close() { c.once.Do(func() { close(c.closed) }) }

func (c *cursorSaver) run() {
	pause := coalesce
	for over := false; !over; {
		select {
		case <-c.wake:
		case <-c.closed:
			over = true
		}
		if !over {
			select { // further ones come meanwhile
			case <-time.After(pause):
			case <-c.closed:
				over = true
			}
		}
		began := time.Now()
		c.write()
		pause = min(max(coalesce, 10*time.Since(began)), coalesceMost)
	}
}

// write writes what is to be written, and returns when it was.
func (c *cursorSaver) write() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	p := c.want
	c.want = nil
	c.mu.Unlock()
	if p == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.flush)
	defer cancel()
	err := c.store.Update(ctx, func(tx *state.Tx) error { return saveCursor(tx, c.name, *p) })
	if err == nil {
		return
	}
	c.failed(fmt.Errorf("write the cursor of %s: %w", c.name, err))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.want == nil { // nothing newer: try again with the next one
		c.want = p
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}
