package pack

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/archive/rawtar"
	"github.com/mobileops/mobileops/internal/failure"
)

// FuzzPackage reads packages as unpacking gives them, with a signature that is
// always good for the manifest that is there: a fuzzer that has to find
// checksums and signatures finds little else. What is accepted is then exactly
// what the manifest lists.
func FuzzPackage(f *testing.F) {
	p := newPublisher(f)
	for _, a := range attacks(f, p) {
		if data := rawtar.Archive(a.entries...); a.entries != nil && len(data) < 16<<10 {
			f.Add(data)
		}
	}
	f.Add(rawtar.Archive(forge(f, p, three()...).entries()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		pkg, err := new(packed).open(rawtar.FixSums(data))
		if refused(t, err) {
			return
		}
		defer pkg.Close()
		if err := pkg.Manifest.CheckPackaged(); err != nil {
			return
		}
		pkg.proved = true
		dst := filepath.Join(t.TempDir(), "partial")
		if err := pkg.Unpack(context.Background(), dst); refused(t, err) {
			if _, err := os.Lstat(dst); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something is left: %v", err)
			}
			return
		}
		if err := VerifyDir(context.Background(), dst, pkg.Manifest); err != nil {
			t.Errorf("what was unpacked is not what was signed: %v", err)
		}
	})
}

// FuzzPacked reads packages as they come.
func FuzzPacked(f *testing.F) {
	p := newPublisher(f)
	for _, a := range attacks(f, p) {
		if a.entries == nil && len(a.packed) < 8<<10 {
			f.Add(a.packed)
		}
	}
	whole := rawtar.Archive(forge(f, p, three()...).entries()...)
	f.Add(rawtar.Gzip(whole))
	f.Add(rawtar.Zstd(whole))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		s := &packed{closeFile: func() error { return nil }}
		a, err := archive.NewReader(bytes.NewReader(data), small(), archive.Rules{Admit: s.admit})
		if refused(t, err) {
			return
		}
		pkg, err := s.begin(a)
		if refused(t, err) {
			return
		}
		defer pkg.Close()
		if pkg.Manifest.CheckPackaged() == nil {
			refused(t, pkg.prove(context.Background()))
		}
	})
}

// small are limits that keep every input short.
func small() archive.Limits {
	l := limits()
	l.TotalBytes, l.FileBytes, l.RatioFrom, l.WindowBytes = 1<<20, 1<<20, 1<<20, 1<<20
	return l
}

// refused tells whether there is an error, and sees that it is one that is
// promised.
func refused(t *testing.T, err error) bool {
	t.Helper()
	if err == nil {
		return false
	}
	if CodeOf(err) == "" || failure.KindOf(err) != failure.Untrustworthy || err.Error() == "" {
		t.Fatalf("not a refusal: %v", err)
	}
	return true
}
