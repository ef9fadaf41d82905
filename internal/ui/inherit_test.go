package ui

import (
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// TestPreserve leaves a terminal without echo, as a program that crashed does.
func TestPreserve(t *testing.T) {
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer tty.Close()
	fd := int(tty.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &Streams{In: tty, Out: &checkedWriter{w: tty}, Err: tty}
	restore := s.Preserve()
	changed := *before
	changed.Lflag &^= unix.ECHO | unix.ICANON
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &changed); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags^unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	restore()
	after, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("%+v, was %+v, %v", after, before, err)
	}
	if now, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || now != flags {
		t.Errorf("flags %#o, were %#o, %v", now, flags, err)
	}
}
