package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

var errCrash = errors.New("the process dies here")

// interrupted does what consumeNext does up to a step, and no more.
func interrupted(t *testing.T, s *Store, step string) {
	t.Helper()
	err := s.change(ctx, "test", func(c *change) error {
		r, err := s.readGeneration(c.head.store, c.consumed+1)
		if err != nil {
			return err
		}
		defer r.close()
		a, _, err := s.gather(ctx, r)
		if err != nil {
			return err
		}
		if err := c.write(ctx, a); err != nil {
			return err
		}
		op := &operation{generation: c.consumed + 1, cursors: []cursorChange{{"file:a", a.cursors["file:a"]}}}
		for _, f := range c.fresh {
			op.records = append(op.records, &Record{Kind: KindAdded, Time: c.now.UnixNano(), Segment: &f.rec})
		}
		frame := merkleFrame(&c.tree, op.encode())
		if step == "half a frame" {
			frame = frame[:len(frame)/2]
		}
		if err := appendMerkle(s.merklePath(), c.bytes, frame); err != nil {
			return err
		}
		switch step {
		case "one segment":
			if err := os.Rename(c.fresh[0].file.Name(), s.segmentPath(c.fresh[0].id)); err != nil {
				return err
			}
		case "all segments":
			if err := c.publish(); err != nil {
				return err
			}
		}
		return errCrash
	})
	if !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
}

func TestInterruptedFlushes(t *testing.T) {
	for _, step := range []string{"half a frame", "frame", "one segment", "all segments"} {
		t.Run(step, func(t *testing.T) {
			s, _ := newStore(t, nil)
			w := writer(t, s)
			appendTo(t, w, batch("a", 0, 10), batch("b", 0, 10))
			flushed(t, w)
			appendTo(t, w, batch("a", 10, 20), batch("b", 10, 20))
			w.mu.Lock()
			err := w.rollOver()
			w.mu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			interrupted(t, s, step)
			wantAll(t, s, lines("a", 0, 20), lines("b", 0, 20)) // before anybody settles it
			r := clean(t, s)
			if r.Leaves != 2 {
				t.Errorf("%d leaves", r.Leaves)
			}
			// The next change settles it; then everything goes on.
			if err := s.Hold(ctx, Hold{Name: "x"}); err != nil {
				t.Fatal(err)
			}
			wantAll(t, s, lines("a", 0, 20), lines("b", 0, 20))
			if r := clean(t, s); (r.Leaves == 5) != (step == "all segments") {
				t.Errorf("%d leaves", r.Leaves)
			}
			flushed(t, w)
			w.Close()
			w = writer(t, s)
			if c, _ := w.Cursors(ctx); string(c["file:a"]) != "20" {
				t.Errorf("cursors: %q", c)
			}
			wantAll(t, s, lines("a", 0, 20), lines("b", 0, 20))
			if r := clean(t, s); r.Leaves != 5 || r.Segments != 4 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestInterruptedMerges stops a merge after its frame, and after its file.
func TestInterruptedMerges(t *testing.T) {
	for _, published := range []bool{false, true} {
		t.Run(fmt.Sprintf("published=%v", published), func(t *testing.T) {
			s, _ := newStore(t, nil)
			w := writer(t, s)
			for i := range 3 {
				appendTo(t, w, batch("a", i*10, i*10+10))
				flushed(t, w)
			}
			err := s.change(ctx, "test", func(c *change) error {
				list := c.mergeable()[0]
				seg, err := s.createSegment(ctx, c.head.store, c.nextID, list[0].Origin)
				if err != nil {
					return err
				}
				for _, e := range list {
					if err := s.copyRecords(ctx, seg, s.info(c.index, e)); err != nil {
						return err
					}
				}
				f, err := seg.finish()
				if err != nil {
					return err
				}
				c.fresh = append(c.fresh, f)
				op := &operation{records: []*Record{{Kind: KindMerged, Time: 1, Segment: &f.rec, From: mergeOf(list).From}}}
				if err := appendMerkle(s.merklePath(), c.bytes, merkleFrame(&c.tree, op.encode())); err != nil {
					return err
				}
				if published {
					if err := c.publish(); err != nil {
						return err
					}
				}
				return errCrash
			})
			if !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			clean(t, s)
			wantAll(t, s, lines("a", 0, 30))
			w.Close()
			writer(t, s)
			wantAll(t, s, lines("a", 0, 30))
			if r := clean(t, s); (r.Merged == 3) != published {
				t.Errorf("%+v", r)
			}
			if r, err := s.Rotate(ctx, Policy{}); err != nil || (len(r.Merged) == 0) != published {
				t.Errorf("%+v, %v", r, err)
			}
			wantAll(t, s, lines("a", 0, 30))
			if r := clean(t, s); r.Segments != 1 || r.Merged != 3 {
				t.Errorf("%+v", r)
			}
			if names, _ := readNames(s.segmentDir()); len(names) != 1 {
				t.Errorf("files: %q", names)
			}
		})
	}
}

// copyState keeps the files of state.db, and returns what puts them back.
func copyState(t *testing.T, s *Store) func() {
	t.Helper()
	kept := map[string][]byte{}
	for _, name := range []string{"state.db", "state.sum"} {
		path := filepath.Join(s.opts.State.Dir(), name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		kept[path] = b
	}
	return func() {
		for path, b := range kept {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAnOlderStateIsBroughtForward(t *testing.T) {
	s, c := newStore(t, nil)
	w := writer(t, s)
	appendTo(t, w, batch("a", 0, 10))
	flushed(t, w)
	back := copyState(t, s)
	appendTo(t, w, batch("a", 10, 20))
	flushed(t, w)
	if err := s.Hold(ctx, Hold{Name: "case 7", Sources: []string{"b"}}); err != nil {
		t.Fatal(err)
	}
	appendTo(t, w, batch("a", 20, 30))
	flushed(t, w)
	if r, err := s.Rotate(ctx, Policy{}); err != nil || len(r.Merged) != 1 {
		t.Fatal(r, err)
	}
	c.add(time.Hour)
	if _, err := s.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	appendTo(t, w, batch("a", 30, 40))
	w.Close()
	back()
	r, err := s.Verify(ctx, VerifyOptions{Key: key().public()})
	if err != nil || r.Kind() != failure.Untrustworthy {
		t.Errorf("an older state.db is not noticed: %+v, %v", r, err)
	}
	w = writer(t, s)
	if c, _ := w.Cursors(ctx); string(c["file:a"]) != "40" {
		t.Errorf("cursors: %q", c)
	}
	wantAll(t, s, lines("a", 0, 40))
	if h, err := s.Holds(ctx); err != nil || len(h) != 1 {
		t.Errorf("holds: %v, %v", h, err)
	}
	flushed(t, w)
	wantAll(t, s, lines("a", 0, 40))
	clean(t, s)
}

func TestALostStateIsNotWrittenOver(t *testing.T) {
	t.Run("segments", func(t *testing.T) { lostState(t, true) })
	t.Run("write-ahead log", func(t *testing.T) { lostState(t, false) })
}

func lostState(t *testing.T, segments bool) {
	s, _ := newStore(t, nil)
	w := writer(t, s)
	appendTo(t, w, batch("a", 0, 10))
	if segments {
		flushed(t, w)
	}
	w.Close()
	for _, name := range []string{"state.db", "state.sum"} {
		if err := os.Remove(filepath.Join(s.opts.State.Dir(), name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Writer(ctx); !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), "state restore") {
		t.Errorf("%v", err)
	}
	if _, err := s.Verify(ctx, VerifyOptions{}); !errors.Is(err, ErrTampered) {
		t.Errorf("Verify: %v", err)
	}
}

// flipped changes a byte of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += int64(len(b))
	}
	b[at] ^= 0x10
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamageOfTheWriteAheadLog(t *testing.T) {
	// Four frames, in a generation of which the writer died.
	begin := func(t *testing.T) (*Store, string, []int64) {
		s, _ := newStore(t, nil)
		w := writer(t, s)
		ends := []int64{w.open.end}
		for i := range 4 {
			appendTo(t, w, batch("a", i*10, i*10+10))
			ends = append(ends, w.open.end)
		}
		path := w.open.file.Name()
		w.Close()
		return s, path, ends
	}
	t.Run("torn tail", func(t *testing.T) {
		for _, cut := range []int64{1, 8, 20, 100} {
			s, path, ends := begin(t)
			if err := os.Truncate(path, ends[4]-cut); err != nil {
				t.Fatal(err)
			}
			clean(t, s)
			w := writer(t, s)
			if r := w.Recovery(); r.Cut != ends[4]-ends[3]-cut || len(r.Damage) > 0 {
				t.Errorf("%+v", r)
			}
			if c, _ := w.Cursors(ctx); string(c["file:a"]) != "30" {
				t.Errorf("cursors: %q", c)
			}
			appendTo(t, w, batch("a", 30, 40))
			flushed(t, w)
			wantAll(t, s, lines("a", 0, 40))
			clean(t, s)
		}
	})
	for what, at := range map[string]func(ends []int64) int64{
		"a body":          func(e []int64) int64 { return e[1] + frameHeadSize + 40 },
		"a frame's magic": func(e []int64) int64 { return e[1] },
		"a length":        func(e []int64) int64 { return e[1] + 5 },
	} {
		t.Run(what, func(t *testing.T) {
			s, path, ends := begin(t)
			flip(t, path, at(ends))
			r, err := s.Verify(ctx, VerifyOptions{})
			if err != nil || len(r.Problems) != 1 || r.Problems[0].Name != "wal/0000000001.wal" || r.Kind() != failure.Untrustworthy ||
				!strings.Contains(r.Problems[0].Detail, fmt.Sprint("byte ", ends[1])) {
				t.Errorf("%+v, %v", r, err)
			}
			snap, err := s.Snapshot(ctx, Everything())
			if err != nil {
				t.Fatal(err)
			}
			var de *DamageError
			n := 0
			err = snap.pending(ctx, func(f *framed) error { n += f.records; return nil })
			if !errors.As(err, &de) || n != 30 || failure.KindOf(err) != failure.Incomplete {
				t.Errorf("a reader finds %d records: %v", n, err)
			}
			snap.Close()
			w := writer(t, s)
			want := Damage{"wal/0000000001.wal", ends[1], ends[2] - ends[1]}
			if d := w.Recovery().Damage; len(d) != 1 || d[0] != want {
				t.Errorf("recovery: %+v; want %+v", d, want)
			}
			flushed(t, w)
			wantAll(t, s, lines("a", 0, 10), lines("a", 20, 40))
			if r := clean(t, s); len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "damaged/0000000001.wal") {
				t.Errorf("notes: %q", r.Notes)
			}
			if _, err := os.Stat(filepath.Join(s.damagedDir(), "0000000001.wal")); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("header", func(t *testing.T) {
		s, path, _ := begin(t)
		flip(t, path, 10)
		w := writer(t, s)
		if d := w.Recovery().Damage; len(d) != 1 || d[0].Offset != 0 {
			t.Errorf("recovery: %+v", d)
		}
		flushed(t, w)
		wantAll(t, s, lines("a", 0, 40))
	})
	t.Run("missing", func(t *testing.T) {
		s, path, _ := begin(t)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		r, err := s.Verify(ctx, VerifyOptions{})
		if err != nil || len(r.Problems) != 1 || r.Problems[0].What != Missing {
			t.Errorf("%+v, %v", r, err)
		}
		snap, err := s.Snapshot(ctx, Everything())
		if err != nil || len(snap.Problems) != 1 {
			t.Errorf("%+v, %v", snap, err)
		}
		snap.Close()
		w := writer(t, s)
		if d := w.Recovery().Damage; len(d) != 1 {
			t.Errorf("recovery: %+v", d)
		}
		if c, _ := w.Cursors(ctx); len(c) != 0 {
			t.Errorf("cursors of what was lost: %q", c)
		}
		appendTo(t, w, batch("a", 0, 10)) // as the source, whose cursor is lost as well, does
		flushed(t, w)
		wantAll(t, s, lines("a", 0, 10))
		if r := clean(t, s); len(r.Notes) != 1 {
			t.Errorf("notes: %q", r.Notes)
		}
	})
}

func TestSetAside(t *testing.T) {
	s, _ := newStore(t, nil)
	w := writer(t, s)
	appendTo(t, w, batch("a", 0, 10))
	flushed(t, w)
	appendTo(t, w, batch("a", 10, 20))
	if _, err := s.SetAside(ctx); failure.KindOf(err) != failure.Busy {
		t.Errorf("beside a writer: %v", err)
	}
	w.Close()
	if err := os.Truncate(s.merklePath(), 100); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Writer(ctx); !errors.Is(err, ErrTampered) {
		t.Fatalf("%v", err)
	}
	kept, err := s.SetAside(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(kept, catalogueFile))
	if err != nil || !strings.Contains(string(b), `"records": 10,`) {
		t.Errorf("%s, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(kept, "segments", segmentName(1))); err != nil {
		t.Error(err)
	}
	w = writer(t, s)
	if c, _ := w.Cursors(ctx); string(c["file:a"]) != "10" {
		t.Errorf("cursors: %q", c)
	}
	appendTo(t, w, batch("a", 10, 20))
	wantAll(t, s, lines("a", 10, 20))
	clean(t, s)
}

func TestHistory(t *testing.T) {
	s := sealedStore(t)
	var kinds []string
	err := s.History(ctx, func(leaf uint64, r *Record) error {
		if leaf != uint64(len(kinds)) {
			t.Errorf("leaf %d at %d", leaf, len(kinds))
		}
		if b, err := json.Marshal(r); err != nil || !strings.Contains(string(b), `"kind":"`+r.Kind.String()+`"`) {
			t.Errorf("%s, %v", b, err)
		}
		kinds = append(kinds, r.Kind.String())
		return nil
	})
	if got := strings.Join(kinds, " "); err != nil || got != "added added added sealed added held sealed added" {
		t.Errorf("%q, %v", got, err)
	}
}
