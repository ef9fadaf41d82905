package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

type seen struct {
	files []string
	flaws map[string]Flaw
}

func visit(s *seen) Visitor {
	s.flaws = map[string]Flaw{}
	return Visitor{
		File: func(name string, _ fs.FileInfo, content io.Reader) error {
			b, err := io.ReadAll(content)
			s.files = append(s.files, name+"="+string(b))
			return err
		},
		SkipDir: func(name string) bool { return name == "skip" },
		Flaw:    func(f Flaw, name string) { s.flaws[name] = f },
	}
}

func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		body := ""
		if h.Typeflag == tar.TypeReg {
			body = "x"
			h.Size = 1
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }

func TestWalkHandsOutFilesAndToldWhatIsWrong(t *testing.T) {
	b := archive(t,
		file("/etc/passwd"), file("./usr/bin/x"),
		tar.Header{Name: "skip/", Typeflag: tar.TypeDir}, file("skip/a/b"),
		tar.Header{Name: "var/lib/link", Typeflag: tar.TypeSymlink, Linkname: "../../etc"}, file("var/lib/link/shadow"),
		file("../../etc/cron.d/evil"), file("a/../../b"), file(strings.Repeat("n/", 2100)+"f"),
		file("etc/.wh.hostname"), file("opt/.wh..wh..opq"), file("../.wh.out"),
		tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "etc/passwd"},
	)
	var s seen
	c, err := Walk(t.Context(), bytes.NewReader(b), NewBudget(0, 0), visit(&s))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"etc/passwd=x", "usr/bin/x=x", "var/lib/link/shadow=x"}; !slices.Equal(s.files, want) {
		t.Errorf("files %q, want %q", s.files, want)
	}
	if c.Files != 3 || c.Special != 2 || !slices.Equal(c.Whiteouts, []string{"etc/hostname"}) || !slices.Equal(c.Opaque, []string{"opt/"}) {
		t.Errorf("contents %+v", c)
	}
	for name, want := range map[string]Flaw{"../../etc/cron.d/evil": Escapes, "a/../../b": Escapes, "../.wh.out": Escapes, "var/lib/link/shadow": BeneathLink} {
		if s.flaws[name] != want {
			t.Errorf("flaw of %s is %v, want %v", name, s.flaws[name], want)
		}
	}
	if len(s.flaws) != 5 {
		t.Errorf("%d flaws, want 5 (one of a name that is too long)", len(s.flaws))
	}
}

func TestABombEndsBeforeItIsUnpacked(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: 100 << 30, Format: tar.FormatGNU}
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	read := &counting{r: io.MultiReader(&b, zeros{})}
	var s seen
	_, err := Walk(t.Context(), read, NewBudget(1<<20, 0), visit(&s))
	if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "zeros") {
		t.Errorf("error %v", err)
	}
	if read.n > 1<<20 || len(s.files) > 0 {
		t.Errorf("%d bytes of it were read", read.n)
	}
}

func TestTheBudgetIsThatOfAllLayers(t *testing.T) {
	b := archive(t, file("a"), file("b"))
	budget := NewBudget(0, 3)
	var s seen
	if _, err := Walk(t.Context(), bytes.NewReader(b), budget, visit(&s)); err != nil {
		t.Fatal(err)
	}
	if _, err := Walk(t.Context(), bytes.NewReader(b), budget, visit(&s)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("the second layer: %v", err)
	}
	// Headers that no entry is made of cost too.
	many := archive(t, tar.Header{Name: strings.Repeat("p/", 1500), Typeflag: tar.TypeDir, Format: tar.FormatPAX})
	if _, err := Walk(t.Context(), bytes.NewReader(many), NewBudget(1024, 0), visit(&s)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("headers: %v", err)
	}
}

func TestACutArchiveNamesWhereItWasCut(t *testing.T) {
	b := archive(t, file("a"), file("b"))
	var s seen
	_, err := Walk(t.Context(), bytes.NewReader(b[:1100]), NewBudget(0, 0), visit(&s))
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("error %v", err)
	}
	if _, err := Walk(t.Context(), strings.NewReader(strings.Repeat("no tar", 200)), NewBudget(0, 0), visit(&s)); !errors.Is(err, tar.ErrHeader) {
		t.Errorf("error %v", err)
	}
}

func TestWalkEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var s seen
	if _, err := Walk(ctx, bytes.NewReader(archive(t, file("a"))), NewBudget(0, 0), visit(&s)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func FuzzWalk(f *testing.F) {
	f.Add(archive(f, file("/etc/passwd"), file("../x"), file(".wh..wh..opq"), tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"}, file("l/x")))
	f.Add(archive(f, tar.Header{Name: "d/", Typeflag: tar.TypeDir, Format: tar.FormatPAX, PAXRecords: map[string]string{"path": "../d"}}))
	f.Add([]byte("no tar"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v := Visitor{
			File: func(name string, info fs.FileInfo, content io.Reader) error {
				if !fs.ValidPath(name) && name != "." {
					t.Errorf("name %q", name)
				}
				n, err := io.Copy(io.Discard, content)
				if err == nil && n != info.Size() {
					t.Errorf("%s: %d bytes of %d", name, n, info.Size())
				}
				return err
			},
			Flaw: func(Flaw, string) {},
		}
		c, err := Walk(t.Context(), bytes.NewReader(b), NewBudget(1<<20, 1000), v)
		if err == nil && c == nil {
			t.Error("neither contents nor an error")
		}
		if c != nil {
			for _, n := range c.Whiteouts {
				if strings.HasPrefix(n, "../") {
					t.Errorf("whiteout %q", n)
				}
			}
		}
	})
}

// TestWhatALayerCostIsTakenAgain: a layer that is known charges what its walk did,
// all of it or nothing.
func TestWhatALayerCostIsTakenAgain(t *testing.T) {
	b := archive(t, file("a"), file("b"), tar.Header{Name: "c", Typeflag: tar.TypeDir})
	walked := NewBudget(1<<20, 100)
	c, err := Walk(context.Background(), bytes.NewReader(b), walked, visit(new(seen)))
	if err != nil {
		t.Fatal(err)
	}
	if c.Entries != 3 || c.Bytes != int64(len(b)) {
		t.Errorf("%d bytes and %d entries were charged, of %d and 3", c.Bytes, c.Entries, len(b))
	}
	taken := NewBudget(1<<20, 100)
	if !taken.Take(c.Bytes, c.Entries) || taken.bytes.Load() != walked.bytes.Load() || taken.entries.Load() != walked.entries.Load() {
		t.Errorf("%d bytes and %d entries are left, after the walk %d and %d", taken.bytes.Load(), taken.entries.Load(), walked.bytes.Load(), walked.entries.Load())
	}
	for _, small := range []*Budget{NewBudget(c.Bytes-1, 100), NewBudget(1<<20, c.Entries-1)} {
		bytes, entries := small.bytes.Load(), small.entries.Load()
		if small.Take(c.Bytes, c.Entries) || small.bytes.Load() != bytes || small.entries.Load() != entries {
			t.Error("more was taken than is there")
		}
	}
}
