package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/segment"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// Writer takes records in. There is one at a time. Its methods can be called
// by several goroutines at once.
type Writer struct {
	store    *Store
	id       storeID
	lock     *state.Lock
	recovery Recovery

	mu      sync.Mutex
	cursors map[string][]byte
	open    *generation
	raw     int64 // cost of what is in it
	since   int64 // when the oldest frame in it was written, ns; 0: there is none
	buf     []byte
	frame   []byte
	broken  error // after which nothing can be appended
	flush   *flush
	failed  error // of the last flush, until somebody is told
	backlog int64 // cost of what is in closed generations of which no segments are made yet
	damage  []Damage
}

// flush is the making of segments of closed generations in the background.
type flush struct {
	done chan struct{}
	err  error
}

// Recovery is what opening a store for writing found of a process that died.
type Recovery struct {
	Cut    int64    // bytes of a last frame that was not written to its end, and was never acknowledged
	Damage []Damage // where records were lost
	// Locked are generations that a killed collector left and that cannot be
	// read here, for want of a key. They are kept in damaged/; their records are
	// read again from their sources.
	Locked []Damage
}

// Writer takes the lock "logs" and brings the write-ahead log into order. When
// another process writes, the error wraps state.ErrBusy. The Writer must be
// closed.
func (s *Store) Writer(ctx context.Context) (*Writer, error) {
	lock, err := s.opts.State.Lock("logs", "logs collect")
	if err != nil {
		return nil, err
	}
	w := &Writer{store: s, lock: lock}
	if err := w.recover(ctx); err != nil {
		lock.Release()
		return nil, err
	}
	return w, nil
}

// Recovery returns what was found when the Writer was made.
func (w *Writer) Recovery() Recovery { return w.recovery }

// Cursors returns where reading of each source goes on.
func (w *Writer) Cursors(context.Context) (map[string][]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[string][]byte, len(w.cursors))
	for k, v := range w.cursors {
		out[k] = v
	}
	return out, nil
}

// maxKey is what bbolt takes as a key, in bytes.
const maxKey = 32 << 10

const (
	// What a record and a batch take beside the text of records while segments
	// are made of them, in bytes. Without it a file of empty lines would make a
	// generation of hundreds of millions of records, and one small file after
	// the other a change that does not fit into the Merkle log.
	recordCost = 16
	batchCost  = 256
)

// cost is what a batch of records with bodyBytes of text counts in a generation.
func cost(records, bodyBytes int, key string, cursor []byte, o *event.Origin) int64 {
	return int64(records)*recordCost + int64(bodyBytes) + batchCost +
		int64(len(key)+len(cursor)+len(o.Source)+len(o.Format)+len(o.Host))
}

// check looks at batches before they are taken, and returns their cost.
func check(batches []Batch) (raw int64, err error) {
	for i := range batches {
		b := &batches[i]
		if b.Key == "" || len(b.Key) > maxKey {
			return 0, failure.Errorf(failure.Usage, "a cursor with a key of %d bytes", len(b.Key))
		}
		text := 0
		for j := range b.Records {
			n := len(b.Records[j].Raw)
			if n > segment.MaxRecord {
				return 0, failure.Errorf(failure.Usage, "%s: a record of %d bytes; at most %d fit", b.Origin.Source, n, segment.MaxRecord)
			}
			text += n
		}
		raw += cost(len(b.Records), text, b.Key, b.Cursor, &b.Origin)
	}
	return raw, nil
}

// Append keeps batches and their cursors. When it returns nil they survive a
// crash; on an error none of them is kept. ErrFull says that there is no room:
// another attempt can succeed.
func (w *Writer) Append(ctx context.Context, batches []Batch) error {
	if len(batches) == 0 {
		return nil
	}
	raw, err := check(batches)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	if err := w.makeRoom(ctx, raw); err != nil {
		return err
	}
	if w.buf, err = appendBatches(w.buf[:0], batches); err != nil {
		return failure.Wrap(failure.Usage, err)
	}
	if len(w.buf) > maxFrame {
		return failure.Errorf(failure.Usage, "%d MiB of records at once; at most %d fit", len(w.buf)>>20, maxFrame>>20)
	}
	now := w.store.opts.Now()
	w.frame = appendFrame(w.frame[:0], w.open.place, w.open.end, now, w.open.aead, w.buf)
	if err := w.store.room(int64(len(w.frame))); err != nil {
		return err
	}
	if err := w.writeFrame(); err != nil {
		return err
	}
	w.raw += raw
	if w.since == 0 {
		w.since = now.UnixNano()
	}
	for i := range batches {
		setCursor(w.cursors, batches[i].Key, batches[i].Cursor)
	}
	if cap(w.buf) > 8<<20 { // an exception must not stay in memory
		w.buf, w.frame = nil, nil
	}
	return nil
}

func setCursor(m map[string][]byte, key string, cursor []byte) {
	if cursor == nil {
		delete(m, key)
		return
	}
	m[key] = append([]byte{}, cursor...)
}

func (w *Writer) usable() error {
	if w.lock == nil {
		return errors.New("the log store is closed")
	}
	return w.broken
}

// writeFrame writes the frame behind the last one and syncs it. On an error
// the file ends behind the last whole frame again.
func (w *Writer) writeFrame() error {
	g := w.open
	_, err := g.file.WriteAt(w.frame, g.end)
	synced := err == nil
	if err == nil {
		err = unix.Fdatasync(int(g.file.Fd()))
	}
	if err == nil {
		g.end += int64(len(w.frame))
		return nil
	}
	err = access(fmt.Errorf("write %s: %w", g.file.Name(), err))
	if cut := g.file.Truncate(g.end); cut != nil {
		w.broken = fmt.Errorf("%w; and then: %w", err, cut)
		return w.broken
	}
	if synced && !errors.Is(err, ErrFull) {
		// After a sync that failed nobody knows what is on the disk.
		w.broken = err
	}
	return err
}

// full tells whether more is too much for the open generation.
func (w *Writer) full(more int64) bool {
	return w.since != 0 && (w.raw+more > w.store.opts.MaxOpen || w.open.end > maxGeneration)
}

// maxGeneration bounds a generation, in bytes, whatever is asked for.
const maxGeneration = 1 << 30

// makeRoom begins a new generation when the open one is full, and waits while
// there is too much to be done in the background.
func (w *Writer) makeRoom(ctx context.Context, more int64) error {
	if !w.full(more) {
		return nil
	}
	if err := w.wait(ctx); err != nil {
		if ctx.Err() != nil || w.backlog > 4*w.store.opts.MaxOpen {
			return err // segments cannot be made, and the log must not grow for ever
		}
	}
	if !w.full(more) { // somebody was faster while this waited
		return nil
	}
	return w.begin()
}

// begin closes the open generation and makes segments of it in the background.
// There must be no flush under way.
func (w *Writer) begin() error {
	if err := w.rollOver(); err != nil {
		return err
	}
	w.start()
	return nil
}

// start makes segments of all closed generations in the background. Whoever
// asks for that does not end it: its context is another one.
func (w *Writer) start() {
	f := &flush{done: make(chan struct{})}
	w.flush = f
	upTo := w.open.generation - 1
	go func() {
		defer close(f.done)
		var damage []Damage
		damage, f.err = w.store.consume(context.Background(), upTo)
		w.mu.Lock()
		w.damage = append(w.damage, damage...)
		w.mu.Unlock()
	}()
}

// rollOver begins a new generation, unless there is nothing in the open one.
func (w *Writer) rollOver() error {
	if w.since == 0 {
		return nil
	}
	g, err := w.store.createGeneration(w.id, w.open.generation+1)
	if err != nil {
		return err
	}
	w.open.file.Close()
	w.backlog += w.raw
	w.open, w.raw, w.since = g, 0, 0
	return nil
}

// wait waits for what is done in the background and returns its error.
// The mutex is held, and given back meanwhile.
func (w *Writer) wait(ctx context.Context) error {
	for w.flush != nil {
		f := w.flush
		w.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			w.mu.Lock()
			return ctx.Err()
		}
		w.mu.Lock()
		if w.flush == f {
			w.flush = nil
			if w.failed = f.err; f.err == nil {
				w.backlog = 0
			}
			return f.err
		}
	}
	return nil
}

// Flush makes segments of all that was appended, and returns when they are
// there.
func (w *Writer) Flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flushAll(ctx)
}

func (w *Writer) flushAll(ctx context.Context) error {
	if err := w.usable(); err != nil {
		return err
	}
	for w.flush != nil { // what it could not do is tried again
		if err := w.wait(ctx); err != nil && ctx.Err() != nil {
			return err
		}
	}
	if err := w.begin(); err != nil {
		return err
	}
	err := w.wait(ctx)
	w.failed = nil
	return err
}

// Tick is to be called every few seconds. It lets segments be made of what is
// old enough, seals when it is time, and returns what failed in the background.
func (w *Writer) Tick(ctx context.Context) error {
	w.mu.Lock()
	err := w.usable()
	if w.flush != nil {
		select {
		case <-w.flush.done:
			_ = w.wait(ctx) // failed has its error
		default:
		}
	}
	if err == nil {
		err, w.failed = w.failed, nil
	}
	o := &w.store.opts
	if err == nil && w.flush == nil && w.since != 0 && o.Now().Sub(time.Unix(0, w.since)).Abs() >= o.MaxAge {
		err = w.begin()
	}
	w.mu.Unlock()
	if err == nil {
		_, err = w.store.seal(ctx, false)
	}
	return err
}

// Damage returns where the write-ahead log was found damaged while segments
// were made of it.
func (w *Writer) Damage() []Damage {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Damage(nil), w.damage...)
}

// Close waits for what is done in the background and gives the lock back.
// What is in the write-ahead log stays there, unless only others can read it:
// then segments are made of it, because the next Writer could not.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lock == nil {
		return nil
	}
	ctx := context.Background()
	err := w.wait(ctx)
	if len(w.store.opts.Recipients) > 0 && len(w.store.opts.Identities) == 0 && w.since != 0 && w.broken == nil {
		err = errors.Join(err, w.flushAll(ctx))
	}
	err = errors.Join(err, w.open.file.Close(), w.lock.Release())
	w.lock = nil
	return err
}
