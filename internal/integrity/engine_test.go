package integrity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// bench is an engine with a tree of its own.
type bench struct {
	testing.TB
	*Engine
	tree string
	pol  *policy.Policy
}

const plainPolicy = "version: 1\npaths: [/]\n"

func newBench(t testing.TB, pol string) *bench {
	t.Helper()
	p, err := policy.Parse("test.yaml", []byte(pol))
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t, &Engine{Store: state.New(t.TempDir(), state.Options{}), Tool: "test"}, t.TempDir(), p}
}

func (b *bench) path(name string) string { return filepath.Join(b.tree, name) }

func (b *bench) put(name, content string) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(b.path(name)), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(b.path(name), []byte(content), 0o644); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) take() *Taken {
	b.Helper()
	t, err := b.Take(context.Background(), TakeOptions{Name: "default", Policy: b.pol, Scan: Scan{Tree: b.tree}})
	b.must(err)
	return t
}

func (b *bench) compare(o CompareOptions) *Report {
	b.Helper()
	o.Name = "default"
	r, err := b.Compare(context.Background(), o)
	b.must(err)
	return r
}

// changes are the changes of a report in short: "changed /f mode,ctime".
func changes(r *Report) []string {
	var out []string
	for _, c := range r.Changes {
		s := string(c.Kind) + " " + string(c.Path)
		if c.From != nil {
			s += " from " + string(c.From)
		}
		var attrs []string
		for _, a := range c.Attributes {
			attrs = append(attrs, a.Name)
		}
		if attrs != nil {
			s += " " + strings.Join(attrs, ",")
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func (b *bench) expect(r *Report, want ...string) {
	b.Helper()
	if got := changes(r); !slices.Equal(got, want) {
		b.Errorf("changes %q, want %q; problems %+v", got, want, r.Problems)
	}
}

// age makes the check believe that the baseline was taken long after the files
// were changed, so that it may skip them.
func (b *bench) age() {
	b.Helper()
	c, err := b.Find(context.Background(), "default")
	b.must(err)
	r := b.loadReads(c)
	for i := range r.at {
		r.at[i] = uint32(time.Now().Add(time.Hour).Unix())
	}
	r.changed = true
	b.must(b.saveReads(c, r))
}

// TestEachAttribute: a change of one attribute alone is found and named, by a
// check that trusts the times as well as by a verify.
func TestEachAttribute(t *testing.T) {
	const f = "f"
	root := os.Geteuid() == 0
	if !root {
		t.Log("NOT RUN: owners, devices, flags, capabilities need root")
	}
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 1, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	caps := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name string
		root bool
		do   func(b *bench) error
		want []string
	}{
		{"content with its old mtime", false, func(b *bench) error {
			st, err := os.Stat(b.path(f))
			b.must(err)
			b.must(os.WriteFile(b.path(f), []byte("CONTENT"), 0o644))
			return os.Chtimes(b.path(f), st.ModTime(), st.ModTime())
		}, []string{"changed /f ctime,content"}},
		{"mode", false, func(b *bench) error { return os.Chmod(b.path(f), 0o4755) }, []string{"changed /f mode,ctime"}},
		{"mode of a directory", false, func(b *bench) error { return os.Chmod(b.path("dir"), 0o777) }, []string{"changed /dir mode"}},
		{"uid", true, func(b *bench) error { return os.Chown(b.path(f), 7, -1) }, []string{"changed /f uid,ctime"}},
		{"gid", true, func(b *bench) error { return os.Chown(b.path(f), -1, 7) }, []string{"changed /f gid,ctime"}},
		{"mtime", false, func(b *bench) error { return os.Chtimes(b.path(f), time.Unix(1, 0), time.Unix(1, 0)) }, []string{"changed /f mtime,ctime"}},
		{"extended attribute", false, func(b *bench) error { return unix.Setxattr(b.path(f), "user.x", []byte("1"), 0) }, []string{"changed /f ctime,xattrs"}},
		{"of a directory", false, func(b *bench) error { return unix.Setxattr(b.path("dir"), "user.x", []byte("1"), 0) }, []string{"changed /dir xattrs"}},
		{"acl", false, func(b *bench) error { return unix.Setxattr(b.path(f), "system.posix_acl_access", acl, 0) }, []string{"changed /f ctime,acl"}},
		{"capabilities", true, func(b *bench) error { return unix.Setxattr(b.path(f), "security.capability", caps, 0) }, []string{"changed /f ctime,caps"}},
		{"flags", true, func(b *bench) error {
			b.Cleanup(func() { setFlags(b.path(f), 0) })
			if err := setFlags(b.path(f), 0x10); err != nil {
				b.Skipf("NOT RUN: no immutable flag here: %v", err)
			}
			return nil
		}, []string{"changed /f ctime,flags"}},
		{"target", false, func(b *bench) error {
			b.must(os.Remove(b.path("link")))
			return os.Symlink("g", b.path("link"))
		}, []string{"changed /link mtime,ctime,target"}},
		{"link count", false, func(b *bench) error { return os.Link(b.path(f), b.path("dir/hard")) }, []string{"added /dir/hard", "changed /f ctime,links"}},
		{"file to directory", false, func(b *bench) error {
			b.must(os.Remove(b.path(f)))
			return os.Mkdir(b.path(f), 0o755)
		}, []string{"changed /f type"}},
		{"file to link", false, func(b *bench) error {
			b.must(os.Remove(b.path(f)))
			return os.Symlink("/etc/passwd", b.path(f))
		}, []string{"changed /f type"}},
		{"link to FIFO", false, func(b *bench) error {
			b.must(os.Remove(b.path("link")))
			return unix.Mkfifo(b.path("link"), 0o600)
		}, []string{"changed /link type"}},
		{"device numbers", true, func(b *bench) error {
			b.must(os.Remove(b.path("dev")))
			return unix.Mknod(b.path("dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5)))
		}, []string{"changed /dev mtime,ctime,device"}},
		{"added", false, func(b *bench) error { return os.WriteFile(b.path("dir/new"), []byte("n"), 0o600) }, []string{"added /dir/new"}},
		{"removed", false, func(b *bench) error { return os.Remove(b.path("dir/in")) }, []string{"removed /dir/in"}},
		{"moved", false, func(b *bench) error { return os.Rename(b.path("dir/in"), b.path("z")) }, []string{"moved /z from /dir/in"}},
		{"moved and changed", false, func(b *bench) error {
			b.must(os.Chmod(b.path("dir/in"), 0o4755))
			return os.Rename(b.path("dir/in"), b.path("z"))
		}, []string{"moved /z from /dir/in mode"}},
		{"directory moved", false, func(b *bench) error { return os.Rename(b.path("dir"), b.path("rid")) },
			[]string{"added /rid", "moved /rid/in from /dir/in", "removed /dir"}},
		{"two files swapped", false, func(b *bench) error {
			b.must(os.Rename(b.path("f"), b.path("x")))
			b.must(os.Rename(b.path("dir/in"), b.path("f")))
			return os.Rename(b.path("x"), b.path("dir/in"))
		}, []string{"changed /dir/in size,mtime,ctime,content", "changed /f size,mtime,ctime,content"}},
	} {
		for _, verify := range []bool{false, true} {
			if c.root && !root {
				continue
			}
			t.Run(fmt.Sprintf("%s/verify=%v", c.name, verify), func(t *testing.T) {
				b := newBench(t, plainPolicy)
				b.put(f, "content")
				b.put("dir/in", "something else")
				b.must(os.Symlink("f", b.path("link")))
				if root {
					b.must(unix.Mknod(b.path("dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
				}
				time.Sleep(20 * time.Millisecond) // so that every change moves the clock of file times
				b.take()
				b.age()
				b.expect(b.compare(CompareOptions{Verify: verify}))
				b.must(c.do(b))
				b.expect(b.compare(CompareOptions{Verify: verify}), c.want...)
			})
		}
	}
}

func setFlags(path string, flags int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

// TestRacy: a change within the tick in which the baseline was taken leaves
// the same times, and is found by a check all the same.
func TestRacy(t *testing.T) {
	b := newBench(t, plainPolicy)
	for i := range 15 {
		b.put("f", fmt.Sprintf("old %02d", i))
		b.take()
		b.put("f", fmt.Sprintf("new %02d", i))
		if r := b.compare(CompareOptions{}); len(r.Changes) != 1 || !strings.Contains(changes(r)[0], "content") {
			t.Fatalf("round %d: %q", i, changes(r))
		}
	}
}

// TestSkippingAndReading: what a check skips, and what makes it read.
func TestSkippingAndReading(t *testing.T) {
	b := newBench(t, plainPolicy)
	// Within the two seconds after a change that its times prove nothing.
	var begun time.Time
	for time.Since(begun) > 1500*time.Millisecond {
		begun = time.Now()
		for i := range 20 {
			b.put(fmt.Sprintf("f%d", i), "x")
		}
		b.take()
	}
	read := func(o CompareOptions, want int64) {
		t.Helper()
		r := b.compare(o)
		if r.Summary.Rehashed != want || r.Summary.Rehashed+r.Summary.Skipped != 20 || len(r.Changes) > 0 {
			t.Errorf("%+v: %+v, want %d read", o, r.Summary, want)
		}
	}
	read(CompareOptions{}, 20) // changed just before
	b.age()
	read(CompareOptions{}, 0)
	read(CompareOptions{Sample: 1}, 20)
	b.age()
	read(CompareOptions{Verify: true}, 20)
	b.age()
	read(CompareOptions{MaxAge: time.Hour}, 0)
	c, err := b.Find(t.Context(), "default")
	b.must(err)
	for name, data := range map[string]func([]byte) []byte{
		"a flipped bit": func(d []byte) []byte { d[50] ^= 1; return d },
		"cut":           func(d []byte) []byte { return d[:len(d)-1] },
		"empty":         func([]byte) []byte { return nil },
		"of another":    func(d []byte) []byte { d[20] ^= 1; return d },
	} {
		b.age()
		data0, err := os.ReadFile(b.readsFile(c))
		b.must(err)
		b.must(os.WriteFile(b.readsFile(c), data(data0), 0o600))
		if r := b.compare(CompareOptions{}); r.Summary.Skipped != 0 {
			t.Errorf("reads file %s: %d files were skipped", name, r.Summary.Skipped)
		}
	}
}

// TestGrowingLog: what is appended is no change; what was there must stay.
func TestGrowingLog(t *testing.T) {
	pol := "version: 1\npaths: [/]\nrules:\n  - {path: \"/log/**\", class: growing}\n"
	for what, c := range map[string]struct {
		before, after string
		want          []string
	}{
		"appended":          {"one\n", "one\ntwo\n", nil},
		"appended to empty": {"", "first\n", nil},
		"as it was":         {"one\n", "one\n", nil},
		"rewritten":         {"one\n", "onE\ntwo\n", []string{"changed /log/l content"}},
		"truncated":         {"one\n", "on", []string{"changed /log/l size,content"}},
		"emptied":           {"one\n", "", []string{"changed /log/l size,content"}},
		"same size":         {"one\n", "two\n", []string{"changed /log/l content"}},
	} {
		for _, verify := range []bool{false, true} {
			b := newBench(t, pol)
			b.put("log/l", c.before)
			b.take()
			b.put("log/l", c.after)
			if got := changes(b.compare(CompareOptions{Verify: verify})); !slices.Equal(got, c.want) {
				t.Errorf("%s, verify %v: %q, want %q", what, verify, got, c.want)
			}
		}
	}
}

// TestFindingsFollow: changes become findings, and are resolved when undone.
func TestFindingsFollow(t *testing.T) {
	b := newBench(t, "version: 1\npaths: [/]\nrules:\n  - {path: \"/crit/**\", severity: critical}\n")
	b.put("crit/a", "a")
	b.put("b", "b")
	b.take()
	b.must(os.Rename(b.path("crit/a"), b.path("../kept")))
	r := b.compare(CompareOptions{})
	if b.expect(r, "removed /crit/a"); r.Changes[0].Severity != finding.Critical || r.Findings.New != 1 || r.Kind(finding.Low) != failure.No {
		t.Errorf("%+v", r)
	}
	b.must(os.Rename(b.path("../kept"), b.path("crit/a")))
	// A rename moves ctime, which is a change of its own.
	r = b.compare(CompareOptions{})
	if b.expect(r, "changed /crit/a ctime"); r.Findings.New != 1 || r.Findings.Resolved != 1 {
		t.Errorf("%+v", r.Findings)
	}
	b.take()
	if r = b.compare(CompareOptions{}); r.Findings.Resolved != 1 || r.Kind(finding.Low) != failure.None {
		t.Errorf("%+v", r.Findings)
	}
}

// TestManyMovesOfOneContent must not take quadratic time.
func TestManyMovesOfOneContent(t *testing.T) {
	b := newBench(t, plainPolicy)
	for i := range 6000 {
		b.put(fmt.Sprintf("a/%d", i), "same")
	}
	b.take()
	b.must(os.Rename(b.path("a"), b.path("b")))
	start := cpuTime(t)
	r := b.compare(CompareOptions{})
	if r.Summary.Moved != 6000 || r.Summary.Added != 1 || r.Summary.Removed != 1 {
		t.Errorf("%+v", r.Summary)
	}
	for _, c := range r.Changes {
		if c.Kind == Moved && filepath.Base(string(c.Path)) != filepath.Base(string(c.From)) {
			t.Fatalf("%s was paired with %s, which is another inode", c.Path, c.From)
		}
	}
	if took := cpuTime(t) - start; took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

// cpuTime is the time that processors worked for this process: what others do
// on the machine does not count.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestAcknowledgedChange: knowing of one change of a file does not hide the next.
func TestAcknowledgedChange(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("f", "x")
	b.take()
	b.put("f", "known")
	b.compare(CompareOptions{})
	states := func() (open int) {
		b.must(b.Store.View(t.Context(), func(tx *state.Tx) error {
			list, err := finding.List(tx, finding.Filter{}, time.Now())
			for _, r := range list {
				if r.State == finding.Open {
					open++
				}
			}
			return err
		}))
		return open
	}
	b.must(b.Store.Update(t.Context(), func(tx *state.Tx) error {
		list, err := finding.List(tx, finding.Filter{}, time.Now())
		if err != nil {
			return err
		}
		_, err = finding.Ack(tx, list[0].ID(), finding.Decision{Who: "me", Reason: "mine", At: time.Now()})
		return err
	}))
	b.compare(CompareOptions{})
	if n := states(); n != 0 {
		t.Errorf("%d open findings after the one was acknowledged", n)
	}
	b.put("f", "another change")
	if r := b.compare(CompareOptions{}); r.Findings.Reopened != 1 || states() != 1 {
		t.Errorf("%d open findings, %+v: a new change of the file is not news", states(), r.Findings)
	}
}

func TestNoBaseline(t *testing.T) {
	b := newBench(t, plainPolicy)
	if _, err := b.Compare(t.Context(), CompareOptions{Name: "default"}); !errors.Is(err, ErrNoBaseline) || failure.KindOf(err) != failure.NotReady {
		t.Errorf("%v", err)
	}
	b.put("f", "x")
	first := b.take()
	again, err := b.Take(t.Context(), TakeOptions{Name: "default", Policy: b.pol, IfMissing: true, Scan: Scan{Tree: b.tree}})
	if err != nil || !again.Existed || again.Entry.ID != first.Entry.ID {
		t.Errorf("%+v, %v", again, err)
	}
}
