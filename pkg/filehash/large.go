package filehash

import (
	"sync"

	"github.com/mobileops/mobileops/pkg/filehash/internal/blake3tree"
)

// SplitBytes is the size from which the content of one file is hashed by all
// workers together: 8 MiB.
const SplitBytes = 8 << 20

// bigFile is a large file whose segments several workers hash. A segment is a
// subtree of BLAKE3's tree, so it can be hashed anywhere and joined later.
type bigFile struct {
	fd       int
	segments int // whole ones

	mu   sync.Mutex
	cond sync.Cond
	next int // first segment that nobody has claimed
	out  int // segments being hashed
	tree blake3tree.Tree
	err  error
}

// hasWork tells whether another worker can help. It may be outdated at once.
func (b *bigFile) hasWork() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err == nil && b.next < b.segments
}

// help hashes segments until there is none left to claim.
func (b *bigFile) help(w *worker) {
	b.mu.Lock()
	for b.err == nil && b.next < b.segments {
		i := b.next
		b.next++
		b.out++
		b.mu.Unlock()
		err := b.segment(w, i)
		b.mu.Lock()
		b.out--
		if err != nil && b.err == nil {
			b.err = err
		}
	}
	b.cond.Signal()
	b.mu.Unlock()
}

func (b *bigFile) segment(w *worker, i int) error {
	buf := w.buf
	n, err := preadFull(b.fd, buf, int64(i)*segmentBytes)
	if err != nil {
		return err
	}
	if n < len(buf) { // it was truncated since it was statted
		return errUnstable
	}
	b.tree.Add(blake3tree.NewSegment(buf, uint64(i)*segmentChunks))
	return w.account(n)
}

// large hashes a file of SplitBytes or more, calling on the other workers.
func (w *worker) large(fd int, e *Entry) error {
	b := &bigFile{fd: fd, segments: int(e.Info.Size / segmentBytes)}
	b.cond.L = &b.mu
	w.walk.offer(b)
	b.help(w)
	b.mu.Lock()
	for b.out > 0 {
		b.cond.Wait()
	}
	err := b.err
	b.mu.Unlock()
	w.walk.withdraw(b)
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
