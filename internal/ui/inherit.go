package ui

import (
	"os"

	"golang.org/x/sys/unix"
)

// Inherit returns the streams as files, for a program that runs in our place. A
// stream that is none is nil. What the program writes is not looked after.
func (s *Streams) Inherit() (in, out, err *os.File) {
	file := func(stream any) *os.File {
		if w, ok := stream.(*checkedWriter); ok {
			stream = w.w
		}
		f, _ := stream.(*os.File)
		return f
	}
	return file(s.In), file(s.Out), file(s.Err)
}

// Preserve remembers how the terminals of the streams are set, and returns what
// sets them like that again: a program that ran in our place may have left them
// without echo, or reads without waiting.
func (s *Streams) Preserve() (restore func()) {
	type setting struct {
		fd      int
		flags   int
		termios *unix.Termios
	}
	var settings []setting
	in, out, err := s.Inherit()
	for _, f := range []*os.File{in, out, err} {
		if f == nil {
			continue
		}
		raw, failed := f.SyscallConn()
		if failed != nil {
			continue
		}
		raw.Control(func(fd uintptr) {
			n := setting{fd: int(fd)}
			var failed error
			if n.flags, failed = unix.FcntlInt(fd, unix.F_GETFL, 0); failed != nil {
				return
			}
			n.termios, _ = unix.IoctlGetTermios(n.fd, unix.TCGETS)
			settings = append(settings, n)
		})
	}
	return func() {
		for _, n := range settings {
			unix.FcntlInt(uintptr(n.fd), unix.F_SETFL, n.flags)
			if n.termios != nil {
				unix.IoctlSetTermios(n.fd, unix.TCSETS, n.termios)
			}
		}
	}
}
