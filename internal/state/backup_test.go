package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
)

func TestBackupAndRestore(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "state"), Options{})
	out := filepath.Join(t.TempDir(), "backup")
	if err := s.Backup(ctx, out, false); failure.KindOf(err) != failure.NotReady {
		t.Errorf("a backup of nothing: %v; want NotReady", err)
	}
	fill(t, s, 300)
	want, err := dump(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(durable.Temp(out), []byte("killed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(ctx, out, false); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(out)); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v; want the backup alone", entries, err)
	}
	if st, err := os.Stat(out); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := s.Backup(ctx, out, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second backup: %v; want fs.ErrExist", err)
	}
	if err := s.Backup(ctx, out, true); err != nil {
		t.Errorf("a second backup with overwrite: %v", err)
	}
	put(t, s, "later", "1")
	for name, spoil := range map[string]func() error{
		"good":    func() error { return nil },
		"corrupt": func() error { return os.WriteFile(s.Path(), []byte("ruins"), 0o600) },
		"missing": func() error { return os.Remove(s.Path()) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		present, _ := os.ReadFile(s.Path())
		kept, err := s.Restore(ctx, out)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := dump(s); err != nil || got != want {
			t.Errorf("%s: the restored content is another one (%v)", name, err)
		}
		if r, err := s.Check(ctx); err != nil || !r.Sealed || len(r.Warnings) > 0 {
			t.Errorf("%s: Check: %+v, %v", name, r, err)
		}
		if name == "missing" {
			if kept != "" {
				t.Errorf("%s: kept %q", name, kept)
			}
			continue
		}
		if b, err := os.ReadFile(kept); err != nil || string(b) != string(present) {
			t.Errorf("%s: the replaced file was not kept: %v", name, err)
		}
	}
	put(t, s, "after", "1") // and it can be written
}

func TestRestoreRefusesABadBackup(t *testing.T) {
	s := New(t.TempDir(), Options{})
	fill(t, s, 300)
	want, err := dump(s)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "backup")
	if err := s.Backup(ctx, out, false); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	newer := New(t.TempDir(), Options{})
	newer.schema = []migration{{to: 9, apply: func(*Tx) error { return nil }}}
	put(t, newer, "a", "1")
	newerBytes, err := os.ReadFile(newer.Path())
	if err != nil {
		t.Fatal(err)
	}
	value := strings.Index(string(good), "value-7-") // in a page in use: the copy has no other
	flip := func(at int) []byte {
		b := append([]byte(nil), good...)
		b[at] ^= 4
		return b
	}
	for name, tc := range map[string]struct {
		content []byte
		want    error
	}{
		"empty":        {nil, ErrCorrupt},
		"cut":          {good[:len(good)/2], ErrCorrupt},
		"cut trailer":  {good[:len(good)-3], nil},
		"bit in sums":  {flip(len(good) - 30), ErrCorrupt},
		"bit in value": {flip(value), ErrCorrupt},
		"foreign":      {[]byte(strings.Repeat("diary ", 10000)), ErrForeign},
		"newer":        {newerBytes, ErrNewer},
	} {
		if err := os.WriteFile(out, tc.content, 0o600); err != nil {
			t.Fatal(err)
		}
		before := digest(t, s.Path())
		_, err := s.Restore(ctx, out)
		if tc.want == nil { // the database is whole, only its proof is gone
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), out) {
			t.Errorf("%s: %v; want %v and the name of the backup", name, err, tc.want)
		}
		if digest(t, s.Path()) != before {
			t.Errorf("%s: state.db was replaced", name)
		}
	}
	if got, err := dump(s); err != nil || got != want {
		t.Errorf("the content changed (%v)", err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir(), ".state.db.tmp-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCompact(t *testing.T) {
	s := New(t.TempDir(), Options{})
	if before, after, err := s.Compact(ctx); before != 0 || after != 0 || err != nil {
		t.Errorf("of nothing: %d, %d, %v", before, after, err)
	}
	fill(t, s, 4000)
	err := s.Update(ctx, func(tx *Tx) error {
		b := tx.Bucket([]byte("test"))
		return errors.Join(b.DeleteBucket([]byte("sub-tree")), b.Delete([]byte("large")))
	})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, 10)
	want, err := dump(s)
	if err != nil {
		t.Fatal(err)
	}
	before, after, err := s.Compact(ctx)
	if err != nil || after >= before {
		t.Errorf("%d bytes became %d, %v", before, after, err)
	}
	if got, err := dump(s); err != nil || got != want {
		t.Errorf("the content changed (%v)", err)
	}
	if r, err := s.Check(ctx); err != nil || !r.Sealed {
		t.Errorf("Check: %+v, %v", r, err)
	}
	put(t, s, "after", "1")
}
