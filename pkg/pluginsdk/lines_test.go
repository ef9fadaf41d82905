package pluginsdk

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
)

// scripted is a lineReader over a stream that arrives in pieces, each with
// some descriptors.
type scripted struct {
	t      testing.TB
	pieces [][]byte
	fds    [][]int // of each piece
	reads  int
	opened []int
}

func (s *scripted) read(p, oob []byte) (int, int, error) {
	if s.reads == len(s.pieces) {
		return 0, 0, io.EOF
	}
	piece := s.pieces[s.reads]
	n := copy(p, piece)
	oobn := 0
	if fds := s.fds[s.reads]; len(fds) > 0 {
		oobn = copy(oob, syscall.UnixRights(fds...))
		s.fds[s.reads] = nil // the kernel hands them out once, with the first byte
	}
	if n < len(piece) {
		s.pieces[s.reads] = piece[n:]
	} else {
		s.reads++
	}
	return n, oobn, nil
}

// open returns n descriptors of nothing in particular.
func (s *scripted) open(n int) []int {
	fds := make([]int, n)
	for i := range fds {
		fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		fds[i] = fd
	}
	s.opened = append(s.opened, fds...)
	return fds
}

func isOpen(fd int) bool {
	_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
	return errno == 0
}

func (s *scripted) lines() *lineReader {
	return &lineReader{read: s.read, oob: make([]byte, syscall.CmsgSpace(maxFDs*4))}
}

func TestLongestLine(t *testing.T) {
	for _, tc := range []struct {
		length int
		want   error
	}{{MaxLine - 1, nil}, {MaxLine, nil}, {MaxLine + 1, ErrProtocol}, {MaxLine + readSize, ErrProtocol}, {3 * MaxLine, ErrProtocol}} {
		long := strings.Repeat("a", tc.length) + "\n"
		s := &scripted{t: t, pieces: [][]byte{[]byte("x\n" + long + "y\n")}, fds: make([][]int, 1)}
		l := s.lines()
		if line, _, err := l.next(); string(line) != "x" || err != nil {
			t.Fatalf("%q, %v", line, err)
		}
		line, _, err := l.next()
		if !errors.Is(err, tc.want) || err == nil && len(line) != tc.length {
			t.Errorf("a line of %d bytes: %d bytes, %v", tc.length, len(line), err)
		}
		if len(l.buf) > MaxLine+readSize {
			t.Errorf("a line of %d bytes took %d bytes of memory", tc.length, len(l.buf))
		}
		if err != nil {
			continue
		}
		if line, _, err := l.next(); string(line) != "y" || err != nil {
			t.Fatalf("%q, %v", line, err)
		}
		if _, _, err := l.next(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if len(l.buf) > readSize {
			t.Errorf("%d bytes stay in use after a long line", len(l.buf))
		}
	}
}

// FuzzLineReader reads a stream in pieces, and with descriptors, as the fuzzer
// cuts it. The lines must be those of the whole stream, and no descriptor may
// be left open, or be offered to a line that does not begin in its piece.
func FuzzLineReader(f *testing.F) {
	f.Add([]byte("{\"id\":1}\n{\"id\":2}\n"), []byte{3, 0x81, 5, 0x82, 255})
	f.Add([]byte("\n\n\nx"), []byte{0x81, 0x81, 0x81, 0x81})
	f.Add([]byte(strings.Repeat("a", 300)+"\n"+strings.Repeat("b", 70000)+"\n"), []byte{10, 0x89, 255, 255})
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		s := &scripted{t: t}
		rest := stream
		for _, cut := range cuts { // 7 bits of length, a bit for descriptors
			n := min(int(cut&0x7f)+1, len(rest))
			if n == 0 || len(s.pieces) > 200 {
				break
			}
			var fds []int
			if cut&0x80 != 0 {
				fds = s.open(1 + int(cut&3))
			}
			s.pieces, s.fds, rest = append(s.pieces, rest[:n]), append(s.fds, fds), rest[n:]
		}
		if len(rest) > 0 {
			s.pieces, s.fds = append(s.pieces, rest), append(s.fds, nil)
		}
		offsets := make(map[int]int) // of descriptors: the piece that they came with
		starts := []int{0}
		for i, piece := range s.pieces {
			for _, fd := range s.fds[i] {
				offsets[fd] = i
			}
			starts = append(starts, starts[i]+len(piece))
		}
		l := s.lines()
		want, at := stream, 0
		for {
			line, arrived, err := l.next()
			if err != nil {
				if i := bytes.IndexByte(want, '\n'); i >= 0 && i <= MaxLine {
					t.Fatalf("%v before the line %.50q", err, want[:i])
				}
				if (len(want) > 0) == errors.Is(err, io.EOF) && len(want) <= MaxLine {
					t.Fatalf("%v with %d bytes left", err, len(want))
				}
				break
			}
			i := bytes.IndexByte(want, '\n')
			if i < 0 || !bytes.Equal(line, want[:i]) {
				t.Fatalf("line %.50q, want %.50q", line, want)
			}
			if arrived != nil && len(line)%2 == 0 {
				if fd, ok := arrived.take(); ok {
					if piece := offsets[fd]; at < starts[piece] || at >= starts[piece+1] {
						t.Errorf("a line at %d got a descriptor of %d to %d", at, starts[piece], starts[piece+1])
					}
					syscall.Close(fd)
				}
			}
			want, at = want[i+1:], at+i+1
			if len(l.arrivals) > 2 {
				t.Fatalf("%d reads are remembered", len(l.arrivals))
			}
		}
		l.close()
		for _, fd := range s.opened {
			if isOpen(fd) {
				syscall.Close(fd)
				t.Error("a descriptor is still open")
			}
		}
	})
}

// FuzzReceive has a host send anything. Whatever it is, the client goes on or
// ends; it does not panic and keeps nothing.
func FuzzReceive(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"result":{"value":"x"}}`, `{"id":2,"error":{"code":"denied","message":"no"}}`, `{"id":1,"error":null}`,
		`{"method":"events","params":{"events":[{"type":"gap","lost":3}],"cursor":"c"}}`, `{"id":5,"method":"ping"}`,
		`{"id":18446744073709551615,"method":"x"}`, `{"id":1e3}`, `{"id":"1"}`, `null`, `[]`, `{"ID":1,"METHOD":"ping"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		c := &Client{
			out: make(chan outgoing, 1), pongs: make(chan uint64, 1), done: make(chan struct{}),
			pending: map[uint64]*call{1: {answer: make(chan answer, 1)}, 2: {answer: make(chan answer, 1), wantFD: true}},
			sub:     &subscription{batches: make(chan []byte, outstanding)},
		}
		if err := c.receive(line, nil); err != nil && !errors.Is(err, ErrProtocol) {
			t.Fatalf("an error of another kind: %v", err)
		}
		if len(c.pending) < 1 {
			t.Fatal("one line answered two calls")
		}
	})
}
