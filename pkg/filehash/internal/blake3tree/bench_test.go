package blake3tree

import (
	"fmt"
	"testing"

	"github.com/zeebo/blake3"
)

func BenchmarkSum256(b *testing.B) {
	buf := message(1 << 20)
	for _, n := range []int{64, 512, 1024, 2048, 3000, 4096, 6000, 8192, 12000, 16384, 20000, 32768, 65536, 1 << 20} {
		b.Run(fmt.Sprintf("own/%d", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				Sum256(buf[:n])
			}
		})
		b.Run(fmt.Sprintf("zeebo/%d", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				blake3.Sum256(buf[:n])
			}
		})
		b.Run(fmt.Sprintf("guts/%d", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				toBytes(portableChunkOrTree(buf[:n], 0, flagRoot))
			}
		})
	}
}
