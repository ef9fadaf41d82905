package integrity

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestJoin: whatever is added, removed and changed at random in a tree of many
// blocks, with names that sort differently as names and as parts of a path, is
// reported, and nothing else, with few workers and with many.
func TestJoin(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	names := []string{"a", "a-b", "a.b", "a b", "ab", "A", "a\n", "a\xff", "-", ".x", "a0", "é"}
	b := newBench(t, "version: 1\npaths: [/a, /a-b, /a.b/a, /none]\ndefaults: {attributes: [type, content]}\nrules:\n  - \"!/a/ab\"\n  - /a/ab/a/a-b\n")
	dir := func() string {
		d := []string{"a", "a-b", "a.b/a", "a.b/a-b", "a/ab/a/a-b", "a/ab/a", "z"}[rng.IntN(7)]
		for range rng.IntN(5) {
			d += "/" + names[rng.IntN(len(names))] + "d"
		}
		return d
	}
	covered := func(f string) bool {
		return (strings.HasPrefix(f, "a/") || strings.HasPrefix(f, "a-b/") || strings.HasPrefix(f, "a.b/a/")) &&
			(!strings.HasPrefix(f, "a/ab/") || strings.HasPrefix(f, "a/ab/a/a-b/"))
	}
	files := map[string]bool{}
	serial := 0
	create := func(f string) {
		serial++
		b.put(f, fmt.Sprint("content ", serial)) // no two alike: a move is another matter
		files[f] = true
	}
	for len(files) < 14000 {
		create(dir() + "/" + names[rng.IntN(len(names))] + fmt.Sprint(rng.IntN(40)))
	}
	taken := b.take()
	if taken.Entry.Blocks < 3 {
		t.Fatalf("%d blocks are not many", taken.Entry.Blocks)
	}
	for round, jobs := range []int{1, 2, 7, 32} {
		// Files are added to directories that are there: new ones are additions too.
		var want []string
		list := make([]string, 0, len(files))
		for f := range files {
			list = append(list, f)
		}
		slices.Sort(list)
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		gone := list[:400*round]
		expect := func(kind, f string) {
			if covered(f) {
				want = append(want, kind+" /"+f)
			}
		}
		for _, f := range gone {
			b.must(os.Remove(b.path(f)))
			expect("removed", f)
		}
		for i, f := range list[len(gone) : len(gone)+300] {
			b.must(os.WriteFile(b.path(f), fmt.Appendf(nil, "changed %d %d", round, i), 0o644))
			expect("changed", f)
		}
		for i := range 300 {
			f := filepath.Dir(list[len(list)-1-i]) + "/new" + names[i%len(names)] + fmt.Sprint(round, i)
			b.must(os.WriteFile(b.path(f), fmt.Appendf(nil, "new %d %d", round, i), 0o644))
			expect("added", f)
		}
		for i := range want {
			if strings.HasPrefix(want[i], "changed") {
				want[i] += " content"
			}
		}
		slices.Sort(want)
		for _, verify := range []bool{false, true} {
			r := b.compare(CompareOptions{Verify: verify, Scan: Scan{Jobs: jobs}})
			if got := changes(r); !slices.Equal(got, want) || len(r.Problems) > 0 {
				t.Fatalf("%d workers, verify %v: %d changes, want %d; first difference %q", jobs, verify, len(got), len(want), firstDifference(got, want))
			}
		}
		// Put back what was taken away, in another state: a new baseline.
		for _, f := range gone {
			create(f)
		}
		b.take()
	}
}

// firstDifference returns where two sorted lists part.
func firstDifference(a, b []string) [2]string {
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return [2]string{x, y}
		}
	}
	return [2]string{}
}
