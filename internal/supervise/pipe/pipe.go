// Package pipe reads what a process said before it ended, however late that is.
package pipe

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Size is what a pipe holds, in bytes (pipe(7)).
const Size = 64 << 10

// Reader is the reading end of a pipe. What is in it when its deadline passes is
// still read, since a busy machine may not have come to read it before; more than
// Size bytes are not, since somebody may write for ever.
type Reader struct {
	*os.File
	left int // bytes that are given after the deadline
}

// NewReader returns a reader of a pipe that os.Pipe made.
func NewReader(f *os.File) *Reader { return &Reader{f, Size} }

// Read implements io.Reader. Its error after the deadline is
// os.ErrDeadlineExceeded, when nothing is left.
func (r *Reader) Read(b []byte) (int, error) {
	n, err := r.File.Read(b)
	if !errors.Is(err, os.ErrDeadlineExceeded) || r.left <= 0 {
		return n, err
	}
	// os refuses to read after a deadline, whatever is there.
	raw, rawErr := r.SyscallConn()
	if rawErr != nil {
		return 0, err
	}
	rawErr = raw.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), b[:min(len(b), r.left)]) }) // os.Pipe is in non-blocking mode
	if rawErr != nil || n <= 0 {
		return 0, err
	}
	r.left -= n
	return n, nil
}
