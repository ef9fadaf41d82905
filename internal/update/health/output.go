package health

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// keep is how many bytes of the beginning of an output are kept, and how
	// many of its end.
	keep = 16 << 10

	lastLines = 5   // in an error
	lastBytes = 500 // in an error
)

// Output is what a command wrote to its standard output and error, in order.
type Output struct {
	Head    []byte        // the first 16 KiB
	Omitted int64         // bytes that were not kept
	Tail    []byte        // the last 16 KiB of what follows Head
	Elapsed time.Duration // how long the command took
}

// Bytes returns the output, with a line in place of what was not kept.
func (o Output) Bytes() []byte {
	if o.Omitted == 0 {
		return append(bytes.Clone(o.Head), o.Tail...)
	}
	return fmt.Appendf(bytes.Clone(o.Head), "\n[%d bytes left out]\n%s", o.Omitted, o.Tail)
}

// last returns the last lines, for an error.
func (o Output) last() string {
	end := o.Tail
	if o.Omitted == 0 && len(end) < lastBytes {
		end = append(bytes.Clone(o.Head), end...)
	}
	text := strings.TrimRight(string(end), " \t\r\n")
	if len(text) > lastBytes {
		text = text[len(text)-lastBytes:]
	}
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-lastLines):], "\n")
}

// capture reads until nobody writes any more, or reading fails. It never stops
// reading before, since a command must not hang when it writes a lot.
func capture(r io.Reader) Output {
	var o Output
	var ring []byte // the end of the output, as a ring once it is full
	at := 0
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		p := buf[:n]
		if room := min(keep-len(o.Head), len(p)); room > 0 {
			o.Head = append(o.Head, p[:room]...)
			p = p[room:]
		}
		for len(p) > 0 {
			if room := min(keep-len(ring), len(p)); room > 0 {
				ring = append(ring, p[:room]...)
				p = p[room:]
				continue
			}
			n := copy(ring[at:], p)
			o.Omitted += int64(n)
			at = (at + n) % keep
			p = p[n:]
		}
		if err != nil {
			o.Tail = append(bytes.Clone(ring[at:]), ring[:at]...)
			return o
		}
	}
}
