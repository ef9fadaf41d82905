package logs

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/cli/app"
	engine "github.com/mobileops/mobileops/internal/logs"
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/match"
	"github.com/mobileops/mobileops/internal/logs/query"
	"github.com/mobileops/mobileops/internal/ui"
)

// printer prints what a search finds, as it is found.
type printer interface {
	match(engine.Match) error
	// end prints what comes last: a count, a table, the end of a document.
	end(engine.Report) error
	// flush hands over what was printed until now.
	flush() error
	// parses says that every match is asked for its fields.
	parses() bool
}

func newPrinter(a *app.App, o *searchOptions, q *query.Query) printer {
	p := printerOf(a, o, q)
	if o.follow || a.Streams.OutTTY {
		return &live{printer: p}
	}
	return p
}

func printerOf(a *app.App, o *searchOptions, q *query.Query) printer {
	s := a.Streams
	out := &output{s: s, w: bufio.NewWriterSize(s.Out, 64<<10), count: o.count}
	switch s.Format {
	case ui.JSON:
		return &jsonPrinter{output: out}
	case ui.JSONL:
		return &jsonPrinter{output: out, lines: true}
	case formatCSV:
		return &csvPrinter{output: out, csv: csv.NewWriter(out.w)}
	case formatExport:
		return &exportPrinter{output: out}
	}
	p := &textPrinter{output: out, theme: s.Theme(), source: o.withSource || s.OutTTY && !o.noSource && !o.oneSource(), context: o.before+o.after+o.both > 0, quiet: s.Quiet}
	if s.Color {
		for _, h := range q.Highlights() {
			p.colored = append(p.colored, h.NewMatcher())
		}
	}
	return p
}

// oneSource says that all records are of a source that was named.
func (o *searchOptions) oneSource() bool {
	return len(o.journal) > 0 || len(o.sources) == 1 && !strings.Contains(o.sources[0], "*")
}

// output is what printers share.
type output struct {
	s     *ui.Streams
	w     *bufio.Writer
	count bool
}

func (o *output) flush() error { return o.w.Flush() }

// textPrinter prints records as they were written.
type textPrinter struct {
	*output
	theme   ui.Theme
	source  bool
	context bool
	quiet   bool
	colored []*match.Matcher
	started bool
}

func (p *textPrinter) parses() bool { return false }

func (p *textPrinter) match(m engine.Match) error {
	if p.context && m.Apart && p.started {
		fmt.Fprintln(p.w, p.theme.Faint("--"))
	}
	p.started = true
	text := shown(m.Event)
	for len(text) > 0 || text != nil {
		line := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		if p.source || m.Binary {
			mark := ": "
			if m.Context {
				mark = "- "
			}
			p.w.WriteString(p.theme.Faint(ui.Escape(m.Origin.Source) + mark))
		}
		p.write(line, m.Context)
		if err := p.w.WriteByte('\n'); err != nil {
			return err
		}
	}
	return nil
}

// write prints a line: for a terminal without what a terminal would obey, for
// others as it is.
func (p *textPrinter) write(line []byte, context bool) {
	if !p.s.OutTTY && len(p.colored) == 0 {
		p.w.Write(line)
		return
	}
	if context {
		p.w.WriteString(p.theme.Faint(printable(line)))
		return
	}
	for from := 0; ; {
		first, end := -1, -1
		for _, m := range p.colored {
			if s, e := m.Find(line, from); s >= 0 && e > s && (first < 0 || s < first) {
				first, end = s, e
			}
		}
		if first < 0 {
			p.w.WriteString(printable(line[from:]))
			return
		}
		p.w.WriteString(printable(line[from:first]))
		p.w.WriteString(p.theme.Bad(printable(line[first:end])))
		from = end
	}
}

// printable returns a line as a terminal may have it. Tabs do no harm, and
// stack traces are full of them.
func printable(line []byte) string {
	if bytes.IndexByte(line, '\t') < 0 {
		return ui.Printable(string(line))
	}
	parts := strings.Split(string(line), "\t")
	for i := range parts {
		parts[i] = ui.Printable(parts[i])
	}
	return strings.Join(parts, "\t")
}

func (p *textPrinter) end(r engine.Report) error {
	switch {
	case r.Table != nil:
		if err := p.w.Flush(); err != nil {
			return err
		}
		return printTable(p.s, r.Table)
	case p.count && !(p.quiet && r.Matches == 0):
		fmt.Fprintln(p.w, r.Matches)
	}
	return p.w.Flush()
}

// shown returns what text output has of an event: its bytes, or, of the
// journal, whose records are not for people, a line as journalctl writes it.
func shown(e *event.Event) []byte {
	if e.Origin.Format != engine.JournalFormat {
		if e.Raw == nil {
			return []byte{}
		}
		return e.Raw
	}
	e.Parsed()
	line := time.Unix(0, e.Time).Format("2006-01-02T15:04:05.000000-07:00") + " " + e.Host + " " + e.Program
	if e.PID != 0 {
		line += "[" + strconv.FormatInt(e.PID, 10) + "]"
	}
	return append([]byte(line+": "), e.Message...)
}

// record is an event in JSON.
type record struct {
	Time     time.Time      `json:"time"`
	Clock    string         `json:"clock"`
	Source   string         `json:"source"`
	Format   string         `json:"format"`
	Host     string         `json:"host,omitempty"`
	Unit     string         `json:"unit,omitempty"`
	Program  string         `json:"program,omitempty"`
	PID      int64          `json:"pid,omitempty"`
	Severity string         `json:"severity,omitempty"`
	User     string         `json:"user,omitempty"`
	Addrs    []string       `json:"addresses,omitempty"`
	Message  string         `json:"message"`
	Fields   map[string]any `json:"fields,omitempty"` // a text, or a list of texts
	Raw      string         `json:"raw"`
	RawB64   string         `json:"raw_b64,omitempty"` // the bytes, when they are not valid UTF-8
	Context  bool           `json:"context,omitempty"` // no match, but near one
}

func eventRecord(m engine.Match) record {
	e := m.Parsed()
	r := record{
		Time: e.When(), Clock: e.Clock.String(), Source: e.Origin.Source, Format: e.Origin.Format,
		Host: valid(e.Host), Unit: valid(e.Unit), Program: valid(e.Program), PID: e.PID, Severity: e.Severity.String(), User: valid(e.User),
		Message: valid(string(e.Message)), Raw: valid(string(e.Raw)), Context: m.Context,
	}
	for _, a := range e.Addrs {
		r.Addrs = append(r.Addrs, a.String())
	}
	if !utf8.Valid(e.Raw) {
		r.RawB64 = base64.StdEncoding.EncodeToString(e.Raw)
	}
	for _, f := range e.Fields {
		if r.Fields == nil {
			r.Fields = make(map[string]any, len(e.Fields))
		}
		name, value := valid(f.Name), valid(string(f.Value))
		switch had := r.Fields[name].(type) {
		case nil:
			r.Fields[name] = value
		case string:
			r.Fields[name] = []string{had, value}
		case []string:
			r.Fields[name] = append(had, value)
		}
	}
	return r
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// jsonPrinter prints one document, or a record a line.
type jsonPrinter struct {
	*output
	lines bool
	n     int
	print *ui.Lines
}

func (p *jsonPrinter) parses() bool { return !p.count }

// searchReport is the document of mobileops logs search --output json.
type searchReport struct {
	Schema   string        `json:"schema"`
	Matches  int64         `json:"matches"`
	Limited  bool          `json:"limited"` // --limit ended the search
	Table    *query.Table  `json:"table,omitempty"`
	Problems []jsonProblem `json:"problems"` // what could not be searched
	Events   []record      `json:"events"`
}

type jsonProblem struct {
	Name  string `json:"name"`
	Error string `json:"error"`
}

func (p *jsonPrinter) match(m engine.Match) error {
	p.n++
	if p.lines {
		if p.print == nil {
			p.print = p.s.Lines()
		}
		return p.print.Print(eventRecord(m))
	}
	// The document is written as it comes: results can be larger than memory.
	if p.n == 1 {
		fmt.Fprintf(p.w, "{\n  \"schema\": \"mobileops.logs.search/v1\",\n  \"events\": [")
	} else {
		p.w.WriteByte(',')
	}
	p.w.WriteString("\n    ")
	return encode(p.w, eventRecord(m))
}

func (p *jsonPrinter) flush() error {
	if p.print != nil {
		return p.print.Flush()
	}
	return p.w.Flush()
}

func (p *jsonPrinter) end(r engine.Report) error {
	if p.lines {
		if p.print == nil {
			p.print = p.s.Lines()
		}
		if r.Table != nil {
			for _, row := range r.Table.Rows {
				line := map[string]query.Value{}
				for i, c := range r.Table.Columns {
					line[c.Name] = row[i]
				}
				if err := p.print.Print(line); err != nil {
					return err
				}
			}
		} else if p.count {
			if err := p.print.Print(map[string]int64{"matches": r.Matches}); err != nil {
				return err
			}
		}
		return p.print.Flush()
	}
	report := searchReport{Schema: "mobileops.logs.search/v1", Matches: r.Matches, Limited: r.Limited, Table: r.Table, Problems: []jsonProblem{}, Events: []record{}}
	for _, x := range r.Problems {
		report.Problems = append(report.Problems, jsonProblem{valid(x.Name), valid(x.Err.Error())})
	}
	if p.n == 0 {
		return p.s.Document(report)
	}
	p.w.WriteString("\n  ],\n  \"matches\": " + strconv.FormatInt(r.Matches, 10) + ",\n  \"limited\": " + strconv.FormatBool(r.Limited) + ",\n  \"problems\": ")
	if err := encode(p.w, report.Problems); err != nil {
		return err
	}
	p.w.WriteString("\n}\n")
	return p.w.Flush()
}

func encode(w *bufio.Writer, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(bytes.TrimRight(buf.Bytes(), "\n"))
	return err
}

// csvPrinter prints a table for spreadsheets.
type csvPrinter struct {
	*output
	csv     *csv.Writer
	started bool
}

func (p *csvPrinter) parses() bool { return !p.count }

func (p *csvPrinter) head() error {
	if p.started {
		return nil
	}
	p.started = true
	return p.csv.Write([]string{"time", "clock", "source", "host", "unit", "program", "pid", "severity", "user", "addresses", "message"})
}

func (p *csvPrinter) match(m engine.Match) error {
	if err := p.head(); err != nil {
		return err
	}
	r := eventRecord(m)
	pid := ""
	if r.PID != 0 {
		pid = strconv.FormatInt(r.PID, 10)
	}
	return p.csv.Write(cells(r.Time.Format(time.RFC3339Nano), r.Clock, r.Source, r.Host, r.Unit, r.Program, pid, r.Severity, r.User, strings.Join(r.Addrs, " "), r.Message))
}

func (p *csvPrinter) flush() error {
	p.csv.Flush()
	if err := p.csv.Error(); err != nil {
		return err
	}
	return p.w.Flush()
}

// cells keeps a spreadsheet from taking what a stranger logged for a formula.
func cells(list ...string) []string {
	for i, s := range list {
		s = ui.Printable(s)
		if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
			s = "'" + s
		}
		list[i] = s
	}
	return list
}

func (p *csvPrinter) end(r engine.Report) error {
	switch {
	case r.Table != nil:
		var names []string
		for _, c := range r.Table.Columns {
			names = append(names, c.Name)
		}
		p.csv.Write(cells(names...))
		for _, row := range r.Table.Rows {
			var list []string
			for _, v := range row {
				text := v.Format(time.UTC)
				if v.Kind() == query.Time { // with its zone, as those of records
					text = time.Unix(0, v.When()).UTC().Format(time.RFC3339Nano)
				}
				list = append(list, text)
			}
			p.csv.Write(cells(list...))
		}
	case p.count:
		p.csv.Write([]string{"matches"})
		p.csv.Write([]string{strconv.FormatInt(r.Matches, 10)})
	default:
		p.head()
	}
	return p.flush()
}

// exportPrinter prints in the journal's export format.
type exportPrinter struct {
	*output
	buf []byte
}

func (p *exportPrinter) parses() bool { return true }

func (p *exportPrinter) match(m engine.Match) error {
	if m.Context {
		return nil
	}
	p.buf = engine.AppendExport(p.buf[:0], m.Event)
	_, err := p.w.Write(p.buf)
	return err
}

func (p *exportPrinter) end(engine.Report) error { return p.w.Flush() }
