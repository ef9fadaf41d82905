package integrity

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// TestReportsAreKept: a report comes back as it was, whatever the names in it.
func TestReportsAreKept(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("a", "1")
	b.put("b", "1")
	b.put("moved", "unlike the others")
	b.must(os.Symlink("one", b.path("link")))
	b.take()
	b.put("a", "2")
	b.must(os.Remove(b.path("b")))
	b.must(os.Rename(b.path("moved"), b.path("elsewhere")))
	b.must(os.Remove(b.path("link")))
	b.must(os.Symlink("two\xff\n", b.path("link")))
	b.put("new\n\xff", "")
	b.must(unix.Setxattr(b.path("a"), "user.x", []byte{0, 255}, 0))
	r := b.compare(CompareOptions{})
	if r.ID == "" || len(r.Changes) != 5 {
		t.Fatalf("id %q, %q", r.ID, changes(r))
	}
	got, entry, err := b.LoadReport(t.Context(), "default", Latest)
	b.must(err)
	if !reflect.DeepEqual(got.Changes, r.Changes) || !reflect.DeepEqual(got.Summary, r.Summary) || got.Baseline.ID != r.Baseline.ID {
		t.Errorf("got  %+v\nwant %+v", got, r)
	}
	if entry.Status != 1 || entry.Severities["medium"] != 5 || entry.Mode() != "check" {
		t.Errorf("%+v", entry)
	}
	b.onlyCatalogued()

	// The same again is the same report.
	again := b.compare(CompareOptions{})
	list, err := b.Reports(t.Context(), "default")
	b.must(err)
	if again.ID != r.ID || len(list) != 1 || list[0].Runs != 2 {
		t.Errorf("id %s, was %s; %+v", again.ID, r.ID, list)
	}
	if _, _, err := b.LoadReport(t.Context(), "default", r.ID[:5]); err != nil {
		t.Error(err)
	}
	if _, _, err := b.LoadReport(t.Context(), "default", "no"); !errors.Is(err, ErrNoReport) {
		t.Error(err)
	}

	// One that was altered is not believed.
	file := b.reportFile("default", r.ID)
	data, err := os.ReadFile(file)
	b.must(err)
	data[len(data)/2] ^= 1
	b.must(os.WriteFile(file, data, 0o600))
	if _, _, err := b.LoadReport(t.Context(), "default", r.ID); !errors.Is(err, ErrDamagedReport) || failure.KindOf(err) != failure.Untrustworthy {
		t.Error(err)
	}
}

// TestReportsAreDropped: the oldest ones' files go, and so does what a killed
// run left.
func TestReportsAreDropped(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("f", "")
	b.take()
	var first string
	for i := range keptReportFiles + 2 {
		b.put("f", fmt.Sprint(i))
		if r := b.compare(CompareOptions{}); i == 0 {
			first = r.ID
		}
	}
	b.must(os.WriteFile(b.reportFile("default", "0123456789abcdef"), nil, 0o600))
	b.compare(CompareOptions{Verify: true})
	list, err := b.Reports(t.Context(), "default")
	b.must(err)
	files := 0
	for _, r := range list {
		if _, err := os.Stat(b.reportFile("default", r.ID)); err == nil {
			files++
		}
	}
	if len(list) != keptReportFiles+3 || files != keptReportFiles {
		t.Errorf("%d entries, %d files", len(list), files)
	}
	if _, _, err := b.LoadReport(t.Context(), "default", first); !errors.Is(err, ErrNoReport) {
		t.Errorf("the first report: %v", err)
	}
	if _, err := os.Stat(b.reportFile("default", "0123456789abcdef")); err == nil {
		t.Error("what a killed run left is still there")
	}
}

func FuzzReadReport(f *testing.F) {
	var buf bytes.Buffer
	r := &Report{Tree: "/", Changes: []Change{{Path: []byte("/x"), Kind: Added}}, Problems: []Problem{{Path: []byte("/y"), Reason: "?"}}}
	if err := writeReport(&buf, r); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readReport(bytes.NewReader(b))
		if err != nil {
			if failure.KindOf(err) != failure.Untrustworthy {
				t.Errorf("%v is not typed", err)
			}
			return
		}
		var again bytes.Buffer
		if err := writeReport(&again, r); err != nil {
			t.Fatal(err)
		}
		if r2, err := readReport(&again); err != nil || len(r2.Changes) != len(r.Changes) {
			t.Errorf("does not come back: %v", err)
		}
	})
}

// TestReportOfLargeAttributes: the owner of a file cannot make a report
// unreadable by what he attaches to it, nor the findings large.
func TestReportOfLargeAttributes(t *testing.T) {
	for what, c := range map[string]struct{ n, size int }{"few and large": {5, 50000}, "many and small": {4000, 30}} {
		t.Run(what, func(t *testing.T) {
			name := "f"
			attach := func(n, size int, fill byte) *baseline.Record {
				r := &baseline.Record{Dir: []byte("/"), Name: []byte(name), Info: filehash.Info{Mode: unix.S_IFREG}}
				for i := range n {
					r.Xattrs = append(r.Xattrs, filehash.Xattr{Name: fmt.Sprintf("user.%06d", i), Value: bytes.Repeat([]byte{fill}, size)})
				}
				return r
			}
			old, now := attach(c.n, c.size, 200), attach(c.n, c.size, 201)
			ch := Change{Path: []byte("/f"), Kind: Changed, Attributes: compareXattrs(old.Xattrs, now.Xattrs, policy.Xattrs), Now: now}
			if len(ch.Attributes) != c.n {
				t.Fatalf("%d attributes", len(ch.Attributes))
			}
			var buf bytes.Buffer
			if err := writeReport(&buf, &Report{Changes: []Change{ch}}); err != nil {
				t.Fatal(err)
			}
			r, err := readReport(&buf)
			if err != nil || len(r.Changes) != 1 || len(r.Changes[0].Now.Xattrs) != c.n {
				t.Fatal(err)
			}
			f := r.Changes[0].finding(r)
			if n := len(f.Evidence["xattrs.new"]); n > 1<<20 {
				t.Errorf("the finding has %d bytes of them", n)
			}
		})
	}
}

// TestReportsOfOtherKindsBetween: what the night's check found outlasts a day of
// looks at the network, each of which finds the same as the one before.
func TestReportsOfOtherKindsBetween(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("a", "1")
	b.take()
	b.put("a", "2")
	first := b.compare(CompareOptions{})
	look := func(drift byte) {
		t.Helper()
		b.must(b.Store.Update(t.Context(), func(tx *state.Tx) error {
			gone, err := b.putReport(tx, &ReportEntry{ID: newID(), Baseline: DefaultName, BaselineID: first.Baseline.ID,
				Aspects: []string{facts.Network}, Digest: [32]byte{drift}, Runs: 1})
			if len(gone) > 0 {
				t.Errorf("no longer wanted: %v", gone)
			}
			return err
		}))
	}
	for range 2 * keptReportFiles {
		look(1)
		if again := b.compare(CompareOptions{}); again.ID != first.ID {
			t.Fatalf("report %s, was %s", again.ID, first.ID)
		}
	}
	look(2)
	look(1)
	list, err := b.Reports(t.Context(), DefaultName)
	b.must(err)
	var runs []int
	for i := range list {
		runs = append(runs, list[i].Runs)
	}
	if want := []int{1, 1, 2*keptReportFiles + 1, 2 * keptReportFiles}; !slices.Equal(runs, want) || list[2].ID != first.ID {
		t.Errorf("runs %v, want %v, the newest first", runs, want)
	}
	if r, _, err := b.LoadReport(t.Context(), DefaultName, first.ID); err != nil || len(r.Changes) != 1 {
		t.Errorf("%v %v", r, err)
	}
	b.onlyCatalogued()
}
