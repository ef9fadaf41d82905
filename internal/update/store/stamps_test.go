package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// read stages a package and returns how many files of the base were read for it.
func (h *host) read(data []byte) int64 {
	h.Helper()
	s, err := h.Lock(context.Background(), "a test")
	if err != nil {
		h.Fatal(err)
	}
	defer s.Release()
	r, err := pack.NewReader(bytes.NewReader(data), archive.DefaultLimits())
	if err != nil {
		h.Fatal(err)
	}
	defer r.Close()
	var c filehash.Counters
	g, err := s.Stage(context.Background(), store.Request{Package: r, Now: time.Now(), Progress: &c,
		Prove: func() (store.Origin, error) { return store.Origin{Name: "platform"}, nil }})
	if err != nil {
		h.Fatal(err)
	}
	if _, err := s.Activate(context.Background(), g.Number, time.Now()); err != nil {
		h.Fatal(err)
	}
	return c.Hashed.Load()
}

// TestWhatIsNotReadAgain: files that nobody has changed since they were proved,
// through updates, rollbacks and prunes.
func TestWhatIsNotReadAgain(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"a": "1", "b": "2", "c": "3", "same": "1"}))
	if n := h.read(pkg(t, "", files{"a": "one"})); n != 0 {
		t.Errorf("%d files were read", n)
	}
	h.write("local", "x")
	if n := h.read(pkg(t, "", files{"d": "4"})); n != 1 {
		t.Errorf("%d files were read; one is new", n)
	}
	if n := h.read(pkg(t, "", files{"d": "5"})); n != 0 {
		t.Errorf("%d files were read", n)
	}
	if _, err := h.activate(3); err != nil {
		t.Fatal(err)
	}
	if n := h.read(pkg(t, "kind: full\n", files{"a": "one", "b": "2", "d": "6"})); n != 0 {
		t.Errorf("%d files were read after a rollback", n)
	}
	s, err := h.Lock(context.Background(), "a test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(context.Background(), []int{1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	s.Release()
	if n := h.read(pkg(t, "", files{"d": "7"})); n != 0 {
		t.Errorf("%d files were read after a prune", n)
	}
	h.is(files{"a": "one", "b": "2", "d": "7"})
	if d := h.verify(5, 6); len(d) > 0 {
		t.Errorf("verify: %v", d)
	}
}

// TestWhatIsReadAgain: whatever was touched, and everything when the stamps are
// not what was written.
func TestWhatIsReadAgain(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(h *host)
		want int64
	}{
		"written in place": {func(h *host) {
			before := stat(h, h.Target()+"/a")
			f, err := os.OpenFile(h.Target()+"/a", os.O_WRONLY, 0)
			if err != nil {
				h.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString("1"); err != nil { // the same content
				h.Fatal(err)
			}
			if err := os.Chtimes(h.Target()+"/a", time.Time{}, time.Unix(int64(before.Mtim.Sec), int64(before.Mtim.Nsec))); err != nil {
				h.Fatal(err)
			}
		}, 1},
		"replaced":       {func(h *host) { h.write("a", "1") }, 1},
		"stamps changed": {func(h *host) { h.flip("stamps", 80) }, 2},
		"stamps cut": {func(h *host) {
			if err := os.Truncate(h.Dir()+"/generations/1/stamps", 90); err != nil {
				h.Fatal(err)
			}
		}, 2},
		"no stamps": {func(h *host) {
			if err := h.Forget(); err != nil {
				h.Fatal(err)
			}
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.apply(pkg(t, "", files{"a": "1", "b": "2"}))
			test.do(h)
			if n := h.read(pkg(t, "", files{"c": "3"})); n != test.want {
				t.Errorf("%d files were read, not %d", n, test.want)
			}
			h.is(files{"a": "1", "b": "2", "c": "3"})
		})
	}
}

// flip changes a byte of a file of the first generation.
func (h *host) flip(name string, at int64) {
	h.Helper()
	f, err := os.OpenFile(h.Dir()+"/generations/1/"+name, os.O_RDWR, 0)
	if err != nil {
		h.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		h.Fatal(err)
	}
	b[0]++
	if _, err := f.WriteAt(b[:], at); err != nil {
		h.Fatal(err)
	}
}

// TestVerifyForgetsStamps: damage that came by no write, which the test can only
// feign, is not linked on once verify has seen it.
func TestVerifyForgetsStamps(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"a": "1", "b": "2"}))
	f, err := os.OpenFile(h.Target()+"/a", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if d := h.verify(1); len(d) == 0 {
		t.Fatal("verify found nothing")
	}
	if _, err := os.Stat(h.Dir() + "/generations/1/stamps"); !os.IsNotExist(err) {
		t.Errorf("the stamps are still there: %v", err)
	}
	if _, err := h.stage(pkg(t, "", files{"c": "3"})); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("%v", err)
	}
}

// TestEditIsNotProvedByItsStamp: a file that was replaced by one of the same size
// is known to be another when its generation is current again and a new one is
// made from it.
func TestEditIsNotProvedByItsStamp(t *testing.T) {
	h := newHost(t)
	h.apply(pkg(t, "", files{"a": "1", "b": "2"}))
	if err := os.Remove(h.Target() + "/a"); err != nil {
		t.Fatal(err)
	}
	h.write("a", "9")
	h.apply(pkg(t, "", files{"b": "3"})) // reads a, and writes stamps of the first generation
	if _, err := h.activate(1); err != nil {
		t.Fatal(err)
	}
	h.is(files{"a": "9", "b": "2"})
	if g := h.apply(pkg(t, "", files{"c": "4"})); len(g.Edited) != 1 || g.Edited[0] != "a" {
		t.Errorf("edited: %q", g.Edited)
	}
	h.is(files{"a": "1", "b": "2", "c": "4"})
}
