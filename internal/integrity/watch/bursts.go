package watch

import (
	"slices"
	"sync"
	"time"
)

// maxBursts is how many bursts wait at most. Then the source waits, and the
// kernel keeps the events until its own queue is full.
const maxBursts = 1 << 16

// Counts are the events of a burst, as the kernel reports them: equal ones that
// wait in its queue are merged, so these are lower bounds.
type Counts struct {
	Created     int `json:"created,omitempty"`
	Modified    int `json:"modified,omitempty"`
	Closed      int `json:"closed,omitempty"` // after it had been open for writing
	Attributes  int `json:"attributes,omitempty"`
	RenamedFrom int `json:"renamed_from,omitempty"`
	RenamedTo   int `json:"renamed_to,omitempty"`
	Removed     int `json:"removed,omitempty"`
}

func (c *Counts) add(d Counts) {
	c.Created += d.Created
	c.Modified += d.Modified
	c.Closed += d.Closed
	c.Attributes += d.Attributes
	c.RenamedFrom += d.RenamedFrom
	c.RenamedTo += d.RenamedTo
	c.Removed += d.Removed
}

// action says in a word what the events did together.
func (c *Counts) action() string {
	switch {
	case c.RenamedTo > 0:
		return "renamed"
	case c.Created > 0:
		return "created"
	case c.Removed > 0, c.RenamedFrom > 0:
		return "removed"
	case c.Modified > 0, c.Closed > 0:
		return "changed"
	case c.Attributes > 0:
		return "attributes"
	}
	return "found"
}

// burst is what one process did to one path within a short time.
type burst struct {
	path   []byte // below the tree
	from   []byte // its former path, when it was renamed from a covered one
	proc   *Process
	first  time.Time
	last   time.Time
	counts Counts
	tree   bool // it is a directory that came or went with all that is in it
}

type burstKey struct {
	path string
	proc *Process
}

// bursts gathers events until they are due.
type bursts struct {
	quiet, longest time.Duration
	limit          int
	wake           chan struct{} // there is something where there was nothing

	mu   sync.Mutex
	room sync.Cond
	m    map[burstKey]*burst
	shut bool
}

func newBursts(quiet, longest time.Duration, limit int) *bursts {
	b := &bursts{quiet: quiet, longest: longest, limit: limit, wake: make(chan struct{}, 1), m: map[burstKey]*burst{}}
	b.room.L = &b.mu
	return b
}

// note adds an event. It waits while there is no room, unless the judge itself
// calls it.
func (b *bursts) note(n burst, wait bool) {
	key := burstKey{string(n.path), n.proc.same()}
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.m[key]
	for known == nil && wait && len(b.m) >= b.limit && !b.shut {
		b.room.Wait()
		known = b.m[key]
	}
	if known == nil {
		if n.first.IsZero() {
			n.first = n.last
		}
		b.m[key] = &n
		if len(b.m) == 1 || len(b.m) == b.limit {
			b.ring()
		}
		return
	}
	known.counts.add(n.counts)
	known.last = n.last
	known.tree = known.tree || n.tree
	if n.from != nil {
		known.from = n.from
	}
}

func (b *bursts) ring() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take returns bursts that are due, at most max, and how many are left. What was
// renamed comes with what was done to its former path. With all, everything is
// due.
func (b *bursts) take(now time.Time, max int, all bool) (due []*burst, left int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	crowded := len(b.m) >= b.limit/2
	var partners map[string]bool
	for key, x := range b.m {
		if len(due) >= max {
			break
		}
		if all || crowded || now.Sub(x.last) >= b.quiet || now.Sub(x.first) >= b.longest {
			due = append(due, x)
			delete(b.m, key)
			if x.from != nil {
				if partners == nil {
					partners = map[string]bool{}
				}
				partners[string(x.from)] = true
			}
		}
	}
	if partners != nil {
		for key, x := range b.m {
			if partners[key.path] {
				due = append(due, x)
				delete(b.m, key)
			}
		}
	}
	b.room.Broadcast()
	slices.SortFunc(due, func(x, y *burst) int { return x.last.Compare(y.last) })
	return due, len(b.m)
}

// paths returns what waits.
func (b *bursts) paths() map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]bool, len(b.m))
	for key := range b.m {
		out[key.path] = true
	}
	return out
}

// close lets nobody wait any more.
func (b *bursts) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shut = true
	b.room.Broadcast()
}

// ask is something that the judge is to do beside looking at bursts.
type ask struct {
	below  []byte // compare everything below this directory
	reason RecordKind
	text   string
	since  time.Time // of an overflow
	link   *newLink  // a file got another name
	reload bool      // there is another baseline
}

// asks is a bounded list of what the judge is to do. When it is full, everything
// is compared instead.
type asks struct {
	mu   sync.Mutex
	list []ask
	all  bool // an overflow waits to be looked into
	from time.Time
	wake chan struct{}
}

const maxAsks = 256

func (a *asks) init() { a.wake = make(chan struct{}, 1) }

func (a *asks) put(x ask) {
	a.mu.Lock()
	if len(a.list) >= maxAsks && x.reason != OverflowRecord {
		x = ask{reason: OverflowRecord, since: time.Now()}
	}
	if x.reason == OverflowRecord {
		if !a.all {
			a.all, a.from = true, x.since
		}
	} else {
		a.list = append(a.list, x)
	}
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// take returns what there is to do, and since when everything is to be compared.
func (a *asks) take() (list []ask, since time.Time, all bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list, since, all = a.list, a.from, a.all
	a.list, a.all = nil, false
	return list, since, all
}
