package logs

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/journal"
	"github.com/mobileops/mobileops/internal/logs/query"
)

// JournalOptions say which journals are searched.
type JournalOptions struct {
	Paths  []string // files, and directories of them
	Follow bool     // go on with what is written until the context ends
	// KeepAll finds also what journalctl leaves out where files disagree about
	// the order of entries.
	KeepAll bool
}

// SearchJournal searches files and directories of the systemd journal as
// Search searches the store.
func SearchJournal(ctx context.Context, j JournalOptions, o Options, emit func(Match) error) (r Report, err error) {
	set, err := journal.Open(journal.Options{KeepAll: j.KeepAll, Report: func(err error) {
		name := "the journal"
		var bad *journal.CorruptError
		if errors.As(err, &bad) {
			name = bad.File
		}
		r.Problems = append(r.Problems, Problem{name, err})
	}}, j.Paths...)
	if err != nil {
		return r, err
	}
	defer set.Close()
	if len(set.Files()) == 0 && len(r.Problems) == 0 && !j.Follow {
		return r, failure.Errorf(failure.NotReady, "there is no journal in %s", strings.Join(j.Paths, ", "))
	}
	fill := journal.Fill
	if o.Fill != nil {
		fill = o.Fill(JournalFormat)
	}
	t := taker{opts: &o, report: &r, emit: emit, eval: o.Query.NewEvaluator(), fill: fill}
	t.begin()
	so := journal.SearchOptions{Need: o.Query.Need(), Follow: j.Follow}
	if o.Since > 0 {
		so.Since = o.Since
	}
	if o.Until != math.MaxInt64 {
		so.Until = o.Until
	}
	origin := event.Origin{Source: "journal", Format: JournalFormat}
	if so.Need.Exact && (o.CountOnly || t.kind == query.CountTotal && t.pipe != nil) && wordless(so.Need) {
		n, err := set.Count(ctx, so)
		r.Matches = int64(n)
		if t.pipe != nil {
			t.pipe.AddCount(0, r.Matches)
		}
		return r, t.end(err)
	}
	around := o.Before+o.After > 0
	if around {
		so.Need.Clauses, so.Need.Exact = nil, false // entries that do not match are wanted, too
	}
	var ev event.Event
	var raw []byte
	err = set.Search(ctx, so, func(e *journal.Entry) error {
		var err error
		if raw, err = e.AppendRecord(raw[:0]); err != nil {
			return nil // reported; the rest of the entry is not to be trusted
		}
		ev = event.Event{Record: event.Record{Time: e.Time(), Clock: event.ClockExact, Raw: raw}, Origin: &origin, Text: journal.Text(raw), Fill: fill}
		return t.event(&ev)
	})
	return r, t.end(err)
}

// AppendExport appends an event in the journal's export format
// (https://systemd.io/JOURNAL_EXPORT_FORMATS): that of a journal as it was,
// others with the fields that say the same.
func AppendExport(dst []byte, e *event.Event) []byte {
	if e.Origin.Format == JournalFormat {
		if out, ok := journal.AppendRecordExport(dst, e.Raw, journal.ExportClassic); ok {
			return out
		}
	}
	e.Parsed()
	p := journal.Parsed{Realtime: uint64(max(e.Time, 0)) / 1000}
	add := func(name string, value []byte) {
		if len(value) > 0 {
			p.Fields = append(p.Fields, event.Field{Name: name, Value: value})
		}
	}
	add("MESSAGE", e.Message)
	if e.Severity < event.NoSeverity {
		add("PRIORITY", []byte{'0' + byte(e.Severity)})
	}
	add("_HOSTNAME", []byte(e.Host))
	add("SYSLOG_IDENTIFIER", []byte(e.Program))
	if e.PID != 0 {
		add("SYSLOG_PID", strconv.AppendInt(nil, e.PID, 10))
	}
	add("UNIT", []byte(e.Unit))
	add("MOBILEOPS_USER", []byte(e.User))
	add("MOBILEOPS_SOURCE", []byte(e.Origin.Source))
	add("MOBILEOPS_RAW", e.Raw)
	return p.AppendExport(dst, journal.ExportClassic)
}
