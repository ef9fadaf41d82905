package archive

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// The ring between unpacking and whoever reads: unpacking runs this far ahead.
const (
	ringBuffers = 8
	ringBytes   = 256 << 10
)

// input counts what is read of a package, and keeps the error of its source
// apart from those of unpacking.
type input struct {
	src io.Reader
	n   int64
	err error // of src, but not io.EOF
}

func (in *input) Read(p []byte) (int, error) {
	n, err := in.src.Read(p)
	in.n += int64(n)
	if err != nil && err != io.EOF && in.err == nil {
		in.err = err
	}
	return n, err
}

// packing is an unpacker, and what it says when all is unpacked: nil if the
// package ends there.
type packing struct {
	io.Reader
	end   func() error
	close func()
}

// unpacker tells by the first bytes how a package is packed.
func unpacker(in *input, l *Limits) (*packing, error) {
	br := bufio.NewReaderSize(in, 256<<10)
	magic, err := br.Peek(4)
	if err != nil {
		return nil, in.explain(refusePacked(CodeTruncated, in.n, "the package has only %d bytes", len(magic)))
	}
	switch {
	case magic[0] == 0x1f && magic[1] == 0x8b:
		return ungzip(in, br)
	case string(magic) == zstdMagic:
		return unzstd(in, br, l)
	case magic[0]&0xf0 == 0x50 && string(magic[1:]) == zstdSkippable:
		return nil, refusePacked(CodeFormat, 0, "it begins with a skippable zstd frame")
	}
	return nil, refusePacked(CodeFormat, 0, "neither gzip nor zstd by its first bytes (% x)", magic)
}

func ungzip(in *input, br *bufio.Reader) (*packing, error) {
	z, err := gzip.NewReader(br)
	if err != nil {
		return nil, in.explain(err)
	}
	z.Multistream(false)
	return &packing{
		Reader: z,
		end: func() error {
			switch _, err := br.ReadByte(); err {
			case io.EOF:
				return nil
			case nil:
				return refusePacked(CodeTrailing, in.n-int64(br.Buffered())-1, "bytes after the end of the gzip member")
			default:
				return err
			}
		},
		close: func() {},
	}, nil
}

func unzstd(in *input, br *bufio.Reader, l *Limits) (*packing, error) {
	frame := &zstdFrame{src: br, window: l.WindowBytes}
	// One goroutine, that of the ring: with more, the decoder takes a fifth
	// more processor time, which hashing and writing files have more use for.
	z, err := zstd.NewReader(frame, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(max(l.WindowBytes, zstd.MinWindowSize)), zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		return nil, in.explain(err)
	}
	return &packing{
		Reader: zstdReader{z, frame},
		end:    func() error { return nil }, // the decoder asked for another frame, and frame saw none
		close:  z.Close,
	}, nil
}

// zstdReader prefers what the frame says over what the decoder makes of it.
type zstdReader struct {
	*zstd.Decoder
	frame *zstdFrame
}

func (r zstdReader) Read(p []byte) (int, error) {
	n, err := r.Decoder.Read(p)
	if err != nil {
		if r.frame.problem != nil {
			err = r.frame.problem
		} else if err == io.EOF && r.frame.state != afterFrame {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// explain makes an error of unpacking one of this package.
func (in *input) explain(err error) error {
	if in.err != nil {
		return fmt.Errorf("read the package: %w", in.err)
	}
	var known *Error
	var badDeflate flate.CorruptInputError
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return refusePacked(CodeTruncated, in.n, "the package ends in the middle")
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, zstd.ErrCRCMismatch):
		return refusePacked(CodeCorrupt, in.n, "the checksum of its content is wrong")
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return refusePacked(CodeTooLarge, in.n, "unpacking it would take too much memory: %w", err)
	case errors.As(err, &badDeflate):
		return refusePacked(CodeCorrupt, int64(badDeflate), "it cannot be unpacked")
	}
	return refusePacked(CodeCorrupt, in.n, "it cannot be unpacked: %w", err)
}

// chunk is a part of the archive, or the error that ends it.
type chunk struct {
	buf []byte // to be given back to the ring
	n   int
	err error // after buf[:n]; io.EOF when all was proved
}

// stream is the unpacked archive, read behind a goroutine that unpacks.
type stream struct {
	full chan chunk
	free chan []byte
	stop chan struct{}
	once sync.Once
	done chan struct{}

	buf  []byte // of cur
	cur  []byte // what is left of the chunk
	next error  // what comes after cur, nil for another chunk
	off  int64  // bytes read
}

// newStream starts to unpack.
func newStream(src io.Reader, l *Limits) (*stream, error) {
	in := &input{src: src}
	p, err := unpacker(in, l)
	if err != nil {
		return nil, err
	}
	s := &stream{
		full: make(chan chunk, ringBuffers), free: make(chan []byte, ringBuffers),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	for range ringBuffers {
		s.free <- nil // made when it is needed: most packages are small
	}
	go s.unpack(in, p, l)
	return s, nil
}

// unpack fills the ring until the end, an error, or close.
func (s *stream) unpack(in *input, p *packing, l *Limits) {
	defer close(s.done)
	defer p.close()
	most := l.TotalBytes + int64(l.Entries)*4*blockBytes + int64(l.RatioFrom)
	var total int64
	for {
		var buf []byte
		select {
		case buf = <-s.free:
		case <-s.stop:
			return
		}
		if buf == nil {
			buf = make([]byte, ringBytes)
		}
		n, err := 0, error(nil)
		for n < len(buf) && err == nil {
			var k int
			k, err = p.Read(buf[n:])
			n += k
		}
		total += int64(n)
		switch packed := in.n; {
		case total > most:
			err = refusePacked(CodeTooLarge, packed, "more than %d bytes come out of it", most)
		case total > l.RatioFrom && total/l.Ratio > packed:
			err = refusePacked(CodeBomb, packed, "%d bytes became %d; a ratio of %d is allowed", packed, total, l.Ratio)
		case err == io.EOF:
			if err = p.end(); err != nil {
				err = in.explain(err)
			} else {
				err = io.EOF
			}
		case err != nil:
			err = in.explain(err)
		}
		select {
		case s.full <- chunk{buf, n, err}:
		case <-s.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// fill sees that there is something in cur.
func (s *stream) fill() error {
	for len(s.cur) == 0 {
		if s.next != nil {
			return s.next
		}
		if s.buf != nil {
			s.free <- s.buf // has room for all that there are
			s.buf = nil
		}
		c := <-s.full
		s.buf, s.cur, s.next = c.buf, c.buf[:c.n], c.err
	}
	return nil
}

// take returns up to n bytes, valid until the next call.
func (s *stream) take(n int64) ([]byte, error) {
	if err := s.fill(); err != nil {
		return nil, err
	}
	p := s.cur[:min(int64(len(s.cur)), n)]
	s.cur = s.cur[len(p):]
	s.off += int64(len(p))
	return p, nil
}

// readFull fills p. Its error is io.EOF only when there was nothing, and
// io.ErrUnexpectedEOF when the archive ends within p.
func (s *stream) readFull(p []byte) error {
	for n := 0; n < len(p); {
		got, err := s.take(int64(len(p) - n))
		if err != nil {
			if err == io.EOF && n > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		n += copy(p[n:], got)
	}
	return nil
}

// skip passes over n bytes.
func (s *stream) skip(n int64) error {
	for n > 0 {
		got, err := s.take(n)
		if err != nil {
			return err
		}
		n -= int64(len(got))
	}
	return nil
}

// close ends the goroutine, and waits until it reads no more of the source.
func (s *stream) close() {
	s.once.Do(func() { close(s.stop) })
	<-s.done
	s.buf, s.cur = nil, nil
	for range len(s.free) {
		<-s.free
	}
	for range len(s.full) {
		<-s.full
	}
}
