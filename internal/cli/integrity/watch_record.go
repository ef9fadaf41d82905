package integrity

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/integrity/watch"
	"github.com/mobileops/mobileops/internal/ui"
)

const watchSchema = "mobileops.integrity.watch/v1"

// watchLine is a record of integrity watch as JSON; docs/formats/watch.md
// describes it.
type watchLine struct {
	Schema     string            `json:"schema"`
	Type       watch.RecordKind  `json:"type"`
	Time       time.Time         `json:"time"`
	Baseline   string            `json:"baseline"`
	Severity   string            `json:"severity"`
	Path       string            `json:"path,omitempty"`
	PathB64    []byte            `json:"path_b64,omitempty"`
	From       string            `json:"from,omitempty"`
	FromB64    []byte            `json:"from_b64,omitempty"`
	Action     string            `json:"action,omitempty"`
	Verdict    watch.Verdict     `json:"verdict,omitempty"`
	Attributes []attributeReport `json:"attributes,omitempty"`
	First      *time.Time        `json:"first,omitempty"`
	Last       *time.Time        `json:"last,omitempty"`
	Events     *watch.Counts     `json:"events,omitempty"`
	Process    *watchProcess     `json:"process,omitempty"`
	Since      *time.Time        `json:"since,omitempty"`
	Until      *time.Time        `json:"until,omitempty"`
	Clean      *bool             `json:"clean,omitempty"`
	Found      *int              `json:"found,omitempty"`
	Text       string            `json:"text,omitempty"`
}

// watchProcess is who did it. What is not known is left out.
type watchProcess struct {
	PID      int             `json:"pid"`
	Started  *time.Time      `json:"started,omitempty"`
	Name     string          `json:"name,omitempty"`
	Exe      string          `json:"exe,omitempty"`
	Command  []string        `json:"command,omitempty"`
	UID      *int            `json:"uid,omitempty"`
	LoginUID *int            `json:"login_uid,omitempty"`
	Cgroup   string          `json:"cgroup,omitempty"`
	Parents  []watchAncestor `json:"parents,omitempty"`
	Exited   bool            `json:"exited,omitempty"`
}

type watchAncestor struct {
	PID  int    `json:"pid"`
	Name string `json:"name"`
	Exe  string `json:"exe,omitempty"`
}

func newWatchLine(r *watch.Record, baseline string) *watchLine {
	path, from := newJSONPath(string(r.Path)), newJSONPath(string(r.From))
	l := &watchLine{
		Schema: watchSchema, Type: r.Kind, Time: r.Time.UTC(), Baseline: baseline, Severity: r.Severity.String(),
		Path: path.Path, PathB64: path.PathB64, From: from.Path, FromB64: from.PathB64,
		Action: r.Action, Verdict: r.Verdict, First: moments(r.First), Last: moments(r.Last),
		Since: moments(r.Since), Until: moments(r.Until), Text: r.Text,
	}
	if len(r.Attributes) > 0 {
		l.Attributes = attributeReports(r.Attributes)
	}
	if r.Counts != (watch.Counts{}) {
		l.Events = &r.Counts
	}
	switch r.Kind {
	case watch.GapRecord:
		l.Clean, l.Found = &r.Clean, &r.Found
	case watch.OverflowRecord, watch.MountRecord, watch.BaselineRecord, watch.LostRecord:
		l.Found = &r.Found
	}
	if p := r.Process; p != nil {
		l.Process = &watchProcess{PID: p.PID, Started: moments(p.Started), Name: p.Name, Exe: p.Exe, Command: p.Args, Cgroup: p.Cgroup, Exited: p.Exited}
		if p.UID >= 0 {
			l.Process.UID = &p.UID
		}
		if p.LoginUID >= 0 {
			l.Process.LoginUID = &p.LoginUID
		}
		for _, a := range p.Parents {
			l.Process.Parents = append(l.Process.Parents, watchAncestor(a))
		}
	}
	return l
}

func moments(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// watchPrinter prints records as they come.
type watchPrinter struct {
	s        *ui.Streams
	baseline string
	mu       sync.Mutex
	lines    *ui.Lines
	feed     *ui.Feed
}

func newWatchPrinter(s *ui.Streams, baseline string) *watchPrinter {
	return &watchPrinter{s: s, baseline: baseline, lines: s.Lines(), feed: s.NewFeed([]int{8, 8, 10, 48, 32},
		ui.Column{Title: "TIME"}, ui.Column{Title: "SEVERITY"}, ui.Column{Title: "WHAT"},
		ui.Column{Title: "PATH", Min: 20, KeepEnd: true}, ui.Column{Title: "BY", Min: 20, Drop: 1})}
}

func (p *watchPrinter) record(r *watch.Record) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.s.Format == ui.JSONL {
		if err := p.lines.Print(newWatchLine(r, p.baseline)); err != nil {
			return err
		}
		return p.lines.Flush()
	}
	theme := p.s.Theme()
	what, subject, by := watchWhat(r), string(r.Path), by(r)
	if r.Kind != watch.FileRecord && r.Kind != watch.DeniedRecord {
		subject = r.Text
		if len(r.Path) > 0 {
			subject = string(r.Path) + ": " + subject
		}
		by = watchSpanText(r)
	}
	return p.feed.Row(r.Time.Local().Format(time.TimeOnly),
		ui.Cell{Text: r.Severity.String(), Style: func(s string) string { return theme.Severity(int(r.Severity), s) }},
		what, subject, by)
}

// watchWhat says in a word what a record is about.
func watchWhat(r *watch.Record) string {
	switch {
	case r.Kind == watch.DeniedRecord || r.Kind == watch.EnforceRecord:
		return r.Action
	case r.Kind != watch.FileRecord:
		return string(r.Kind)
	case r.Verdict == watch.Departed:
		return "moved off"
	}
	return string(r.Verdict)
}

// by names the process in a few words.
func by(r *watch.Record) string {
	p := r.Process
	switch {
	case p == nil && r.Action == "found":
		return "unknown"
	case p == nil:
		return ""
	case p.PID == 0:
		return "another namespace or the kernel"
	case !p.Known():
		return fmt.Sprintf("pid %d (ended)", p.PID)
	}
	text := fmt.Sprintf("%s[%d]", filepath.Base(p.Program()), p.PID)
	if p.UID >= 0 {
		text += " uid " + strconv.Itoa(p.UID)
	}
	if p.LoginUID >= 0 && p.LoginUID != p.UID {
		text += " login " + strconv.Itoa(p.LoginUID)
	}
	if len(p.Args) > 1 {
		text += " " + strings.Join(p.Args[1:], " ")
	}
	return text
}

// watchSpanText says which span a record is about, and what was found in it.
func watchSpanText(r *watch.Record) string {
	var words []string
	if !r.Since.IsZero() {
		words = append(words, r.Since.Local().Format(time.DateTime)+" to "+r.Until.Local().Format(time.TimeOnly))
	}
	switch r.Kind {
	case watch.GapRecord, watch.OverflowRecord, watch.MountRecord, watch.BaselineRecord:
		words = append(words, ui.Plural(int64(r.Found), "change", "changes"))
	}
	return strings.Join(words, ", ")
}

// summary prints what the watch did: as the last record, or for a person.
func (p *watchPrinter) summary(sum *watch.Summary) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.s.Format == ui.JSONL {
		incomplete := sum.Incomplete
		if incomplete == nil {
			incomplete = []string{}
		}
		err := p.lines.Print(struct {
			Schema     string     `json:"schema"`
			Type       string     `json:"type"`
			Time       time.Time  `json:"time"`
			Baseline   string     `json:"baseline"`
			Mode       watch.Mode `json:"mode"`
			Started    time.Time  `json:"started"`
			Events     int64      `json:"events"`
			Records    int64      `json:"records"`
			Changes    int64      `json:"changes"`
			Denied     int64      `json:"denied"`
			Overflows  int64      `json:"overflows"`
			Incomplete []string   `json:"incomplete"`
		}{watchSchema, "summary", sum.Ended.UTC(), p.baseline, sum.Mode, sum.Started.UTC(), sum.Events, sum.Records, sum.Changes, sum.Denied, sum.Overflows, incomplete})
		if err != nil {
			return err
		}
		return p.lines.Flush()
	}
	if p.s.Quiet {
		return nil
	}
	text := fmt.Sprintf("Watched for %s: %s, %s, of which %s differ from the baseline", ui.Duration(sum.Ended.Sub(sum.Started)),
		ui.Plural(sum.Events, "event", "events"), ui.Plural(sum.Records, "record", "records"), ui.Count(sum.Changes))
	if sum.Denied > 0 {
		text += fmt.Sprintf("; %s denied", ui.Plural(sum.Denied, "execution", "executions"))
	}
	if sum.Overflows > 0 {
		text += fmt.Sprintf("; the kernel's queue overflowed %s", ui.Plural(sum.Overflows, "time", "times"))
	}
	p.s.Notice("%s.", text)
	for _, why := range sum.Incomplete {
		p.s.Notice("Incomplete: %s.", why)
	}
	return nil
}

// encodeWatchRecord is a record as a command reads it from its standard input.
func encodeWatchRecord(r *watch.Record, baseline string) ([]byte, error) {
	b, err := json.Marshal(newWatchLine(r, baseline))
	return append(b, '\n'), err
}
