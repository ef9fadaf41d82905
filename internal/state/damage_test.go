package state

import (
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	bolt "go.etcd.io/bbolt"
)

func digest(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// attempt does everything that must not touch a bad file, and returns the
// errors by name.
func attempt(s *Store) map[string]error {
	_, view := dump(s)
	_, check := s.Check(ctx)
	_, _, compact := s.Compact(ctx)
	return map[string]error{
		"View":    view,
		"Update":  s.Update(ctx, putter("key-000001", "changed")),
		"Check":   check,
		"Compact": compact,
		"Backup":  s.Backup(ctx, filepath.Join(s.Dir(), "backup"), true),
	}
}

func TestTruncatedFile(t *testing.T) {
	s := New(t.TempDir(), Options{})
	fill(t, s, 500)
	whole, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	seal, err := os.ReadFile(s.sumPath())
	if err != nil {
		t.Fatal(err)
	}
	used := int64(readSeal(s.sumPath()).pageSize) * int64(len(readSeal(s.sumPath()).sums))
	sizes := []int64{0, 1, 17, 20, 100, 4095, 4096, 5000, 8191, 8192, 12288, 20000, used / 2, used - 4096, used - 1}
	for _, withSeal := range []bool{true, false} {
		for _, size := range sizes {
			if err := os.WriteFile(s.Path(), whole[:size], 0o600); err != nil {
				t.Fatal(err)
			}
			if withSeal {
				err = os.WriteFile(s.sumPath(), seal, 0o600)
			} else {
				err = os.RemoveAll(s.sumPath())
			}
			if err != nil {
				t.Fatal(err)
			}
			before := digest(t, s.Path())
			for what, err := range attempt(s) {
				if failure.KindOf(err) != failure.Untrustworthy {
					t.Errorf("%d bytes left, seal %v: %s: %v; want status 5", size, withSeal, what, err)
				}
				if withSeal && !errors.Is(err, ErrCorrupt) {
					t.Errorf("%d bytes left: %s: %v; want ErrCorrupt", size, what, err)
				}
			}
			if digest(t, s.Path()) != before {
				t.Fatalf("%d bytes left: the file was modified", size)
			}
		}
	}
}

func TestFlippedBits(t *testing.T) {
	s := New(t.TempDir(), Options{})
	fill(t, s, 400)
	whole, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	sealBytes, err := os.ReadFile(s.sumPath())
	if err != nil {
		t.Fatal(err)
	}
	good, err := dump(s)
	if err != nil {
		t.Fatal(err)
	}
	sums := readSeal(s.sumPath()).sums
	if _, _, err := s.Compact(ctx); err != nil { // another layout of the same content
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var positions []int
	for page := range sums { // headers of every page in use, and anywhere
		if page < 2 || sums[page] != 0 {
			for range 6 {
				positions = append(positions, page*4096+rng.IntN(96))
			}
			positions = append(positions, page*4096+rng.IntN(4096), page*4096+rng.IntN(4096))
		}
	}
	for range 200 {
		positions = append(positions, rng.IntN(len(whole)))
	}
	// A flip takes 50 ms, and with the race detector, which looks at every byte that is
	// hashed, four times that.
	rng.Shuffle(len(positions), func(i, j int) { positions[i], positions[j] = positions[j], positions[i] })
	positions = positions[:len(positions)/3]
	if testing.Short() {
		positions = positions[:len(positions)/3]
	}
	refused := 0
	for _, at := range positions {
		flipped := append([]byte(nil), whole...)
		flipped[at] ^= 1 << rng.IntN(8)
		if err := errors.Join(os.WriteFile(s.Path(), flipped, 0o600), os.WriteFile(s.sumPath(), sealBytes, 0o600)); err != nil {
			t.Fatal(err)
		}
		before := digest(t, s.Path())
		got, err := dump(s)
		switch {
		case err == nil && got != good:
			t.Errorf("bit at %d: something else was read, without an error", at)
		case err != nil && failure.KindOf(err) != failure.Untrustworthy:
			t.Errorf("bit at %d: %v; want status 5", at, err)
		}
		if err != nil {
			refused++
			for what, err := range attempt(s) {
				if failure.KindOf(err) != failure.Untrustworthy {
					t.Errorf("bit at %d: %s: %v; want status 5", at, what, err)
				}
			}
		}
		if digest(t, s.Path()) != before {
			t.Fatalf("bit at %d: the file was modified", at)
		}
	}
	t.Logf("%d flips, %d refused, the others in pages that are not in use", len(positions), refused)
	if refused < len(positions)/3 {
		t.Errorf("only %d of %d flips were refused", refused, len(positions))
	}
}

// Without a seal there are no checksums, so flipped content can be read; but
// nothing may crash, and no file that is refused may be touched.
func TestFlippedBitsWithoutASealDoNotCrash(t *testing.T) {
	s := New(t.TempDir(), Options{})
	fill(t, s, 200)
	whole, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	n := len(readSeal(s.sumPath()).sums)
	rng := rand.New(rand.NewPCG(3, 4))
	rounds := 300
	if testing.Short() {
		rounds = 100
	}
	for range rounds {
		flipped := append([]byte(nil), whole...)
		at := rng.IntN(n)*4096 + rng.IntN(64)
		flipped[at] ^= 1 << rng.IntN(8)
		if err := errors.Join(os.WriteFile(s.Path(), flipped, 0o600), os.RemoveAll(s.sumPath())); err != nil {
			t.Fatal(err)
		}
		before := digest(t, s.Path())
		_, err := dump(s)
		if err != nil && failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("bit at %d: %v; want status 5", at, err)
		}
		_, checkErr := s.Check(ctx)
		if checkErr != nil && failure.KindOf(checkErr) != failure.Untrustworthy {
			t.Errorf("bit at %d: Check: %v; want status 5", at, checkErr)
		}
		if digest(t, s.Path()) != before {
			t.Fatalf("bit at %d: reading modified the file", at)
		}
	}
}

func TestForeignFiles(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"text":   func(p string) error { return os.WriteFile(p, []byte("hello, I am a diary\n"), 0o600) },
		"large":  func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("SQLite", 9000)), 0o600) },
		"zeroes": func(p string) error { return os.WriteFile(p, make([]byte, 65536), 0o600) },
		"other bbolt": func(p string) error {
			db, err := bolt.Open(p, 0o600, nil)
			if err != nil {
				return err
			}
			return errors.Join(db.Update(putter("a", "1")), db.Close())
		},
		"link": func(p string) error {
			if err := os.WriteFile(p+".target", []byte("x"), 0o600); err != nil {
				return err
			}
			return os.Symlink(p+".target", p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(t.TempDir(), Options{})
			if err := make(s.Path()); err != nil {
				t.Fatal(err)
			}
			before := digest(t, s.Path())
			for what, err := range attempt(s) {
				if !errors.Is(err, ErrForeign) || failure.KindOf(err) != failure.Untrustworthy {
					t.Errorf("%s: %v; want ErrForeign", what, err)
				}
			}
			if digest(t, s.Path()) != before {
				t.Error("the file was modified")
			}
		})
	}
	t.Run("fifo", func(t *testing.T) {
		s := New(t.TempDir(), Options{})
		if err := exec.Command("mkfifo", s.Path()).Run(); err != nil {
			t.Fatal(err)
		}
		for what, err := range attempt(s) {
			if !errors.Is(err, ErrForeign) {
				t.Errorf("%s: %v; want ErrForeign", what, err)
			}
		}
	})
}

func TestOlderFileInItsPlaceIsRefused(t *testing.T) {
	s := New(t.TempDir(), Options{})
	put(t, s, "a", "1")
	old, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "2")
	put(t, s, "a", "3")
	if err := os.WriteFile(s.Path(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := get(s, "a"); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "an older file was put in its place") {
		t.Errorf("got %q, %v", v, err)
	}
	// The administrator's way to say that this is meant.
	if err := os.Rename(s.Path(), s.Path()+".copy"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Restore(ctx, s.Path()+".copy"); err != nil {
		t.Fatal(err)
	}
	if v, err := get(s, "a"); v != "1" || err != nil {
		t.Errorf("after Restore: got %q, %v", v, err)
	}
}

// Between the commit and the seal a process can be killed; then the database
// is one transaction ahead of the seal, or there is none.
func TestSealThatStayedBehind(t *testing.T) {
	s := New(t.TempDir(), Options{})
	fill(t, s, 100)
	behind, err := os.ReadFile(s.sumPath())
	if err != nil {
		t.Fatal(err)
	}
	for i, seal := range [][]byte{behind, nil, []byte("rubbish"), behind[:50]} {
		put(t, s, "last", "word")
		want, err := dump(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.sumPath(), seal, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := dump(s); err != nil || got != want {
			t.Errorf("case %d: View: %v", i, err)
		}
		if r, err := s.Check(ctx); err != nil || r.Sealed || len(r.Warnings) == 0 {
			t.Errorf("case %d: Check: %+v, %v", i, r, err)
		}
		put(t, s, "next", "word")
		if r, err := s.Check(ctx); err != nil || !r.Sealed {
			t.Errorf("case %d: Check after the next transaction: %+v, %v", i, r, err)
		}
	}
}

// A process is killed between commit and seal, and the next one while it
// writes pages for a further transaction: these may be pages that the seal
// still knows, but none that is in use.
func TestSealThatStayedBehindATornTransaction(t *testing.T) {
	s := New(t.TempDir(), Options{})
	fill(t, s, 100)
	behind := readSeal(s.sumPath())
	put(t, s, "last", "word")
	want, err := dump(s)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(s.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := readHeader(f)
	if err != nil {
		t.Fatal(err)
	}
	free, err := readFreelist(f, h)
	if err != nil {
		t.Fatal(err)
	}
	torn, whole := 0, uint64(0)
	for id := range behind.sums {
		switch {
		case behind.sums[id] == 0:
		case free.has(uint64(id)):
			torn++
			if _, err := f.WriteAt([]byte(strings.Repeat("torn", 1024)), int64(id)*h.PageSize); err != nil {
				t.Fatal(err)
			}
		default:
			whole = uint64(id)
		}
	}
	if torn == 0 || whole == 0 {
		t.Fatalf("%d pages went out of use, %d stayed", torn, whole)
	}
	writeSeal(s.sumPath(), behind)
	if got, err := dump(s); err != nil || got != want {
		t.Errorf("View: %v", err)
	}
	// What is in use and known to the old seal is still proved by it.
	if _, err := f.WriteAt([]byte("!"), int64(whole)*h.PageSize+h.PageSize-1); err != nil {
		t.Fatal(err)
	}
	if _, err := dump(s); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged page was read: %v", err)
	}
}
