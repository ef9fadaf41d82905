package grep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mobileops/mobileops/internal/logs/match"
	"github.com/mobileops/mobileops/internal/logs/packed"
)

// bufferBytes is how much is read at once: it is searched while it is still in
// the second cache of the core.
const bufferBytes = 256 << 10

// worker searches one part after the other. What follows m and eval is about
// the part at hand.
type worker struct {
	s    *search
	buf  []byte
	head []byte
	m    *match.Matcher                      // nil when every line has to be asked
	eval func(path string, line []byte) bool // nil when m decides alone

	p       *part
	binary  bool // lines are not reported
	stream  bool // somebody may be waiting for each line
	batch   *batch
	data    []byte // what is in the buffer, and where that is in the text
	base    int64
	after   int   // how many lines behind the last match are still wanted
	emitted int64 // behind the last line that was reported
	some    bool  // a line was reported
	line    int64 // newlines of the part before counted
	counted int64 // up to where
}

func newWorker(s *search) *worker {
	w := &worker{s: s, buf: make([]byte, s.bufferBytes)}
	switch {
	case s.Filter == nil:
		w.m = s.Pattern.NewMatcher()
	default:
		w.eval = s.Filter.NewEval()
		if s.prefilter != nil {
			w.m = s.prefilter.NewMatcher()
		}
	}
	return w
}

// errStop says that nobody wants to know more of this part.
var errStop = errors.New("stop")

// search searches one part, and closes its channel.
func (w *worker) search(p *part) {
	defer close(p.found)
	*w = worker{s: w.s, buf: w.buf, head: w.head, m: w.m, eval: w.eval, batch: w.batch, p: p, counted: p.off, emitted: p.off}
	if len(w.buf) > 4*w.s.bufferBytes {
		w.buf = make([]byte, w.s.bufferBytes) // one long line is no reason to keep so much
	}
	if w.s.ctx.Err() != nil {
		return
	}
	err := w.part()
	if errors.Is(err, errStop) || errors.Is(err, context.Canceled) {
		err = nil
	}
	p.err = err
	w.send()
}

// part opens the file of the part and searches it.
func (w *worker) part() error {
	p, f := w.p, w.p.file
	switch {
	case f.cause != nil:
		return f.cause
	case f.stdin && w.s.Stdin == nil:
		return errors.New("there is no standard input")
	case f.stdin:
		p.opened = true
		return w.whole(w.s.Stdin, true)
	case p.end >= 0:
		return w.divided()
	}
	file, err := os.Open(f.path)
	if err != nil {
		return cause(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return cause(err)
	}
	p.opened = true
	if info.IsDir() {
		return errIsDirectory
	}
	return w.whole(file, !info.Mode().IsRegular())
}

// whole searches a file from its beginning.
func (w *worker) whole(r io.Reader, stream bool) error {
	enough := headBytes
	if stream {
		enough = packed.Sniffed
	}
	head, err := w.readHead(r, enough)
	how := packed.How(head)
	if how == "" {
		w.binary = binary(head) && !w.s.Text
		w.stream = stream
		return w.scan(&pushedBack{head, err, r}, 0, -1)
	}
	text, err := packed.Open(&pushedBack{bytes.Clone(head), err, r}, how, maxDictionary)
	if err == nil {
		defer text.Close()
		head, err = w.readHead(text, headBytes)
		w.binary = binary(head) && !w.s.Text
		err = w.scan(&pushedBack{head, err, text}, 0, -1)
	}
	if err != nil && !errors.Is(err, errStop) && !errors.Is(err, context.Canceled) {
		err = fmt.Errorf("unpacking it: %w", err)
	}
	return err
}

// readHead reads at least enough bytes of a file, if it has so many, and at
// most headBytes.
func (w *worker) readHead(r io.Reader, enough int) ([]byte, error) {
	if w.head == nil {
		w.head = make([]byte, headBytes)
	}
	n, err := fill(r, w.head, enough)
	return w.head[:n], err
}

// fill reads until there is enough or r ends. Unlike io.ReadAtLeast it leaves
// the error of r as it is: a compressed file that ends too early is told by
// io.ErrUnexpectedEOF.
func fill(r io.Reader, to []byte, enough int) (n int, err error) {
	for n < enough && err == nil {
		var m int
		m, err = r.Read(to[n:])
		n += m
	}
	return n, err
}

// pushedBack gives what was read before, and how that ended, and then the rest.
type pushedBack struct {
	head []byte
	err  error
	rest io.Reader
}

func (p *pushedBack) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	if p.err != nil {
		return 0, p.err
	}
	return p.rest.Read(b)
}

// divided searches one of several parts of a file.
func (w *worker) divided() error {
	p, f := w.p, w.p.file
	f.opened.Do(func() {
		if f.f, f.err = os.Open(f.path); f.err != nil {
			return
		}
		var head []byte
		if head, f.err = w.readHead(io.NewSectionReader(f.f, 0, headBytes), headBytes); f.err == io.EOF {
			f.err = nil
		}
		f.packed, f.binary = packed.How(head) != "", binary(head)
	})
	defer func() {
		if f.parts.Add(-1) == 0 && f.f != nil {
			f.f.Close()
		}
	}()
	if f.err != nil {
		return cause(f.err)
	}
	if f.packed {
		p.opened = true
		if p.off > 0 {
			return nil // the first part has it all
		}
		return w.whole(io.NewSectionReader(f.f, 0, 1<<62), false)
	}
	p.opened = true
	w.binary = f.binary && !w.s.Text
	from := max(0, p.off-1)
	return w.scan(io.NewSectionReader(f.f, from, 1<<62), p.off, p.end)
}
