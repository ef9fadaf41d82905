package blake3tree

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/zeebo/blake3"
)

func TestTreeIsSum256(t *testing.T) {
	buf := message(3 << 20)
	everyPath(t, func(t *testing.T) {
		for size := 2 * ChunkSize; size <= 1<<20; size *= 4 {
			for segments := range min(40, len(buf)/size) {
				for _, tail := range []int{0, 1, 1023, 1024, 1025, size - 1, size} {
					n := segments*size + tail
					sum, err := inSegments(buf[:n], size, rand.Perm(n/size))
					if err != nil || sum != Sum256(buf[:n]) {
						t.Errorf("%d segments of %d bytes and %d: %x, %v", segments, size, tail, sum, err)
					}
				}
			}
		}
	})
}

// TestTreeFullTail gives the last segment as the tail: a reader that knows the
// length may do so.
func TestTreeFullTail(t *testing.T) {
	const size = 8 * ChunkSize
	buf := message(9 * size)
	for segments := 1; segments <= 9; segments++ {
		var tree Tree
		for i := range segments - 1 {
			tree.Add(NewSegment(buf[i*size:(i+1)*size], uint64(i*size/ChunkSize)))
		}
		sum, err := tree.Finish(buf[(segments-1)*size : segments*size])
		if err != nil || sum != blake3.Sum256(buf[:segments*size]) {
			t.Errorf("%d segments, the last as tail: %x, %v", segments, sum, err)
		}
	}
}

func TestTreeManyWorkers(t *testing.T) {
	const size = 4 * ChunkSize
	buf := message(500*size + 777)
	want := blake3.Sum256(buf)
	var tree Tree
	for round := range 5 {
		tree.Reset()
		next := make(chan int)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := range next {
					tree.Add(NewSegment(buf[i*size:(i+1)*size], uint64(i*size/ChunkSize)))
				}
			})
		}
		for i := range len(buf) / size {
			next <- i
		}
		close(next)
		wg.Wait()
		sum, err := tree.Finish(buf[len(buf)/size*size:])
		if err != nil || sum != want {
			t.Fatalf("round %d: %x, %v", round, sum, err)
		}
	}
}

func TestTreeRefusesWhatIsNoMessage(t *testing.T) {
	const size = 4 * ChunkSize
	buf := message(8 * size)
	segment := func(i int) Segment { return NewSegment(buf[i*size:(i+1)*size], uint64(i*size/ChunkSize)) }
	for name, c := range map[string]struct {
		segments []Segment
		tail     int
	}{
		"the first is missing":    {[]Segment{segment(1)}, 5},
		"one is missing":          {[]Segment{segment(0), segment(1), segment(3)}, 5},
		"twice":                   {[]Segment{segment(0), segment(1), segment(0)}, 5},
		"twice, while it waits":   {[]Segment{segment(2), segment(2), segment(0), segment(1)}, 5},
		"different lengths":       {[]Segment{segment(0), segment(1), NewSegment(buf[:2*size], 8)}, 5},
		"a tail that is too long": {[]Segment{segment(0)}, size + 1},
	} {
		var tree Tree
		for _, s := range c.segments {
			tree.Add(s)
		}
		if _, err := tree.Finish(buf[:c.tail]); !errors.Is(err, ErrSegments) {
			t.Errorf("%s: error %v", name, err)
		}
		tree.Reset()
		if sum, err := tree.Finish(buf[:100]); err != nil || sum != blake3.Sum256(buf[:100]) {
			t.Errorf("%s: after Reset: %x, %v", name, sum, err)
		}
	}
}
