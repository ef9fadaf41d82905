package queue

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestNoteIsThereAgain(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<20, "a", "b")
	if n := q.Cursor("a").Note(); n != nil {
		t.Errorf("a new destination has the note %q", n)
	}
	for _, text := range []string{"first", strings.Repeat("x", MaxNote), "third"} {
		if err := q.Cursor("a").SetNote([]byte(text)); err != nil {
			t.Fatal(err)
		}
		q.Close()
		q = open(t, dir, 1<<20, "a", "b")
		if n := string(q.Cursor("a").Note()); n != text {
			t.Errorf("%.20q, not %.20q", n, text)
		}
	}
	if n := q.Cursor("b").Note(); n != nil {
		t.Errorf("b has the note %q", n)
	}
	if err := q.Cursor("a").SetNote(make([]byte, MaxNote+1)); err == nil {
		t.Error("a note that is too long was taken")
	}
	if err := q.Sync(); err != nil {
		t.Error(err)
	}
	q.Close()
	if err := q.Cursor("a").SetNote(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	open(t, dir, 1<<20, "b").Close() // a is not configured any more
	q = open(t, dir, 1<<20, "a", "b")
	if n := q.Cursor("a").Note(); n != nil {
		t.Errorf("the note %q outlived the destination", n)
	}
}

// TestTornNoteIsTheOneBefore, at every byte that a write can end at.
func TestTornNoteIsTheOneBefore(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1<<20, "a")
	for _, text := range []string{"the first", "the second", "the third"} {
		if err := q.Cursor("a").SetNote([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	q.Close()
	whole, err := os.ReadFile(notePath(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(whole), "the third")
	for i := at - noteHead; i < at+len("the third"); i++ {
		torn := append([]byte(nil), whole...)
		torn[i] ^= 0x40
		if err := os.WriteFile(notePath(dir, "a"), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		q := open(t, dir, 1<<20, "a")
		if n := string(q.Cursor("a").Note()); n != "the second" {
			t.Errorf("byte %d: %q", i, n)
		}
		q.Close()
	}
	for _, length := range []int{0, 7, noteHead - 1, noteSlot + 3} {
		if err := os.WriteFile(notePath(dir, "a"), whole[:min(length, len(whole))], 0o600); err != nil {
			t.Fatal(err)
		}
		q := open(t, dir, 1<<20, "a")
		if n := string(q.Cursor("a").Note()); n != "" && n != "the second" && n != "the third" {
			t.Errorf("%d bytes: %q", length, n)
		}
		q.Close()
	}
}

func FuzzNote(f *testing.F) {
	n := &note{}
	path := f.TempDir() + "/n"
	var err error
	if n.f, err = os.Create(path); err != nil {
		f.Fatal(err)
	}
	_ = n.write([]byte("first"))
	_ = n.write([]byte("second"))
	seed, _ := os.ReadFile(path)
	f.Add(seed)
	f.Add([]byte(noteMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := t.TempDir() + "/n"
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := openNote(path)
		if err != nil {
			t.Fatal(err)
		}
		defer n.f.Close()
		if len(n.text) > MaxNote || n.text != nil && !strings.Contains(string(b), noteMagic) {
			t.Fatalf("%q", n.text)
		}
	})
}
