package source

import (
	"bytes"
	"errors"
	"io"
	"slices"
)

// mark is a fingerprint of the bytes before an earlier position of a file, up
// to printBytes. With marks a copy is recognised that ends before the
// position: a writer that goes on between the copy and the truncation of
// copytruncate makes one, when what it wrote was read in time.
type mark struct {
	At   int64  `json:"at"`
	Hash string `json:"blake3"` // 8 bytes, as hexadecimal digits
}

const (
	markHex   = 16       // digits of a mark
	markEvery = 16 << 10 // bytes between marks in what is read at once
	markNear  = 256      // bytes between the position and the nearest mark
	maxMarks  = 64
)

func markOf(at int64, before []byte) mark { return mark{at, fingerprintOf(before).Hash[:markHex]} }

// addMarks adds marks for what was read behind offset, and then those behind
// tail, which is what the last bytes of everything read are now. The farther
// back, the fewer are kept: their distances from the position double.
func addMarks(marks []mark, offset int64, read, tail []byte) []mark {
	for p := (offset/markEvery + 1) * markEvery; p < offset+int64(len(read)); p += markEvery {
		if i := p - offset; i >= printBytes {
			marks = append(marks, markOf(p, read[i-printBytes:i]))
		}
	}
	end := offset + int64(len(read))
	marks = append(marks, markOf(end, tail))
	kept := marks[len(marks)-1:]
	kept = slices.Clone(kept)
	last := int64(0)
	for i := len(marks) - 2; i >= 0 && len(kept) < maxMarks; i-- {
		if d := end - marks[i].At; d >= max(markNear, 2*last) {
			kept, last = append(kept, marks[i]), d
		}
	}
	slices.Reverse(kept)
	return kept
}

// soundMarks reports whether marks can be those of a position.
func soundMarks(marks []mark, offset int64) bool {
	last := int64(0)
	for _, m := range marks {
		if m.At <= last || m.At > offset || len(m.Hash) != markHex {
			return false
		}
		last = m.At
	}
	return len(marks) <= maxMarks
}

// endsWithin reports whether the content is a copy of that which c is the
// position in, made before everything up to the position was written: n bytes.
// io.ErrUnexpectedEOF says that a compressed file is not whole yet. head is the
// beginning of the content that c is about, where that is known.
func (v *view) endsWithin(c *fileCursor, head []byte) (n int64, ok bool, err error) {
	short := len(v.head) < c.Head.Len // the beginning proves nothing by itself
	alike := !short || bytes.HasPrefix(head, v.head)
	if !short && !c.Head.of(v.head) || short && head != nil && !alike {
		return 0, false, nil
	}
	checked, same := false, false
	look := func(m mark, before []byte) { checked, same = true, markOf(m.At, before) == m }
	if v.packed == "" {
		n = v.size
		for _, m := range slices.Backward(c.Marks) {
			if m.At > n {
				continue
			}
			before := make([]byte, min(m.At, printBytes))
			if _, err := readFull(v.f, before, m.At-int64(len(before))); err != nil {
				return 0, false, err
			}
			look(m, before)
			break
		}
	} else if n, err = v.eachMark(c.Marks, look); err != nil {
		return 0, false, err
	}
	switch {
	case n >= c.Offset:
		return n, false, nil
	case checked:
		return n, same, nil
	}
	// Too short for a mark: it is one if it was made after the original was
	// last written to.
	return n, alike && v.mod >= c.Mod-markSlack, nil
}

// markSlack is how far the times of a file and of its copy are apart at most
// when both are made at once, in nanoseconds.
const markSlack = 2e9

// eachMark reads a compressed file to its end and calls fn with what is before
// each mark.
func (v *view) eachMark(marks []mark, fn func(m mark, before []byte)) (n int64, err error) {
	err = v.content(func(r io.Reader) error {
		u := r.(*unpacker)
		var tail []byte
		for _, m := range marks {
			got, err := u.skip(m.At - n)
			tail = tailOf(tail, got)
			if errors.Is(err, io.ErrUnexpectedEOF) && u.ended() {
				n = u.out
				return nil
			}
			if err != nil {
				return err
			}
			n = m.At
			fn(m, tail)
		}
		_, err := io.Copy(io.Discard, u)
		n = u.out
		return err
	})
	return n, err
}
