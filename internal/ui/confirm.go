package ui

import (
	"context"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// Confirm asks a question that is answered with yes or no; anything but yes is
// no. When nobody is there to answer, it is as with Ask.
func (s *Streams) Confirm(ctx context.Context, question, flag string) (bool, error) {
	line, err := s.Ask(ctx, question+" [y/N]", flag)
	switch strings.ToLower(line) {
	case "y", "yes":
		return true, err
	}
	return false, err
}

// Ask asks a question and returns the line that was typed, without spaces
// around it. When nobody is there to answer, because standard input or error is
// no terminal, it asks nothing and returns an error of kind Usage that names
// the flag that answers, such as "--yes".
func (s *Streams) Ask(ctx context.Context, question, flag string) (string, error) {
	if !s.InTTY || !s.ErrTTY {
		return "", failure.Hint(failure.Errorf(failure.Usage, "not done without an answer: %s", question), "there is no terminal to ask; answer with "+flag)
	}
	fmt.Fprintf(s.Err, "%s ", Printable(question))
	answer := make(chan string, 1)
	go func() {
		line, ended := s.readLine()
		if !ended { // Ctrl-D leaves the cursor behind the question
			fmt.Fprintln(s.Err)
			s.inputEnded.Store(true)
		}
		answer <- line
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.Err)
		return "", ctx.Err()
	case line := <-answer:
		return strings.TrimSpace(line), nil
	}
}

// InputEnded tells whether the input ended before the line that Ask waited for.
func (s *Streams) InputEnded() bool { return s.inputEnded.Load() }

// maxAnswer bounds what is read as an answer, in bytes.
const maxAnswer = 1024

// readLine reads up to the end of a line and nothing behind it, which may
// belong to somebody else. It says whether there was such an end.
func (s *Streams) readLine() (text string, ended bool) {
	var line []byte
	var one [1]byte
	for len(line) < maxAnswer {
		n, err := s.In.Read(one[:])
		if n == 1 && one[0] == '\n' {
			return string(line), true
		}
		if n == 0 && err != nil {
			break
		}
		line = append(line, one[:n]...)
	}
	return string(line), false
}
