//go:build unix

package blake3tree

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// hashers are what the benchmarks compare. guts stands for the code that runs
// without AVX-512.
var hashers = []struct {
	name string
	hash func(buf []byte)
}{
	{"own", func(buf []byte) { Sum256(buf) }},
	{"zeebo", func(buf []byte) { blake3.Sum256(buf) }},
	{"guts", func(buf []byte) {
		defer forcePortable()()
		chainingValue(buf, 0)
	}},
}

func benchmark(b *testing.B, buf []byte) {
	for _, h := range hashers {
		b.Run(fmt.Sprintf("%s/%d", h.name, len(buf)), func(b *testing.B) {
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				h.hash(buf)
			}
		})
	}
}

func BenchmarkMemory(b *testing.B) {
	buf := message(1 << 20)
	for _, n := range []int{64, 512, 3000, 8192, 16384, 65536, 1 << 20} {
		benchmark(b, buf[:n])
	}
}

// BenchmarkMapped hashes a mapped file that does not fit in a cache, its pages
// being mapped already. A hole is enough: its pages are as many.
func BenchmarkMapped(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "hole"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const size = 1 << 30
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(mem)
	chainingValue(mem, 0)
	benchmark(b, mem)
}
