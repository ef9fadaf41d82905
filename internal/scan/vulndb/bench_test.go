package vulndb

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/vulndb/vulndbtest"
)

// BenchmarkImport takes in a part of what Trivy publishes, from the files as they
// are: copied, hashed, flushed and inspected.
func BenchmarkImport(b *testing.B) {
	dir := b.TempDir()
	vulndbtest.WriteAt(b, dir, now, many(40_000)...)
	info, err := os.Stat(filepath.Join(dir, "trivy.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	for b.Loop() {
		s := newStore(b, b.TempDir())
		if _, err := s.Import(b.Context(), dir, Terms{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen pins a database for a scan, as every scan does.
func BenchmarkOpen(b *testing.B) {
	s := newStore(b, b.TempDir())
	imported(b, s, written(b, 1, many(1000)...))
	for b.Loop() {
		l, err := s.Open(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}

// BenchmarkInspect walks every page.
func BenchmarkInspect(b *testing.B) {
	dir := b.TempDir()
	vulndbtest.WriteAt(b, dir, now, many(40_000)...)
	f, err := os.Open(filepath.Join(dir, "trivy.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	for b.Loop() {
		if _, err := inspect(b.Context(), f, info.Size(), func(int64) {}); err != nil {
			b.Fatal(err)
		}
	}
}
