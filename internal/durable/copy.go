package durable

import (
	"context"
	"io"
)

// Writer returns a writer to w that fails with the error of ctx once that is
// done, so that a long copy ends when it is interrupted.
func Writer(ctx context.Context, w io.Writer) io.Writer { return contextWriter{ctx, w} }

type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(b)
}
