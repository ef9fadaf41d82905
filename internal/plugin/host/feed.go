package host

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// How events are read.
const (
	readEvents = 4096    // of each kind under one lease
	readBytes  = 2 << 20 // of each kind under one lease

	pollLeast = 250 * time.Millisecond // between looks at state.db
	pollMost  = 2 * time.Second        // when nothing has happened for a while
	pollIdle  = 20                     // looks without news before there are fewer of them
	settle    = 100 * time.Millisecond // two changes of a file within it can have the same time
	retryMost = 30 * time.Second       // between attempts to read a state that cannot be read
)

// kinds say which events are wanted.
type kinds struct{ findings, audit bool }

// queued is an event and the position behind it.
type queued struct {
	Event
	behind position
}

// feed reads events in their order. It holds no lease between calls.
type feed struct {
	store  Store
	kinds  kinds
	filter func(*Event) bool // nil: all
	failed func(error)
	passed func() // called when everything that was read was filtered out; nil: nobody

	at    position // behind everything that was read
	queue []queued
	poll  poll
}

// start returns where a reader begins, and writes it down where that must not
// be forgotten: who begins now and dies before its first batch is to go on
// from here.
func start(ctx context.Context, store Store, name, from string) (p position, err error) {
	known := false
	if from != "now" && from != "oldest" {
		err := store.View(ctx, func(tx *state.Tx) (err error) {
			p, known, err = loadCursor(tx, name)
			return err
		})
		if err != nil || known {
			return p, err
		}
	}
	return p, store.Update(ctx, func(tx *state.Tx) (err error) {
		if p, err = ends(tx); err != nil {
			return err
		}
		if from == "oldest" {
			first, _, err := finding.LogRange(tx)
			if err != nil {
				return err
			}
			p = position{findings: max(first, 1) - 1}
		}
		return saveCursor(tx, name, p)
	})
}

// ends returns the position behind everything.
func ends(tx *state.Tx) (p position, err error) {
	if _, p.findings, err = finding.LogRange(tx); err == nil {
		p.audit, err = audit.Last(tx)
	}
	return p, err
}

// wait returns when there is an event in the queue. Its error is that of the
// context.
func (f *feed) wait(ctx context.Context) error {
	retry := pollLeast
	for len(f.queue) == 0 {
		before := f.at
		f.poll.look(f.store.Path())
		err := f.fill(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			f.failed(err)
			if err := sleep(ctx, retry); err != nil {
				return err
			}
			retry = min(2*retry, retryMost)
		case len(f.queue) == 0 && f.at != before:
			if f.passed != nil {
				f.passed()
			}
		case len(f.queue) == 0:
			if err := f.poll.wait(ctx, f.store.Path()); err != nil {
				return err
			}
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// fill reads on under one short lease.
func (f *feed) fill(ctx context.Context) error {
	var changes []finding.LogEntry
	var records []audit.Record
	var lost [2]uint64 // changes, records
	var end, from position
	err := f.store.View(ctx, func(tx *state.Tx) (err error) {
		if end, err = ends(tx); err != nil {
			return err
		}
		from = f.at
		if f.kinds.findings {
			if from.findings, lost[0], err = rewound(f.at.findings, end.findings); err != nil {
				return err
			}
			gone := uint64(0)
			if changes, gone, err = finding.Changes(tx, from.findings, readEvents, readBytes); err != nil {
				return err
			}
			from.findings += gone
			lost[0] += gone
		}
		if f.kinds.audit {
			if from.audit, lost[1], err = rewound(f.at.audit, end.audit); err != nil {
				return err
			}
			if records, err = audit.Since(tx, from.audit, readEvents, readBytes); err != nil {
				return err
			}
			if len(records) > 0 {
				gone := records[0].Sequence - from.audit - 1
				from.audit += gone
				lost[1] += gone
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n := lost[0] + lost[1]; n > 0 || from != f.at {
		e := gapEvent(f.at, n)
		f.at = from
		f.queue = append(f.queue, queued{e, f.at})
	}
	f.merge(changes, records, end)
	return nil
}

// rewound returns where to read on when the state was put back to one that
// ends before at. What was read and is no more counts as lost.
func rewound(at, end uint64) (from, lost uint64, err error) {
	if at > end {
		return end, at - end, nil
	}
	return at, 0, nil
}

// merge puts what was read into the queue, by time. When one kind has more
// that was not read, the other one waits for it.
func (f *feed) merge(changes []finding.LogEntry, records []audit.Record, end position) {
	f.queue = growQueue(f.queue, len(changes)+len(records))
	for {
		moreChanges := f.kinds.findings && f.at.findings < end.findings
		moreRecords := f.kinds.audit && f.at.audit < end.audit
		if len(changes) == 0 && moreChanges || len(records) == 0 && moreRecords || !moreChanges && !moreRecords {
			return
		}
		var e Event
		if moreChanges && (!moreRecords || !changes[0].At.After(records[0].Time)) {
			e = findingEvent(&changes[0])
			f.at.findings = changes[0].Sequence
			changes = changes[1:]
		} else {
			e = auditEvent(&records[0])
			f.at.audit = records[0].Sequence
			records = records[1:]
		}
		if f.filter == nil || f.filter(&e) {
			f.queue = append(f.queue, queued{e, f.at})
		}
	}
}

func growQueue(queue []queued, n int) []queued {
	return append(make([]queued, 0, len(queue)+n), queue...)
}

// poll notices that state.db was written to, without opening it.
type poll struct {
	seen  stamp
	doubt bool // seen is so fresh that a further change may look the same
	still int  // looks without news
}

// stamp is what changes when a file is written to or replaced.
type stamp struct {
	ino          uint64
	size         int64
	mtime, ctime int64
}

func stampOf(path string) (s stamp, changed time.Time) {
	fi, err := os.Stat(path)
	if err != nil { // there is none yet
		return s, changed
	}
	st := fi.Sys().(*syscall.Stat_t)
	return stamp{st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, time.Unix(st.Mtim.Unix())
}

// look notes how the file is before it is read.
func (p *poll) look(path string) {
	s, changed := stampOf(path)
	if s != p.seen {
		p.still = 0
	}
	p.seen, p.doubt = s, time.Since(changed) < settle
}

// wait returns when the file is no longer as look saw it, or might be.
func (p *poll) wait(ctx context.Context, path string) error {
	for {
		every := pollLeast
		if p.still > pollIdle {
			every = min(pollLeast<<min(p.still-pollIdle, 8), pollMost)
		}
		if err := sleep(ctx, every); err != nil {
			return err
		}
		p.still++
		if s, _ := stampOf(path); s != p.seen || p.doubt {
			return nil
		}
	}
}
