package grep

import (
	"bytes"
	"io"
)

// restBytes is what is read behind the end of a part at first: most lines of
// logs are shorter.
const restBytes = 4 << 10

// scan searches the lines that begin within [off, end), or all of them from off
// on when end is -1. r gives the text from off on, but for off > 0 from the byte
// before it: that tells whether a line begins at off.
func (w *worker) scan(r io.Reader, off, end int64) error {
	base := off // of w.buf[0] in the text
	skip := off > 0
	if skip {
		base--
	}
	n := 0    // bytes in w.buf
	seen := 0 // of these, what has been searched and stays for its lines
	for {
		if err := w.s.ctx.Err(); err != nil {
			return err
		}
		room := w.buf[n:]
		if end >= 0 {
			// The rest of the last line is read, and not much more; ever more
			// at once, though, if it is long.
			room = room[:min(int64(len(room)), max(end-base-int64(n), 0)+max(restBytes, int64(n-seen)))]
		}
		enough := len(room)
		if w.stream {
			enough = 1
		}
		m, failed := fill(r, room, enough)
		old := n
		n += m
		w.p.bytes += int64(m)
		if skip {
			i := bytes.IndexByte(w.buf[:n], '\n')
			if i >= 0 {
				base += int64(i) + 1
				n = copy(w.buf, w.buf[i+1:n])
				skip = false
			} else {
				base += int64(n)
				n = 0
			}
			if base >= end || skip && failed != nil {
				return notEOF(failed)
			}
			if skip {
				continue
			}
			old = 0
			w.counted = base
		}
		// Only whole lines are searched; what is behind the last newline waits
		// for its rest.
		stop := seen
		if i := bytes.LastIndexByte(w.buf[old:n], '\n'); i >= 0 {
			stop = old + i + 1
		}
		final := failed != nil
		if final {
			stop = n
		}
		if end >= 0 && base+int64(stop) >= end {
			// The line that holds the last byte is the last one, whatever its
			// length. (It began before seen if it is searched in pieces.)
			from := max(int(end-1-base), seen)
			if i := bytes.IndexByte(w.buf[min(from, stop):stop], '\n'); i >= 0 {
				stop, final = from+i+1, true
			}
		}
		if stop == seen && n-seen >= w.s.maxLine {
			stop = n
			w.p.cut++
		}
		if stop > seen {
			if err := w.lines(w.buf[:stop], seen, base); err != nil {
				return err
			}
		}
		if final {
			return notEOF(failed)
		}
		keep := w.keep(w.buf[:stop])
		n = copy(w.buf, w.buf[keep:n])
		base += int64(keep)
		seen = stop - keep
		if n == len(w.buf) {
			w.buf = append(w.buf, make([]byte, len(w.buf))...)
		}
	}
}

// notEOF is err, or nil for the end of the file.
func notEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return cause(err)
}

// keep returns from where on data is still needed as lines before a match.
func (w *worker) keep(data []byte) int {
	at := len(data)
	for range w.s.Before {
		if at == 0 || len(data)-at > w.s.maxLine {
			break
		}
		at = bytes.LastIndexByte(data[:at-1], '\n') + 1
	}
	return at
}

// lines searches the lines of data from there on; base is the offset of data in
// the text. What is before from has been searched.
func (w *worker) lines(data []byte, from int, base int64) error {
	switch {
	case w.binary:
		if start, _ := w.next(data, from); start >= 0 {
			w.p.binary, w.p.count = true, 1
			return errStop
		}
		return nil
	case w.s.Count:
		w.p.count += int64(w.count(data[from:]))
		return nil
	}
	w.data, w.base = data, base
	for pos := from; ; {
		start, end := w.next(data, pos)
		for w.after > 0 && pos < len(data) && (start < 0 || pos < start) {
			stop := lineEnd(data, pos)
			if err := w.report(pos, stop, true); err != nil {
				return err
			}
			w.after--
			pos = stop + 1
		}
		if start < 0 {
			break
		}
		if err := w.before(start); err != nil {
			return err
		}
		if err := w.report(start, end, false); err != nil {
			return err
		}
		w.p.count++
		w.after = w.s.After
		pos = end + 1
	}
	if w.s.Numbers {
		w.number(len(data))
		w.p.newlines = w.line
	}
	if w.stream {
		return w.send()
	}
	return nil
}

// before reports the lines before a match.
func (w *worker) before(start int) error {
	at := start
	for range w.s.Before {
		if at == 0 || w.base+int64(at) <= w.emitted {
			break
		}
		at = bytes.LastIndexByte(w.data[:at-1], '\n') + 1
	}
	for at < start {
		end := lineEnd(w.data, at)
		if err := w.report(at, end, true); err != nil {
			return err
		}
		at = end + 1
	}
	return nil
}

// number counts newlines up to a place in the data, and returns how many lines
// of the part are before it.
func (w *worker) number(at int) int64 {
	counted := int(w.counted - w.base)
	if at >= counted {
		w.line += int64(bytes.Count(w.data[counted:at], newline))
	} else {
		w.line -= int64(bytes.Count(w.data[at:counted], newline))
	}
	w.counted = w.base + int64(at)
	return w.line
}

var newline = []byte{'\n'}

// next is match.Matcher.NextLine for whatever is searched for.
func (w *worker) next(data []byte, from int) (start, end int) {
	if w.eval == nil {
		return w.m.NextLine(data, from)
	}
	for from < len(data) {
		if w.m != nil {
			start, end = w.m.NextLine(data, from)
			if start < 0 {
				return -1, -1
			}
		} else {
			start, end = from, lineEnd(data, from)
		}
		if w.eval(w.p.file.path, data[start:end]) {
			return start, end
		}
		from = end + 1
	}
	return -1, -1
}

// count is match.Matcher.CountLines for whatever is searched for.
func (w *worker) count(data []byte) int {
	if w.eval == nil {
		return w.m.CountLines(data)
	}
	n := 0
	for from := 0; ; n++ {
		_, end := w.next(data, from)
		if end < 0 {
			return n
		}
		from = end + 1
	}
}

// lineEnd returns where the newline behind at stands, or the end of data.
func lineEnd(data []byte, at int) int {
	if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
		return at + i
	}
	return len(data)
}
