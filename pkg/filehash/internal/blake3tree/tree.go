package blake3tree

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
)

// ErrSegments is wrapped by Tree.Finish when the segments do not make up one
// message: one is missing before the end, came twice, or has another length.
// A file that shrank while several goroutines read it can look like that.
var ErrSegments = errors.New("segments do not form one message")

// A Segment is the hashed form of one segment of a message. It keeps the
// chaining values of its two halves rather than one of its own, because only
// the end of the message tells whether it is the root.
type Segment struct {
	chunk, chunks uint64
	children      [2][8]uint32
}

// NewSegment hashes a segment of a message whose first chunk has the index
// chunk. All segments of a message have the same length, 2048·2^k bytes, and
// chunk is a multiple of their length in chunks, else it panics. 256 KiB to
// 1 MiB is a good length: the SIMD lanes are full nearly always, and the
// buffer stays in the core's second-level cache.
func NewSegment(buf []byte, chunk uint64) Segment {
	chunks := uint64(len(buf) / ChunkSize)
	if len(buf)%ChunkSize != 0 || chunks < 2 || chunks&(chunks-1) != 0 || chunk&(chunks-1) != 0 {
		panic("blake3tree: not a segment: its length must be 2048 * 2^k and its first chunk a multiple of that")
	}
	s := Segment{chunk: chunk, chunks: chunks}
	if len(buf) <= batchSize {
		s.children = children(buf, chunk)
	} else {
		s.children[0] = chainingValue(buf[:len(buf)/2], chunk)
		s.children[1] = chainingValue(buf[len(buf)/2:], chunk+chunks/2)
	}
	return s
}

// A Tree joins the segments of one message into its hash. The zero value is
// ready for use; Reset makes it so again. Add may be called from several
// goroutines and in any order; segments that come early wait inside.
//
//	workers:  tree.Add(blake3tree.NewSegment(buf, chunk)) // read in full
//	          tail = buf[:n]                              // or not: end of file
//	at last:  sum, err := tree.Finish(tail)
//
// There is nothing to get right about roots, and no need to know the length of
// the message: it may be empty, shorter than a segment, exactly one segment,
// or end anywhere; the tail may be empty, or as long as a segment.
type Tree struct {
	mu     sync.Mutex
	early  map[uint64]Segment // by number
	broken string             // why the segments are no message

	// last is segment number count-1. It is not yet in stack, as it might be
	// the root.
	last   Segment
	count  uint64
	chunks uint64 // of each segment; known once there is one

	// stack holds the chaining values of the complete subtrees over all
	// segments before last, from left to right, the largest first: one for
	// each bit set in count-1. A message has at most 2^54 chunks.
	stack [maxDepth][8]uint32
	depth int
}

const maxDepth = 54

// Reset makes the tree ready for another message.
func (t *Tree) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.early)
	t.broken, t.count, t.chunks, t.depth = "", 0, 0, 0
}

// Add takes one segment, in any order, from any goroutine.
func (t *Tree) Add(s Segment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.chunks == 0 {
		t.chunks = s.chunks
	}
	if s.chunks != t.chunks {
		t.broken = fmt.Sprintf("one of %d chunks among those of %d", s.chunks, t.chunks)
		return
	}
	number := s.chunk / s.chunks
	if number != t.count {
		if _, waiting := t.early[number]; waiting || number < t.count {
			t.broken = fmt.Sprintf("number %d was added twice", number)
			return
		}
		if t.early == nil {
			t.early = make(map[uint64]Segment)
		}
		t.early[number] = s
		return
	}
	t.push(s)
	for len(t.early) > 0 {
		next, ok := t.early[t.count]
		if !ok {
			return
		}
		delete(t.early, t.count)
		t.push(next)
	}
}

// Finish returns the hash of the message that consists of all segments added
// and then tail, which is at most as long as a segment and may be empty. The
// error wraps ErrSegments. Finish waits for no worker: call it after the last
// Add.
func (t *Tree) Finish(tail []byte) ([32]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.broken != "":
		return [32]byte{}, fmt.Errorf("%w: %s", ErrSegments, t.broken)
	case len(t.early) > 0:
		return [32]byte{}, fmt.Errorf("%w: number %d is missing, %d later ones are there", ErrSegments, t.count, len(t.early))
	case t.count > 0 && uint64(len(tail)) > t.chunks*ChunkSize:
		return [32]byte{}, fmt.Errorf("%w: the tail has %d bytes, a segment %d", ErrSegments, len(tail), t.chunks*ChunkSize)
	}
	return t.root(tail), nil
}

// push appends the segment number t.count.
func (t *Tree) push(s Segment) {
	if t.count > 0 {
		t.depth = t.fold(&t.stack)
	}
	t.last, t.chunks = s, s.chunks
	t.count++
}

// fold puts last, which is known not to be the root any more, on the stack and
// joins what has become complete. It returns the new depth.
func (t *Tree) fold(stack *[maxDepth][8]uint32) int {
	cv := Parent(t.last.children[0], t.last.children[1])
	depth := t.depth
	for range bits.TrailingZeros64(t.count) {
		depth--
		cv = Parent(stack[depth], cv)
	}
	stack[depth] = cv
	return depth + 1
}

// root joins everything with the tail.
func (t *Tree) root(tail []byte) [32]byte {
	if t.count == 0 {
		return Sum256(tail)
	}
	left, right := t.last.children[0], t.last.children[1]
	depth := t.depth
	stack := t.stack
	if len(tail) > 0 {
		depth = t.fold(&stack) - 1
		left, right = stack[depth], chainingValue(tail, t.count*t.chunks)
	}
	for depth > 0 {
		depth--
		left, right = stack[depth], Parent(left, right)
	}
	return Root(left, right)
}
