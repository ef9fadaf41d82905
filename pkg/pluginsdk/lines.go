package pluginsdk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// lineReader cuts what a socket delivers into lines, and says which
// descriptors came with them.
//
// A descriptor travels with the first byte of a line. The kernel hands it out
// with the read that returns this byte, which may return bytes before and
// behind it as well, but never those of another message with descriptors
// (unix(7), SCM_RIGHTS). So all that is known is that the line begins within
// what was read: an arrival holds on to its descriptors until all lines that
// begin there are complete, and closes what none of them took.
type lineReader struct {
	read     func(p, oob []byte) (n, oobn int, err error)
	buf      []byte
	start    int // buf[start:end] is unread
	end      int
	scanned  int    // there is no newline in buf[start:scanned]
	offset   uint64 // of buf[start], from the beginning of the stream
	oob      []byte
	arrivals []*arrival // at most two: the line that spans two reads, and the last read
}

// arrival are the descriptors of one read, in their order, and the range of
// the stream that it returned.
type arrival struct {
	from, to uint64
	fds      []int
}

// take removes and returns the first descriptor.
func (a *arrival) take() (fd int, ok bool) {
	if a == nil || len(a.fds) == 0 {
		return -1, false
	}
	fd, a.fds = a.fds[0], a.fds[1:]
	return fd, true
}

func (a *arrival) close() {
	for _, fd := range a.fds {
		syscall.Close(fd)
	}
	a.fds = nil
}

const (
	readSize = 64 << 10 // one read, and what is kept between long lines
	maxFDs   = 8        // of one read; the kernel closes those that do not fit
)

func newLineReader(conn *net.UnixConn) *lineReader {
	return &lineReader{
		read: func(p, oob []byte) (int, int, error) {
			// net sets MSG_CMSG_CLOEXEC where there is space for descriptors.
			n, oobn, _, _, err := conn.ReadMsgUnix(p, oob)
			return n, oobn, err
		},
		oob: make([]byte, syscall.CmsgSpace(maxFDs*4)),
	}
}

// next returns the next line, without its newline, and the descriptors that
// may belong to it. Both are valid until the next call. The last line needs a
// newline, too: what a host that dies has half written is io.ErrUnexpectedEOF.
func (l *lineReader) next() ([]byte, *arrival, error) {
	l.settle()
	for {
		if i := bytes.IndexByte(l.buf[l.scanned:l.end], '\n'); i >= 0 {
			end := l.scanned + i
			if end-l.start > MaxLine {
				return nil, nil, l.tooLong()
			}
			line, a := l.buf[l.start:end], l.arrived()
			l.offset += uint64(end + 1 - l.start)
			l.start, l.scanned = end+1, end+1
			return line, a, nil
		}
		l.scanned = l.end
		if l.end-l.start > MaxLine {
			return nil, nil, l.tooLong()
		}
		if err := l.fill(); err != nil {
			return nil, nil, err
		}
	}
}

func (l *lineReader) tooLong() error {
	return fmt.Errorf("%w: a line of more than %d bytes", ErrProtocol, MaxLine)
}

// settle closes the descriptors of reads in which no line begins any more.
func (l *lineReader) settle() {
	for len(l.arrivals) > 0 && l.arrivals[0].to <= l.offset {
		l.arrivals[0].close()
		l.arrivals = l.arrivals[1:]
	}
}

// arrived returns the read in which the next line begins, nil if it brought no
// descriptors.
func (l *lineReader) arrived() *arrival {
	if len(l.arrivals) > 0 && l.arrivals[0].from <= l.offset {
		return l.arrivals[0]
	}
	return nil
}

// fill reads once. There is no complete line in the buffer when it is called.
func (l *lineReader) fill() error {
	l.room()
	n, oobn, err := l.read(l.buf[l.end:], l.oob)
	fds := descriptors(l.oob[:oobn])
	if n <= 0 {
		(&arrival{fds: fds}).close()
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case l.end > l.start:
			return io.ErrUnexpectedEOF
		}
		return io.EOF
	}
	chunk := l.buf[l.end : l.end+n]
	if len(fds) > 0 {
		a := &arrival{from: l.offset + uint64(l.end-l.start), fds: fds}
		a.to = a.from + uint64(n)
		// Amid a line, and no other one begins: nothing can belong to them.
		if newline := bytes.IndexByte(chunk, '\n'); l.end > l.start && (newline < 0 || newline == n-1) {
			a.close()
		} else {
			l.arrivals = append(l.arrivals, a)
		}
	}
	l.end += n
	return nil
}

// room makes space for a read: it moves a half line to the front, and lets the
// buffer grow with it, and shrink again.
func (l *lineReader) room() {
	rest := l.end - l.start
	size := len(l.buf)
	switch {
	case size == 0 || rest == 0 && size > readSize:
		size = readSize
	case rest > size/2:
		size = min(2*size, MaxLine+readSize)
	}
	if size != len(l.buf) {
		grown := make([]byte, size)
		copy(grown, l.buf[l.start:l.end])
		l.buf = grown
	} else if l.start > 0 {
		copy(l.buf, l.buf[l.start:l.end])
	}
	l.scanned -= l.start
	l.start, l.end = 0, rest
}

// close closes the descriptors that nobody took.
func (l *lineReader) close() {
	for _, a := range l.arrivals {
		a.close()
	}
	l.arrivals = nil
}

// descriptors returns those in a control message.
func descriptors(oob []byte) []int {
	if len(oob) == 0 {
		return nil
	}
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range messages {
		// Messages of other kinds are none of ours.
		if got, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}
