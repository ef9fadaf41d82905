package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"go.yaml.in/yaml/v3"
)

// A case of a format: text as it is in a file, and the records that it has.
// Cases lie beside the format in NAME.cases.yaml, as a list.
type formatCase struct {
	Name    string       `yaml:"name"`
	Text    string       `yaml:"text"`   // the lines
	Zone    string       `yaml:"zone"`   // of the host; empty: UTC
	Mod     time.Time    `yaml:"mod"`    // last change of the file
	Boot    time.Time    `yaml:"boot"`   // start of the machine
	Detect  *bool        `yaml:"detect"` // false: Detect need not find the format by this text
	Records []caseRecord `yaml:"records"`
}

// caseRecord is what a record must be. What is not written must be empty,
// except for raw and addrs, which are not compared then.
type caseRecord struct {
	Raw      string      `yaml:"raw"`
	Time     string      `yaml:"time"` // RFC 3339; empty: none of its own
	Clock    string      `yaml:"clock"`
	Host     string      `yaml:"host"`
	Unit     string      `yaml:"unit"`
	Program  string      `yaml:"program"`
	PID      int64       `yaml:"pid"`
	Severity string      `yaml:"severity"`
	User     string      `yaml:"user"`
	Message  *string     `yaml:"message"` // not written: the whole record
	Addrs    []string    `yaml:"addrs"`
	Fields   []caseField `yaml:"fields"`
}

// caseField is one of the fields of a record, in their order: {name: value}.
type caseField map[string]string

// maxCases bounds a file of cases.
const maxCases = 1000

// RunCases runs the test cases of a format as they are written in its
// NAME.cases.yaml: the records that a reader gives for the text of each case,
// read as a whole and byte by byte, their times and fields, and that Detect
// finds the format. It returns how many cases there are and what is wrong, one
// sentence for each difference. err tells that data is no file of cases.
func (s *Set) RunCases(name string, data []byte) (n int, wrong []string, err error) {
	f, ok := s.Lookup(name)
	if !ok {
		return 0, nil, fmt.Errorf("no format is called %q", name)
	}
	if len(data) > maxFormatFile {
		return 0, nil, fmt.Errorf("cases: more than %d KiB", maxFormatFile>>10)
	}
	if err := withoutAliases(data); err != nil {
		return 0, nil, fmt.Errorf("cases: %w", err)
	}
	var cases []formatCase
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&cases); err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, fmt.Errorf("cases: %w", err)
	}
	if len(cases) > maxCases {
		return 0, nil, fmt.Errorf("more than %d cases", maxCases)
	}
	for i := range cases {
		c := &cases[i]
		if c.Name == "" {
			c.Name = fmt.Sprintf("case %d", i+1)
		}
		complain := func(format string, args ...any) {
			wrong = append(wrong, c.Name+": "+fmt.Sprintf(format, args...))
		}
		if err := s.runCase(f, c, complain); err != nil {
			return len(cases), wrong, fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	return len(cases), wrong, nil
}

func (s *Set) runCase(f *Format, c *formatCase, complain func(string, ...any)) error {
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return err
	}
	o := ReaderOptions{Zone: zone, ModTime: c.Mod, Boot: c.Boot, Now: c.Mod}
	if o.Now.IsZero() {
		o.Now = time.Now() // the same for both readings
	}
	text := []byte(c.Text)
	records, _ := f.NewReader(o).Next(nil, text, true)
	if slow := byteByByte(f.NewReader(o), text); !slices.EqualFunc(records, slow, sameRecord) {
		complain("read byte by byte there are %d records, read as a whole %d", len(slow), len(records))
	}
	if len(records) != len(c.Records) {
		complain("there are %d records, not %d", len(records), len(c.Records))
	}
	for i := range min(len(records), len(c.Records)) {
		c.Records[i].compare(f, records[i], func(format string, args ...any) {
			complain("record %d: "+format, append([]any{i + 1}, args...)...)
		})
	}
	if c.Detect == nil || *c.Detect {
		if found := s.Detect("", text); found != f {
			complain("it is taken for %s", found.Name())
		}
	}
	return nil
}

// byteByByte reads text as if it were written slowly.
func byteByByte(r *Reader, text []byte) (out []event.Record) {
	from := 0
	for to := 1; to <= len(text); to++ {
		var n int
		out, n = r.Next(out, text[from:to], false)
		from += n
	}
	out, _ = r.Next(out, text[from:], true)
	return out
}

func sameRecord(a, b event.Record) bool {
	return a.Time == b.Time && a.Clock == b.Clock && bytes.Equal(a.Raw, b.Raw)
}

// compare holds a record against what it must be.
func (w *caseRecord) compare(f *Format, rec event.Record, complain func(string, ...any)) {
	e := event.Event{Record: rec}
	f.Fill(&e)
	check := func(what, got, want string) {
		if got != want {
			complain("%s is %q, not %q", what, got, want)
		}
	}
	if w.Raw != "" {
		check("raw", string(rec.Raw), w.Raw)
	}
	if w.Time != "" {
		want, err := time.Parse(time.RFC3339Nano, w.Time)
		if err != nil {
			complain("%v", err)
		} else if rec.Time != want.UnixNano() {
			complain("time is %s, not %s", rec.When().Format(time.RFC3339Nano), want.UTC().Format(time.RFC3339Nano))
		}
	} else if rec.Clock == event.ClockExact || rec.Clock == event.ClockZone || rec.Clock == event.ClockYear || rec.Clock == event.ClockBoot {
		complain("it has a time, %s", rec.When().Format(time.RFC3339Nano))
	}
	if w.Clock != "" {
		check("clock", rec.Clock.String(), w.Clock)
	}
	check("host", e.Host, w.Host)
	check("unit", e.Unit, w.Unit)
	check("program", e.Program, w.Program)
	if e.PID != w.PID {
		complain("pid is %d, not %d", e.PID, w.PID)
	}
	check("severity", e.Severity.String(), w.Severity)
	check("user", e.User, w.User)
	message := string(rec.Raw)
	if w.Message != nil {
		message = *w.Message
	}
	check("message", string(e.Message), message)
	if w.Addrs != nil {
		var got []string
		for _, a := range e.Addrs {
			got = append(got, a.String())
		}
		check("addrs", strings.Join(got, " "), strings.Join(w.Addrs, " "))
	}
	var got, want []string
	for _, field := range e.Fields {
		got = append(got, fmt.Sprintf("%s=%q", field.Name, field.Value))
	}
	for _, field := range w.Fields {
		for name, v := range field {
			want = append(want, fmt.Sprintf("%s=%q", name, v))
		}
	}
	check("fields", strings.Join(got, " "), strings.Join(want, " "))
}
