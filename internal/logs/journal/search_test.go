package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/logs/match"
)

// slowSearch is what Search must find: each entry is looked at.
func slowSearch(t *testing.T, s *Set, o SearchOptions) (found []string) {
	t.Helper()
	s.SeekHead()
	for {
		e, err := s.Next()
		if err != nil {
			return found
		}
		if e.Time() < o.Since || o.Until > 0 && e.Time() >= o.Until {
			continue
		}
		var values []string
		e.Each(func(data []byte) error {
			values = append(values, string(data))
			return nil
		})
		pass := true
		for _, c := range o.Need.Clauses {
			pass = pass && slices.ContainsFunc(c, func(l match.Literal) bool {
				return slices.ContainsFunc(values, func(v string) bool { return simply(v, l) })
			})
		}
		byField := map[string]bool{}
		for _, m := range o.Matches {
			byField[m.Field] = byField[m.Field] || slices.Contains(values, m.Field+"="+string(m.Value))
		}
		for _, ok := range byField {
			pass = pass && ok
		}
		if pass {
			found = append(found, e.Cursor())
		}
	}
}

// simply reports whether a literal is in a value, in the most obvious way.
func simply(value string, l match.Literal) bool {
	if l.Fold {
		value = strings.Map(func(r rune) rune {
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			return r
		}, value)
	}
	for from := 0; ; from++ {
		at := strings.Index(value[from:], string(l.Text))
		if at < 0 {
			return false
		}
		from += at
		end := from + len(l.Text)
		if !l.Word || (from == 0 || !wordByte(value[from-1])) && (end == len(value) || !wordByte(value[end])) {
			return true
		}
	}
}

func fastSearch(t *testing.T, s *Set, o SearchOptions) (found []string) {
	t.Helper()
	if err := s.Search(context.Background(), o, func(e *Entry) error {
		found = append(found, e.Cursor())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// randomSearch makes up a search over what generate makes.
func randomSearch(r *rand.Rand) (o SearchOptions) {
	texts := append([]string{"10.0.3.7", "host1", "session opened", "SSHD", "PID=1", "=", "x", "at main.go", "\n", "frame 12", "number 17", "\x00\x01", "nothing like that", "é", "user", "use"}, words...)
	for range r.IntN(3) {
		var c match.Clause
		for range 1 + r.IntN(2) {
			l := match.Literal{Text: []byte(texts[r.IntN(len(texts))]), Fold: r.IntN(3) == 0, Word: r.IntN(3) == 0}
			if l.Fold {
				l.Text = bytes.ToLower(l.Text)
			}
			c = append(c, l)
		}
		o.Need.Clauses = append(o.Need.Clauses, c)
	}
	values := []FieldMatch{{"_HOSTNAME", []byte("host1")}, {"_HOSTNAME", []byte("host0")}, {"_COMM", []byte("su")},
		{"_COMM", []byte("kernel")}, {"PRIORITY", []byte("3")}, {"_HOSTNAME", []byte("synthetic")}, {"_UID", []byte("1000")}, {"_COMM", []byte("nobody")}}
	for range r.IntN(3) {
		o.Matches = append(o.Matches, values[r.IntN(len(values))])
	}
	const second = 1_000_000_000
	if r.IntN(3) == 0 {
		o.Since = 1_780_000_000*second + r.Int64N(400*second)
	}
	if r.IntN(3) == 0 {
		o.Until = 1_780_000_000*second + r.Int64N(600*second)
	}
	return o
}

func TestSearchFindsWhatLookingAtEachEntryFinds(t *testing.T) {
	needSystemd(t)
	dir := t.TempDir()
	for i, f := range realFormats[:4] {
		remote(t, filepath.Join(dir, f.name+".journal"), generate(spec{seed: uint64(i), n: 400, binary: true, boot: boots[i%3], start: 1_780_000_000_000_000 + uint64(i)*77_000_000}), f.env, f.flags...)
	}
	writeFile(t, filepath.Join(dir, "system.journal"), synthesize(t, 150, true, true, flagLZ4, true).bytes())
	writeFile(t, filepath.Join(dir, "user-5.journal"), synthesize(t, 99, false, false, flagXZ, false).bytes())
	s := open(t, Options{KeepAll: true}, dir)
	hits := 0
	for seed := range uint64(80) {
		o := randomSearch(rand.New(rand.NewPCG(seed, 1)))
		want := slowSearch(t, s, o)
		got := fastSearch(t, s, o)
		// The order of files that disagree depends on which entries are looked
		// at; the entries do not.
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("search %d %s: %d entries, looking at each %d", seed, describe(o), len(got), len(want))
		}
		hits += len(got)
		if n, err := s.Count(context.Background(), o); err != nil || n != uint64(len(want)) {
			t.Fatalf("search %d: counted %d of %d, %v", seed, n, len(want), err)
		}
	}
	if hits < 3000 {
		t.Fatalf("the searches found only %d entries altogether: the test does not test", hits)
	}
}

func describe(o SearchOptions) string {
	text := fmt.Sprintf("since %d until %d", o.Since, o.Until)
	for _, c := range o.Need.Clauses {
		for _, l := range c {
			text += fmt.Sprintf(" %q(fold %v, word %v)", l.Text, l.Fold, l.Word)
		}
		text += ";"
	}
	for _, m := range o.Matches {
		text += fmt.Sprintf(" %s=%s", m.Field, m.Value)
	}
	return text
}

func TestMatchesEqualJournalctl(t *testing.T) {
	needSystemd(t)
	dir := t.TempDir()
	for i, f := range realFormats[:4] {
		remote(t, filepath.Join(dir, f.name+".journal"), generate(spec{seed: uint64(i), n: 700, boot: boots[i%3], start: 1_780_000_000_000_000 + uint64(i)*9_000_000_000}), f.env, f.flags...)
	}
	for _, args := range [][]string{{"_COMM=su"}, {"_COMM=su", "_COMM=cron"}, {"_COMM=su", "PRIORITY=3"}, {"_COMM=nobody"}, {"_HOSTNAME=host1", "PRIORITY=1", "PRIORITY=2", "_COMM=kernel"}} {
		var matches []FieldMatch
		for _, a := range args {
			name, value, _ := bytes.Cut([]byte(a), []byte("="))
			matches = append(matches, FieldMatch{string(name), value})
		}
		s := open(t, Options{}, dir)
		s.Match(matches...)
		want := journalctl(t, append([]string{"-o", "export", "--directory", dir}, args...)...)
		sameExport(t, exportAll(t, s, variant(t)), want)
		var got []byte
		if err := s.Search(context.Background(), SearchOptions{Matches: matches}, func(e *Entry) (err error) {
			got, err = e.AppendExport(got, variant(t))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		sameExport(t, got, want)
	}
}

func TestSearchEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.journal")
	writeFile(t, path, synthesize(t, 1000, true, true, 0, false).bytes())
	s := open(t, Options{}, path)
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	err := s.Search(ctx, SearchOptions{}, func(*Entry) error {
		if n++; n == 100 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n >= 1000 {
		t.Errorf("a cancelled search returned %v after %d entries", err, n)
	}
	stop := errors.New("stop")
	if err := s.Search(context.Background(), SearchOptions{}, func(*Entry) error { return stop }); err != stop {
		t.Errorf("Search returned %v and not the error of its function", err)
	}
	if err := s.Search(context.Background(), SearchOptions{After: "nonsense"}, nil); err == nil {
		t.Error("a cursor that is none was taken")
	}
	var after string
	s.Search(context.Background(), SearchOptions{}, func(e *Entry) error {
		if after = e.Cursor(); e.Seqnum == 400 {
			return stop
		}
		return nil
	})
	if got := fastSearch(t, s, SearchOptions{After: after}); len(got) != 600 {
		t.Errorf("%d entries after the 400th of 1000", len(got))
	}
}
