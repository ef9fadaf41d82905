package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// watchBucket of state.db has the name of a baseline → heartbeat as JSON.
var watchBucket = []byte("integrity.watch")

// heartbeat says when a watch was last known to go on.
type heartbeat struct {
	Started time.Time `json:"started"`
	Alive   time.Time `json:"alive"` // at the latest; when it ended, if it did so in an orderly way
	Clean   bool      `json:"clean"` // it ended in an orderly way
	PID     int       `json:"pid"`
	Boot    string    `json:"boot"`
}

func loadHeartbeat(ctx context.Context, s *state.Store, name string) (h heartbeat, err error) {
	err = s.View(ctx, func(tx *state.Tx) error {
		b := tx.Bucket(watchBucket)
		if b == nil {
			return nil
		}
		v := b.Get([]byte(name))
		if v == nil {
			return nil
		}
		if err := json.Unmarshal(v, &h); err != nil {
			return fmt.Errorf("%w: the heartbeat of the watch of %q: %w", state.ErrCorrupt, name, err)
		}
		return nil
	})
	return h, err
}

func (w *watcher) beat(ctx context.Context, clean bool) error {
	v, err := json.Marshal(heartbeat{Started: w.sum.Started.UTC(), Alive: time.Now().UTC(), Clean: clean, PID: os.Getpid(), Boot: bootID()})
	if err != nil {
		return err
	}
	return w.engine.Store.Update(ctx, func(tx *state.Tx) error {
		b, err := tx.CreateBucketIfNotExists(watchBucket)
		if err != nil {
			return err
		}
		return b.Put([]byte(w.ledgerName()), v)
	})
}

func (w *watcher) ledgerName() string { return w.ledger.scope[len("watch:"):] }

// end notes that the watch ended in an orderly way, unless it failed.
func (w *watcher) end(ctx context.Context) error {
	w.mu.Lock()
	failed := w.failed != nil
	w.mu.Unlock()
	if failed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	return w.beat(ctx, true)
}

// readMounts reads the mount table of this process.
func readMounts(o *integrity.Opened) (*mounts, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("a watch needs /proc: %w", err)
	}
	t, err := parseMounts(data)
	if err != nil {
		return nil, err
	}
	t.cover(o)
	return t, nil
}

// keep looks after mounts, new baselines and the heartbeat until ctx ends. It
// wakes once a second, and at once when a filesystem is mounted.
func (w *watcher) keep(ctx context.Context, t *mounts) {
	// Not an os.File: the runtime's poller would take the news for itself.
	table, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		w.fail(err)
		return
	}
	defer unix.Close(table)
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		w.fail(err)
		return
	}
	defer unix.Close(wake)
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		close(ended)
	})
	defer func() {
		if !stop() {
			<-ended
		}
	}()
	t = w.remounted(t) // what was mounted since the table was read makes no news here
	var beaten time.Time
	seen, stamped := time.Time{}, time.Time{}
	for ctx.Err() == nil {
		now := time.Now()
		if now.Sub(beaten) >= w.o.Beat {
			err := w.beat(ctx, false)
			if errors.Is(err, state.ErrCorrupt) {
				w.fail(fmt.Errorf("note that the watch is alive: %w", err))
				return
			}
			if err != nil && !errors.Is(err, state.ErrBusy) && ctx.Err() == nil {
				w.incomplete("that the watch is alive cannot be noted for now: %v", err)
			}
			beaten = now
		}
		if w.o.Alive != nil && now.Sub(stamped) >= 2*time.Second {
			w.o.Alive()
			stamped = now
		}
		// Every new baseline changes state.db; so does much else, and then the
		// judge finds that it is still the same one.
		if st, err := os.Stat(w.engine.Store.Path()); err == nil && !st.ModTime().Equal(seen) {
			if !seen.IsZero() && w.replaced(ctx) {
				w.asks.put(ask{reload: true})
			}
			seen = st.ModTime()
		}
		if w.enforcer != nil {
			w.enforcer.keep()
		}
		fds := []unix.PollFd{{Fd: int32(table), Events: unix.POLLPRI}, {Fd: int32(wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 1000); err != nil && !errors.Is(err, unix.EINTR) {
			w.fail(fmt.Errorf("look after mounts: %w", err))
			return
		}
		if fds[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0 {
			t = w.remounted(t)
		}
	}
}

// replaced tells whether another baseline is the current one now.
func (w *watcher) replaced(ctx context.Context) bool {
	c, err := w.engine.Find(ctx, w.o.Name)
	return err == nil && c.ID != w.shown.Load().Entry.ID
}

// remounted looks at what changed in the mount table, marks what is new, and
// has the judge compare what appeared or went.
func (w *watcher) remounted(old *mounts) *mounts {
	opened := w.shown.Load()
	t, err := readMounts(opened)
	if err != nil {
		w.incomplete("the mount table cannot be read, so new filesystems are not watched: %v", err)
		return old
	}
	w.source.adopt(opened, t)
	if w.enforcer != nil {
		w.enforcer.adopt(t)
	}
	before, after := map[string]bool{}, map[string]bool{}
	id := func(m *mount) string { return fmt.Sprint(m.id, " ", m.dev, " ", string(m.point)) }
	for _, m := range old.list {
		before[id(m)] = true
	}
	for _, m := range t.list {
		after[id(m)] = true
	}
	report := func(m *mount, what string) {
		inside := opened.Inside(m.point)
		if inside == nil || opened.Rule(inside) == nil && opened.State(inside).Prune() {
			return
		}
		w.asks.put(ask{below: bytes.Clone(inside), reason: MountRecord, text: what})
	}
	for _, m := range old.list {
		if !after[id(m)] {
			report(m, m.kind+" unmounted")
		}
	}
	for _, m := range t.list {
		if !before[id(m)] {
			report(m, m.kind+" mounted")
		}
	}
	return t
}
