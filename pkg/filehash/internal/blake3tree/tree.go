package blake3tree

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
)

// ErrSegments is wrapped by Tree.Finish when the segments do not make up one
// message: one is missing before the end, or came twice. A file that shrank
// while several goroutines read it can look like that.
var ErrSegments = errors.New("segments do not form one message")

// A Segment is the hashed form of one full segment (SegmentSize bytes) of a
// message. It keeps the chaining values of its two halves rather than one of
// its own, because only the end of the message tells whether it is the root.
type Segment struct {
	index       uint64
	left, right [8]uint32
}

// NewSegment hashes the index'th segment of a message (index 0 begins at byte
// 0). buf must be exactly SegmentSize long, else it panics: what is shorter is
// the tail, for Tree.Finish.
func NewSegment(buf []byte, index uint64) Segment {
	if len(buf) != SegmentSize {
		panic(fmt.Sprintf("blake3tree: segment of %d bytes, not %d", len(buf), SegmentSize))
	}
	s := Segment{index: index}
	s.left, s.right = children(buf, index*segmentChunks)
	return s
}

// A Tree joins the segments of one message into its hash. The zero value is
// ready for use; Reset makes it so again. Add may be called from several
// goroutines and in any order; segments that come early wait inside, about as
// many as there are workers.
//
//	workers:  tree.Add(blake3tree.NewSegment(buf, i))  // 1 MiB read in full
//	          tail = buf[:n]                           // or less: end of file
//	at last:  sum, err := tree.Finish(tail)
//
// There is nothing to get right about roots: the message may be empty, shorter
// than a segment, exactly one segment, or end anywhere; and tail may also be
// empty or one more full segment.
type Tree struct {
	mu    sync.Mutex
	early map[uint64]Segment
	twice bool

	// last is the segment before segment number count; it is not yet in
	// stack as it might be the root, or the right child of the root.
	last  Segment
	count uint64

	// stack holds the chaining values of the complete subtrees over all
	// segments before last, from left to right: one for each bit set in
	// count-1, the largest first. 44 bits of segments are 2^64 bytes.
	stack [44][8]uint32
	depth int
}

// Reset makes the tree ready for another message.
func (t *Tree) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.early)
	t.twice, t.count, t.depth = false, 0, 0
}

// Add takes one full segment, in any order, from any goroutine.
func (t *Tree) Add(s Segment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.index != t.count {
		if _, waiting := t.early[s.index]; waiting || s.index < t.count {
			t.twice = true
			return
		}
		if t.early == nil {
			t.early = make(map[uint64]Segment)
		}
		t.early[s.index] = s
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
// and then tail, which is at most SegmentSize bytes long and may be empty. The
// error wraps ErrSegments when a segment is missing or was added twice. Finish
// changes nothing, and waits for no worker: call it after the last Add.
func (t *Tree) Finish(tail []byte) ([32]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(tail) > SegmentSize:
		return [32]byte{}, fmt.Errorf("%w: the last part has %d bytes, at most %d can be", ErrSegments, len(tail), SegmentSize)
	case t.twice:
		return [32]byte{}, fmt.Errorf("%w: one was added twice", ErrSegments)
	case len(t.early) > 0:
		return [32]byte{}, fmt.Errorf("%w: number %d is missing, %d later ones are there", ErrSegments, t.count, len(t.early))
	}
	return t.root(tail), nil
}

// push appends the segment number t.count.
func (t *Tree) push(s Segment) {
	if t.count > 0 {
		t.depth = t.fold(&t.stack)
	}
	t.last = s
	t.count++
}

// fold puts last, which is known not to be the root any more, on the stack and
// joins what has become complete. It returns the new depth.
func (t *Tree) fold(stack *[44][8]uint32) int {
	cv := Parent(t.last.left, t.last.right)
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
	left, right := t.last.left, t.last.right
	depth := t.depth
	stack := t.stack
	if len(tail) > 0 {
		depth = t.fold(&stack) - 1
		left, right = stack[depth], chainingValue(tail, t.count*segmentChunks)
	}
	for depth > 0 {
		depth--
		left, right = stack[depth], Parent(left, right)
	}
	return Root(left, right)
}
