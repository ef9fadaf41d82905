package filehash

import (
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/mobileops/mobileops/pkg/filehash/internal/blake3tree"
	"golang.org/x/sys/unix"
)

// SplitBytes is the size from which the content of one file is hashed by all
// workers together: 8 MiB.
const SplitBytes = 8 << 20

// mapBytes is the size from which content is mapped instead of read: it saves
// the copy, a third of the processor time, once the pages outweigh the call.
const mapBytes = 1 << 20

// Bounds on what one worker hashes at a time, in segments. Larger windows cost
// fewer calls; all workers together map no more than mappedSegments.
const (
	minWindow      = mapBytes / segmentBytes
	maxWindow      = 4 << 20 / segmentBytes
	mappedSegments = 8 << 20 / segmentBytes
)

// bigFile is a large file whose segments several workers hash. A segment is a
// subtree of BLAKE3's tree, so it can be hashed anywhere and joined later.
type bigFile struct {
	fd       int
	segments int // whole ones
	window   int // segments claimed at a time, at most
	parts    int // what is left is claimed in at least so many windows

	mu   sync.Mutex
	cond sync.Cond
	next int // first segment that nobody has claimed
	out  int // windows being hashed
	tree blake3tree.Tree
	err  error
}

// hasWork tells whether another worker can help. It may be outdated at once.
func (b *bigFile) hasWork() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err == nil && b.next < b.segments
}

// help hashes windows until there is none left to claim.
func (b *bigFile) help(w *worker) {
	b.mu.Lock()
	for b.err == nil && b.next < b.segments {
		// Windows shrink towards the end, so that nobody waits long there.
		n := max(minWindow, min(b.window, (b.segments-b.next)/b.parts))
		first, end := b.next, min(b.next+n, b.segments)
		b.next = end
		b.out++
		b.mu.Unlock()
		err := b.hash(w, first, end)
		b.mu.Lock()
		b.out--
		if err != nil && b.err == nil {
			b.err = err
		}
	}
	b.cond.Signal()
	b.mu.Unlock()
}

// hash hashes the segments [first, end): from a mapping when they are in the
// page cache, and what that leaves by reading.
func (b *bigFile) hash(w *worker, first, end int) error {
	if w.walk.rate == nil {
		cached := first
		for cached < end && b.cached(w, cached) {
			cached++
		}
		if cached > first {
			first = b.mapped(w, first, cached)
		}
	}
	for i := first; i < end; i++ {
		n, err := preadFull(b.fd, w.buf, int64(i)*segmentBytes)
		if err != nil {
			return err
		}
		if n < len(w.buf) { // it was truncated since it was statted
			return errUnstable
		}
		b.tree.Add(blake3tree.NewSegment(w.buf, uint64(i)*segmentChunks))
		if err := w.account(n); err != nil {
			return err
		}
	}
	return nil
}

// cached tells whether a segment begins in the page cache, by a read that does
// not wait (preadv2(2) with RWF_NOWAIT). Mapping would wait for the disk page
// by page, where reading asks for many at once.
func (b *bigFile) cached(w *worker, segment int) bool {
	n, err := unix.Preadv2(b.fd, [][]byte{w.buf[:1]}, int64(segment)*segmentBytes, unix.RWF_NOWAIT)
	return err == nil && n == 1
}

// mapped hashes segments from a mapping, and returns the first that it did not
// hash. When the file is truncated meanwhile, or the disk fails, touching the
// mapping is a fault, which is caught; reading then says what is the matter.
func (b *bigFile) mapped(w *worker, first, end int) (next int) {
	n := int64(end - first)
	defer w.walk.mapped.Add(-n)
	if w.walk.mapped.Add(n) > mappedSegments { // many workers, on a cold disk
		return first
	}
	m, err := unix.Mmap(b.fd, int64(first)*segmentBytes, (end-first)*segmentBytes, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return first
	}
	defer unix.Munmap(m)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	next = first
	defer func() {
		if p := recover(); p != nil {
			if _, fault := p.(runtime.Error); !fault {
				panic(p)
			}
		}
	}()
	for ; next < end; next++ {
		b.tree.Add(blake3tree.NewSegment(m[:segmentBytes], uint64(next)*segmentChunks))
		m = m[segmentBytes:]
		if w.account(segmentBytes) != nil {
			return next + 1 // cancelled: the reading that follows says so
		}
	}
	return next
}

// large hashes a file of mapBytes or more, from SplitBytes on with the help of
// the other workers.
func (w *worker) large(fd int, e *Entry) error {
	b := &bigFile{fd: fd, segments: int(e.Info.Size / segmentBytes)}
	b.cond.L = &b.mu
	workers := w.walk.workers()
	b.window = max(minWindow, min(maxWindow, mappedSegments/workers))
	b.parts = 1
	if e.Info.Size >= SplitBytes {
		b.parts = 2 * workers
		w.walk.offer(b)
		defer w.walk.withdraw(b)
	}
	b.help(w)
	b.mu.Lock()
	for b.out > 0 {
		b.cond.Wait()
	}
	err := b.err
	b.mu.Unlock()
	if err != nil {
		return err
	}
	// The tail is read to the end of the file, not to what stat said.
	end := int64(b.segments) * segmentBytes
	tail, err := preadFull(fd, w.buf, end)
	if err != nil {
		return err
	}
	if end+int64(tail) != e.Info.Size {
		return errUnstable
	}
	sum, err := b.tree.Finish(w.buf[:tail])
	if err != nil {
		return err
	}
	e.Sum = sum
	return w.account(tail)
}

// workers returns how many workers may run at once.
func (w *walk) workers() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(1, w.limit)
}

// offer lets other workers help with b.
func (w *walk) offer(b *bigFile) {
	w.mu.Lock()
	w.bigs = append(w.bigs, b)
	w.mu.Unlock()
	w.cond.Broadcast()
}

func (w *walk) withdraw(b *bigFile) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, o := range w.bigs {
		if o == b {
			w.bigs = append(w.bigs[:i], w.bigs[i+1:]...)
			return
		}
	}
}
