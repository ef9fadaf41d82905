package grep

import "context"

// A batch is what a worker hands over at once: so many bytes of lines, or so
// many lines.
const (
	batchBytes = 256 << 10
	batchHits  = batchBytes / 64
)

// batch holds lines that were found, with their text.
type batch struct {
	hits []Hit
	text []byte
}

// report adds the line data[start:end] to what was found.
func (w *worker) report(start, end int, context bool) error {
	b := w.batch
	line := w.data[start:end]
	if b != nil && len(b.hits) > 0 && (len(b.hits) == batchHits || len(b.text)+len(line) > batchBytes) {
		if err := w.send(); err != nil {
			return err
		}
		b = nil
	}
	if b == nil {
		b = w.s.newBatch()
		w.batch = b
	}
	at := len(b.text)
	b.text = append(b.text, line...)
	offset := w.base + int64(start)
	h := Hit{
		Path: w.p.file.path, Offset: offset, Context: context,
		Line: b.text[at:len(b.text):len(b.text)],
		Gap:  w.s.Before+w.s.After > 0 && (!w.some || offset > w.emitted),
	}
	if w.s.Numbers {
		h.Number = w.number(start) + 1
	}
	b.hits = append(b.hits, h)
	w.emitted, w.some = offset+int64(len(line))+1, true
	return nil
}

// newBatch takes a batch that has been read, or makes one.
func (s *search) newBatch() *batch {
	select {
	case b := <-s.spare:
		return b
	default:
		return new(batch)
	}
}

// send hands over what was found up to now.
func (w *worker) send() error {
	if w.batch == nil || len(w.batch.hits) == 0 {
		return nil
	}
	select {
	case w.p.found <- w.batch:
		w.batch = nil
		return nil
	case <-w.s.ctx.Done():
		w.batch = nil
		return errStop
	}
}

// collector hands over what the workers found, part by part.
type collector struct {
	s      *search
	emit   func(*Hit) error
	report Report

	// Of the file at hand:
	lines  int64 // that match
	number int64 // newlines in the parts before
	binary bool  // it was reported
	after  int   // lines wanted behind the last match of all
	failed bool  // it is among Report.Unread
}

// collect returns when all parts have been handed over, or earlier when the
// limit is reached or with the error of ctx or emit.
func (c *collector) collect(ctx context.Context, order <-chan *part) error {
	for {
		var p *part
		var ok bool
		select {
		case p, ok = <-order:
		case <-ctx.Done():
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if err := c.part(ctx, p); err != nil || c.report.Limited {
			return err
		}
	}
}

// part hands over what is found in one part.
func (c *collector) part(ctx context.Context, p *part) error {
	for {
		var b *batch
		var ok bool
		select {
		case b, ok = <-p.found:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !ok {
			// The workers close what they have not searched, too.
			if err := ctx.Err(); err != nil {
				return err
			}
			return c.end(p)
		}
		for i := range b.hits {
			if err := c.hit(&b.hits[i]); err != nil || c.report.Limited {
				return err
			}
		}
		b.hits, b.text = b.hits[:0], b.text[:0]
		if cap(b.text) <= 2*batchBytes { // one long line is no reason to keep so much
			select {
			case c.s.spare <- b:
			default:
			}
		}
	}
}

func (c *collector) hit(h *Hit) error {
	if c.s.Numbers {
		h.Number += c.number
	}
	if c.full() {
		// Only the lines after the last match are left.
		if c.after--; c.after < 0 || !h.Context || h.Gap {
			c.report.Limited = true
			return nil
		}
	} else if !h.Context {
		c.matched(1)
		c.after = c.s.After
	}
	c.report.Limited = c.full() && c.after == 0
	return c.emit(h)
}

// full reports whether the limit is reached.
func (c *collector) full() bool { return c.s.Limit > 0 && !c.s.Count && c.report.Lines == c.s.Limit }

func (c *collector) matched(n int64) {
	if c.lines == 0 && n > 0 {
		c.report.FilesMatched++
	}
	c.lines += n
	c.report.Lines += n
}

// end takes what is known when a part has been searched.
func (c *collector) end(p *part) error {
	c.report.Bytes += p.bytes
	c.report.Cut += p.cut
	c.number += p.newlines
	if p.err != nil && !c.failed {
		c.failed = true
		c.report.Unread = append(c.report.Unread, Unread{Path: p.file.path, Err: p.err})
	}
	switch {
	case p.binary && !c.binary:
		c.binary = true
		c.matched(1)
		if c.s.Count {
			break
		}
		if err := c.emit(&Hit{Path: p.file.path, Binary: true}); err != nil {
			return err
		}
	case c.s.Count && !p.binary:
		c.matched(p.count)
	}
	c.report.Limited = c.full() // the file has no more lines after the last match
	if !p.last {
		return nil
	}
	if p.opened {
		c.report.Files++
	}
	lines := c.lines
	c.lines, c.number, c.binary, c.failed = 0, 0, false, false
	if c.s.Count && lines > 0 {
		return c.emit(&Hit{Path: p.file.path, Count: lines})
	}
	return nil
}
