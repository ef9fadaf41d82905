package logs

import (
	"bytes"
	"context"
	"io"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/format"
	"github.com/mobileops/mobileops/internal/logs/grep"
	"github.com/mobileops/mobileops/internal/logs/query"
)

// FileOptions say which plain files are searched.
type FileOptions struct {
	Paths  []string // files, directories, and "-" for Stdin
	Stdin  io.Reader
	Text   bool // binary files are searched as text
	Hidden bool // also names that begin with a dot
	Zone   *time.Location
	// Formats tell fields and times of lines; they are asked for when a query
	// or the caller needs them.
	Formats func() (*format.Set, error)
}

// sampleSize is how much of a file its format is told by, in bytes.
const sampleSize = 64 << 10

// SearchFiles searches plain and compressed files line by line as Search
// searches the store; matches come in the order of paths and lines.
func SearchFiles(ctx context.Context, f FileOptions, o Options, emit func(Match) error) (r Report, err error) {
	fl := &fileLines{opts: &f, parsed: o.Query.FieldsNeeded() || o.Since != math.MinInt64 || o.Until != math.MaxInt64, since: o.Since, until: o.Until, files: map[string]*fileOrigin{}}
	pipe := o.Query.Pipeline()
	if fl.parsed || o.Parse || pipe != nil && pipe.Counting() != query.CountTotal {
		if fl.formats, err = f.Formats(); err != nil {
			return r, err
		}
		if slices.Contains(f.Paths, stdin) && f.Stdin != nil {
			var seen bytes.Buffer
			fl.stdin = grep.Beginning(io.TeeReader(f.Stdin, &seen), sampleSize)
			f.Stdin = io.MultiReader(&seen, f.Stdin)
		}
	}
	g := grep.Options{Paths: f.Paths, Stdin: f.Stdin, Text: f.Text, Hidden: f.Hidden, Recursive: true, Before: o.Before, After: o.After, Limit: int64(o.Limit), Workers: o.Workers}
	binary := false
	t := taker{opts: &o, report: &r, emit: func(m Match) error {
		m.Binary = binary
		return emit(m)
	}}
	t.begin()
	t.limit = 0 // package grep counts: it gives what follows the last match, too
	g.Count = t.pipe == nil && o.CountOnly
	if p := o.Query.Pattern(); p != nil && !fl.parsed {
		g.Pattern = p
	} else {
		g.Filter = &grep.Filter{Need: o.Query.Need(), NewEval: func() func(string, []byte) bool { return fl.evaluator(o.Query) }}
	}
	var ev event.Event
	reader := lineReader{lines: fl}
	gr, err := grep.Search(ctx, g, func(h *grep.Hit) error {
		if g.Count {
			r.Matches += h.Count
			return nil
		}
		if binary = h.Binary; binary {
			h.Line = []byte("binary file matches (--text shows its lines)")
		}
		reader.event(&ev, h.Path, h.Line)
		if h.Context {
			if t.pipe != nil {
				return nil
			}
			return emit(Match{Event: &ev, Context: true, Apart: h.Gap})
		}
		t.left = h.Gap
		return t.found(&ev)
	})
	for _, u := range gr.Unread {
		r.Problems = append(r.Problems, Problem{u.Path, u.Err})
	}
	r.Units = int(gr.Files)
	limited := gr.Limited
	err = t.end(err)
	r.Limited = r.Limited || limited
	return r, err
}

// stdin is the path of what is read from there.
const stdin = "-"

// fileLines knows where lines of plain files come from.
type fileLines struct {
	opts         *FileOptions
	parsed       bool // times and fields decide about lines
	since, until int64
	formats      *format.Set
	stdin        []byte // the beginning of its text

	mu    sync.Mutex
	files map[string]*fileOrigin
}

// fileOrigin is what is known of a file.
type fileOrigin struct {
	origin event.Origin
	format *format.Format // nil: nobody asks
	mod    time.Time
}

func (f *fileLines) of(path string) *fileOrigin {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.files[path]; o != nil {
		return o
	}
	o := &fileOrigin{origin: event.Origin{Source: path, Format: "plain"}}
	f.files[path] = o
	if f.formats == nil {
		return o
	}
	var sample []byte
	if path == stdin {
		sample = f.stdin
	} else if file, err := os.Open(path); err == nil {
		if st, err := file.Stat(); err == nil && st.Mode().IsRegular() {
			o.mod = st.ModTime()
			sample = grep.Beginning(file, sampleSize)
		}
		file.Close()
	}
	o.format = f.formats.Detect(path, sample)
	o.origin.Format = o.format.Name()
	return o
}

// lineReader makes events of lines of one file after the other.
type lineReader struct {
	lines  *fileLines
	path   string
	origin *fileOrigin
	clock  *format.Reader
	record []event.Record
	line   []byte
}

func (l *lineReader) event(e *event.Event, path string, line []byte) {
	if l.origin == nil || l.path != path {
		l.path, l.origin, l.clock = path, l.lines.of(path), nil
	}
	o := l.origin
	*e = event.Event{Record: event.Record{Raw: line}, Origin: &o.origin, Text: line}
	if o.format == nil {
		return
	}
	if l.clock == nil {
		l.clock = o.format.NewReader(format.ReaderOptions{Zone: l.lines.opts.Zone, ModTime: o.mod, Now: time.Now()})
	}
	l.line = append(append(l.line[:0], line...), '\n')
	if l.record, _ = l.clock.Next(l.record[:0], l.line, true); len(l.record) > 0 {
		e.Time, e.Clock = l.record[0].Time, l.record[0].Clock
	}
	e.Fill = o.format.Fill
}

// evaluator returns what decides about lines, for one goroutine.
func (f *fileLines) evaluator(q *query.Query) func(string, []byte) bool {
	eval := q.NewEvaluator()
	reader := lineReader{lines: f}
	var e event.Event
	plain := event.Origin{Format: "plain"}
	return func(path string, line []byte) bool {
		if !f.parsed {
			plain.Source = path
			e = event.Event{Record: event.Record{Raw: line}, Origin: &plain, Text: line}
			return eval.Eval(&e)
		}
		reader.event(&e, path, line)
		return e.Time >= f.since && e.Time < f.until && eval.Eval(&e)
	}
}
