package source

import (
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/packed"
)

// maxDictionary is the memory that a compressed file may ask for: xz -9 and
// zstd --ultra -22 ask for 64 and 128 MiB.
const maxDictionary = 128 << 20

// Limits of how much a compressed file may become: text that repeats itself
// shrinks a hundredfold, what shrinks more than this is made to fill a disk.
const (
	maxRatio     = 5000
	freeOfLimits = 64 << 20
)

// ErrExpands is the kind of error for a compressed file that becomes more than
// a log can.
var ErrExpands = failure.New(failure.Incomplete, "the compressed file grows beyond all measure")

// unpacker reads a compressed file from its beginning.
type unpacker struct {
	r   io.ReadCloser
	in  *countingReader
	out int64
	end bool
}

// ended reports whether the content was read to its end.
func (u *unpacker) ended() bool { return u.end }

// unpack begins to read a file that is compressed as packed.How said.
func unpack(f io.ReaderAt, how string) (*unpacker, error) {
	in := &countingReader{r: io.NewSectionReader(f, 0, 1<<62)}
	r, err := packed.Open(in, how, maxDictionary)
	if err != nil {
		return nil, unfinished(err)
	}
	return &unpacker{r: r, in: in}, nil
}

func (u *unpacker) close() { _ = u.r.Close() }

func (u *unpacker) Read(b []byte) (int, error) {
	n, err := u.r.Read(b)
	u.end = u.end || err == io.EOF
	u.out += int64(n)
	if u.out > freeOfLimits && u.out/maxRatio > u.in.n {
		return 0, fmt.Errorf("%w: more than %d bytes of %d", ErrExpands, u.out, u.in.n)
	}
	return n, unfinished(err)
}

// skip reads and forgets what is before an offset, and returns up to
// printBytes of its end. It returns io.ErrUnexpectedEOF when there is less.
func (u *unpacker) skip(offset int64) ([]byte, error) {
	tail := make([]byte, 0, printBytes)
	buf := make([]byte, min(offset, 64<<10))
	for offset > 0 {
		n, err := u.Read(buf[:min(offset, int64(len(buf)))])
		tail = tailOf(tail, buf[:n])
		offset -= int64(n)
		if err == io.EOF && offset > 0 {
			return tail, io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			return tail, err
		}
	}
	return tail, nil
}

// unfinished makes the errors of the libraries for a file that ends too early,
// which one that is still being written does, into io.ErrUnexpectedEOF.
func unfinished(err error) error {
	if err == nil || err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	var corrupt bzip2.StructuralError
	if errors.As(err, &corrupt) && corrupt == "unexpected EOF" {
		return io.ErrUnexpectedEOF
	}
	return err
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}
