package filehash

import (
	"errors"
	"io"
	"time"

	"github.com/mobileops/mobileops/pkg/filehash/internal/blake3tree"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// segmentBytes is how much is read and hashed at a time. It stays in a core's
// second-level cache.
const (
	segmentBytes  = 256 << 10
	segmentChunks = segmentBytes / blake3tree.ChunkSize
)

// attempts is how often a file is read when it changes meanwhile.
const attempts = 3

// tick is longer than any kernel's clock for file times takes to move on (10 ms
// at 100 Hz): two changes within it can leave the same ctime.
const tick = 15 * time.Millisecond

// errUnstable says that a file changed during every attempt to read it.
var errUnstable = errors.New("changed while it was read")

// content hashes an open regular file into e.Sum. Afterwards e.Info is what
// held both before and after the reading.
func (w *worker) content(fd int, e *Entry, want Want, prefix int64) error {
	for attempt := range attempts {
		started := time.Now()
		if attempt > 0 { // give a writer the time to finish: 20 ms, then 80 ms
			if err := sleep(w.walk.ctx, 20*time.Millisecond<<(2*(attempt-1))); err != nil {
				return err
			}
			if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
				return err
			}
			if errno := fstat(fd, &e.Info); errno != 0 {
				return errno
			}
			started = time.Now()
		}
		var err error
		switch {
		case want&WantGrowing != 0:
			err = w.growing(fd, e, prefix)
		case e.Info.Size >= mapBytes:
			err = w.large(fd, e)
		default:
			err = w.stream(fd, e)
		}
		if errors.Is(err, errUnstable) {
			continue
		}
		if err != nil {
			return err
		}
		var after Info
		if errno := fstat(fd, &after); errno != 0 {
			return errno
		}
		if want&WantGrowing != 0 && after.Size >= e.Info.Size {
			return nil
		}
		if after == e.Info && !justChanged(e.Info.Ctime, started) {
			return nil
		}
		// A change of ownership or of the link count does not touch what was
		// read, but the kernel moves ctime with every write too: only a
		// reading with nothing moved is beyond doubt.
	}
	return errUnstable
}

// justChanged tells whether a file that was read from started until now changed
// so shortly before that a change while it was read need not show in its ctime.
// A ctime in the future says nothing: the clock was wrong when it was made.
func justChanged(ctime Time, started time.Time) bool {
	c := ctime.Time()
	return c.After(started.Add(-tick)) && !c.After(time.Now())
}

// stream reads a file from its offset to its end in order.
func (w *worker) stream(fd int, e *Entry) error {
	n, err := readFull(fd, w.buf)
	if err != nil {
		return err
	}
	if n < segmentBytes {
		e.Sum = blake3tree.Sum256(w.buf[:n])
		return w.account(n)
	}
	var tree blake3tree.Tree
	for chunk := uint64(0); ; chunk += segmentChunks {
		if err := w.account(n); err != nil {
			return err
		}
		if n < segmentBytes {
			e.Sum, err = tree.Finish(w.buf[:n])
			return err
		}
		tree.Add(blake3tree.NewSegment(w.buf, chunk))
		if n, err = readFull(fd, w.buf); err != nil {
			return err
		}
	}
}

// growing hashes what a file holds at the moment, and on the way the digest of
// its first prefix bytes, so that a log can be told from a rewritten log.
// e.Info.Size becomes the number of bytes hashed.
func (w *worker) growing(fd int, e *Entry, prefix int64) error {
	h := blake3.New()
	var read int64
	for {
		n, err := readFull(fd, w.buf)
		if err != nil {
			return err
		}
		if err := w.account(n); err != nil {
			return err
		}
		b := w.buf[:n]
		if read < prefix && prefix <= read+int64(n) {
			cut := prefix - read
			h.Write(b[:cut])
			h.Sum(e.Prefix[:0])
			h.Write(b[cut:])
		} else {
			h.Write(b)
		}
		read += int64(n)
		if n < segmentBytes {
			break
		}
	}
	if read < e.Info.Size {
		return errUnstable
	}
	e.Info.Size = read
	h.Sum(e.Sum[:0])
	return nil
}

// account counts bytes that were read, keeps to the I/O limit and notices
// cancellation.
func (w *worker) account(n int) error {
	w.walk.ctr.Bytes.Add(int64(n))
	if err := w.walk.ctx.Err(); err != nil {
		return err
	}
	return w.walk.rate.wait(w.walk.ctx, n)
}
