package source

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/failure"
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

// packing returns how a file is compressed by its first bytes; "" when it is
// not. RFC 1952, RFC 8878, the .xz file format 1.2, and bzip2's manual.
func packing(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return "gzip"
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return "xz"
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return "zstd"
	case len(head) >= 10 && string(head[:3]) == "BZh" && head[3] >= '1' && head[3] <= '9' &&
		(string(head[4:10]) == "1AY&SY" || string(head[4:10]) == "\x17\x72\x45\x38\x50\x90"):
		return "bzip2"
	}
	return ""
}

// unpacker reads a compressed file from its beginning.
type unpacker struct {
	r     io.Reader
	close func()
	in    *countingReader
	out   int64
	end   bool
}

// ended reports whether the content was read to its end.
func (u *unpacker) ended() bool { return u.end }

// unpack begins to read a file that is compressed as packing said.
func unpack(f io.ReaderAt, packed string) (*unpacker, error) {
	c := &countingReader{r: io.NewSectionReader(f, 0, 1<<62)}
	in := bufio.NewReaderSize(c, 64<<10)
	u := &unpacker{close: func() {}, in: c}
	var err error
	switch packed {
	case "gzip":
		u.r, err = gzip.NewReader(in)
	case "xz":
		u.r = newXZ(in)
	case "zstd":
		var z *zstd.Decoder
		z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary))
		if err == nil {
			u.r, u.close = z, z.Close
		}
	case "bzip2":
		u.r = bzip2.NewReader(in)
	default:
		err = fmt.Errorf("compression %q is not known", packed)
	}
	if err != nil {
		return nil, unfinished(err)
	}
	return u, nil
}

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
