package ui

import (
	"bytes"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Screen draws a picture on the terminal again and again at the same place,
// below what was there before. It changes nothing about the terminal that would
// have to be undone: whoever interrupts, suspends or kills the program finds
// the last picture and the prompt below it.
type Screen struct {
	s     *Streams
	file  *os.File
	lines int // of the picture that is shown
	width int // of the terminal when it was drawn
}

// Screen returns a screen on Out, or nil when Out is no terminal that can move
// its cursor.
func (s *Streams) Screen() *Screen {
	if !s.OutTTY || s.Dumb {
		return nil
	}
	sc := &Screen{s: s}
	if c, ok := s.Out.(*checkedWriter); ok {
		sc.file, _ = c.w.(*os.File)
	}
	return sc
}

// size is how large the terminal is now; a window may have been resized.
func (sc *Screen) size() (width, height int) {
	width, height = sc.s.Width, 24
	if sc.file == nil {
		return width, height
	}
	ws, err := unix.IoctlGetWinsize(int(sc.file.Fd()), unix.TIOCGWINSZ)
	if err == nil && ws.Col > 0 && !sc.s.fixedWidth {
		width = int(ws.Col)
	}
	if err == nil && ws.Row > 0 {
		height = int(ws.Row)
	}
	return width, height
}

// Draw has paint print a picture, which may have so many lines, to streams that
// are as wide as the terminal is now, and shows it in place of the last one.
// What does not fit is cut off.
func (sc *Screen) Draw(paint func(s *Streams, lines int) error) error {
	width, height := sc.size()
	room := max(height-1, 1) // the cursor stays below
	var picture bytes.Buffer
	frame := &Streams{In: sc.s.In, Out: &picture, Err: sc.s.Err, OutTTY: true, Width: width, Color: sc.s.Color, Format: Text, Quiet: sc.s.Quiet, fixedWidth: true}
	if err := paint(frame, room); err != nil {
		return err
	}
	lines := bytes.SplitAfter(picture.Bytes(), []byte("\n"))
	if n := len(lines); n > 0 && len(lines[n-1]) == 0 {
		lines = lines[:n-1]
	}
	lines = lines[:min(len(lines), room)]

	var out bytes.Buffer
	switch {
	case sc.lines > 0 && width != sc.width:
		out.WriteString("\x1b[H\x1b[2J") // lines may have been folded: where they begin is not known
	case sc.lines > 0:
		// The window may have become lower: what went out at the top stays there.
		out.WriteString("\r\x1b[" + strconv.Itoa(min(sc.lines, room)) + "A")
	}
	out.WriteString("\x1b[?7l") // nothing is folded: DECAWM
	for _, line := range lines {
		// What the last picture had goes first: after a line as wide as the
		// terminal the cursor stands on its last character, not behind it.
		out.WriteString("\x1b[K")
		out.Write(bytes.TrimSuffix(line, []byte("\n")))
		out.WriteByte('\n')
	}
	out.WriteString("\x1b[?7h\x1b[J") // and below
	sc.lines, sc.width = len(lines), width
	// One write, so that nothing flickers, and nothing is left half done.
	_, err := io.Copy(sc.s.Out, &out)
	return err
}
