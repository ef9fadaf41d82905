package ui

import (
	"context"
	"fmt"
	"os"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// Password asks for a secret, which is not shown while it is typed. When
// nobody is there to answer it asks nothing, and returns an error of kind Usage
// that names the flag that answers.
func (s *Streams) Password(ctx context.Context, question, flag string) (string, error) {
	in, ok := s.In.(*os.File)
	if !ok || !s.InTTY || !s.ErrTTY {
		return "", failure.Hint(failure.Errorf(failure.Usage, "no password was given"), "there is no terminal to ask; answer with "+flag)
	}
	fd := int(in.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("turn off the echo of the terminal: %w", err)
	}
	silent := *before
	silent.Lflag &^= unix.ECHO // termios(3)
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return "", fmt.Errorf("turn off the echo of the terminal: %w", err)
	}
	// Whatever happens, the terminal must show what is typed afterwards.
	defer unix.IoctlSetTermios(fd, unix.TCSETS, before)
	fmt.Fprintf(s.Err, "%s ", Printable(question))
	answer := make(chan string, 1)
	go func() {
		line, _ := s.readLine()
		answer <- line
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.Err)
		return "", ctx.Err()
	case line := <-answer:
		fmt.Fprintln(s.Err) // that of Enter was not shown
		return line, nil
	}
}
