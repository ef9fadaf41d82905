package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/match"
)

// readDamaged reads a file that may be damaged in every way there is, and
// returns the messages and what was reported. It fails when that takes long.
func readDamaged(t testing.TB, path string) (messages []string, problems []error) {
	t.Helper()
	start := time.Now()
	s, err := Open(Options{Report: func(err error) { problems = append(problems, err) }, MaxField: 1 << 20}, path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cursor := ""
	for n := 0; ; n++ {
		e, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		m, _ := e.Get("MESSAGE")
		messages = append(messages, string(m))
		if n%7 == 0 {
			cursor = e.Cursor()
			if out, _ := e.AppendExport(nil, ExportSeqnum); !bytes.HasSuffix(out, []byte("\n\n")) {
				t.Fatalf("export %q", out)
			}
			e.Record()
		}
	}
	if cursor != "" {
		if err := s.SeekCursor(cursor); err != nil {
			t.Fatal(err)
		}
		s.Next()
		if err := s.Restore(s.Position()); err != nil {
			t.Fatal(err)
		}
		s.Next()
	}
	s.SeekTime(1_780_000_000_500_000)
	s.Next()
	for _, o := range []SearchOptions{
		{Need: match.Need{Clauses: []match.Clause{{{Text: []byte("number")}}, {{Text: []byte("Frame"), Fold: true}, {Text: []byte("1"), Word: true}}}}},
		{Matches: []FieldMatch{{"PRIORITY", []byte("3")}, {"_HOSTNAME", []byte("synthetic")}}},
		{Matches: []FieldMatch{{"PRIORITY", []byte("9")}, {"_HOSTNAME", []byte("nobody's")}}},
	} {
		if _, err := s.Count(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	if s.Damaged() < len(problems) {
		t.Fatalf("%d problems were reported and %d counted", len(problems), s.Damaged())
	}
	for _, err := range problems {
		var c *CorruptError
		var u *UnsupportedError
		switch {
		case errors.As(err, &c) && c.File == path && c.What != "" && errors.Is(err, ErrDamaged):
		case errors.As(err, &u) && u.File == path && u.Flags != 0 && errors.Is(err, ErrUnsupported):
		default:
			t.Fatalf("reported without file or place: %v", err)
		}
		if failure.KindOf(err) != failure.Incomplete {
			t.Fatalf("%v is of kind %d", err, failure.KindOf(err))
		}
	}
	if took := time.Since(start); took > 2*time.Minute {
		t.Fatalf("it took %v to read a file of that size", took)
	}
	return messages, problems
}

// variants calls fn with small files of every variant.
func variants(t *testing.T, fn func(t *testing.T, file []byte, whole []string)) {
	for _, pack := range []byte{flagXZ, flagLZ4, flagZSTD} {
		for _, compact := range []bool{false, true} {
			t.Run(fmt.Sprintf("pack=%d,compact=%v", pack, compact), func(t *testing.T) {
				file := synthesize(t, 200, compact, pack != flagXZ, pack, pack == flagZSTD).bytes()
				path := filepath.Join(t.TempDir(), "whole.journal")
				writeFile(t, path, file)
				whole, problems := readDamaged(t, path)
				if len(whole) != 200 || len(problems) != 0 {
					t.Fatalf("%d entries and %v of a file without damage", len(whole), problems)
				}
				fn(t, file, whole)
			})
		}
	}
}

func TestTruncatedFiles(t *testing.T) {
	variants(t, func(t *testing.T, file []byte, whole []string) {
		path := filepath.Join(t.TempDir(), "cut.journal")
		for size := 0; size < len(file); size += 4096 {
			writeFile(t, path, file[:size])
			got, problems := readDamaged(t, path)
			if len(problems) == 0 {
				t.Fatalf("cut to %d of %d bytes, and nothing was reported", size, len(file))
			}
			// Everything whose bytes are there must be found.
			n := 0
			for i, m := range whole {
				if n = i; bytes.Index(file, []byte(m)) > size-1000 {
					break
				}
			}
			if !slices.Equal(got[:min(n, len(got))], whole[:n]) {
				t.Fatalf("cut to %d of %d bytes: %d entries read, at least %d are there", size, len(file), len(got), n)
			}
		}
	})
}

func TestFlippedBits(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 20
	}
	variants(t, func(t *testing.T, file []byte, whole []string) {
		path := filepath.Join(t.TempDir(), "flipped.journal")
		r := rand.New(rand.NewPCG(uint64(len(file)), 7))
		silent := 0
		for range rounds {
			b := bytes.Clone(file)
			first := len(b)
			for range 1 + r.IntN(3) {
				at := r.IntN(len(b))
				if r.IntN(3) == 0 { // numbers do more damage than text
					at = at&^7 + 8
				}
				at = min(at, len(b)-1)
				b[at] ^= 1 << r.IntN(8)
				first = min(first, at)
			}
			writeFile(t, path, b)
			got, problems := readDamaged(t, path)
			if len(problems) == 0 && len(got) != len(whole) {
				silent++
				t.Logf("%d entries of %d, and nothing was reported", len(got), len(whole))
			}
		}
		if silent > 0 {
			t.Errorf("entries were lost without a word %d times", silent)
		}
	})
}

func TestHostileFiles(t *testing.T) {
	base := func() *writer { return synthesize(t, 60, false, true, flagZSTD, false) }
	entry := func(w *writer, n int) uint64 { return w.item(n) }
	for name, c := range map[string]struct {
		change func(w *writer, b []byte)
		least  int    // entries that must be read
		say    string // part of what is reported
	}{
		"unknown flags":       {func(w *writer, b []byte) { b[headerIncompatible] |= 0x40 }, 0, "0x40"},
		"no signature":        {func(w *writer, b []byte) { b[0] = 'X' }, 0, "signature"},
		"huge header":         {func(w *writer, b []byte) { le.PutUint64(b[headerSize:], 1<<60) }, 0, "header"},
		"millions of entries": {func(w *writer, b []byte) { le.PutUint64(b[headerEntries:], 1<<62) }, 60, "entries"},
		"array that leads to itself": {func(w *writer, b []byte) {
			a := le.Uint64(b[headerEntryArray:])
			le.PutUint64(b[a+arrayNext:], a)
		}, 60, "leads back"},
		"array that leads nowhere": {func(w *writer, b []byte) {
			a := le.Uint64(b[headerEntryArray:])
			le.PutUint64(b[a+arrayNext:], 1<<40)
		}, 60, "ends before"},
		"entry without number": {func(w *writer, b []byte) { le.PutUint64(b[entry(w, 30)+entrySeqnum:], 0) }, 59, "sequence number"},
		"entry of no time":     {func(w *writer, b []byte) { le.PutUint64(b[entry(w, 30)+entryRealtime:], 1<<60) }, 59, "impossible time"},
		"entry with a field elsewhere": {func(w *writer, b []byte) {
			le.PutUint64(b[entry(w, 30)+entryItems:], uint64(len(b))+1<<33)
		}, 60, "ends before"},
		"entry of a field that is an entry": {func(w *writer, b []byte) { le.PutUint64(b[entry(w, 30)+entryItems:], entry(w, 29)) }, 60, "data object"},
		"huge object":                       {func(w *writer, b []byte) { le.PutUint64(b[entry(w, 30)+objectSize:], 1<<63) }, 59, "beyond the end"},
		"tiny object":                       {func(w *writer, b []byte) { le.PutUint64(b[entry(w, 30)+objectSize:], 1) }, 59, "only 1 bytes"},
		"hash chain in a circle": {func(w *writer, b []byte) {
			for _, at := range w.byValue {
				le.PutUint64(b[at+dataNextHash:], at)
				for i := range uint64(testBuckets) {
					le.PutUint64(b[w.tables[0]+16+16*i:], at)
				}
			}
		}, 60, "circle"},
		"hash table elsewhere":     {func(w *writer, b []byte) { le.PutUint64(b[headerDataTable:], 1<<50) }, 60, "hash table"},
		"value that is not packed": {func(w *writer, b []byte) { b[w.byValue["PRIORITY=3"]+1] = flagZSTD }, 60, "compressed field"},
		"value packed in two ways": {func(w *writer, b []byte) { b[w.byValue["PRIORITY=3"]+1] = 3 }, 60, "flags"},
		"value of the wrong hash":  {func(w *writer, b []byte) { b[w.byValue["PRIORITY=3"]+dataHash] ^= 1 }, 60, "hash"},
	} {
		t.Run(name, func(t *testing.T) {
			w := base()
			b := w.bytes()
			c.change(w, b)
			path := filepath.Join(t.TempDir(), "hostile.journal")
			writeFile(t, path, b)
			got, problems := readDamaged(t, path)
			if len(got) < c.least {
				t.Errorf("%d entries, %d are there", len(got), c.least)
			}
			if !slices.ContainsFunc(problems, func(err error) bool { return strings.Contains(err.Error(), c.say) }) {
				t.Errorf("reported %q", problems)
			}
		})
	}
}

// item returns the offset of the nth entry.
func (w *writer) item(n int) uint64 {
	at := w.get(headerEntryArray)
	for {
		room := (w.get(at+objectSize) - arrayItems) / 8
		if uint64(n) < room {
			return w.get(at + arrayItems + 8*uint64(n))
		}
		n -= int(room)
		at = w.get(at + arrayNext)
	}
}

func TestFieldsThatUnpackToTooMuch(t *testing.T) {
	for _, pack := range []byte{flagXZ, flagLZ4, flagZSTD} {
		w := newWriter(t, true, true, pack, false)
		w.add(1_780_000_000_000_000, 1, ID{1}, "MESSAGE=before")
		w.add(1_780_000_000_000_001, 2, ID{1}, "MESSAGE=with", "BIG="+strings.Repeat("x", 8<<20))
		w.add(1_780_000_000_000_002, 3, ID{1}, "MESSAGE=after")
		path := filepath.Join(t.TempDir(), "big.journal")
		writeFile(t, path, w.bytes())
		got, problems := readDamaged(t, path)
		if len(got) != 3 || len(problems) == 0 || !strings.Contains(problems[0].Error(), "limit") {
			t.Errorf("flag %d: %q and %v", pack, got, problems)
		}
		s := open(t, Options{}, path) // the usual limit is greater
		if out := exportAll(t, s, ExportClassic); len(out) < 8<<20 {
			t.Errorf("flag %d: %d bytes", pack, len(out))
		}
	}
}

// TestFileThatIsCutWhileItIsRead takes the memory away from under the reader.
func TestFileThatIsCutWhileItIsRead(t *testing.T) {
	w := synthesize(t, 8000, false, true, flagZSTD, false)
	file := w.bytes()
	for _, left := range []int{0, 100, 4096, len(file) / 2, len(file) - 5000} {
		path := filepath.Join(t.TempDir(), "cut.journal")
		writeFile(t, path, file)
		var problems []error
		s, err := Open(Options{Report: func(err error) { problems = append(problems, err) }}, path)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; n < 100; n++ {
			if _, err := s.Next(); err != nil {
				t.Fatal(err)
			}
		}
		cut := func(e *Entry) {
			if err := os.Truncate(path, int64(left)); err != nil {
				t.Fatal(err)
			}
			// Bytes that were handed out are looked at after the cut.
			e.Each(func(data []byte) error {
				bytes.Count(data, []byte("x"))
				return nil
			})
			e.AppendExport(nil, ExportClassic)
			e.Record()
		}
		e, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		cut(e)
		for {
			if _, err := s.Next(); err == io.EOF {
				break
			}
			n++
		}
		if len(problems) == 0 || n >= 8000 {
			t.Errorf("cut to %d bytes: %d entries, and reported %v", left, n, problems)
		}
		if left > len(file)/3 && n < 2000 {
			t.Errorf("cut to %d of %d bytes: only %d entries", left, len(file), n)
		}
		s.Position()
		if err := s.Search(context.Background(), SearchOptions{Need: match.Need{Clauses: []match.Clause{{{Text: []byte("number")}}}}}, func(*Entry) error { return nil }); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}

func TestOtherPanicsGoOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.journal")
	writeFile(t, path, synthesize(t, 3, true, true, 0, false).bytes())
	s := open(t, Options{}, path)
	e, err := s.Next()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if r := recover(); r != "mine" {
			t.Errorf("recovered %v", r)
		}
	}()
	e.Each(func([]byte) error { panic("mine") })
}

func TestWhatIsNoJournal(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "text.journal"), bytes.Repeat([]byte("no journal "), 100))
	writeFile(t, filepath.Join(dir, "empty.journal"), nil)
	writeFile(t, filepath.Join(dir, "good.journal"), synthesize(t, 5, true, true, 0, false).bytes())
	writeFile(t, filepath.Join(dir, "ignored.txt"), []byte("x"))
	if err := os.Symlink("nowhere", filepath.Join(dir, "broken.journal")); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Report: func(error) {}}, dir)
	if n := bytes.Count(exportAll(t, s, ExportClassic), []byte("__CURSOR=")); n != 5 {
		t.Errorf("%d entries of 5", n)
	}
	if len(s.Files()) != 1 || len(s.Problems()) != 2 {
		t.Errorf("files %q, problems %v", s.Files(), s.Problems())
	}
	if _, err := Open(Options{}, filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a path that does not exist: %v", err)
	}
}

// FuzzJournal reads whatever there is, as journal.
func FuzzJournal(f *testing.F) {
	for _, pack := range []byte{flagXZ, flagLZ4, flagZSTD} {
		f.Add(synthesize(f, 12, pack == flagLZ4, pack != flagXZ, pack, pack == flagZSTD).bytes())
	}
	f.Add([]byte(signature))
	f.Fuzz(func(t *testing.T, file []byte) {
		if len(file) > 1<<20 {
			return
		}
		path := filepath.Join(t.TempDir(), "fuzz.journal")
		writeFile(t, path, file)
		readDamaged(t, path)
	})
}
