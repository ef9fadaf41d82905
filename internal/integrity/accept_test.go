package integrity

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

func (b *bench) accept(o AcceptOptions) *Accepted {
	b.Helper()
	o.Name = "default"
	a, err := b.Accept(b.Context(), o)
	b.must(err)
	b.onlyCatalogued()
	return a
}

// open returns the subjects of the open findings.
func (b *bench) openFindings() (subjects []string) {
	b.Helper()
	b.must(b.Store.View(b.Context(), func(tx *state.Tx) error {
		list, err := finding.List(tx, finding.Filter{}, time.Now())
		for _, r := range list {
			if r.State == finding.Open {
				subjects = append(subjects, r.Subject)
			}
		}
		return err
	}))
	slices.Sort(subjects)
	return subjects
}

// TestAccept: what is accepted is what was reported, and no more.
func TestAccept(t *testing.T) {
	b := newBench(t, plainPolicy)
	for _, f := range []string{"a", "b", "c", "dir/x", "dir/y", "gone", "moved"} {
		b.put(f, "old content of "+f)
	}
	b.take()
	first, err := b.Find(t.Context(), "default")
	b.must(err)
	for _, f := range []string{"a", "b", "dir/x", "dir/y", "new"} {
		b.put(f, "changed "+f)
	}
	b.must(unix.Setxattr(b.path("c"), "user.x", []byte("1"), 0))
	b.must(os.Remove(b.path("gone")))
	b.must(os.Rename(b.path("moved"), b.path("elsewhere")))
	if r := b.compare(CompareOptions{}); len(r.Changes) != 8 {
		t.Fatalf("%q", changes(r))
	}

	// One path.
	a := b.accept(AcceptOptions{Paths: [][]byte{[]byte("/a")}})
	if len(a.Changes) != 1 || a.Left != 7 || a.Kind() != failure.None || a.Entry.Parent != first.ID || a.Findings.Resolved != 1 {
		t.Fatalf("%+v", a)
	}
	if got := b.openFindings(); slices.Contains(got, "/a") || len(got) != 7 {
		t.Errorf("open: %q", got)
	}
	// A directory, of the same report, which is about the baseline's parent.
	a = b.accept(AcceptOptions{Paths: [][]byte{[]byte("/dir/")}})
	if len(a.Changes) != 2 {
		t.Errorf("%+v", a)
	}
	// Again: it is in force.
	a = b.accept(AcceptOptions{Paths: [][]byte{[]byte("/dir")}})
	if a.Already != 2 || len(a.Changes) != 0 || a.Kind() != failure.Busy {
		t.Errorf("%+v", a)
	}
	// It changed again: refused, and the rest is not.
	b.put("b", "changed once more")
	b.put("gone", "back")
	a = b.accept(AcceptOptions{All: true})
	var refused []string
	for _, r := range a.Refused {
		refused = append(refused, string(r.Change.Path))
	}
	slices.Sort(refused)
	if !slices.Equal(refused, []string{"/b", "/gone"}) || len(a.Changes) != 3 || a.Kind() != failure.No || a.Already != 3 {
		t.Errorf("refused %q, %d accepted, %d already", refused, len(a.Changes), a.Already)
	}
	b.expect(b.compare(CompareOptions{Verify: true}), "changed /b size,mtime,ctime,content", "changed /gone size,mtime,ctime,content")
	a = b.accept(AcceptOptions{All: true, Report: Latest})
	if len(a.Changes) != 2 {
		t.Errorf("%+v", a)
	}
	for _, verify := range []bool{false, true} {
		b.age()
		r := b.compare(CompareOptions{Verify: verify})
		b.expect(r)
		if !verify && r.Summary.Rehashed != 0 {
			t.Errorf("%d files are read after they were accepted", r.Summary.Rehashed)
		}
	}
	// A baseline that has grown by accepting is the one that would be taken.
	c, err := b.Find(t.Context(), "default")
	b.must(err)
	if fresh := b.take().Entry; fresh.Entries != c.Entries || fresh.Files != c.Files || fresh.Bytes != c.Bytes {
		t.Errorf("accepted %+v, taken %+v", c.Counts, fresh.Counts)
	}
	// The report is about one that was replaced as a whole.
	_, err = b.Accept(t.Context(), AcceptOptions{Name: "default", All: true})
	if failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), "another baseline was taken since") {
		t.Errorf("%v", err)
	}
}

// TestAcceptAdded: of a file that is new the baseline gets the content, and one
// whose content is another by now is refused though all its times are the same.
func TestAcceptAdded(t *testing.T) {
	b := newBench(t, "version: 1\npaths: [/]\ndefaults: {attributes: [mode, size, content]}\n")
	b.put("old", "x")
	b.take()
	b.put("fresh", "one")
	b.put("other", "one")
	b.compare(CompareOptions{})
	b.put("other", "two")
	a := b.accept(AcceptOptions{All: true})
	if len(a.Changes) != 1 || len(a.Refused) != 1 || string(a.Refused[0].Change.Path) != "/other" {
		t.Errorf("accepted %+v, refused %+v", a.Changes, a.Refused)
	}
	b.put("fresh", "two")
	b.expect(b.compare(CompareOptions{}), "added /other", "changed /fresh content")
}

// TestAcceptMistakes: a choice that means nothing accepts nothing.
func TestAcceptMistakes(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("a", "1")
	b.take()
	_, err := b.Accept(t.Context(), AcceptOptions{Name: "default", All: true})
	if !errors.Is(err, ErrNoReport) || failure.KindOf(err) != failure.NotReady {
		t.Errorf("%v", err)
	}
	b.put("a", "2")
	b.compare(CompareOptions{})
	for what, o := range map[string]AcceptOptions{
		"a path":       {Paths: [][]byte{[]byte("/other")}},
		"part of one":  {Paths: [][]byte{[]byte("/a/b")}},
		"a package":    {Packages: []string{"openssl"}},
		"an id":        {Report: "ffff", All: true},
		"the other":    {Paths: [][]byte{[]byte("/a"), []byte("/b")}},
		"empty string": {Packages: []string{""}},
	} {
		o.Name = "default"
		if a, err := b.Accept(t.Context(), o); err == nil {
			t.Errorf("%s: %+v", what, a)
		}
	}
	low := finding.Low
	if a := b.accept(AcceptOptions{All: true, Worst: &low}); len(a.Changes) != 0 || a.Left != 1 {
		t.Errorf("up to low: %+v", a)
	}
	a := b.accept(AcceptOptions{Classes: []Class{PackageUpdate}})
	if len(a.Changes) != 0 || a.Left != 1 {
		t.Errorf("%+v", a)
	}
	b.expect(b.compare(CompareOptions{}), "changed /a mtime,ctime,content")
}

// TestAcceptedIsInTheHistory: who, why, and which content.
func TestAcceptedIsInTheHistory(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("a", "1")
	b.put("b", "1")
	b.take()
	b.put("a", "2")
	b.must(os.Remove(b.path("b")))
	r := b.compare(CompareOptions{})
	b.By.Reason, b.By.Ticket = "deployment", "CHG-7"
	a := b.accept(AcceptOptions{All: true})
	chain, err := b.History().Chain(t.Context())
	b.must(err)
	entry, err := chain.Record(uint64(chain.Len()))
	b.must(err)
	last := entry.Record
	if last.Kind != "acceptance" || last.Report != r.ID || last.Accepted != 2 || last.Reason != "deployment" || last.Ticket != "CHG-7" || last.ID != a.Entry.ID || last.Root != a.Entry.Root {
		t.Errorf("%+v", last)
	}
	was, err := b.AcceptedChanges(last.ID, last.AcceptedDigest)
	b.must(err)
	list := was.Changes
	if len(list) != 2 || list[0].Now == nil || list[0].Now.Sum != r.Changes[0].Now.Sum {
		t.Errorf("%+v", list)
	}
	file := b.acceptedFile(a.Entry)
	data, err := os.ReadFile(file)
	b.must(err)
	data[20] ^= 1
	b.must(os.WriteFile(file, data, 0o600))
	if _, err := b.AcceptedChanges(last.ID, last.AcceptedDigest); failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("an altered list: %v", err)
	}
}

// TestAcceptUpdate: an upgrade is accepted as a whole, and leaves the rest.
func TestAcceptUpdate(t *testing.T) {
	i := startImage(t)
	i.install("one", "2.0", files{"/usr/bin/one": "one 2.0", "/usr/lib/one/fresh": "y", "/etc/one.conf": "# one\n"})
	i.put("usr/bin/two", "evil two")
	i.put("usr/lib/one/stray", "not of the package")
	r := i.compare(CompareOptions{})
	if got := i.openFindings(); !slices.Contains(got, "one (dpkg)") {
		t.Errorf("open: %q", got)
	}
	a := i.accept(AcceptOptions{Classes: []Class{PackageUpdate}, Packages: []string{"one"}})
	if len(a.Changes) < 6 || len(a.Refused) > 0 || len(a.Changes)+a.Left != len(r.Changes) {
		t.Errorf("%d accepted, %d left, %+v", len(a.Changes), a.Left, a.Refused)
	}
	if got := i.openFindings(); slices.Contains(got, "one (dpkg)") || !slices.Contains(got, "/usr/bin/two") {
		t.Errorf("open: %q", got)
	}
	r = i.compare(CompareOptions{})
	i.expectClasses(r, map[string]string{"/usr/bin/two": "suspicious high", "/usr/lib/one/stray": "suspicious high"})
	// From here on the package is known in its new version: a change of a file
	// that it has is no update.
	i.accept(AcceptOptions{All: true})
	i.put("usr/lib/one/fresh", "tampered")
	i.must(os.Chmod(i.path("usr/bin/one"), 0o777))
	i.must(os.Remove(i.path("etc/one.conf")))
	i.expectClasses(i.compare(CompareOptions{}), map[string]string{
		"/usr/lib/one/fresh": "package-modified high", "/usr/bin/one": "package-modified high", "/etc/one.conf": "conffile medium",
	})
}

// TestKeptTexts: texts of /etc are kept, those of secrets are not.
func TestKeptTexts(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("etc/public.conf", "old\n")
	b.put("etc/shadow", "root:secret\n")
	b.must(os.Chmod(b.path("etc/shadow"), 0o640))
	b.put("etc/binary", "a\x00b")
	b.put("etc/large", strings.Repeat("x", maxKeptFile+1))
	b.put("srv/other", "not below /etc\n")
	for keep, want := range map[KeepContent]int{KeepPublic: 1, KeepAll: 2, KeepNone: 0} {
		taken, err := b.Take(t.Context(), TakeOptions{Name: "default", Policy: b.pol, KeepContent: keep, Scan: Scan{Tree: b.tree}})
		b.must(err)
		c, err := b.loadContents(taken.Entry)
		b.must(err)
		if len(c.texts) != want {
			t.Errorf("%s keeps %d texts, want %d", keep, len(c.texts), want)
		}
	}
	b.Keep = 1
	_, err := b.Take(t.Context(), TakeOptions{Name: "default", Policy: b.pol, KeepContent: KeepPublic, Scan: Scan{Tree: b.tree}})
	b.must(err)
	b.put("etc/public.conf", "new\n")
	b.put("etc/fresh.conf", "fresh\n")
	b.compare(CompareOptions{})
	a := b.accept(AcceptOptions{All: true, KeepContent: KeepPublic})
	c, err := b.loadContents(a.Entry)
	b.must(err)
	if len(c.texts) != 3 {
		t.Errorf("after accepting there are %d texts", len(c.texts))
	}
}

func FuzzContents(f *testing.F) {
	b := newBench(f, plainPolicy)
	c := &contents{}
	c.put([32]byte{}, []byte("text"))
	f.Add([]byte("no zstd"))
	b.must(os.MkdirAll(b.Engine.path(""), 0o700))
	b.must(b.saveContents(Entry{}, c))
	data, err := os.ReadFile(b.contentsFile(Entry{}))
	b.must(err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &contents{}
		if err := c.decode(data); err != nil && failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%v is not typed", err)
		}
		if c.size > maxKept {
			t.Errorf("%d bytes", c.size)
		}
	})
}
