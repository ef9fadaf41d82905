package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
	"golang.org/x/sys/unix"
)

// daily has a segment of source for each of n days that end with day0, and
// returns their lines.
func daily(t *testing.T, w *Writer, source string, n int) (want []string) {
	t.Helper()
	for d := range n {
		b := Batch{Key: source, Origin: event.Origin{Source: source}, Cursor: []byte("x")}
		for i := range 5 {
			raw := fmt.Sprintf("day -%d line %d", n-1-d, i)
			b.Records = append(b.Records, event.Record{Time: day0.AddDate(0, 0, d-n+1).UnixNano() + int64(i), Raw: []byte(raw)})
			want = append(want, source+"|"+raw)
		}
		appendTo(t, w, b)
	}
	flushed(t, w)
	return want
}

func ids(list []Removal) (out []uint64) {
	for _, r := range list {
		out = append(out, r.ID)
	}
	return out
}

const aDay = 24 * time.Hour

func TestRetention(t *testing.T) {
	begin := func(t *testing.T) (*Store, []string, []string) {
		s, _ := newStore(t, nil)
		w := writer(t, s)
		return s, daily(t, w, "a", 10), daily(t, w, "b", 4) // segments 1–10, 11–14
	}
	size := func(t *testing.T, s *Store, source string) (n int64) {
		st, err := s.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range st {
			if x.Source == source || source == "" {
				n += x.Bytes
			}
		}
		return n
	}
	for name, tc := range map[string]struct {
		policy  func(t *testing.T, s *Store) Policy
		holds   []Hold
		removed []uint64
		held    []uint64
		over    bool
	}{
		"nothing": {func(*testing.T, *Store) Policy { return Policy{} }, nil, nil, nil, false},
		"age": {
			func(*testing.T, *Store) Policy { return Policy{Limits: Limits{MaxAge: 3 * aDay}} },
			nil, []uint64{1, 2, 3, 4, 5, 6, 7, 11}, nil, false,
		},
		"age by source": {
			func(*testing.T, *Store) Policy {
				return Policy{Limits: Limits{MaxAge: aDay}, Sources: map[string]Limits{"a": {MaxAge: 8 * aDay}}}
			},
			nil, []uint64{1, 2, 11, 12, 13}, nil, false,
		},
		"size": {
			// Seven and a half of fourteen segments, which are about as large as each other.
			func(t *testing.T, s *Store) Policy { return Policy{Limits: Limits{MaxBytes: size(t, s, "") * 15 / 28}} },
			nil, []uint64{1, 2, 3, 4, 5, 6, 7}, nil, false,
		},
		"size of a source": {
			func(t *testing.T, s *Store) Policy {
				return Policy{Sources: map[string]Limits{"b": {MaxBytes: size(t, s, "b") - 1}}}
			},
			nil, []uint64{11}, nil, false,
		},
		"a hold wins over age": {
			func(*testing.T, *Store) Policy { return Policy{Limits: Limits{MaxAge: 3 * aDay}} },
			[]Hold{{Name: "x", Sources: []string{"a"}, Since: day0.AddDate(0, 0, -8).UnixNano(), Until: day0.AddDate(0, 0, -7).UnixNano()}},
			[]uint64{1, 4, 5, 6, 7, 11}, []uint64{2, 3}, false,
		},
		"a hold wins over size": {
			func(t *testing.T, s *Store) Policy { return Policy{Limits: Limits{MaxBytes: 1}} },
			[]Hold{{Name: "x", Sources: []string{"[a]"}}},
			[]uint64{11, 12, 13, 14}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, true,
		},
		"a hold of everything": {
			func(t *testing.T, s *Store) Policy { return Policy{Limits: Limits{MaxAge: 1}} },
			[]Hold{{Name: "x"}}, nil, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, b := begin(t)
			for _, h := range tc.holds {
				if err := s.Hold(ctx, h); err != nil {
					t.Fatal(err)
				}
			}
			p := tc.policy(t, s)
			p.DryRun = true
			for range 2 {
				r, err := s.Rotate(ctx, p)
				if err != nil {
					t.Fatal(err)
				}
				got, held := ids(r.Removed), ids(r.Held)
				slices.Sort(got)
				slices.Sort(held)
				if !slices.Equal(got, tc.removed) || !slices.Equal(held, tc.held) || r.Over > 0 != tc.over || len(r.Merged) > 0 {
					t.Errorf("dry=%v: removed %v, held %v, over %d; want %v, %v", p.DryRun, got, held, r.Over, tc.removed, tc.held)
				}
				if p.DryRun {
					wantAll(t, s, a, b)
				}
				p.DryRun = false
			}
			v := clean(t, s)
			if v.Removed != int64(len(tc.removed)) || v.Segments != int64(14-len(tc.removed)) {
				t.Errorf("%+v", v)
			}
			names, err := readNames(s.segmentDir())
			if err != nil || int64(len(names)) != v.Segments {
				t.Errorf("files %q, %v", names, err)
			}
			for _, h := range tc.holds {
				if err := s.Release(ctx, h.Name, "closed", "root"); err != nil {
					t.Fatal(err)
				}
			}
			if r, err := s.Rotate(ctx, p); err != nil || len(r.Held) > 0 || len(r.Removed) != len(tc.held) {
				t.Errorf("after the release: %+v, %v", r, err)
			}
			clean(t, s)
		})
	}
}

func TestMergeKeepsEveryRecord(t *testing.T) {
	s, _ := newStore(t, nil)
	w := writer(t, s)
	var want [][]string
	for i := range 6 {
		appendTo(t, w, batch("a", i*100, i*100+100), batch("b", i*10, i*10+10))
		flushed(t, w)
	}
	want = append(want, lines("a", 0, 600), lines("b", 0, 60))
	// Held segments stay as they are.
	if err := s.Hold(ctx, Hold{Name: "x", Sources: []string{"b"}}); err != nil {
		t.Fatal(err)
	}
	dry, err := s.Rotate(ctx, Policy{DryRun: true})
	if err != nil || len(dry.Merged) != 1 || len(dry.Merged[0].From) != 6 || dry.Merged[0].Into != 0 {
		t.Fatalf("%+v, %v", dry, err)
	}
	r, err := s.Rotate(ctx, Policy{})
	if err != nil || len(r.Merged) != 1 || r.Merged[0].Records != 600 || r.Freed <= 0 || r.Merged[0].Into != 13 {
		t.Fatalf("%+v, %v", r, err)
	}
	wantAll(t, s, want...)
	v := clean(t, s)
	if v.Merged != 6 || v.Segments != 7 || v.Records != 660 {
		t.Errorf("%+v", v)
	}
	if r, err := s.Rotate(ctx, Policy{}); err != nil || len(r.Merged) > 0 {
		t.Errorf("merged again: %+v, %v", r, err)
	}
	// A segment that was altered is not merged, and others are.
	if err := s.Release(ctx, "x", "", ""); err != nil {
		t.Fatal(err)
	}
	appendTo(t, w, batch("a", 600, 601))
	flushed(t, w)
	flip(t, s.segmentPath(2), 60)
	r, err = s.Rotate(ctx, Policy{})
	if !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), "segment 2") || len(r.Merged) != 1 || r.Merged[0].Records != 601 {
		t.Errorf("%+v, %v", r, err)
	}
	if v, err := s.Verify(ctx, VerifyOptions{}); err != nil || len(v.Problems) != 1 || v.Problems[0].Segment != 2 {
		t.Errorf("what was altered is not named after a merge: %+v, %v", v, err)
	}
}

func TestHolds(t *testing.T) {
	s, _ := newStore(t, nil)
	if h, err := s.Holds(ctx); err != nil || len(h) != 0 {
		t.Error(h, err)
	}
	for _, bad := range []Hold{{}, {Name: "x", Since: 5, Until: 4}, {Name: "x", Sources: []string{"["}}, {Name: "x", Sources: []string{""}}, {Name: strings.Repeat("x", 300)}} {
		if err := s.Hold(ctx, bad); failure.KindOf(err) != failure.Usage {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	h := Hold{Name: "b", Sources: []string{"/var/log/*", "journal"}, Since: 5, Until: 10, Reason: "case 7", By: "root"}
	for _, name := range []string{"b", "a"} {
		h.Name = name
		if err := s.Hold(ctx, h); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Hold(ctx, h); !errors.Is(err, ErrHoldExists) {
		t.Error(err)
	}
	list, err := s.Holds(ctx)
	if err != nil || len(list) != 2 || list[0].Name != "a" || list[1].Name != "b" || list[1].Reason != "case 7" || list[1].Time.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	for _, c := range []struct {
		source   string
		min, max int64
		want     bool
	}{
		{"/var/log/syslog", 0, 5, true}, {"/var/log/syslog", 10, 12, true}, {"journal", 6, 7, true}, {"/var/log/a/b", 6, 7, true},
		{"journal", 0, 4, false}, {"journal", 11, 20, false}, {"other", 6, 7, false},
	} {
		if got := list[0].covers(&SegmentRecord{Origin: event.Origin{Source: c.source}, MinTime: c.min, MaxTime: c.max}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if err := s.Release(ctx, "c", "", ""); !errors.Is(err, ErrNoHold) {
		t.Error(err)
	}
	if err := s.Release(ctx, "a", "done", "root"); err != nil {
		t.Fatal(err)
	}
	if list, _ := s.Holds(ctx); len(list) != 1 {
		t.Errorf("%+v", list)
	}
	clean(t, s)
}

// smallDisk mounts a tmpfs of a size such as "2m".
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root: a full disk was not tested")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a tmpfs here, so a full disk was not tested: %v: %s", err, bytes.TrimSpace(out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	for _, reserve := range []Reserve{{}, {Bytes: 1 << 20}, {Percent: 50}} {
		t.Run(fmt.Sprintf("%+v", reserve), func(t *testing.T) {
			s, _ := openStore(t, smallDisk(t, "4m"), func(o *Options) { o.Reserve = reserve })
			w := writer(t, s)
			n := 0
			var err error
			for n < 1000 {
				if err = w.Append(ctx, []Batch{batch("a", n*1000, n*1000+1000)}); err != nil {
					break
				}
				n++
			}
			if !errors.Is(err, ErrFull) || failure.KindOf(err) != failure.Failed || !strings.Contains(err.Error(), "nothing is lost") {
				t.Fatalf("after %d batches: %v", n, err)
			}
			if reserve != (Reserve{}) {
				var st unix.Statfs_t
				if err := unix.Statfs(s.Dir(), &st); err != nil {
					t.Fatal(err)
				}
				if free := int64(st.Bavail) * int64(st.Bsize); free < 1<<20 || free > 3<<20 {
					t.Errorf("%d bytes are free: the reserve is not what was asked for", free)
				}
			}
			wantAll(t, s, lines("a", 0, n*1000))
			if reserve == (Reserve{}) {
				// Nothing is left for segments either; that fails without harm.
				if err := w.Flush(ctx); err == nil {
					t.Log("the segments fit")
				}
				wantAll(t, s, lines("a", 0, n*1000))
				return
			}
			// Segments are smaller than the log: making them uses the reserve, and
			// frees more.
			flushed(t, w)
			if c, _ := w.Cursors(ctx); string(c["file:a"]) != fmt.Sprint(n*1000) {
				t.Errorf("cursors: %q", c)
			}
			appendTo(t, w, batch("a", n*1000, n*1000+1000))
			wantAll(t, s, lines("a", 0, n*1000+1000))
			clean(t, s)
		})
	}
}

func TestFullDiskLosesNothingLater(t *testing.T) {
	dir := smallDisk(t, "4m")
	s, _ := openStore(t, dir, nil)
	w := writer(t, s)
	appendTo(t, w, batch("a", 0, 1000))
	flushed(t, w)
	appendTo(t, w, batch("a", 1000, 2000))
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	f.Close()
	if err := w.Append(ctx, []Batch{batch("a", 2000, 9000)}); !errors.Is(err, ErrFull) {
		t.Fatalf("%v; want ErrFull", err)
	}
	if err := w.Flush(ctx); !errors.Is(err, ErrFull) {
		t.Fatalf("Flush: %v; want ErrFull", err)
	}
	wantAll(t, s, lines("a", 0, 2000))
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	appendTo(t, w, batch("a", 2000, 3000))
	flushed(t, w)
	wantAll(t, s, lines("a", 0, 3000))
	clean(t, s)
	if err := w.Tick(ctx); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.segmentDir(), ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestInterruptedRotation(t *testing.T) {
	s, _ := newStore(t, nil)
	w := writer(t, s)
	for i := range 4 {
		appendTo(t, w, batch("a", i*100, i*100+100))
		flushed(t, w)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Rotate(stopped, Policy{}); failure.KindOf(err) != failure.Interrupted {
		t.Errorf("%v", err)
	}
	wantAll(t, s, lines("a", 0, 400))
	clean(t, s)
}
