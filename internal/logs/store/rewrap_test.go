package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/seal"
)

func newKey(t *testing.T) *seal.Key {
	t.Helper()
	k, err := seal.GenerateKeyFile(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func with(to, from *seal.Key) func(*Options) {
	return func(o *Options) {
		if to != nil {
			o.Recipients = []seal.Recipient{to}
		}
		if from != nil {
			o.Identities = []seal.Identity{from}
		}
	}
}

func TestRewrapIsNoTampering(t *testing.T) {
	dir := t.TempDir()
	old, next := newKey(t), newKey(t)
	s, _ := openStore(t, dir, with(old, old))
	w := writer(t, s)
	appendTo(t, w, batch("a", 0, 10))
	flushed(t, w)
	appendTo(t, w, batch("b", 0, 10))
	w.Close()
	if _, err := s.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	s, _ = openStore(t, dir, with(next, old))
	r, err := s.Rewrap(ctx, []seal.Identity{old, next}, []seal.Recipient{next})
	if err != nil || r.Segments != 2 || r.Pending {
		t.Fatalf("%+v, %v", r, err)
	}
	clean(t, s)
	s, _ = openStore(t, dir, with(next, next))
	wantAll(t, s, lines("a", 0, 10), lines("b", 0, 10))
	s, _ = openStore(t, dir, with(old, old))
	snap, err := s.Snapshot(ctx, Everything())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if _, err := snap.Segments[0].Open(ctx); failure.KindOf(err) != failure.NotAllowed {
		t.Errorf("the key from before opens it: %v", err)
	}
	// What rewrapping leaves as it is, is watched.
	flip(t, s.segmentPath(1), -20)
	if v, err := s.Verify(ctx, VerifyOptions{}); err != nil || len(v.Problems) != 1 || v.Problems[0].What != Altered {
		t.Errorf("%+v, %v", v, err)
	}
	// A proof is of the sealed file and of the plain one.
	w = writer(t, s)
	w.Close()
	p, err := s.Prove(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, s.segmentPath(1), -20)
	s, _ = openStore(t, dir, with(next, next))
	plain, err := s.Snapshot(ctx, Range{Until: Everything().Until, Sources: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	data, err := plain.Segments[0].Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if _, err := p.VerifyFile(ctx, key().public(), data, data.Size()); err != nil {
		t.Errorf("decrypted: %v", err)
	}
	b, err := os.ReadFile(s.segmentPath(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.VerifyFile(ctx, key().public(), bytes.NewReader(b), int64(len(b))); err != nil {
		t.Errorf("sealed: %v", err)
	}
}

func TestNothingOfAnEncryptedStoreIsReadable(t *testing.T) {
	dir := t.TempDir()
	k := newKey(t)
	s, _ := openStore(t, dir, with(k, k))
	w := writer(t, s)
	secret := Batch{Key: "k", Origin: event.Origin{Source: "src"}, Records: []event.Record{{Time: day0.UnixNano(), Raw: []byte("user hunter2 logged in from 203.0.113.77")}}, Cursor: []byte("c")}
	appendTo(t, w, secret)
	look := func() {
		t.Helper()
		err := filepath.WalkDir(s.Dir(), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte("hunter2")) || bytes.Contains(b, []byte("203.0.113.77")) {
				t.Errorf("%s shows what it keeps", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	look()
	flushed(t, w)
	look()
}

// TestACollectorThatCannotRead has recipients and no identity: what it wrote
// is for others only.
func TestACollectorThatCannotRead(t *testing.T) {
	dir := t.TempDir()
	k := newKey(t)
	for i := range 3 {
		s, _ := openStore(t, dir, with(k, nil))
		w := writer(t, s)
		if c, _ := w.Cursors(ctx); i > 0 && len(c) != 1 {
			t.Errorf("cursors: %q", c)
		}
		appendTo(t, w, batch("a", i*10, i*10+10))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		clean(t, s)
		snap, err := s.Snapshot(ctx, Everything())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := snap.Segments[0].Open(ctx); failure.KindOf(err) != failure.NotReady {
			t.Errorf("%v", err)
		}
		snap.Close()
	}
	s, _ := openStore(t, dir, with(k, nil))
	if r, err := s.Rotate(ctx, Policy{}); err != nil || r.Locked != 3 || len(r.Merged) > 0 {
		t.Errorf("merged without a key: %+v, %v", r, err)
	}
	s, _ = openStore(t, dir, with(nil, k))
	if r, err := s.Rotate(ctx, Policy{}); err != nil || r.Locked != 3 || len(r.Merged) > 0 {
		t.Errorf("merged into the clear: %+v, %v", r, err)
	}
	s, _ = openStore(t, dir, with(k, k))
	wantAll(t, s, lines("a", 0, 30))
	if r, err := s.Rotate(ctx, Policy{}); err != nil || r.Locked != 0 || len(r.Merged) != 1 {
		t.Errorf("not merged with the key: %+v, %v", r, err)
	}
	wantAll(t, s, lines("a", 0, 30))
	clean(t, s)
	// The log of a store that is encrypted from now on is so from now on.
	dir = t.TempDir()
	s, _ = openStore(t, dir, nil)
	w := writer(t, s)
	appendTo(t, w, batch("a", 0, 10))
	w.Close()
	s, _ = openStore(t, dir, with(k, k))
	w = writer(t, s)
	if w.open.aead == nil {
		t.Error("the log goes on in the clear")
	}
	appendTo(t, w, batch("a", 10, 20))
	flushed(t, w)
	wantAll(t, s, lines("a", 0, 20))
	clean(t, s)
}
