// Package ui is the only package that writes to a terminal.
//
// Everything a command prints goes through one Streams value, which knows
// whether each stream is a terminal, how wide it is and whether colour is
// wanted. A command built with Test streams can be tested without a terminal.
//
// The terminal is never asked anything by writing to it: an answer that comes
// late ends up in the shell's next command line. What is known comes from the
// environment (NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM, COLUMNS) and from two
// ioctls.
package ui

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Format is what a command prints its result as.
type Format string

// The formats every command knows. See the global flag --output.
const (
	Text  Format = "text"
	JSON  Format = "json"
	JSONL Format = "jsonl"
)

// Streams is the standard input, output and error of a command, and what is
// known about them.
type Streams struct {
	In  io.Reader
	Out io.Writer // results
	Err io.Writer // everything else

	InTTY, OutTTY, ErrTTY bool

	Width    int  // columns of the terminal on Out or Err; 0: not a terminal, do not fold
	Color    bool // style what goes to Out
	ErrColor bool // style what goes to Err
	Dumb     bool // the terminal cannot move its cursor (TERM=dumb)

	Format Format // --output
	Quiet  bool   // --quiet: only what needs attention

	fixedWidth bool // COLUMNS decided
	line       statusLine
	inputEnded atomic.Bool // In ended before the line that Ask waited for
}

// System returns the streams of this process. It looks at the environment
// through getenv, and never queries the terminal by writing to it.
func System(getenv func(string) string) *Streams {
	s := &Streams{
		In: os.Stdin, Out: &checkedWriter{w: os.Stdout}, Err: os.Stderr,
		InTTY:  isTerminal(os.Stdin),
		OutTTY: isTerminal(os.Stdout),
		ErrTTY: isTerminal(os.Stderr),
		Format: Text,
	}
	term := getenv("TERM")
	s.Dumb = term == "" || term == "dumb"
	s.Color = wantColor(getenv, s.OutTTY && !s.Dumb)
	s.ErrColor = wantColor(getenv, s.ErrTTY && !s.Dumb)
	for _, f := range []*os.File{os.Stdout, os.Stderr} {
		if s.Width == 0 {
			s.Width = terminalWidth(f)
		}
	}
	if n, err := strconv.Atoi(getenv("COLUMNS")); err == nil && n > 0 && (s.OutTTY || s.ErrTTY) {
		s.Width, s.fixedWidth = n, true
	}
	return s
}

// Test returns streams on buffers that are no terminals, for tests.
func Test(in io.Reader) (s *Streams, out, err *bytes.Buffer) {
	out, err = new(bytes.Buffer), new(bytes.Buffer)
	return &Streams{In: in, Out: out, Err: err, Format: Text}, out, err
}

// NoColor turns colour off, as --no-color does.
func (s *Streams) NoColor() { s.Color, s.ErrColor = false, false }

// WriteError returns the first error that a write to Out met, or nil. It is
// known for the streams of System only.
func (s *Streams) WriteError() error {
	if c, ok := s.Out.(*checkedWriter); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.err
	}
	return nil
}

// IsClosedPipe reports whether a write failed because its reader has gone.
func IsClosedPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}

// checkedWriter remembers the first error, so that a result that did not
// arrive is never reported as success, however it was printed.
type checkedWriter struct {
	w   io.Writer
	mu  sync.Mutex
	err error
}

func (c *checkedWriter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.w.Write(p)
	c.err = err
	return n, err
}

// wantColor follows https://no-color.org and https://bixense.com/clicolors.
func wantColor(getenv func(string) string, capable bool) bool {
	force := getenv("CLICOLOR_FORCE")
	switch {
	case getenv("NO_COLOR") != "":
		return false
	case force != "" && force != "0":
		return true
	case getenv("CLICOLOR") == "0":
		return false
	}
	return capable
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// terminalWidth returns the columns of the terminal f, 80 for a terminal that
// does not know, and 0 when f is no terminal.
func terminalWidth(f *os.File) int {
	if !isTerminal(f) {
		return 0
	}
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 {
		return 80
	}
	return int(ws.Col)
}
