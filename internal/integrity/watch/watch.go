// Package watch tells who changes files of a baseline while it happens.
//
// The kernel reports events (fanotify(7), on whole filesystems; inotify(7)
// where that is missing), this package finds out which path and which process
// each is about, gathers them into bursts, compares each path with the baseline
// once it is quiet, and gives a Record to its caller and a finding to state.db.
//
// What runs: a source reads events and fills bursts (fanotify.go, inotify.go,
// with directories.go and processes.go); the judge takes what is due, compares
// and reports (judge.go); the ledger stores findings in few transactions
// (ledger.go); the keeper looks after mounts, new baselines and the heartbeat
// (keeper.go). Enforcement is a group of its own (enforce.go).
//
// Invariants:
//   - Everything between the source and the judge is bounded. When it is full
//     the source waits, the kernel's queue overflows, and what that may have
//     lost is found by comparing everything: an overflow is never silent.
//   - What happened while nobody watched is looked for at the start, and the
//     span is reported.
//   - Of a process only what was read while it was certainly the one is said.
//   - The lease on state.db is never held across anything but one short
//     transaction, and no lock is taken that a check or a new baseline needs.
//
// What it cannot see: writes through a shared mapping (mmap(2)) make no event
// of their own, only closing the descriptor that was open for writing does;
// writes to the block device below; what other hosts do on a network
// filesystem; what is done within a container's own overlay. Checks find the
// most of that later.
package watch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity"
)

// Options say what to watch and whom to tell.
type Options struct {
	Name    string              // of the baseline
	Report  func(*Record) error // called for one record after the other; an error ends the watch
	Warn    func(text string)   // what the operator must know of the watch itself
	Ready   func(mode Mode)     // called once when every event from now on is seen
	Alive   func()              // called every few seconds while everything goes on; may be nil
	Hook    *Hook               // a command for each record; nil: none
	Only    finding.Severity    // with Quietly: the least that is told
	Quietly bool                // do not tell what ended as it is in the baseline
	Enforce *Enforce            // nil: execution is not looked at
	Inotify bool                // do not try fanotify
	Quiet   time.Duration       // a burst ends when nothing happened for so long; 0: 0.5 s
	Longest time.Duration       // and is reported after so long in any case; 0: 5 s
	Beat    time.Duration       // how often to note that the watch is alive; 0: a minute
	Yield   bool                // give way to other processes, for good: what is compared can wait, what is read cannot
	pending int                 // bursts at most; 0: maxBursts
	first   func()              // for tests: called when everything was compared for the first time
	slow    func()              // for tests: called by the source before each reading
}

// Mode says how events come.
type Mode string

// The modes.
const (
	Fanotify Mode = "fanotify"
	Inotify  Mode = "inotify" // which tells no process
)

// RecordKind says what a record is about.
type RecordKind string

// The kinds of records.
const (
	FileRecord     RecordKind = "file"     // somebody did something to a file
	GapRecord      RecordKind = "gap"      // nobody watched for a while
	OverflowRecord RecordKind = "overflow" // the kernel's queue was full
	MountRecord    RecordKind = "mount"    // a filesystem came or went
	BaselineRecord RecordKind = "baseline" // from now on another baseline is compared with
	DeniedRecord   RecordKind = "denied"   // a program was not allowed to start, or would not be
	EnforceRecord  RecordKind = "enforce"  // enforcement began or ended
	LostRecord     RecordKind = "lost"     // records were not given to the command, or findings not stored
)

// Verdict says what a file is when its burst is over, beside the baseline.
type Verdict string

// The verdicts.
const (
	Added      Verdict = "added"
	Changed    Verdict = "changed"
	Removed    Verdict = "removed"
	Moved      Verdict = "moved"      // it has the content of a file of the baseline that is no longer in its place
	Departed   Verdict = "departed"   // its content was moved to where the record with Moved says
	Same       Verdict = "same"       // as in the baseline
	Transient  Verdict = "transient"  // came and went, and the baseline never had it
	Unreadable Verdict = "unreadable" // or it kept changing
)

// Record is what is told about one burst of events, or about the watch itself.
type Record struct {
	Kind       RecordKind
	Time       time.Time // when it was told
	Severity   finding.Severity
	Path       []byte // below the tree; of a mount: where
	From       []byte // of what was renamed or moved: its former path, when that is covered
	First      time.Time
	Last       time.Time
	Action     string // "created", "changed", "attributes", "renamed", "removed", "found"; of enforcement: see there
	Counts     Counts
	Process    *Process // nil: not known, as in inotify mode
	Verdict    Verdict
	Attributes []integrity.Attribute
	Since      time.Time // of gap and overflow: the span in which something may have been missed
	Until      time.Time
	Clean      bool // of a gap: the watch before it ended in an orderly way
	Found      int  // of gap, overflow and mount: how many changes were found in it
	Text       string
}

// Attention tells whether a record is news: not what ended as it was.
func (r *Record) Attention() bool {
	switch r.Kind {
	case FileRecord:
		return r.Verdict != Same && r.Verdict != Transient && r.Verdict != Departed
	case GapRecord:
		return !r.Clean || r.Found > 0
	case MountRecord:
		return r.Found > 0
	case BaselineRecord, EnforceRecord:
		return false
	}
	return true
}

// Summary is what a watch did.
type Summary struct {
	Mode       Mode
	Started    time.Time
	Ended      time.Time
	Events     int64    // read from the kernel
	Records    int64    // told
	Changes    int64    // of them, those that differ from the baseline
	Denied     int64    // executions denied, or that would have been
	Overflows  int64    // of the kernel's queue
	Incomplete []string // why not everything was watched
}

// Watcher is a running watch.
type watcher struct {
	engine   *integrity.Engine
	o        Options
	opened   *integrity.Opened                // of the judge
	shown    atomic.Pointer[integrity.Opened] // the same for the others, who only ask its policy
	bursts   *bursts
	ledger   *ledger
	source   source
	hook     *hookQueue
	asks     asks
	enforcer *enforcer // nil: none
	before   heartbeat // of the watch before

	events   atomic.Int64
	lastRead atomic.Int64 // unix nanoseconds: when the source last caught up

	mu      sync.Mutex // of what follows
	sum     Summary
	warned  map[string]bool
	failed  error
	stop    context.CancelFunc
	telling sync.Mutex // Report is called by one at a time
}

// source reads events until it is closed.
type source interface {
	mode() Mode
	run(ctx context.Context) error
	adopt(o *integrity.Opened, t *mounts) // from now on these
	close()
}

// Run watches until ctx ends. It returns what it did also with an error.
func Run(ctx context.Context, e *integrity.Engine, o Options) (*Summary, error) {
	if o.Quiet == 0 {
		o.Quiet = 500 * time.Millisecond
	}
	if o.Longest == 0 {
		o.Longest = 5 * time.Second
	}
	if o.Beat == 0 {
		o.Beat = time.Minute
	}
	if o.pending == 0 {
		o.pending = maxBursts
	}
	opened, err := e.OpenCurrent(ctx, o.Name)
	if err != nil {
		return nil, err
	}
	defer func() { opened.Close() }()
	lock, err := e.Store.Lock(integrity.WatchLock(opened.Entry.Name), "integrity watch")
	if err != nil {
		return nil, err
	}
	defer lock.Release()

	if o.Yield && o.Enforce == nil { // who waits for an answer must not wait for others
		yield()
	}
	w := &watcher{engine: e, o: o, opened: opened, warned: map[string]bool{}, bursts: newBursts(o.Quiet, o.Longest, o.pending)}
	w.asks.init()
	w.shown.Store(opened)
	w.sum.Started = time.Now()
	if w.before, err = loadHeartbeat(ctx, e.Store, opened.Entry.Name); err != nil {
		return nil, err
	}
	w.ledger = newLedger(e.Store, opened.Entry.Name)
	if err := w.ledger.load(ctx); err != nil {
		return nil, err
	}
	table, err := readMounts(opened)
	if err != nil {
		return nil, err
	}
	if err := w.begin(table); err != nil {
		return nil, err
	}
	defer w.source.close()
	w.sum.Mode = w.source.mode()
	err = w.work(ctx, table)
	opened = w.opened // it may be another one by now
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sum.Ended, w.sum.Events = time.Now(), w.events.Load()
	sum := w.sum
	return &sum, errors.Join(err, w.failed)
}

// begin makes the source: fanotify where it can be had.
func (w *watcher) begin(t *mounts) error {
	if !w.o.Inotify {
		s, err := newFanSource(w, t)
		if err == nil {
			w.source = s
			return nil
		}
		if w.o.Enforce != nil {
			return failure.Errorf(failure.NotAllowed, "enforcement needs fanotify: %w", err)
		}
		w.warn("fanotify cannot be used (%v): watching with inotify, which CANNOT TELL WHICH PROCESS made a change", err)
	}
	s, err := newInoSource(w, t)
	if err != nil {
		return err
	}
	w.source = s
	return nil
}

// work runs the parts of the watch until ctx ends or one of them fails.
func (w *watcher) work(ctx context.Context, table *mounts) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w.stop = stop
	var source, rest sync.WaitGroup
	if w.o.Hook != nil {
		w.hook = newHookQueue(w.o.Hook, w)
		rest.Go(w.hook.run)
	}
	source.Go(func() { w.fail(w.source.run(ctx)) })
	if w.o.Enforce != nil {
		var err error
		if w.enforcer, err = newEnforcer(w, table); err != nil {
			stop()
			w.source.close()
			source.Wait()
			if w.hook != nil {
				w.hook.close()
			}
			rest.Wait()
			return err
		}
		source.Go(w.enforcer.run)
		// Whoever ends the watch is not kept waiting for programs by a reader of
		// the records who does not read.
		defer context.AfterFunc(ctx, func() { w.enforcer.finish("the watch ended") })()
	}
	ledgerDone := make(chan struct{})
	rest.Go(func() { w.ledger.run(ledgerDone, w) })
	defer context.AfterFunc(ctx, w.ledger.close)() // from then on nobody waits for room in it
	source.Go(func() { w.keep(ctx, table) })
	if w.o.Ready != nil {
		w.o.Ready(w.source.mode())
	}
	w.judge(ctx)
	w.source.close()
	if w.enforcer != nil {
		w.enforcer.close("the watch ended")
	}
	source.Wait()
	w.settle(context.WithoutCancel(ctx))
	close(ledgerDone)
	if w.hook != nil {
		w.hook.close()
	}
	rest.Wait()
	return w.end(context.WithoutCancel(ctx))
}

// fail ends the watch with an error.
func (w *watcher) fail(err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	if w.failed == nil && !errors.Is(err, context.Canceled) {
		w.failed = err
	}
	w.mu.Unlock()
	w.stop()
}

// warn tells the operator something about the watch itself, once.
func (w *watcher) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.mu.Lock()
	known := w.warned[text]
	w.warned[text] = true
	w.mu.Unlock()
	if !known && w.o.Warn != nil {
		w.o.Warn(text)
	}
}

// incomplete notes that not everything is watched, and says so, once.
func (w *watcher) incomplete(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.mu.Lock()
	known := w.warned[text]
	if !known && len(w.sum.Incomplete) < 100 {
		w.sum.Incomplete = append(w.sum.Incomplete, text)
	}
	w.mu.Unlock()
	w.warn("%s", text)
}

// tell gives a record to whoever wants it.
func (w *watcher) tell(r *Record) {
	r.Time = time.Now()
	w.mu.Lock()
	switch r.Kind {
	case FileRecord:
		if r.Attention() {
			w.sum.Changes++
		}
	case DeniedRecord:
		w.sum.Denied++
	case OverflowRecord:
		w.sum.Overflows++
	}
	w.mu.Unlock()
	if w.o.Quietly && (!r.Attention() || r.Severity < w.o.Only) {
		return
	}
	w.mu.Lock()
	w.sum.Records++
	w.mu.Unlock()
	w.telling.Lock()
	err := w.o.Report(r)
	w.telling.Unlock()
	w.fail(err)
	if w.hook != nil && r.Kind != LostRecord {
		w.hook.put(r)
	}
}
