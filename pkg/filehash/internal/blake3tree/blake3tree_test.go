package blake3tree

import (
	"math/rand"
	"testing"

	"github.com/zeebo/blake3"
)

// message returns n bytes without a pattern, the same for the same n.
func message(n int) []byte {
	buf := make([]byte, n)
	rand.New(rand.NewSource(1)).Read(buf)
	return buf
}

func TestSum256EdgeLengths(t *testing.T) {
	buf := message(5 << 20)
	for size := 1; size <= 4<<20; size *= 2 {
		for _, n := range []int{0, size - 1, size, size + 1, size + ChunkSize, size + ChunkSize + 1} {
			if Sum256(buf[:n]) != blake3.Sum256(buf[:n]) {
				t.Errorf("length %d: differs from zeebo/blake3", n)
			}
		}
	}
}
