package archive

import (
	"errors"
	"io"

	"github.com/mobileops/mobileops/internal/failure"
)

// Reader reads an archive from its beginning to its end.
type Reader struct {
	limits Limits
	rules  Rules
	tar    headers
	shape  *shape
	root   bool  // the root has had an entry
	total  int64 // bytes of files
	err    error // what ended it
}

// errClosed is what a Reader says after Close.
var errClosed = errors.New("read a package that was closed")

// NewReader begins to read a packed archive: its first bytes say how it is
// packed. It unpacks ahead, in a goroutine that reads r until the end, an error
// or Close; r is not closed.
//
// What is wrong with the archive is an *Error; errors of r are passed on, and
// are none.
func NewReader(r io.Reader, l Limits, rules Rules) (*Reader, error) {
	l = l.OrDefaults()
	s, err := newStream(r, &l)
	if err != nil {
		return nil, err
	}
	return newReader(s, l, rules), nil
}

// NewUnpacked reads an archive that is not packed, such as one that a fuzzer
// makes: one that has to find checksums finds little else.
func NewUnpacked(data []byte, l Limits, rules Rules) *Reader {
	s := &stream{full: make(chan chunk, 1), free: make(chan []byte, 1), stop: make(chan struct{}), done: make(chan struct{})}
	s.full <- chunk{data, len(data), io.EOF}
	close(s.done)
	return newReader(s, l.OrDefaults(), rules)
}

func newReader(s *stream, l Limits, rules Rules) *Reader {
	return &Reader{limits: l, rules: rules, shape: newShape(&l), tar: headers{stream: s, most: l.HeaderBytes, all: 16}}
}

// Next returns the next entry; the root of the tree is none. It is io.EOF only
// after everything was proved: the end of the archive, the end and the checksum
// of the packing, and that nothing comes after. Until then what was read is not
// to be relied on.
func (r *Reader) Next() (*Entry, error) {
	for {
		h, err := r.Header()
		if err != nil {
			return nil, err
		}
		if e, err := r.Accept(h); e != nil || err != nil {
			return e, err
		}
	}
}

// Header passes over what is left of the last entry and returns the next
// header, which Accept makes an entry of. Its error is as that of Next.
func (r *Reader) Header() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.tar.nextHeader()
	if err != nil {
		r.err = err
		return nil, err
	}
	return h, nil
}

// Accept checks the header that Header returned last, and makes an entry of it;
// nil for the root of the tree.
func (r *Reader) Accept(h *Header) (*Entry, error) {
	if r.err != nil {
		return nil, r.err
	}
	e, p := r.accept(h)
	if p != nil {
		refused := &Error{Code: p.Code, Entry: h.Name, Offset: h.offset, Err: p.Err}
		if r.rules.Advice != nil {
			refused.Advice = r.rules.Advice(p.Code)
		}
		r.err = refused
		return nil, r.err
	}
	return e, nil
}

// Close ends unpacking and gives its memory back. It waits for a read of the
// source that has begun. What was wrong with the archive Next has said.
func (r *Reader) Close() error {
	r.tar.close()
	r.shape = nil // whoever applies a package holds the reader longer than it reads
	if r.err == nil {
		r.err = errClosed
	}
	return nil
}

func (r *Reader) accept(h *Header) (*Entry, *Problem) {
	name, p := CleanName(h.Name, &r.limits)
	if p != nil {
		return nil, p
	}
	if p := r.sizes(h); p != nil {
		return nil, p
	}
	if name == "" {
		return nil, r.rootEntry(h)
	}
	if p := r.shape.add(name, h.Kind); p != nil {
		return nil, p
	}
	e := &Entry{Name: name, Kind: h.Kind, Mode: h.mode & 0o777, Size: h.Size, ModTime: h.mtime}
	if p := r.mode(h, e); p != nil {
		return nil, p
	}
	switch h.Kind {
	case Symlink:
		e.Link, e.Mode = h.link, 0o777
		resolved, p := checkLink(name, h.link, &r.limits)
		if p == nil && r.rules.Link != nil {
			p = r.rules.Link(e, resolved)
		}
		if p != nil {
			return nil, p
		}
	case File:
		r.tar.begin(h)
		e.Body = &body{r: r, left: h.Size, begins: r.tar.off}
	}
	return e, nil
}

// sizes holds the content against the limits.
func (r *Reader) sizes(h *Header) *Problem {
	if h.Size > r.limits.FileBytes {
		return Trouble(CodeTooLarge, "a file of %d bytes; %d are allowed", h.Size, r.limits.FileBytes)
	}
	if r.total += h.Size; r.total > r.limits.TotalBytes {
		return Trouble(CodeTooLarge, "with it, files have %d bytes together; %d are allowed", r.total, r.limits.TotalBytes)
	}
	return nil
}

// rootEntry checks the entry "./" that tar makes of ".".
func (r *Reader) rootEntry(h *Header) *Problem {
	switch {
	case h.Kind != Dir:
		return Trouble(CodeFileOverDir, "a %s in place of the tree", h.Kind)
	case r.root:
		return Trouble(CodeDuplicate, "the tree has two entries")
	case h.mode&0o6000 != 0:
		return Trouble(CodeSetID, "mode %04o: directories have no such bits", h.mode)
	}
	r.root = true
	return nil
}

// mode looks at the bits beyond those of permission. The sticky bit is dropped,
// and with it the right of others to write a directory: without it they could
// replace each other's files.
func (r *Reader) mode(h *Header, e *Entry) *Problem {
	if h.mode&0o1000 != 0 && e.Kind == Dir {
		e.Mode &^= 0o002
	}
	if e.Kind == Symlink {
		h.mode = 0
	}
	switch {
	case r.rules.Admit != nil:
		return r.rules.Admit(e, h.mode)
	case h.mode&0o6000 == 0:
		return nil
	case e.Kind == Dir:
		return Trouble(CodeSetID, "mode %04o: directories have no such bits", h.mode)
	}
	return Trouble(CodeSetID, "mode %04o, and nothing allows it", h.mode)
}

// body is the content of a file.
type body struct {
	r      *Reader
	left   int64
	begins int64 // where in the archive, which tells whether it is still its turn
	read   int64
}

// errBodyPassed is a mistake of the program.
var errBodyPassed = failure.New(failure.Failed, "read a file of a package after the next entry was asked for")

func (b *body) check() error {
	switch {
	case b.left == 0:
		return io.EOF
	case b.r.err != nil && b.r.err != io.EOF:
		return b.r.err
	case b.r.tar.off != b.begins+b.read:
		return errBodyPassed // never io.EOF: that would make a short file of it
	}
	return nil
}

// take returns the next bytes of the content.
func (b *body) take(most int64) ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	p, err := b.r.tar.take(min(most, b.left))
	if err != nil {
		b.r.err = b.r.tar.cut(err)
		return nil, b.r.err
	}
	n := int64(len(p))
	b.left -= n
	b.read += n
	b.r.tar.left -= n
	return p, nil
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	got, err := b.take(int64(len(p)))
	return copy(p, got), err
}

// WriteTo implements io.WriterTo, without a copy.
func (b *body) WriteTo(w io.Writer) (int64, error) {
	var n int64
	for {
		p, err := b.take(ringBytes)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		k, err := w.Write(p)
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
}
