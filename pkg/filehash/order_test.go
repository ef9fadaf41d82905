package filehash

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOrderAndCompleteness walks trees that are awkward to order, with many
// numbers of workers. walkTree checks the order; here it is the set.
func TestOrderAndCompleteness(t *testing.T) {
	root := t.TempDir()
	for i := range 5000 {
		put(t, filepath.Join(root, "wide", fmt.Sprintf("%x-%d", i*40503%65536, i)), nil)
	}
	for i := range 300 {
		put(t, filepath.Join(root, "many", fmt.Sprintf("d%d", i), "f"), []byte("x"))
	}
	deep := root
	for i := range 60 {
		deep = filepath.Join(deep, fmt.Sprintf("d%d", i%3))
		put(t, filepath.Join(deep, "file"), []byte("x"))
	}
	for _, name := range []string{"a/b", "a/x/y", "a-b/c", "a.b/c", "a0/c", "a b/c", "aa/c", "a\x01/c", "a\xff/c", "a!", "a/-"} {
		put(t, filepath.Join(root, "slash", name), []byte(name))
	}
	put(t, filepath.Join(root, "big"), pattern(2*SplitBytes+1))
	want := paths(t, root)
	for _, jobs := range []int{1, 2, 3, 4, 7, 16, 33} {
		all, errs := walkTree(t, root, Options{Jobs: jobs})
		if len(errs) > 0 || len(all) != len(want) {
			t.Fatalf("jobs %d: %d entries, want %d; %v", jobs, len(all), len(want), errs)
		}
		for p := range want {
			if all[p] == nil {
				t.Errorf("jobs %d: %q is missing", jobs, p)
			}
		}
	}
}

// TestOneNameTwice: a directory that changes while it is listed may name an
// entry twice. Keys are unique nevertheless.
func TestOneNameTwice(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/a/f", []byte("1"))
	put(t, root+"/b", []byte("2"))
	all, _ := walkTree(t, root, Options{Select: twice{}})
	if len(all) != 3 {
		t.Errorf("%d entries, want 3", len(all))
	}
}

type twice struct{ everything }

func (twice) Enter([]byte) Selector   { return everything{} }
func (twice) Names() ([]string, bool) { return []string{"a", "a", "b", "b", "b"}, true }

// TestSelector: only the names that a selector gives are looked at, what it
// does not enter is not, and tags come back.
func TestSelector(t *testing.T) {
	root := t.TempDir()
	for _, p := range []string{"etc/a", "etc/skip/x", "etc/deep/y", "usr/b", "home/c"} {
		put(t, filepath.Join(root, p), []byte(p))
	}
	all, errs := walkTree(t, root, Options{Select: top{}})
	var got []string
	for p, e := range all {
		got = append(got, p)
		if e.Tag != "tag:"+e.Name {
			t.Errorf("%s has the tag %v", p, e.Tag)
		}
	}
	slices.Sort(got)
	if want := []string{"/etc", "/etc/a", "/etc/deep", "/etc/deep/y"}; !slices.Equal(got, want) || len(errs) > 0 {
		t.Errorf("%q, %v; want %q", got, errs, want)
	}
}

// top knows two names of the root, one of which is not there.
type top struct{}

func (top) Select(n []byte) (Want, any) { return WantEntry | WantContent, "tag:" + string(n) }
func (top) Enter([]byte) Selector       { return notSkip{} }
func (top) Names() ([]string, bool)     { return []string{"etc", "missing"}, true }

type notSkip struct{}

func (notSkip) Select(n []byte) (Want, any) {
	if string(n) == "skip" {
		return 0, nil
	}
	return WantEntry | WantContent, "tag:" + string(n)
}

func (s notSkip) Enter(n []byte) Selector {
	if string(n) == "skip" {
		return nil
	}
	return s
}
func (notSkip) Names() ([]string, bool) { return nil, false }

// components is CompareDirs as it is defined.
func components(a, b []byte) int {
	split := func(p []byte) [][]byte {
		if len(p) == 1 {
			return nil
		}
		return bytes.Split(p[1:], []byte("/"))
	}
	return slices.CompareFunc(split(a), split(b), bytes.Compare)
}

func FuzzCompareKeys(f *testing.F) {
	f.Add("/", "a", "/a", "")
	f.Add("/a", "b", "/a-b", "b")
	f.Add("/a/b", "x", "/a.b", "x")
	f.Add("/usr/lib", "x", "/usr/lib32", "a")
	f.Add("/a\xff", "x", "/a/\x01", "a")
	dir := func(s string) []byte { // any text as a path of a walk
		b := bytes.ReplaceAll([]byte(s), []byte{0}, []byte("n"))
		var out []byte
		for _, c := range bytes.Split(b, []byte("/")) {
			if len(c) > 0 {
				out = append(append(out, '/'), c...)
			}
		}
		if out == nil {
			return []byte("/")
		}
		return out
	}
	f.Fuzz(func(t *testing.T, dirA, nameA, dirB, nameB string) {
		a, b := dir(dirA), dir(dirB)
		want := cmp.Or(components(a, b), cmp.Compare(nameA, nameB))
		sign := func(n int) int { return cmp.Compare(n, 0) }
		if got := CompareKeys(a, []byte(nameA), b, []byte(nameB)); sign(got) != sign(want) {
			t.Errorf("CompareKeys(%q, %q, %q, %q) = %d, want %d", a, nameA, b, nameB, got, want)
		}
		if sign(CompareDirs(b, a)) != -sign(CompareDirs(a, b)) {
			t.Errorf("%q and %q: not antisymmetric", a, b)
		}
	})
}

// TestOnlyRegular: what is no regular file is not reported, and what lies below
// it is.
func TestOnlyRegular(t *testing.T) {
	root := t.TempDir()
	put(t, filepath.Join(root, "a"), nil)
	put(t, filepath.Join(root, "d/e/b"), nil)
	if err := os.Symlink("a", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := Walk(t.Context(), root, Options{Select: wants(WantEntry | OnlyRegular)}, func(b *Batch) error {
		for i := range b.Entries {
			e := &b.Entries[i]
			got = append(got, filepath.Join(string(b.Dir), string(e.Name)))
			if e.Info.Type() != unix.S_IFREG || e.Info.Links != 1 || e.Content != NoContent {
				t.Errorf("%s: %+v", e.Name, e)
			}
		}
		return nil
	})
	if want := []string{"/a", "/d/e/b"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("reported %q (%v), want %q", got, err, want)
	}
}
