package archive

import (
	"errors"
	"fmt"
	"io"

	"github.com/mobileops/mobileops/internal/failure"
)

// WriteProved has write write to w, and read read the same at the same time, so
// that nothing is made that its readers refuse. It returns the bytes that were
// written. A refusal is an *Error within one of the kind failure.Failed. After
// an error, what w got is no package.
func WriteProved(w io.Writer, write func(io.Writer) error, read func(io.Reader) error) (int64, error) {
	pr, pw := io.Pipe()
	proved := make(chan error, 1)
	go func() {
		err := read(pr)
		pr.CloseWithError(err) // before the answer: a blocked writer goes on
		proved <- err
	}()
	out := &counter{w: w}
	err := write(io.MultiWriter(out, pw))
	pw.CloseWithError(err) // io.EOF for the reader when there is none
	verdict := <-proved
	var refused *Error
	switch {
	case errors.As(err, &refused), err == nil && errors.As(verdict, &refused):
		return out.n, &failure.Error{Kind: failure.Failed, Msg: "build a package that no host would take", Err: refused}
	case err != nil:
		return out.n, fmt.Errorf("build a package: %w", err)
	case verdict != nil:
		return out.n, fmt.Errorf("build a package: read it back: %w", verdict)
	}
	return out.n, nil
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
