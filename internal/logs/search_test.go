package logs

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/query"
	"github.com/mobileops/mobileops/internal/logs/source"
	"github.com/mobileops/mobileops/internal/logs/store"
	"github.com/mobileops/mobileops/internal/state"
)

// sample makes the lines of a few logs, in the style of real ones.
func sample(rng *rand.Rand, n int) map[string][]event.Record {
	at := time.Date(2026, 10, 30, 22, 0, 0, 0, time.UTC)
	out := map[string][]event.Record{}
	users := []string{"root", "admin", "oracle", "alice", "bob7", "test"}
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	for range n {
		at = at.Add(time.Duration(rng.ExpFloat64() * float64(20*time.Second)))
		ip := fmt.Sprintf("%d.%d.%d.%d", 1+rng.IntN(40), rng.IntN(4), rng.IntN(256), rng.IntN(256))
		switch rng.IntN(4) {
		case 0:
			line := at.Format("Jan _2 15:04:05") + " web1 sshd[" + fmt.Sprint(1000+rng.IntN(60000)) + "]: " +
				pick("Failed password for "+pick(users...)+" from "+ip+" port "+fmt.Sprint(rng.IntN(65536))+" ssh2",
					"Invalid user "+pick(users...)+" from "+ip, "Connection closed by "+ip+" [preauth]", "pam_unix(sshd:session): session opened for user "+pick(users...))
			out["/var/log/auth.log"] = append(out["/var/log/auth.log"], event.Record{Time: at.Truncate(time.Second).UnixNano(), Clock: event.ClockYear, Raw: []byte(line)})
		case 1:
			line := at.Format("2006-01-02 15:04:05,000") + " " + pick("INFO", "WARN", "ERROR") + " [main] org.example.Shop: order " + fmt.Sprintf("%08x-%04x", rng.Uint32(), rng.IntN(1<<16)) + " took " + fmt.Sprint(rng.IntN(5000)) + "ms"
			if rng.IntN(20) == 0 {
				line += "\njava.io.IOException: disk full\n\tat org.example.Shop.order(Shop.java:" + fmt.Sprint(rng.IntN(300)) + ")"
			}
			out["/srv/shop.log"] = append(out["/srv/shop.log"], event.Record{Time: at.Truncate(time.Millisecond).UnixNano(), Clock: event.ClockZone, Raw: []byte(line)})
		case 2:
			line := ip + ` - - [` + at.Format("02/Jan/2006:15:04:05 -0700") + `] "GET /` + pick("index.html", "login?u="+pick(users...), "img/"+fmt.Sprint(rng.IntN(99))+".png") + ` HTTP/1.1" ` + pick("200", "404", "500") + " " + fmt.Sprint(rng.IntN(90000))
			out["/var/log/nginx/access.log"] = append(out["/var/log/nginx/access.log"], event.Record{Time: at.Truncate(time.Second).UnixNano(), Clock: event.ClockExact, Raw: []byte(line)})
		default:
			line := `{"ts":"` + at.Format(time.RFC3339Nano) + `","level":"` + pick("info", "error") + `","user":"` + pick(users...) + `","msg":"` + pick("login", "logout", "été \\u00e9", "Failed job "+fmt.Sprint(rng.IntN(9999))) + `"}`
			out["app"] = append(out["app"], event.Record{Time: at.UnixNano(), Clock: event.ClockExact, Raw: []byte(line)})
		}
	}
	return out
}

// formatOf are the formats of the sample.
var formatOf = map[string]string{"/var/log/auth.log": "syslog", "/srv/shop.log": "log4j", "/var/log/nginx/access.log": "access", "app": "json"}

func newStore(t testing.TB) *store.Store {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(store.Options{Dir: filepath.Join(dir, "logs"), State: state.New(dir, state.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// stored keeps the sample: the first part in segments, the last in the
// write-ahead log.
func stored(t testing.TB, s *store.Store, logs map[string][]event.Record) {
	t.Helper()
	ctx := context.Background()
	w, err := s.Writer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for part := range 2 {
		for _, name := range slices.Sorted(keysOf(logs)) {
			records := logs[name]
			cut := len(records) * 9 / 10
			if records = records[:cut]; part == 1 {
				records = logs[name][cut:]
			}
			for chunk := range slices.Chunk(records, 500) {
				err := w.Append(ctx, []source.Batch{{Key: name, Origin: event.Origin{Source: name, Format: formatOf[name], Host: "h"}, Records: chunk, Cursor: []byte("{}")}})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		if part == 0 {
			if err := w.Flush(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func keysOf(m map[string][]event.Record) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func search(t testing.TB, s *store.Store, o Options) ([]string, Report) {
	t.Helper()
	ctx := context.Background()
	snap, err := s.Snapshot(ctx, store.Everything())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	c, err := Stored(ctx, snap)
	if err != nil {
		t.Fatal(err)
	}
	if o.Since == 0 {
		o.Since = math.MinInt64
	}
	var out []string
	last := int64(math.MinInt64)
	r, err := Search(ctx, c, o, func(m Match) error {
		if !m.Context && o.Before+o.After == 0 {
			if m.Time < last {
				t.Errorf("%q comes after a younger record", m.Raw)
			}
			last = m.Time
		}
		if m.Apart && o.Before+o.After > 0 {
			out = append(out, "--")
		}
		out = append(out, string(m.Raw))
		return nil
	})
	if err != nil || len(r.Problems) > 0 {
		t.Fatal(err, r.Problems)
	}
	return out, r
}

// TestSearchesFindWhatGrepFinds asks thousands of questions, made of pieces of
// what is there, and holds every answer against a scan of all lines.
func TestSearchesFindWhatGrepFinds(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	logs := sample(rng, 4000)
	s := newStore(t)
	stored(t, s, logs)
	var all []event.Record
	for _, list := range logs {
		all = append(all, list...)
	}
	questions := 3000
	if testing.Short() || raceEnabled {
		questions = 200
	}
	found := 0
	for i := range questions {
		raw := string(all[rng.IntN(len(all))].Raw)
		line := raw
		if k := strings.IndexByte(raw, '\n'); k >= 0 && rng.IntN(2) == 0 {
			line = raw[k+1:]
		}
		line, _, _ = strings.Cut(line, "\n")
		if line == "" {
			continue
		}
		from := rng.IntN(len(line))
		text := strings.ToValidUTF8(line[from:min(len(line), from+1+rng.IntN(20))], "")
		if text == "" {
			continue
		}
		o := query.Options{Fixed: true}
		pattern := regexp.QuoteMeta(text)
		switch rng.IntN(6) {
		case 0:
			o.Fold, pattern = true, "(?i)"+pattern
		case 1:
			o.Fixed, o.Regex = false, true
			// Digits become a class, spaces a run.
			text = regexp.MustCompile(`[0-9]+`).ReplaceAllString(pattern, `[0-9]+`)
			pattern = text
		case 2:
			o.Fixed, o.Regex = false, true
			text = pattern + "|" + regexp.QuoteMeta(strings.ToValidUTF8(line[:min(len(line), 5)], ""))
			pattern = text
		case 3:
			text += "~"
			pattern += "~"
		}
		q, err := query.Parse(text, o)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		re := regexp.MustCompile(pattern)
		var want []string
		for _, r := range all {
			if slices.ContainsFunc(bytes.Split(r.Raw, []byte("\n")), re.Match) {
				want = append(want, string(r.Raw))
			}
		}
		got, report := search(t, s, Options{Query: q, CountOnly: i%3 == 0, Workers: 1 + i%3})
		if report.Matches != int64(len(want)) {
			t.Fatalf("%q (%+v): %d records are found, and %d are there", text, o, report.Matches, len(want))
		}
		if i%3 != 0 {
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("%q (%+v): other records are found than are there", text, o)
			}
		}
		found += len(want)
	}
	if found < questions {
		t.Errorf("only %d records were found in all: this tests little", found)
	}
}

func parsed(t testing.TB, expr string) *query.Query {
	t.Helper()
	q, err := query.Parse(expr, query.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestRangesOfTime(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	logs := sample(rng, 3000)
	s := newStore(t)
	stored(t, s, logs)
	var all []event.Record
	for _, list := range logs {
		all = append(all, list...)
	}
	for range 100 {
		a, b := all[rng.IntN(len(all))].Time, all[rng.IntN(len(all))].Time
		if a > b {
			a, b = b, a
		}
		want := 0
		for _, r := range all {
			if r.Time >= a && r.Time < b && bytes.Contains(r.Raw, []byte("Failed")) {
				want++
			}
		}
		if got, r := search(t, s, Options{Query: parsed(t, "Failed"), Since: a, Until: max(b, a+1)}); len(got) != want && b > a || r.Matches != int64(len(got)) {
			t.Fatalf("%d of %d", len(got), want)
		}
		if _, r := search(t, s, Options{Query: parsed(t, "Failed"), Since: a, Until: max(b, a+1), CountOnly: true}); r.Matches != int64(want) && b > a {
			t.Fatalf("counted %d of %d", r.Matches, want)
		}
	}
}

func TestLimitAndContext(t *testing.T) {
	logs := sample(rand.New(rand.NewPCG(9, 9)), 3000)
	s := newStore(t)
	stored(t, s, logs)
	got, r := search(t, s, Options{Query: parsed(t, "Failed"), Limit: 7})
	if len(got) != 7 || !r.Limited || r.Matches != 7 {
		t.Errorf("%d matches, %+v", len(got), r)
	}
	// Each record of one source and those around it, as grep -B1 -A2 has them.
	records := logs["/srv/shop.log"]
	q := parsed(t, "IOException").And(field(t, "source", "/srv/shop.log"))
	want := map[int]bool{}
	for i, rec := range records {
		if bytes.Contains(rec.Raw, []byte("IOException")) {
			for k := max(0, i-1); k <= min(len(records)-1, i+2); k++ {
				want[k] = true
			}
		}
	}
	got, _ = search(t, s, Options{Query: q, Before: 1, After: 2})
	got = slices.DeleteFunc(got, func(raw string) bool { return raw == "--" })
	if len(got) != len(want) {
		t.Errorf("%d records with their context, not %d", len(got), len(want))
	}
	for _, raw := range got {
		if !slices.ContainsFunc(records, func(r event.Record) bool { return string(r.Raw) == raw }) {
			t.Errorf("%q is of another source", raw)
		}
	}
}

// TestContextIsThatOfGrep asks for matches of one source and what is around
// them, across the borders of segments and of the write-ahead log. Where records
// were left out, grep says so.
func TestContextIsThatOfGrep(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	logs := sample(rng, 12000) // of several days, which are in segments of their own
	s := newStore(t)
	stored(t, s, logs)
	names := slices.Sorted(keysOf(logs))
	for range 150 {
		name := names[rng.IntN(len(names))]
		records := logs[name]
		line := string(records[rng.IntN(len(records))].Raw)
		from := rng.IntN(len(line))
		text, _, _ := strings.Cut(line[from:min(len(line), from+1+rng.IntN(6))], "\n")
		if text == "" {
			continue
		}
		q, err := query.Parse(text, query.Options{Fixed: true})
		if err != nil {
			t.Fatal(err)
		}
		before, after := rng.IntN(9), 1+rng.IntN(9)
		wanted := make([]bool, len(records))
		for i, rec := range records {
			if bytes.Contains(rec.Raw, []byte(text)) {
				for k := max(0, i-before); k <= min(len(records)-1, i+after); k++ {
					wanted[k] = true
				}
			}
		}
		var want []string
		for i, rec := range records {
			if wanted[i] {
				if i > 0 && !wanted[i-1] && want != nil {
					want = append(want, "--")
				}
				want = append(want, string(rec.Raw))
			}
		}
		got, _ := search(t, s, Options{Query: q.And(field(t, "source", name)), Before: before, After: after})
		if !slices.Equal(got, want) {
			t.Fatalf("%q in %s, %d before and %d after: %d records, not %d, or in another order", text, name, before, after, len(got), len(want))
		}
	}
}

func field(t testing.TB, name, value string) query.Filter {
	t.Helper()
	f, err := query.Field(name, query.Options{}, value)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestTables(t *testing.T) {
	logs := sample(rand.New(rand.NewPCG(2, 2)), 3000)
	s := newStore(t)
	stored(t, s, logs)
	total, failed := 0, 0
	for _, list := range logs {
		for _, r := range list {
			total++
			if bytes.Contains(r.Raw, []byte("Failed")) {
				failed++
			}
		}
	}
	for _, test := range []struct {
		expr string
		want float64
	}{{"Failed | count", float64(failed)}, {"Failed | histogram 1h", float64(failed)}, {"| stats count() by source", float64(total)}, {"Failed | top 5 source", float64(failed)}} {
		_, r := search(t, s, Options{Query: parsed(t, test.expr)})
		if r.Table == nil {
			t.Fatalf("%s makes no table", test.expr)
		}
		sum := 0.0
		column := slices.IndexFunc(r.Table.Columns, func(c query.Column) bool { return strings.HasPrefix(c.Name, "count") })
		for _, row := range r.Table.Rows {
			sum += row[column].Number()
		}
		if sum != test.want {
			t.Errorf("%s counts %v, not %v", test.expr, sum, test.want)
		}
	}
}
