// Package ui is the only package that writes to a terminal.
//
// Everything a command prints goes through one Streams value, which knows
// whether each stream is a terminal, how wide it is and whether colour is
// wanted. A command built with Test streams can be tested without a terminal.
package ui

import (
	"bytes"
	"io"
	"os"
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

	Format Format // --output
	Quiet  bool   // --quiet: only what needs attention
}

// System returns the streams of this process. It looks at the environment
// through getenv, and never queries the terminal by writing to it.
func System(getenv func(string) string) *Streams {
	return &Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Format: Text}
}

// Test returns streams on buffers that are no terminals, for tests.
func Test(in io.Reader) (s *Streams, out, err *bytes.Buffer) {
	out, err = new(bytes.Buffer), new(bytes.Buffer)
	return &Streams{In: in, Out: out, Err: err, Format: Text}, out, err
}
