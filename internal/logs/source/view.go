package source

import (
	"bytes"
	"errors"
	"io"
	"os"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/logs/packed"
)

// view is a look into a file whose identity is not known yet.
type view struct {
	*candidate
	f      *os.File
	packed string
	head   []byte // up to printBytes of its content, uncompressed
	err    error  // why the head is not all: io.ErrUnexpectedEOF of a compressed file
}

func (t *tree) view(c *candidate) (*view, error) {
	f, st, err := t.openRegular(c.path)
	if err != nil {
		return nil, err
	}
	if st.dev != c.dev || st.ino != c.ino {
		f.Close()
		return nil, errMoved
	}
	cc := *c
	cc.info = st
	v := &view{candidate: &cc, f: f}
	raw, err := beginning(f, make([]byte, printBytes))
	if err != nil {
		f.Close()
		return nil, err
	}
	if v.packed = packed.How(raw); v.packed == "" {
		v.head = raw
		return v, nil
	}
	v.head = make([]byte, printBytes)
	n := 0
	v.err = v.content(func(r io.Reader) error {
		for n < len(v.head) {
			m, err := r.Read(v.head[n:])
			n += m
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	v.head = v.head[:n]
	return v, nil
}

func (v *view) close() { v.f.Close() }

// content calls fn with the uncompressed content.
func (v *view) content(fn func(r io.Reader) error) error {
	if v.packed == "" {
		return fn(io.NewSectionReader(v.f, 0, 1<<62))
	}
	u, err := unpack(v.f, v.packed)
	if err != nil {
		return err
	}
	defer u.close()
	return fn(u)
}

// continues reports whether the content is that which c is the position in:
// its beginning and the bytes before the position are the same.
// io.ErrUnexpectedEOF says that a compressed file has not got so far yet.
func (v *view) continues(c *fileCursor) (bool, error) {
	if !c.Head.of(v.head) {
		return false, nil
	}
	if v.packed == "" {
		if v.size < c.Offset {
			return false, nil
		}
		tail := make([]byte, c.Tail.Len)
		n, err := readFull(v.f, tail, c.Offset-int64(len(tail)))
		return err == nil && n == len(tail) && c.Tail.of(tail), err
	}
	if c.Packed == v.packed && c.Done && c.Dev == v.dev && c.Ino == v.ino && c.Size == v.size && c.Mod == v.mod {
		return true, nil
	}
	ok := false
	err := v.content(func(r io.Reader) error {
		u := r.(*unpacker)
		tail, err := u.skip(c.Offset)
		if err == nil {
			ok = c.Tail.of(tail[len(tail)-min(c.Tail.Len, len(tail)):])
			return nil
		}
		if errors.Is(err, io.ErrUnexpectedEOF) && u.ended() {
			return nil // it is whole, and shorter
		}
		return err
	})
	return ok, err
}

// still reports whether an open file is the one that c is the position in, also
// after it was looked at.
func (v *view) still(c *fileCursor) bool {
	st, err := statFile(v.f)
	if err != nil {
		return false
	}
	if v.packed != "" {
		return st.size == c.Size && st.mod == c.Mod
	}
	head, err := beginning(v.f, make([]byte, printBytes))
	if err != nil || st.size < c.Offset || !c.Head.of(head) {
		return false
	}
	tail := make([]byte, c.Tail.Len)
	n, err := readFull(v.f, tail, c.Offset-int64(len(tail)))
	return err == nil && n == len(tail) && c.Tail.of(tail)
}

// sharedWith compares the content with that of another file. same says that
// they do not differ as far as the shorter one goes: n bytes. whole says that
// it was this one that ended there.
func (v *view) sharedWith(w *view) (n int64, same, whole bool, err error) {
	same = true
	err = v.content(func(a io.Reader) error {
		return w.content(func(b io.Reader) error {
			x, y := make([]byte, 64<<10), make([]byte, 64<<10)
			for {
				i, err := io.ReadFull(a, x)
				if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
					return err
				}
				j, err := io.ReadFull(b, y)
				if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
					return err
				}
				k := min(i, j)
				if !bytes.Equal(x[:k], y[:k]) {
					same = false
					return nil
				}
				n += int64(k)
				if i < len(x) || j < len(y) {
					whole = i <= j
					return nil
				}
			}
		})
	})
	return n, same, whole, err
}

// isBinary reports whether the content is none of a text. A few NULs and other
// control characters make none of a log: whoever gets them into its first line
// must not keep the rest of the file from being read. So it takes a third of the
// content that no text has; bytes that are no UTF-8 count where there are NULs,
// which text in an older encoding does not have.
func isBinary(head []byte) bool {
	head = bytes.TrimLeft(head, "\x00")
	odd, foreign, nuls := 0, 0, 0
	for i := 0; i < len(head); {
		c := head[i]
		if c < utf8.RuneSelf {
			if c == 0 {
				nuls++
			}
			if c < 0x20 && (c < '\a' || c > '\r') && c != 0x1b || c == 0x7f {
				odd++
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(head[i:])
		if r == utf8.RuneError && n == 1 && utf8.FullRune(head[i:]) {
			foreign++
		}
		i += n
	}
	if nuls > 0 {
		odd += foreign
	}
	return odd*3 > len(head)
}
