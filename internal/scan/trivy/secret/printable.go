//go:build goexperiment.jsonv2

package secret

import (
	"io"
	"sync"
	"unicode"
)

// shortestText is the length that text in a binary file must exceed.
const shortestText = 4

// isPrintable says of each byte whether it is a printable character of Latin-1.
var isPrintable = sync.OnceValue(func() (is [256]bool) {
	for c := range is {
		is[c] = unicode.IsPrint(rune(c))
	}
	return is
})

// printableReader makes lines of the text in a binary file, as strings(1) does.
type printableReader struct {
	from  io.Reader
	is    [256]bool
	in    []byte // read, and not looked at
	buf   [32 << 10]byte
	line  []byte // printable so far
	out   []byte // finished, and not given away
	ended error
}

func printable(r io.Reader) io.Reader { return &printableReader{from: r, is: isPrintable()} }

func (p *printableReader) Read(b []byte) (int, error) {
	for len(p.out) == 0 {
		if len(p.in) == 0 {
			if p.ended != nil {
				return 0, p.ended
			}
			n, err := p.from.Read(p.buf[:])
			p.in, p.ended = p.buf[:n], err
		}
		p.out = p.out[:0]
		for _, c := range p.in {
			if p.is[c] {
				p.line = append(p.line, c)
			} else {
				p.finish()
			}
		}
		p.in = nil
		if p.ended != nil {
			p.finish()
		}
	}
	n := copy(b, p.out)
	p.out = p.out[n:]
	return n, nil
}

// finish ends a line.
func (p *printableReader) finish() {
	if len(p.line) > shortestText {
		p.out = append(append(p.out, p.line...), '\n')
	}
	p.line = p.line[:0]
}
