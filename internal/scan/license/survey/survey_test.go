package survey

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/memo"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// goLicense is the licence of Go itself, which is wherever these tests run.
func goLicense(t *testing.T) []byte {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("no go command to ask for its own directory: %v", err)
	}
	for _, dir := range []string{strings.TrimSpace(string(out)), "/usr/share/doc/golang-go"} {
		if b, err := os.ReadFile(filepath.Join(dir, "LICENSE")); err == nil {
			return b
		}
	}
	t.Skip("this Go distribution has no LICENSE file")
	return nil
}

func look(t *testing.T, s *Survey, path string, content []byte) Found {
	t.Helper()
	f, err := s.Look(path, content)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLook(t *testing.T) {
	text := goLicense(t)
	s := New(Options{})
	f := look(t, s, "go/LICENSE", text)
	if len(f.Findings) != 1 || f.Findings[0].Name != "BSD-3-Clause" || f.Kind != "license-file" {
		t.Fatalf("%+v", f)
	}
	n := f.Notice
	if n == nil || n.Kind != protocol.NoticeLicense || !slices.Equal(n.Licenses, []string{"BSD-3-Clause"}) || len(n.Copyright) != 1 || !strings.HasPrefix(n.Copyright[0], "Copyright") {
		t.Fatalf("%+v", n)
	}
	if s.Texts()[n.Text] != string(text) {
		t.Error("the text isn't kept")
	}
	// The same text in a place of a package: a notice, no finding.
	if f := look(t, s, "x/node_modules/y/LICENSE", text); len(f.Findings) != 0 || f.Notice == nil || f.Notice.Text != n.Text {
		t.Errorf("%+v", f)
	}
	// The same text as the head of a source file: no text is kept for it.
	if f := look(t, s, "main.c", append([]byte("/*\n"), append(text, "*/\nint x;\n"...)...)); len(f.Findings) != 1 || f.Notice == nil || f.Notice.Kind != protocol.NoticeHeader || f.Notice.Text != "" {
		t.Errorf("%+v", f)
	}
	if f := look(t, s, "plain.c", []byte("int x;\n")); f.Notice != nil || len(f.Findings) != 0 {
		t.Errorf("%+v", f)
	}
	if f := look(t, s, "LICENSE", []byte("\x00\x01\x02binary")); f.Notice != nil || s.Stats().Binary != 1 {
		t.Errorf("%+v", f)
	}
	if f := look(t, s, "LICENSE", []byte("Ask our lawyers.\n")); f.Notice == nil || len(f.Findings) != 0 || len(f.Notice.Licenses) != 0 {
		t.Errorf("%+v", f)
	}
	if f := look(t, s, "usr/share/common-licenses/GPL-2", []byte("text")); f.Notice == nil || !slices.Equal(f.Notice.Licenses, []string{"GPL-2.0-only"}) {
		t.Errorf("%+v", f)
	}
	if st := s.Stats(); st.Files != 6 || st.Remembered != 1 || st.Classified != 2 {
		t.Errorf("%+v", st)
	}
}

// A second run reads and hashes, and says the same; a memo of another confidence, or
// of files of another kind, is not asked.
func TestMemo(t *testing.T) {
	text := goLicense(t)
	file := filepath.Join(t.TempDir(), "memo")
	run := func(o Options) (Found, Found, Stats) {
		m, err := memo.Open(file, 0)
		if err != nil {
			t.Fatal(err)
		}
		o.Memo = m
		s := New(o)
		a, b := look(t, s, "LICENSE", text), look(t, s, "nothing.txt", []byte("nothing\n"))
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		return a, b, s.Stats()
	}
	a1, b1, first := run(Options{})
	a2, b2, second := run(Options{})
	if !reflect.DeepEqual(a1, a2) || !reflect.DeepEqual(b1, b2) {
		t.Errorf("%+v and %+v, then %+v and %+v", a1, b1, a2, b2)
	}
	if first.Remembered != 0 || first.Classified != 1 || second.Remembered != 2 || second.Classified != 0 {
		t.Errorf("%+v, then %+v", first, second)
	}
	if _, _, other := run(Options{Confidence: 0.95}); other.Remembered != 0 {
		t.Errorf("with another confidence %+v", other)
	}
}

// A result that cannot be read is as good as none.
func TestMemoOfSomethingElse(t *testing.T) {
	m, err := memo.Open(filepath.Join(t.TempDir(), "memo"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s := New(Options{Memo: m})
	text := goLicense(t)
	f := look(t, s, "LICENSE", text)
	for r := range s.rulesets {
		sum := [32]byte{}
		copy(sum[:], mustHex(t, f.Notice.Text))
		m.Put(memo.Key{Content: sum, Ruleset: s.rulesets[r]}, []byte("no JSON"))
	}
	if again := look(t, New(Options{Memo: m}), "LICENSE", text); !reflect.DeepEqual(again, f) {
		t.Errorf("%+v, want %+v", again, f)
	}
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	var out []byte
	for i := 0; i+1 < len(s); i += 2 {
		v := byte(0)
		for _, c := range []byte(s[i : i+2]) {
			v = v<<4 | byte(strings.IndexByte("0123456789abcdef", c))
		}
		out = append(out, v)
	}
	return out
}

func TestLimits(t *testing.T) {
	s := New(Options{MaxText: 100, MaxTexts: 150, MaxFile: 1000})
	if s.Fits(1001) || !s.Fits(1000) {
		t.Error("the size of files has no limit")
	}
	large := look(t, s, "LICENSE", bytes.Repeat([]byte("x "), 60))
	small := look(t, s, "a/LICENSE", bytes.Repeat([]byte("y "), 40))
	none := look(t, s, "b/LICENSE", bytes.Repeat([]byte("z "), 45))
	texts := s.Texts()
	if large.Notice.Text == "" || texts[large.Notice.Text] != "" || texts[small.Notice.Text] == "" || texts[none.Notice.Text] != "" {
		t.Errorf("%v", texts)
	}
	if st := s.Stats(); st.LeftOut != 2 || st.TooLarge != 1 {
		t.Errorf("%+v", st)
	}
}

// Many files at the same time, with the same text among them, are looked at once.
func TestParallel(t *testing.T) {
	text := goLicense(t)
	s := New(Options{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if f, err := s.Look("LICENSE", text); err != nil || len(f.Findings) != 1 {
					t.Errorf("%+v, %v", f, err)
				}
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Classified != 1 || st.Remembered != 159 || st.Files != 160 {
		t.Errorf("%+v", st)
	}
}

func TestWanted(t *testing.T) {
	for name, want := range map[string]bool{
		"LICENSE": true, "a/b.c": true, "a/B.JS": true, "x.go": false, "COPYING": true, "node_modules/a/index.js": false, "node_modules/a/LICENSE": true,
		"usr/lib/python3/x.py": false, "usr/share/doc/bash/copyright": true, "usr/share/doc/bash/README.md": false, "x.png": false, "LICENSES/MIT.txt": true,
	} {
		if got := Wanted(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func FuzzLook(f *testing.F) {
	s := New(Options{})
	for _, name := range []string{"LICENSE", "usr/share/doc/x/copyright", "debian/copyright", "a.c", "usr/share/common-licenses/GPL", "NOTICE"} {
		f.Add(name, []byte("Format: x\nLicense: MIT\nSPDX-License-Identifier: MIT\nCopyright 2020 X\n"))
	}
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		found, err := s.Look(name, content)
		if err == nil && found.Notice != nil && found.Notice.Path != name {
			t.Fatal("another path")
		}
	})
}
