package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/seal"
)

// A host that can only write goes on after its collector was killed: what that
// one left is kept for those who can read it, and read again from its sources.
func TestKilledWriterOfWhatItCannotRead(t *testing.T) {
	k, err := seal.GenerateKeyFile(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	only := func(o *Options) { o.Recipients = []seal.Recipient{k} }
	s, _ := openStore(t, dir, only)
	w := writer(t, s)
	appendTo(t, w, batch("a", 0, 10))
	flushed(t, w)
	appendTo(t, w, batch("a", 10, 20))
	killed(t, w)

	// With no reader at all named, nothing is passed over on a guess.
	plain, _ := openStore(t, dir, nil)
	if w, err := plain.Writer(ctx); failure.KindOf(err) != failure.NotReady {
		w.Close()
		t.Fatalf("%v; want NotReady", err)
	}

	s, _ = openStore(t, dir, only)
	w = writer(t, s)
	if r := w.Recovery(); len(r.Locked) != 1 || len(r.Damage) != 0 || r.Locked[0].File != "wal/0000000002.wal" {
		t.Errorf("%+v", r)
	}
	cursors, err := w.Cursors(ctx)
	if err != nil || string(cursors["file:a"]) != "10" {
		t.Fatalf("%q, %v: reading must go on where segments end", cursors, err)
	}
	appendTo(t, w, batch("a", 10, 25))
	flushed(t, w)
	w.Close()
	if _, err := os.Stat(filepath.Join(s.damagedDir(), "0000000002.wal")); err != nil {
		t.Error(err)
	}
	clean(t, s)
	reading, _ := openStore(t, dir, func(o *Options) { o.Recipients, o.Identities = []seal.Recipient{k}, []seal.Identity{k} })
	wantAll(t, reading, lines("a", 0, 25))

	// Whoever has the key reads what a killed process left.
	w = writer(t, s)
	appendTo(t, w, batch("a", 25, 30))
	killed(t, w)
	w = writer(t, reading)
	if r := w.Recovery(); len(r.Locked) != 0 || len(r.Damage) != 0 {
		t.Errorf("%+v", r)
	}
	wantAll(t, reading, lines("a", 0, 30))
}

// killed lets go of what the end of a process lets go of.
func killed(t *testing.T, w *Writer) {
	t.Helper()
	w.open.file.Close()
	if err := w.lock.Release(); err != nil {
		t.Fatal(err)
	}
	w.lock = nil
}
