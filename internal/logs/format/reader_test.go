package format

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"go.yaml.in/yaml/v3"
)

// caseTexts returns the texts of the cases of a format.
func caseTexts(t testing.TB, name string) (texts []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("formats", name+".cases.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []formatCase
	if err := yaml.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		texts = append(texts, c.Text)
	}
	return texts
}

var readTime = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

func testOptions() ReaderOptions {
	return ReaderOptions{ModTime: readTime, Now: readTime, Boot: readTime.Add(-time.Hour)}
}

// readPieces reads data as it comes in pieces, with a new reader that begins
// with the state of the one before after each: as if the process were killed
// whenever a position was made durable.
func readPieces(f *Format, data []byte, rnd *rand.Rand, restart bool) (out []event.Record) {
	r := f.NewReader(testOptions())
	from, to := 0, 0
	for {
		final := to == len(data)
		recs, n := r.Next(nil, data[from:to], final)
		out = append(out, recs...)
		from += n
		if final {
			return out
		}
		if restart && rnd.IntN(3) == 0 {
			o := testOptions()
			o.State = r.State()
			r = f.NewReader(o)
		}
		to = min(len(data), to+1+rnd.IntN(1+rnd.IntN(4000)))
	}
}

// TestPiecesMakeNoDifference reads a long mixture of all cases of each format
// in random pieces, with and without restarts.
func TestPiecesMakeNoDifference(t *testing.T) {
	s := builtinSet(t)
	for _, name := range s.Names() {
		f, _ := s.Lookup(name)
		texts := caseTexts(t, name)
		rnd := rand.New(rand.NewPCG(1, 2))
		for round := range 40 {
			var data []byte
			for len(data) < 3000*(1+round%4) {
				data = append(data, texts[rnd.IntN(len(texts))]...)
				if rnd.IntN(5) == 0 {
					data = append(data, "garbage \x00\xff\n\n"...)
				}
			}
			checkPieces(t, f, data, rnd)
		}
	}
}

func checkPieces(t *testing.T, f *Format, data []byte, rnd *rand.Rand) {
	t.Helper()
	whole, n := f.NewReader(testOptions()).Next(nil, data, true)
	if n != len(data) {
		t.Fatalf("%s: %d of %d bytes were read", f.name, n, len(data))
	}
	for _, restart := range []bool{false, true} {
		if pieces := readPieces(f, data, rnd, restart); !slices.EqualFunc(whole, pieces, sameRecord) {
			i := 0
			for i < min(len(whole), len(pieces)) && sameRecord(whole[i], pieces[i]) {
				i++
			}
			got, want := "nothing", "nothing"
			if i < len(pieces) {
				got = fmt.Sprintf("%s %v %.200q", pieces[i].When(), pieces[i].Clock, pieces[i].Raw)
			}
			if i < len(whole) {
				want = fmt.Sprintf("%s %v %.200q", whole[i].When(), whole[i].Clock, whole[i].Raw)
			}
			t.Fatalf("%s (restart %v): record %d in pieces: %s\nas a whole: %s", f.name, restart, i, got, want)
		}
	}
	checkLines(t, f, data, whole)
}

// checkLines holds the lines of all records against those of the file: none
// is lost, doubled or altered. Lines that are too long are cut, and records of
// events that overlap change places.
func checkLines(t *testing.T, f *Format, data []byte, recs []event.Record) {
	t.Helper()
	if f.kind == kindUtmp {
		return
	}
	var want, got []string
	for len(data) > 0 {
		n := lineEnd(data)
		line := data[:n]
		for len(line) > MaxRecord {
			want = append(want, string(line[:MaxRecord]))
			line = line[MaxRecord:]
		}
		want = append(want, string(line))
		data = data[min(n+1, len(data)):]
	}
	for _, r := range recs {
		if len(r.Raw) > MaxRecord {
			t.Fatalf("%s: a record of %d bytes", f.name, len(r.Raw))
		}
		got = append(got, strings.Split(string(r.Raw), "\n")...)
	}
	if f.grouped() {
		slices.Sort(want)
		slices.Sort(got)
	}
	if !slices.Equal(want, got) {
		t.Fatalf("%s: %d lines became %d, or others", f.name, len(want), len(got))
	}
}

// TestLongLines reads lines around the limit of a record.
func TestLongLines(t *testing.T) {
	s := builtinSet(t)
	stamp := map[string]string{
		"plain": "", "syslog": "Nov 22 05:55:12 h p: ", "log4j": "2015-10-18 18:01:47,978 INFO [main] a.B: ",
		"audit":  "type=SYSCALL msg=audit(1764481363.100:300): x=",
		"docker": `{"stream":"stdout","time":"2026-11-22T05:55:12.1Z","log":"`, "cri": "2016-10-06T00:17:09.1Z stdout P ",
	}
	for name, head := range stamp {
		f, _ := s.Lookup(name)
		rnd := rand.New(rand.NewPCG(3, 4))
		for _, size := range []int{MaxRecord - 1, MaxRecord, MaxRecord + 1, 2 * MaxRecord, 2*MaxRecord + 7} {
			long := head + strings.Repeat("x", size-len(head))
			data := []byte(head + "first\n" + long + "\n" + head + "last\n\tindented\n")
			whole, n := f.NewReader(testOptions()).Next(nil, data, true)
			if n != len(data) {
				t.Fatalf("%s: %d of %d bytes", name, n, len(data))
			}
			checkLines(t, f, data, whole)
			// In large pieces: small ones would read a pending record again and again.
			var pieces []event.Record
			r := f.NewReader(testOptions())
			for from, to := 0, 0; ; {
				recs, n := r.Next(nil, data[from:to], to == len(data))
				pieces = append(pieces, recs...)
				from += n
				if to == len(data) {
					break
				}
				to = min(len(data), to+1+rnd.IntN(300_000))
			}
			if !slices.EqualFunc(whole, pieces, sameRecord) {
				t.Fatalf("%s, %d bytes: %d records, in pieces %d", name, size, len(whole), len(pieces))
			}
		}
	}
}

// TestManyLinesAreBounded gives a record without an end and an event without
// one: neither grows, nor holds up the file.
func TestManyLinesAreBounded(t *testing.T) {
	s := builtinSet(t)
	for name, lines := range map[string][2]string{
		"log4j": {"2015-10-18 18:01:47,978 INFO [main] a.B: x\n", "\tat y\n"},
		"audit": {"type=SYSCALL msg=audit(1764481363.100:300): pid=1\n", "type=PATH msg=audit(1764481363.100:300): item=0\n"},
		"cri":   {"2016-10-06T00:17:09.1Z stdout P a\n", "2016-10-06T00:17:09.1Z stdout P a\n"},
	} {
		f, _ := s.Lookup(name)
		data := []byte(lines[0] + strings.Repeat(lines[1], 5000))
		recs, n := f.NewReader(testOptions()).Next(nil, data, false)
		if len(recs) < 4 || n < len(data)/2 {
			t.Errorf("%s: %d records in %d of %d bytes", name, len(recs), n, len(data))
		}
		for _, r := range recs {
			if c := bytes.Count(r.Raw, []byte("\n")) + 1; c > maxJoined {
				t.Errorf("%s: a record of %d lines", name, c)
			}
		}
	}
}

// TestYearGoesOnWhileAFileIsFollowed: the reader was made in November, the
// lines are written in January.
func TestYearGoesOnWhileAFileIsFollowed(t *testing.T) {
	f, _ := builtinSet(t).Lookup("syslog")
	r := f.NewReader(testOptions())
	recs, _ := r.Next(nil, []byte("Nov 22 05:00:00 h p: a\n"), false)
	// The clock of the process stands still in this test; a reader that goes on
	// with the state knows the new time.
	o := ReaderOptions{State: r.State(), Now: time.Date(2027, 1, 1, 0, 5, 0, 0, time.UTC), ModTime: readTime}
	r = f.NewReader(o)
	more, _ := r.Next(nil, []byte("Jan  1 00:04:00 h p: b\n"), false)
	if y := recs[0].When().Year(); y != 2026 {
		t.Errorf("November is of %d", y)
	}
	if y := more[0].When().Year(); y != 2027 {
		t.Errorf("January is of %d", y)
	}
}

// TestTimeWithoutOne: the file's time counts until a record has one, and can
// be renewed.
func TestTimeWithoutOne(t *testing.T) {
	f, _ := builtinSet(t).Lookup("plain")
	r := f.NewReader(testOptions())
	later := readTime.Add(time.Hour)
	a, _ := r.Next(nil, []byte("x\n"), false)
	r.SetModTime(later)
	b, _ := r.Next(nil, []byte("y\n"), false)
	if a[0].Time != readTime.UnixNano() || b[0].Time != later.UnixNano() || b[0].Clock != event.ClockFile {
		t.Errorf("%v, then %v %v", a[0].When(), b[0].When(), b[0].Clock)
	}
	c, _ := f.NewReader(ReaderOptions{Now: readTime}).Next(nil, []byte("x\n"), false)
	if c[0].Clock != event.ClockNone {
		t.Errorf("without anything to go by: %v", c[0].Clock)
	}
}

// TestDaylightSaving reads every half hour of the nights in which the clocks of
// Berlin change: times never go back, and are those of the zone.
func TestDaylightSaving(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	f, _ := builtinSet(t).Lookup("log4j")
	for _, start := range []time.Time{
		time.Date(2026, 3, 28, 20, 0, 0, 0, time.UTC), time.Date(2026, 10, 24, 20, 0, 0, 0, time.UTC),
	} {
		var text []byte
		var want []int64
		for i := range 24 {
			at := start.Add(time.Duration(i) * 30 * time.Minute)
			text = at.In(berlin).AppendFormat(text, "2006-01-02 15:04:05,000 INFO [main] a.B: x\n")
			want = append(want, at.UnixNano())
		}
		o := testOptions()
		o.Zone = berlin
		recs, _ := f.NewReader(o).Next(nil, text, true)
		var got []int64
		for _, r := range recs {
			got = append(got, r.Time)
		}
		if !slices.Equal(got, want) {
			t.Errorf("from %s: %v, not %v", start, got, want)
		}
	}
}

// TestManyAtOnce fills records of one format in many goroutines: nothing is
// shared that changes. The race detector watches.
func TestManyAtOnce(t *testing.T) {
	s := builtinSet(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, name := range s.Names() {
				f, _ := s.Lookup(name)
				for _, text := range caseTexts(t, name) {
					recs, _ := f.NewReader(testOptions()).Next(nil, []byte(text), true)
					var e event.Event
					for _, r := range recs {
						e.Record = r
						f.Fill(&e)
					}
					s.Detect("", []byte(text))
				}
			}
		})
	}
	wg.Wait()
}

// FuzzReader reads anything in each format, in pieces, and finds its fields.
func FuzzReader(f *testing.F) {
	s := builtinSet(f)
	names := s.Names()
	for i, name := range names {
		for _, text := range caseTexts(f, name) {
			f.Add(uint8(i), []byte(text), uint64(1))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte, seed uint64) {
		form, _ := s.Lookup(names[int(which)%len(names)])
		checkPieces(t, form, data, rand.New(rand.NewPCG(seed, 1)))
		recs, _ := form.NewReader(testOptions()).Next(nil, data, true)
		var e event.Event
		for _, r := range recs {
			raw := bytes.Clone(r.Raw)
			e.Record, e.Fill = r, form.Fill
			e.Parsed()
			if !bytes.Equal(raw, r.Raw) {
				t.Fatalf("%s changed the record %q", form.name, raw)
			}
			if e.Message == nil || len(e.Fields) > maxFields+8 || len(e.Addrs) > maxAddrs || e.Severity > event.NoSeverity {
				t.Fatalf("%s: %+v", form.name, e)
			}
		}
		s.Detect("x", data)
	})
}

// FuzzState begins with any state.
func FuzzState(f *testing.F) {
	form, _ := builtinSet(f).Lookup("syslog")
	f.Add([]byte{1, 3, 0, 0})
	f.Add(form.NewReader(testOptions()).State())
	f.Fuzz(func(t *testing.T, state []byte) {
		o := testOptions()
		o.State = state
		recs, n := form.NewReader(o).Next(nil, []byte("Nov 22 05:00:00 h p: a\nFeb 29 05:00:00 h p: a\n"), true)
		if len(recs) == 0 || n == 0 {
			t.Fatal("nothing was read")
		}
	})
}

// TestHostileRecordsTakeNoTime fills long records, made so
// that a reader that looks for the same thing again and again would be at it
// for hours.
func TestHostileRecordsTakeNoTime(t *testing.T) {
	s := builtinSet(t)
	for _, piece := range []string{`"\`, `\"`, `a="`, `{"a":`, `[[`, `((`, `1.`, `:1`, `::`, `1.2.3.4 `, `a=b `, `msg='`, "\n ", `[a b="c"]`, `\u0000`, "<1>", "from ", "\x1d"} {
		body := strings.Repeat(piece, MaxRecord/4/len(piece))
		for _, name := range s.Names() {
			f, _ := s.Lookup(name)
			head := strings.TrimSuffix(strings.SplitN(caseTexts(t, name)[0], "\n", 2)[0], "}")
			start := cpu()
			e := event.Event{Record: event.Record{Raw: []byte(head + body)}}
			f.Fill(&e)
			f.NewReader(testOptions()).Next(nil, e.Raw, true)
			if d := cpu() - start; d > 10*time.Second {
				t.Errorf("%s takes %v for %q again and again", name, d, piece)
			}
		}
	}
}
