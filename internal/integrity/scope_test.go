package integrity

import (
	"os"
	"slices"
	"testing"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// TestRootOfTheTree: "/" itself is covered where the policy starts there, and
// only there.
func TestRootOfTheTree(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("srv/f", "x")
	b.take()
	b.expect(b.compare(CompareOptions{}))
	b.must(os.Chmod(b.tree, 0o700))
	b.must(unix.Setxattr(b.tree, "user.x", []byte("1"), 0))
	b.expect(b.compare(CompareOptions{}), "changed / mode,xattrs")
	b.expect(b.compare(CompareOptions{Verify: true}), "changed / mode,xattrs")

	b.pol = b.pol.WithPaths([]string{"/srv"})
	if n := b.take().Entry.Entries; n != 2 {
		t.Errorf("%d entries, want /srv and /srv/f", n)
	}
	p, err := policy.Parse("none.yaml", []byte("version: 1\npaths: [/]\nrules: [\"!/\"]\n"))
	b.must(err)
	b.pol = p
	if _, err := b.Take(t.Context(), TakeOptions{Name: "none", Policy: p, Scan: Scan{Tree: b.tree}}); err == nil {
		t.Error("a baseline of nothing was taken")
	}
}

// TestFindingsBelongToTheirTree: looking at another tree, or with a former
// baseline, leaves the findings of the host alone.
func TestFindingsBelongToTheirTree(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("f", "x")
	former := b.take()
	b.put("g", "y")
	b.take()
	b.put("f", "changed")
	b.expect(b.compare(CompareOptions{}), "changed /f size,mtime,ctime,content")

	open := func() (subjects []string) {
		b.must(b.Store.View(t.Context(), func(tx *state.Tx) error {
			list, err := finding.List(tx, finding.Filter{}, former.Entry.Finished)
			for _, r := range list {
				if r.State == finding.Open {
					subjects = append(subjects, r.Rule+" "+r.Subject)
				}
			}
			return err
		}))
		slices.Sort(subjects)
		return subjects
	}
	want := []string{"file-changed /f"}
	if got := open(); !slices.Equal(got, want) {
		t.Fatalf("open findings %q, want %q", got, want)
	}
	other := newBench(t, plainPolicy)
	other.put("f", "x")
	other.put("g", "y")
	if _, err := b.Compare(t.Context(), CompareOptions{Name: "default", Scan: Scan{Tree: other.tree}}); err != nil {
		t.Fatal(err)
	}
	b.put("f", "x") // as in the former baseline, but for the times
	if _, err := b.Compare(t.Context(), CompareOptions{Name: "default@" + former.Entry.ID}); err != nil {
		t.Fatal(err)
	}
	if got := open(); !slices.Contains(got, "file-changed /f") {
		t.Errorf("open findings %q: that of the host was resolved", got)
	}
}
