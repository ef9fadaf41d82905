package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/journal"
)

// journald reads the files of systemd's journal. Its cursor is a
// journal.Position: how far each file was read.
type journald struct {
	c    *Collector
	spec *spec
	meter
	dirs   []string
	key    string
	cur    journalCursor
	set    *journal.Set
	opened atomic.Bool
	fresh  bool          // nothing was read since the position was restored
	idle   chan struct{} // one value when a turn came to the end: set is free
}

type journalCursor struct {
	Version  int    `json:"v"`
	Position string `json:"position"`
	// Number and Numbered are the sequence number of the last entry and who
	// gave it, to see when entries went away before they were read.
	Number   uint64 `json:"number,omitempty"`
	Numbered string `json:"numbered,omitempty"`
}

func newJournald(c *Collector, s *spec, cursor []byte) (*journald, error) {
	j := &journald{c: c, spec: s, key: "journal:" + strings.Join(s.Include, ":"), dirs: s.Include, idle: make(chan struct{}, 1)}
	j.status.Kind = Journal
	j.place(s.Name, journal.Format, strings.Join(s.Include, ", "), "")
	j.formatted(journal.Format)
	if cursor == nil {
		return j, nil
	}
	if err := decodeCursor(cursor, &j.cur); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if j.cur.Version != cursorVersion || j.cur.Position == "" {
		return nil, fmt.Errorf("journal: %w", ErrCursor)
	}
	return j, nil
}

func (j *journald) packed() bool { return false }

func (j *journald) open() error {
	if j.set != nil {
		return nil
	}
	var paths []string
	for _, d := range j.dirs {
		if _, err := j.c.tree.stat(d); err == nil {
			paths = append(paths, j.c.tree.outside(d))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if len(paths) == 0 {
		return fmt.Errorf("there is no journal in %s", strings.Join(j.dirs, " or "))
	}
	set, err := journal.Open(journal.Options{KeepAll: true, Namespaces: true, Report: func(err error) {
		j.c.report(problem(j.spec.Name, strings.Join(j.dirs, ", "), err.Error(), false))
	}}, paths...)
	if err != nil {
		return err
	}
	switch since := j.c.opts.Since; {
	case j.cur.Position != "":
		if err := set.Restore(j.cur.Position); err != nil {
			set.Close()
			return fmt.Errorf("%w: %w", ErrCursor, err)
		}
		j.fresh = true
	case !since.IsZero():
		set.SeekTime(uint64(since.UnixMicro()))
	}
	j.set = set
	j.opened.Store(true)
	return nil
}

func (j *journald) turn() bool {
	if err := j.open(); err != nil {
		j.trouble(err.Error())
		return false
	}
	more, err := j.read()
	if err != nil {
		j.trouble(err.Error())
		return false
	}
	j.trouble("")
	if !more && j.c.following {
		select {
		case j.idle <- struct{}{}:
		default:
		}
	}
	return more
}

func (j *journald) read() (more bool, err error) {
	var recs []event.Record
	total := 0
	for total < turnBytes {
		e, err := j.set.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
		j.number(e)
		rec, err := e.Record()
		if err != nil {
			j.trouble(err.Error()) // it was reported, and the rest of the entry is there
		}
		recs = append(recs, rec)
		total += len(rec.Raw)
	}
	if len(recs) == 0 {
		return false, nil
	}
	j.cur.Version, j.cur.Position = cursorVersion, j.set.Position()
	j.c.out.add(&j.meter, total, Batch{Key: j.key, Origin: event.Origin{Source: journal.Format, Format: journal.Format, Host: j.c.opts.Host}, Records: recs, Cursor: encodeCursor(&j.cur)})
	return total >= turnBytes, nil
}

// number looks at the sequence number of the first entry after a restart.
func (j *journald) number(e *journal.Entry) {
	id := e.SeqnumID.String()
	if j.fresh && j.cur.Numbered == id && e.Seqnum > j.cur.Number+1 {
		lost := int64(e.Seqnum - j.cur.Number - 1)
		j.c.gap(&j.meter, Gap{Source: journal.Format, Time: j.c.now(), Records: lost,
			Reason: fmt.Sprintf("%d entries of the journal went away before they were read (let it keep more: SystemMaxUse= in journald.conf)", lost)})
	}
	j.fresh = false
	j.cur.Number, j.cur.Numbered = e.Seqnum, id
}

// follow queues the journal whenever it has more, until the context ends. The
// set belongs to whoever has the value from idle, or to the turn.
func (j *journald) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.idle:
		}
		if err := j.set.Wait(ctx); err != nil && ctx.Err() == nil {
			j.trouble(err.Error())
			return
		}
		j.c.queue.put(j)
	}
}

func (j *journald) close() {
	if j.set != nil {
		j.set.Close()
	}
}
