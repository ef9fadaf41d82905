package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state/boltfile"
	bolt "go.etcd.io/bbolt"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("STATE_TEST_ROLE"); role != "" {
		os.Exit(child(role))
	}
	os.Exit(m.Run())
}

var ctx = context.Background()

// put stores one value in the bucket "test".
func put(t *testing.T, s *Store, key, value string) {
	t.Helper()
	if err := s.Update(ctx, putter(key, value)); err != nil {
		t.Fatal(err)
	}
}

func putter(key, value string) func(*Tx) error {
	return func(tx *Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("test"))
		if err != nil {
			return err
		}
		return b.Put([]byte(key), []byte(value))
	}
}

func get(s *Store, key string) (value string, err error) {
	err = s.View(ctx, func(tx *Tx) error {
		if b := tx.Bucket([]byte("test")); b != nil {
			value = string(b.Get([]byte(key)))
		}
		return nil
	})
	return value, err
}

// fill makes a database of several pages, levels and buckets.
func fill(t *testing.T, s *Store, keys int) {
	t.Helper()
	for round := range 3 {
		err := s.Update(ctx, func(tx *Tx) error {
			for i := range keys {
				if err := putter(fmt.Sprintf("key-%06d", i), fmt.Sprintf("value-%d-%s", i, strings.Repeat("v", i%90)))(tx); err != nil {
					return err
				}
			}
			if err := putter("large", strings.Repeat(fmt.Sprint(round), 20_000))(tx); err != nil {
				return err
			}
			for _, name := range []string{"inline", "tree"} {
				b, err := tx.Bucket([]byte("test")).CreateBucketIfNotExists([]byte("sub-" + name))
				if err != nil {
					return err
				}
				n := 3
				if name == "tree" {
					n = 300
				}
				for i := range n {
					if err := b.Put(fmt.Appendf(nil, "%d-%d", round, i), []byte("x")); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// dump renders everything in the database.
func dump(s *Store) (string, error) {
	var b strings.Builder
	var walk func(bucket *bolt.Bucket, depth int) error
	walk = func(bucket *bolt.Bucket, depth int) error {
		return bucket.ForEach(func(k, v []byte) error {
			fmt.Fprintf(&b, "%d %q=%q\n", depth, k, v)
			if v == nil {
				return walk(bucket.Bucket(k), depth+1)
			}
			return nil
		})
	}
	err := s.View(ctx, func(tx *Tx) error {
		b.Reset()
		return tx.ForEach(func(name []byte, bucket *bolt.Bucket) error {
			fmt.Fprintf(&b, "%q\n", name)
			return walk(bucket, 1)
		})
	})
	return b.String(), err
}

func TestViewOfNothingCreatesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := New(dir, Options{})
	if v, err := get(s, "a"); v != "" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was created: %v", err)
	}
	if r, err := s.Check(ctx); err != nil || r.Exists {
		t.Errorf("Check: %+v, %v", r, err)
	}
}

func TestUpdateIsSeenAndFailedUpdateIsNot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := New(dir, Options{})
	put(t, s, "a", "1")
	failed := errors.New("changed my mind")
	err := s.Update(ctx, func(tx *Tx) error {
		if err := putter("a", "2")(tx); err != nil {
			return err
		}
		return failed
	})
	if err != failed {
		t.Errorf("Update returned %v; want the error of fn as it is", err)
	}
	if err := s.View(ctx, func(*Tx) error { return failed }); err != failed {
		t.Errorf("View returned %v; want the error of fn as it is", err)
	}
	if v, err := get(New(dir, Options{}), "a"); v != "1" || err != nil {
		t.Errorf("got %q, %v; want 1", v, err)
	}
	for path, want := range map[string]fs.FileMode{dir: 0o700, s.Path(): 0o600, s.sumPath(): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, st.Mode(), err, want)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.View(cancelled, func(*Tx) error { return nil }); failure.KindOf(err) != failure.Interrupted {
		t.Errorf("View with a done context: %v", err)
	}
}

func TestPanicOfTheCallerGoesOnAndGivesTheLeaseBack(t *testing.T) {
	s := New(t.TempDir(), Options{LockTimeout: time.Second})
	put(t, s, "a", "1")
	for name, fn := range map[string]func(*Tx) error{
		"own":        func(*Tx) error { panic("mine") },
		"nil bucket": func(tx *Tx) error { tx.Bucket([]byte("none")).Get([]byte("x")); return nil },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the panic was swallowed", name)
				}
			}()
			t.Errorf("%s: returned %v", name, s.Update(ctx, fn))
		}()
		if v, err := get(s, "a"); v != "1" || err != nil {
			t.Errorf("after %s: got %q, %v", name, v, err)
		}
	}
}

func TestLeftoversOfACreationThatWasKilled(t *testing.T) {
	dir := t.TempDir()
	s := New(dir, Options{})
	var left []string
	for i, content := range []string{"", strings.Repeat("\x00", 1000)} {
		left = append(left, filepath.Join(dir, fmt.Sprintf(".state.db.tmp-%d", i)))
		if err := os.WriteFile(left[i], []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := get(s, "a"); v != "" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
	put(t, s, "a", "1")
	for _, name := range left {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was not removed: %v", name, err)
		}
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	s := New(t.TempDir(), Options{})
	s.schema = []migration{{to: 7, apply: func(*Tx) error { return nil }}}
	put(t, s, "a", "1")
	before := digest(t, s.Path())
	old := New(s.Dir(), Options{})
	_, viewErr := get(old, "a")
	_, checkErr := old.Check(ctx)
	for what, err := range map[string]error{
		"View": viewErr, "Check": checkErr,
		"Update": old.Update(ctx, putter("a", "2")),
	} {
		if !errors.Is(err, ErrNewer) || failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%s: %v; want ErrNewer", what, err)
		}
	}
	if digest(t, s.Path()) != before {
		t.Error("the file was modified")
	}
}

func TestMigration(t *testing.T) {
	s := New(t.TempDir(), Options{})
	put(t, s, "a", "1")
	steps := 0
	newer := New(s.Dir(), Options{})
	rename := func(from, to string) func(*Tx) error {
		return func(tx *Tx) error {
			steps++
			b := tx.Bucket([]byte("test"))
			if b == nil {
				return nil
			}
			v := append([]byte(nil), b.Get([]byte(from))...)
			return errors.Join(b.Delete([]byte(from)), b.Put([]byte(to), v))
		}
	}
	newer.schema = []migration{{2, rename("a", "b")}, {3, rename("b", "c")}}
	// A reader brings the schema forward as well.
	if v, err := get(newer, "c"); v != "1" || err != nil {
		t.Fatalf("got %q, %v; want 1", v, err)
	}
	if v, err := get(newer, "c"); v != "1" || err != nil || steps != 2 {
		t.Errorf("got %q, %v after %d steps; want 1 after 2", v, err, steps)
	}
	if r, err := newer.Check(ctx); err != nil || r.Schema != 3 {
		t.Errorf("Check: %+v, %v", r, err)
	}
	if _, err := get(s, "a"); !errors.Is(err, ErrNewer) {
		t.Errorf("the older program got %v; want ErrNewer", err)
	}
	backups, err := filepath.Glob(s.Path() + ".before-schema-3-*")
	if err != nil || len(backups) != 1 {
		t.Fatalf("backups: %v, %v; want one", backups, err)
	}
	if _, err := s.Restore(ctx, backups[0]); err != nil {
		t.Fatal(err)
	}
	if v, err := get(s, "a"); v != "1" || err != nil {
		t.Errorf("from the backup: got %q, %v; want 1", v, err)
	}
	newer.schema = []migration{{2, func(*Tx) error { return errors.New("cannot") }}}
	before, err := dump(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := newer.Update(ctx, putter("a", "2")); err == nil || !strings.Contains(err.Error(), "change the schema to 2: cannot") {
		t.Errorf("a failing migration: %v", err)
	}
	if after, err := dump(s); err != nil || after != before {
		t.Errorf("a failing migration left something behind (%v)", err)
	}
	// A new file goes through the same steps, without a backup.
	steps = 0
	fresh := New(t.TempDir(), Options{})
	fresh.schema = []migration{{2, rename("a", "b")}}
	put(t, fresh, "a", "1")
	if entries, _ := filepath.Glob(fresh.Path() + ".before*"); steps != 1 || len(entries) != 0 {
		t.Errorf("%d steps, backups %v; want 1 and none", steps, entries)
	}
}

func TestLargeDatabaseIsNotReadAtEachLease(t *testing.T) {
	s := New(t.TempDir(), Options{})
	blob := strings.Repeat("x", 100_000)
	err := s.Update(ctx, func(tx *Tx) error {
		for i := range 60 {
			if err := putter(fmt.Sprint(i), blob)(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seal := readSeal(s.sumPath())
	f, err := os.Open(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := readHeader(f)
	if err != nil || h.Size <= alwaysVerified {
		t.Fatalf("%+v, %v", h, err)
	}
	// With sums that are wrong, only a lease that reads the pages complains.
	seal.sums[seal.firstInUse(t)] ^= 1
	writeSeal(s.sumPath(), seal)
	if _, err := get(s, "1"); err != nil {
		t.Errorf("an untouched database was read again: %v", err)
	}
	if _, err := s.Check(ctx); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Check: %v; want ErrCorrupt", err)
	}
	if err := os.Chtimes(s.Path(), time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := get(s, "1"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a touched database was not read again: %v", err)
	}
}

func (s *seal) firstInUse(t *testing.T) int {
	for i, sum := range s.sums {
		if sum != 0 {
			return i
		}
	}
	t.Fatal("no page is in use")
	return 0
}

func TestIncrementalSealEqualsAFullOne(t *testing.T) {
	s := New(t.TempDir(), Options{})
	for i := range 40 {
		fill(t, s, 1+i*20)
		if i%7 == 3 {
			err := s.Update(ctx, func(tx *Tx) error { return tx.DeleteBucket([]byte("test")) })
			if err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.Open(s.Path())
		if err != nil {
			t.Fatal(err)
		}
		h, err := readHeader(f)
		if err != nil {
			t.Fatal(err)
		}
		full, err := sealOf(f, h, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if kept := readSeal(s.sumPath()); string(kept.encode()) != string(full.encode()) {
			t.Fatalf("round %d: the seal beside the file is not the one of its pages", i)
		}
	}
}

func FuzzSealDecoder(f *testing.F) {
	good := (&seal{pageSize: 4096, txid: 7, sums: []uint32{0, 0, 5, 9}}).encode()
	f.Add(good)
	f.Add(good[:20])
	f.Add([]byte(sealMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := decodeSeal(b); s != nil && string(s.encode()) != string(b) {
			t.Errorf("%x is decoded, but not what its content encodes to", b)
		}
	})
}

// FuzzStructure feeds files of whole pages whose content is not ours.
func FuzzStructure(f *testing.F) {
	s := New(f.TempDir(), Options{})
	if err := s.Update(ctx, putter("a", "1")); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(s.Path())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[2*4096:4*4096], uint64(3), uint64(2))
	f.Fuzz(func(t *testing.T, pages []byte, root, freelist uint64) {
		path := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(path, append(make([]byte, 2*boltfile.MinPageSize), pages...), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		h := boltfile.Header{PageSize: boltfile.MinPageSize, Root: root, Freelist: freelist, Pages: 2 + uint64(len(pages)/boltfile.MinPageSize)}
		if _, err := structure(ctx, file, h); err != nil {
			t.Error(err)
		}
	})
}
