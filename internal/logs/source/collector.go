package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/format"
)

// Collector reads sources and hands what it finds to a Sink. Once and Follow
// are called one at a time; Status and Problems at any time. Only one
// Collector at a time may collect into a Sink: two would read everything twice.
type Collector struct {
	opts    Options
	sink    Sink
	specs   []*spec
	formats formats

	// Set by start, for one Once or Follow.
	tree      *tree
	queue     *queue
	out       *outbox
	following bool
	again     chan struct{} // a look at all sources is due
	later     atomic.Bool   // and one after a while
	open      atomic.Int64  // files held open
	shadows   map[inode]shadow
	names     containers
	deaf      bool // there is no inotify

	mu       sync.Mutex       // taken with that of a file held, never the other way round
	files    map[string]*file // by key
	byPath   map[string]*file
	empty    map[string]bool // paths of files without content
	others   []other
	problems []Problem // of the last look
	reported []Problem // of what is read; the last maxReported
	gaps     []Gap     // the last maxReported
	problemN int
}

// other is an instance that is not a file.
type other interface {
	instance
	snapshot() (Status, bool)
	close()
}

const maxReported = 1000

// New returns a collector of the logs of specs. Formats are looked up in set;
// nil: those that come with the program. An error of kind Usage says what is
// wrong with a spec.
func New(specs []Spec, set *format.Set, sink Sink, opts Options) (*Collector, error) {
	opts.fill()
	c := &Collector{opts: opts, sink: sink}
	if set == nil {
		var err error
		if set, err = format.Builtin(); err != nil {
			return nil, err
		}
	}
	c.formats = formats{set, &c.opts}
	names := map[string]bool{}
	for _, s := range specs {
		if names[s.Name] {
			return nil, failure.Errorf(failure.Usage, "two sources are named %q", s.Name)
		}
		names[s.Name] = true
		switch s.Kind {
		case Files, Journal, Kmsg, Utmp, Lastlog:
		default:
			return nil, failure.Errorf(failure.Usage, "source %s: there is no kind %q", s.Name, s.Kind)
		}
		if len(s.Include) == 0 {
			return nil, failure.Errorf(failure.Usage, "source %s includes no path", s.Name)
		}
		sp, err := compileSpec(s)
		if err == nil {
			err = c.formats.check(&s)
		}
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", s.Name, err)
		}
		c.specs = append(c.specs, sp)
	}
	return c, nil
}

// Report is what Once did.
type Report struct {
	Records  int64     `json:"records"`
	Bytes    int64     `json:"bytes"`
	Sources  []Status  `json:"sources"`
	Problems []Problem `json:"problems"`
	Gaps     []Gap     `json:"gaps"`
}

// Incomplete reports whether something that was to be read was not.
func (r *Report) Incomplete() bool {
	return len(r.Gaps) > 0 || slices.ContainsFunc(r.Problems, func(p Problem) bool { return !p.Skipped })
}

// passes is how often Once looks again because files changed their places
// under its eyes.
const passes = 20

// Once reads everything that is there now to its end. A last line without its
// newline is waited for, up to Options.Idle. The report is right also with an
// error: of what was kept until then.
func (c *Collector) Once(ctx context.Context) (Report, error) {
	err := c.run(ctx, false, c.once)
	return c.summary(), err
}

func (c *Collector) once(ctx context.Context) error {
	for pass := 0; ; pass++ {
		c.look()
		if pass == 0 {
			c.poll()
		}
		if err := c.queue.drained(ctx); err != nil {
			return err
		}
		again, later := c.wanted(), c.later.Swap(false)
		if c.out.failed() != nil || pass == passes || !again && !later {
			break
		}
		if err := pause(ctx, shortPause); err != nil {
			return err
		}
	}
	// What is left are lines that are not finished yet.
	for end := time.Now().Add(2 * c.opts.Idle); time.Now().Before(end) && c.out.failed() == nil; {
		left, due := c.unfinished()
		if len(left) == 0 {
			break
		}
		if err := pause(ctx, max(due.Sub(c.now()), time.Millisecond)); err != nil {
			return err
		}
		for _, t := range left {
			c.queue.put(t)
		}
		if err := c.queue.drained(ctx); err != nil {
			return err
		}
	}
	return c.out.flushed()
}

// goWait runs fn, and returns what waits for its end.
func goWait(fn func()) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	return func() { <-done }
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// run does work with readers and the sink around it.
func (c *Collector) run(ctx context.Context, following bool, work func(context.Context) error) error {
	if err := c.start(ctx, following); err != nil {
		return err
	}
	defer c.finish()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	sent := goWait(func() {
		if failed = c.out.run(ctx); failed != nil {
			c.queue.stop()
			c.lookAgain()
		}
	})
	var reading sync.WaitGroup
	for range readers {
		reading.Go(func() {
			for {
				i := c.queue.next()
				if i == nil {
					return
				}
				more := c.out.room() && i.turn()
				c.queue.done(i, more)
			}
		})
	}
	err := work(ctx)
	if err != nil || following {
		cancel()
	}
	c.queue.stop()
	c.out.close()
	reading.Wait()
	sent()
	if failed != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = failed
	}
	return err
}

// start reads the cursors and opens the root.
func (c *Collector) start(ctx context.Context, following bool) error {
	kept, err := c.sink.Cursors(ctx)
	if err != nil {
		return err
	}
	t, err := newTree(c.opts.Root)
	if err != nil {
		return err
	}
	delay := time.Duration(0)
	if following {
		delay = c.opts.Flush
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tree, c.queue, c.out, c.following = t, newQueue(), newOutbox(c.sink, delay, following), following
	c.again, c.shadows, c.names = make(chan struct{}, 1), map[inode]shadow{}, containers{tree: t}
	c.files, c.byPath, c.others = map[string]*file{}, map[string]*file{}, nil
	c.problems, c.reported, c.gaps = nil, nil, nil
	for _, key := range slices.Sorted(maps.Keys(kept)) {
		if !strings.HasPrefix(key, fileKey) {
			continue
		}
		cur, err := decodeFileCursor(kept[key])
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		f := &file{c: c, key: key, cur: *cur}
		f.status.Kind = Files
		c.files[key] = f
	}
	for _, s := range c.specs {
		if err := c.addOthers(s, kept); err != nil {
			return err
		}
	}
	return nil
}

// addOthers makes the instances of a spec that are not files. c.mu is held.
func (c *Collector) addOthers(s *spec, kept map[string][]byte) error {
	switch s.Kind {
	case Journal:
		j, err := newJournald(c, s, kept["journal:"+strings.Join(s.Include, ":")])
		if err != nil {
			return err
		}
		c.others = append(c.others, j)
	case Kmsg:
		for _, p := range s.Include {
			k, err := newKmsg(c, s, p, kept["kmsg:"+p])
			if err != nil {
				return err
			}
			c.others = append(c.others, k)
		}
	case Lastlog:
		for _, p := range s.Include {
			l, err := newLastlog(c, s, p, kept["lastlog:"+p])
			if err != nil {
				return err
			}
			c.others = append(c.others, l)
		}
	}
	return nil
}

// finish closes what start and the readers opened. Status still works.
func (c *Collector) finish() {
	for _, t := range c.known() {
		t.mu.Lock()
		t.close()
		t.mu.Unlock()
	}
	for _, o := range c.others {
		o.close()
	}
	c.tree.close()
}

// look looks at all sources of files, and returns the directories whose
// changes make another look worth while.
func (c *Collector) look() map[string]bool {
	c.wanted()
	s := look(c.tree, c.specs)
	c.resolve(s)
	byPath, empty := map[string]*file{}, map[string]bool{}
	for _, t := range c.known() {
		t.mu.Lock()
		if t.spec != nil && !t.cur.Detached && t.cur.Gone == 0 {
			byPath[t.cur.Path] = t
		}
		t.mu.Unlock()
	}
	for _, cand := range s.found {
		if cand.size == 0 {
			empty[cand.path] = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems, c.byPath, c.empty = s.problems, byPath, empty
	return s.dirs
}

// poll queues what is not announced and not looked at.
func (c *Collector) poll() {
	for _, o := range c.others {
		if j, ok := o.(*journald); ok && j.opened.Load() {
			continue // it tells by itself
		}
		c.queue.put(o)
	}
}

// unfinished returns the files with a last line that is not finished, and when
// the first of them is taken as it is.
func (c *Collector) unfinished() (list []*file, due time.Time) {
	for _, t := range c.known() {
		t.mu.Lock()
		if !t.due.IsZero() {
			list = append(list, t)
			if due.IsZero() || t.due.Before(due) {
				due = t.due
			}
		}
		t.mu.Unlock()
	}
	return list, due
}

func (t *file) isDue(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.due.IsZero() && !t.due.After(now)
}

// lookAgain asks for another look at all sources. It never blocks.
func (c *Collector) lookAgain() {
	select {
	case c.again <- struct{}{}:
	default:
	}
}

// lookLater asks for one after a while.
func (c *Collector) lookLater() { c.later.Store(true) }

// wanted reports whether a look was asked for.
func (c *Collector) wanted() bool {
	select {
	case <-c.again:
		return true
	default:
		return false
	}
}

// changed says that a file was written to.
func (c *Collector) changed(path string) {
	c.mu.Lock()
	t, empty := c.byPath[path], c.empty[path]
	c.mu.Unlock()
	switch {
	case t != nil:
		c.queue.put(t)
	case empty:
		c.lookAgain()
	}
}

func (c *Collector) now() time.Time { return c.opts.Now() }

func (c *Collector) opened(*file) { c.open.Add(1) }
func (c *Collector) closed(*file) { c.open.Add(-1) }

// known returns the files that are known.
func (c *Collector) known() []*file {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*file, 0, len(c.files))
	for _, t := range c.files {
		list = append(list, t)
	}
	return list
}

// newFile makes what is known of a file that was not known.
func (c *Collector) newFile(v *view) *file {
	t := &file{c: c, key: newFileKey()}
	t.cur = fileCursor{Path: v.path, Dev: v.dev, Ino: v.ino, Born: v.born, Head: fingerprintOf(v.head), Tail: fingerprintOf(nil), Packed: v.packed}
	if !c.opts.Since.IsZero() {
		t.cur.Since = c.opts.Since.UnixNano()
	}
	if v.packed == "" {
		t.head = slices.Clone(v.head)
	}
	t.status.Kind = v.spec.Kind
	t.spec = v.spec
	t.origin.Source = c.sourceName(v.candidate)
	t.origin.Host = c.opts.Host
	return t
}

func (c *Collector) remember(t *file) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[t.key] = t
}

// forget drops what is known of a file, and its cursor if it has one. t.mu is
// held.
func (c *Collector) forget(t *file, kept bool) {
	if kept {
		c.out.add(&t.meter, 0, Batch{Key: t.key, Origin: t.origin})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.files, t.key)
}

func (c *Collector) report(p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.problemN++; len(c.reported) < maxReported {
		c.reported = append(c.reported, p)
	}
}

func (c *Collector) gap(m *meter, g Gap) {
	m.lose(g)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.gaps) < maxReported {
		c.gaps = append(c.gaps, g)
	}
}
