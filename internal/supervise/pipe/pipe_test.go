package pipe

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

// TestWhatIsThereIsRead, also by who comes to it after the deadline.
func TestWhatIsThereIsRead(t *testing.T) {
	for _, n := range []int{0, 10, Size} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		data := bytes.Repeat([]byte("x"), n)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := r.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(NewReader(r)) // its other end stays open
		if !bytes.Equal(got, data) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("of %d bytes %d were read, %v", n, len(got), err)
		}
	}
}

// TestWhoWritesForEver is not read for ever.
func TestWhoWritesForEver(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := r.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	p := NewReader(r)
	for read := 0; ; {
		if _, err := w.Write(make([]byte, 1<<10)); err != nil {
			t.Fatal(err)
		}
		n, err := p.Read(make([]byte, 1<<10))
		if err != nil {
			break
		}
		if read += n; read > Size {
			t.Fatal("it is read as long as somebody writes")
		}
	}
}
