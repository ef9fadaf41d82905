package blake3tree

import (
	"encoding/hex"
	"encoding/json"
	"math/bits"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/zeebo/blake3"
)

// message returns n bytes without a pattern, the same every time.
func message(n int) []byte {
	buf := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(buf)
	return buf
}

// everyPath runs a test with each implementation that this machine has.
func everyPath(t *testing.T, test func(t *testing.T)) {
	if fast() {
		t.Run("avx512", test)
	} else {
		t.Log("no AVX-512 here: its kernels are NOT tested")
	}
	t.Run("portable", func(t *testing.T) {
		defer forcePortable()()
		test(t)
	})
}

// differs compares Sum256 with zeebo/blake3.
func differs(t *testing.T, buf []byte) {
	t.Helper()
	if got, want := Sum256(buf), blake3.Sum256(buf); got != want {
		t.Errorf("%d bytes: %x, zeebo/blake3 says %x", len(buf), got, want)
	}
}

func TestOfficialVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/test_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Cases []struct {
			InputLen int `json:"input_len"`
			Hash     string
		}
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Cases) == 0 {
		t.Fatal("no cases")
	}
	everyPath(t, func(t *testing.T) {
		for _, c := range vectors.Cases {
			input := make([]byte, c.InputLen)
			for i := range input {
				input[i] = byte(i % 251)
			}
			sum := Sum256(input)
			if got := hex.EncodeToString(sum[:]); got != c.Hash {
				t.Errorf("%d bytes: %s, want %s", c.InputLen, got, c.Hash)
			}
		}
	})
}

func TestSum256EveryLength(t *testing.T) {
	buf := message(70_000)
	everyPath(t, func(t *testing.T) {
		step := 7
		if testing.Short() {
			step = 61
		}
		for n := 0; n <= 5*ChunkSize+1; n++ {
			differs(t, buf[:n])
		}
		for n := 0; n < len(buf); n += step {
			differs(t, buf[:n])
		}
		for chunk := ChunkSize; chunk < len(buf); chunk += ChunkSize {
			for _, n := range []int{chunk - 65, chunk - 64, chunk - 63, chunk - 1, chunk, chunk + 1, chunk + 63, chunk + 64, chunk + 65} {
				differs(t, buf[:n])
			}
		}
	})
}

func TestSum256AroundPowersOfTwo(t *testing.T) {
	buf := message(5<<20 + 1)
	everyPath(t, func(t *testing.T) {
		for size := 1 << 16; size <= 4<<20; size *= 2 {
			for _, more := range []int{-ChunkSize - 1, -ChunkSize, -1, 0, 1, ChunkSize - 1, ChunkSize, ChunkSize + 1, 16 * ChunkSize, 17*ChunkSize + 5} {
				differs(t, buf[:size+more])
			}
		}
		for range 50 {
			differs(t, buf[:rand.IntN(len(buf)+1)])
		}
	})
}

// TestAlignment hashes from every address within a cache line.
func TestAlignment(t *testing.T) {
	buf := message(20_000)
	everyPath(t, func(t *testing.T) {
		for i := range 64 {
			for _, n := range []int{1, 64, 1000, 1024, 3000, 7777, 16384, 19_000} {
				differs(t, buf[i:i+n])
			}
		}
	})
}

// TestSubtree builds messages by hand from Subtree, Parent and Root, with chunk
// indexes beyond 32 bits too, for which there is no whole message to compare.
func TestSubtree(t *testing.T) {
	buf := message(4 << 20)
	everyPath(t, func(t *testing.T) {
		for size := 2 * ChunkSize; size <= len(buf); size *= 2 {
			chunks := uint64(size / 2 / ChunkSize)
			root := Root(Subtree(buf[:size/2], 0), Subtree(buf[size/2:size], chunks))
			if root != blake3.Sum256(buf[:size]) {
				t.Errorf("%d bytes in two subtrees: not the hash", size)
			}
		}
	})
	for _, chunk := range []uint64{1 << 12, 1<<32 - 1<<12, 1 << 32, 1<<53 - 1<<12} {
		for size := ChunkSize; size <= 4<<20; size *= 2 {
			quick := Subtree(buf[:size], chunk)
			restore := forcePortable()
			slow := Subtree(buf[:size], chunk)
			restore()
			if quick != slow {
				t.Errorf("chunk %d, %d bytes: the implementations differ", chunk, size)
			}
		}
	}
}

func TestSubtreeRefusesWhatIsNone(t *testing.T) {
	buf := make([]byte, 8192)
	for _, c := range []struct {
		n     int
		chunk uint64
	}{{0, 0}, {1, 0}, {1023, 0}, {3072, 0}, {2048, 1}, {8192, 4}} {
		for name, f := range map[string]func(){
			"Subtree":    func() { Subtree(buf[:c.n], c.chunk) },
			"NewSegment": func() { NewSegment(buf[:c.n], c.chunk) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s of %d bytes at chunk %d: no panic", name, c.n, c.chunk)
					}
				}()
				f()
			}()
		}
	}
}

func FuzzSum256(f *testing.F) {
	for _, n := range []int{0, 1, 63, 64, 65, 1023, 1024, 1025, 3000, 8192, 9000, 16384, 16385, 40_000} {
		f.Add(message(n), uint(n/3))
	}
	f.Fuzz(func(t *testing.T, buf []byte, cut uint) {
		differs(t, buf)
		restore := forcePortable()
		differs(t, buf)
		restore()
		// Long enough for all kernels, and split into two segments and a tail.
		long := buf
		for len(long) > 0 && len(long) < 40_000 {
			long = append(long[:len(long):len(long)], long...)
		}
		differs(t, long)
		size := 1 << (11 + cut%6)
		if len(long) < size {
			return
		}
		sum, err := inSegments(long, size, nil)
		if err != nil || sum != blake3.Sum256(long) {
			t.Errorf("%d bytes in segments of %d: %x, %v", len(long), size, sum, err)
		}
	})
}

// inSegments hashes buf by a Tree, the segments in the given order or, without
// one, backwards.
func inSegments(buf []byte, size int, order []int) ([32]byte, error) {
	n := len(buf) / size
	if order == nil {
		for i := n - 1; i >= 0; i-- {
			order = append(order, i)
		}
	}
	var tree Tree
	for _, i := range order {
		tree.Add(NewSegment(buf[i*size:(i+1)*size], uint64(i*size/ChunkSize)))
	}
	return tree.Finish(buf[n*size:])
}

func TestLeftLen(t *testing.T) {
	for n := ChunkSize + 1; n < 100_000; n++ {
		left := leftLen(n)
		if bits.OnesCount(uint(left)) != 1 || left < ChunkSize || left >= n || 2*left < n {
			t.Fatalf("%d bytes: %d to the left", n, left)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	if !fast() {
		t.Skip("this machine has no AVX-512; the libraries allocate as they like")
	}
	buf := message(2 << 20)
	for _, n := range []int{0, 100, 1024, 3000, 8192, 16384, 100_000, 2 << 20} {
		if allocs := testing.AllocsPerRun(10, func() { Sum256(buf[:n]) }); allocs != 0 {
			t.Errorf("%d bytes: %v allocations", n, allocs)
		}
	}
}
