package integrity

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/policy"
)

// Two baselines differ as a check with the newer one's policy would have said.
func TestDiff(t *testing.T) {
	b := newBench(t, "version: 1\npaths: [/]\nrules:\n  - path: /log/**\n    class: growing\n")
	for _, f := range []string{"same", "content", "gone", "log/grown", "log/shrunk", "moved"} {
		b.put(f, "first content of "+f)
	}
	older := b.take().Entry
	b.put("content", "other content")
	b.put("log/grown", "first content of log/grown and more")
	b.put("log/shrunk", "less")
	b.put("new", "x")
	b.must(os.Remove(b.path("gone")))
	b.must(os.Rename(b.path("moved"), b.path("elsewhere")))
	b.must(os.Chmod(b.path("same"), 0o600))
	checked := changes(b.compare(CompareOptions{}))
	newer := b.take().Entry
	b.must(os.RemoveAll(b.tree)) // the tree is not needed

	d, err := b.Diff(t.Context(), older, newer)
	b.must(err)
	got := changes(&Report{Changes: d.Changes})
	slices.Sort(checked)
	slices.Sort(got)
	if !slices.Equal(got, checked) {
		t.Errorf("diff %q, check had said %q", got, checked)
	}
	s := d.Summary
	if s.Differences() != int64(len(got)) || s.Added != 1 || s.Removed != 1 || s.Moved != 1 || d.Kind() != failure.No || d.Beyond != 0 {
		t.Errorf("%+v", d)
	}
	if d, err = b.Diff(t.Context(), newer, newer); err != nil || len(d.Changes) != 0 || d.Kind() != failure.None {
		t.Errorf("%+v %v", d, err)
	}
	for ref, want := range map[string]string{"default": newer.ID, "default@1": older.ID, "default@2": newer.ID, "default@" + older.ID[:9]: older.ID} {
		if c, err := b.Resolve(t.Context(), ref); err != nil || c.ID != want {
			t.Errorf("%s is %s, %v", ref, c.ID, err)
		}
	}
	for _, ref := range []string{"default@7777777", "other@1"} {
		if c, err := b.Resolve(t.Context(), ref); !errors.Is(err, ErrNoBaseline) {
			t.Errorf("%s is %s, %v", ref, c.ID, err)
		}
	}
}

// What only one of both policies covers is no change.
func TestDiffOfOtherPolicies(t *testing.T) {
	b := newBench(t, "version: 1\npaths: [/a, /b]\n")
	for _, f := range []string{"a/x", "b/y", "c/z"} {
		b.put(f, f)
	}
	older := b.take().Entry
	p, err := policy.Parse("other.yaml", []byte("version: 1\npaths: [/b, /c]\n"))
	b.must(err)
	b.pol = p
	b.put("b/new", "x")
	newer := b.take().Entry
	d, err := b.Diff(t.Context(), older, newer)
	b.must(err)
	if got := fmt.Sprint(changes(&Report{Changes: d.Changes})); d.Beyond != 4 || d.Summary.Added != 1 || d.Summary.Removed != 0 {
		t.Errorf("%s, %d beyond, %+v", got, d.Beyond, d.Summary)
	}
}

// What one of them could not read is not said to be removed or added.
func TestDiffOfWhatWasNotRead(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("dir/f", "x")
	b.put("g", "y")
	full := b.take().Entry
	blind := full
	blind.Unread = [][]byte{[]byte("/dir")}
	b.must(os.RemoveAll(b.path("dir/f")))
	without := b.take().Entry
	without.Unread = [][]byte{[]byte("/dir")}
	diff := func(from, to Entry) (*Difference, error) {
		older, err := b.open(from)
		b.must(err)
		defer older.Close()
		newer, err := b.open(to)
		b.must(err)
		defer newer.Close()
		return b.diff(t.Context(), from, to, older, newer)
	}
	for _, pair := range [][2]Entry{{full, without}, {blind, full}, {without, full}} {
		d, err := diff(pair[0], pair[1])
		b.must(err)
		for _, c := range d.Changes {
			if string(c.Path) == "/dir/f" {
				t.Errorf("%s is %s", c.Path, c.Kind)
			}
		}
	}
	d, err := diff(full, without)
	if err != nil || d.Kind() != failure.Incomplete {
		t.Errorf("%+v %v", d, err)
	}
}
