package archive

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/archive/rawtar"
	"github.com/mobileops/mobileops/internal/failure"
)

// written writes a small archive of dir's file "a".
func written(t *testing.T, dir string, o WriterOptions) ([]byte, error) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	info, err := root.Lstat("a")
	if err != nil {
		t.Fatal(err)
	}
	var b, tee bytes.Buffer
	w, err := NewWriter(&b, o)
	if err != nil {
		return nil, err
	}
	for _, err := range []error{
		w.Bytes("first", 0o644, time.Unix(1, 999), []byte("one")), w.Dir("d", 0o750, time.Unix(2, 0)), w.Symlink("d/l", "../a", time.Time{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	n, err := w.File(t.Context(), root, "a", info, 0o755, info.ModTime(), &tee)
	if err != nil {
		return nil, err
	}
	if n != info.Size() || tee.String() != rawtar.Hello {
		t.Errorf("%d bytes, %q", n, tee.String())
	}
	err = w.Close()
	return b.Bytes(), err
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte(rawtar.Hello), 0o600); err != nil {
		t.Fatal(err)
	}
	latest := time.Unix(1_000_000_000, 0)
	for _, format := range []Format{Zstd, Gzip} {
		data, err := written(t, dir, WriterOptions{Format: format, Latest: latest})
		if err != nil {
			t.Fatal(err)
		}
		again, err := written(t, dir, WriterOptions{Format: format, Latest: latest})
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: the same calls make other bytes (%v)", format, err)
		}
		all, err := readArchive(t, data, Limits{})
		if err != nil || len(all) != 4 {
			t.Fatal(all, err)
		}
		if e := all[3]; e.Name != "a" || e.Mode != 0o755 || e.content != rawtar.Hello || !e.ModTime.Equal(latest) {
			t.Errorf("%+v", e)
		}
		if e := all[2]; e.Link != "../a" || e.ModTime.Unix() != 0 {
			t.Errorf("%+v", e)
		}
	}
	for _, o := range []WriterOptions{{Format: "zip"}, {Format: Gzip, Level: 99}} {
		if _, err := NewWriter(io.Discard, o); failure.KindOf(err) != failure.Usage {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// TestWriteProvedRefuses: what a reader refuses is not said to be made, and a
// reader that stops early does not leave the writer waiting.
func TestWriteProvedRefuses(t *testing.T) {
	read := func(r io.Reader) error {
		a, err := NewReader(r, Limits{}, Rules{})
		if err != nil {
			return err
		}
		defer a.Close()
		for {
			if _, err := a.Next(); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	content := make([]byte, 8<<20)
	write := func(name string) func(io.Writer) error {
		return func(to io.Writer) error {
			w, err := NewWriter(to, WriterOptions{})
			if err != nil {
				return err
			}
			for _, n := range []string{name, "z"} {
				if err := w.Bytes(n, 0o644, time.Time{}, content); err != nil {
					return err
				}
			}
			return w.Close()
		}
	}
	var b bytes.Buffer
	if n, err := WriteProved(&b, write("good"), read); err != nil || n != int64(b.Len()) || n == 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := WriteProved(io.Discard, write("../bad"), read); codeOf(err) != CodeTraversal || failure.KindOf(err) != failure.Failed {
		t.Errorf("%v", err)
	}
	broken := errors.New("no space left on device")
	if _, err := WriteProved(io.Discard, func(io.Writer) error { return broken }, read); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// TestRulesDecide: what one kind of package demands is asked in time.
func TestRulesDecide(t *testing.T) {
	rules := Rules{
		Admit: func(e *Entry, mode uint32) *Problem {
			switch {
			case e.Kind == Dir:
				return Trouble(CodeType, "a directory")
			case mode&0o6000 != 0 && e.Name != "allowed":
				return Trouble(CodeSetID, "mode %o", mode)
			}
			e.Mode = mode
			return nil
		},
		Link: func(e *Entry, resolved string) *Problem {
			if resolved != "d/x" {
				return Trouble("own", "%s leads to %s", e.Name, resolved)
			}
			return nil
		},
		Advice: func(c Code) string { return map[Code]string{"own": "what only this kind says"}[c] },
	}
	for _, tc := range []struct {
		entry rawtar.Entry
		code  Code
		text  string
	}{
		{entry: rawtar.With(rawtar.File("allowed"), rawtar.Moded(0o4755))},
		{entry: rawtar.With(rawtar.File("other"), rawtar.Moded(0o4755)), code: CodeSetID},
		{entry: rawtar.Dir("d"), code: CodeType},
		{entry: rawtar.Symlink("d/l", "x")},
		{entry: rawtar.Symlink("d/l", "../y"), code: "own", text: `package refused: own: "d/l": d/l leads to y (what only this kind says)`},
	} {
		r := NewUnpacked(rawtar.Archive(tc.entry), Limits{}, rules)
		all, err := readEntries(t, r)
		switch {
		case tc.code == "" && (err != nil || len(all) != 1 || tc.entry.Type == 0 && all[0].Mode != uint32(tc.entry.Mode)):
			t.Errorf("%s: %v, %v", tc.entry.Name, all, err)
		case tc.code != "" && codeOf(err) != tc.code, tc.text != "" && err.Error() != tc.text:
			t.Errorf("%s: %v", tc.entry.Name, err)
		}
	}
}
