package update

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/ui"
)

// counted passes bytes on, counts them for a progress, and ends with the
// context.
type counted struct {
	ctx   context.Context
	r     io.Reader
	w     io.Writer
	total int64
	n     atomic.Int64
}

func newCounted(ctx context.Context, r io.Reader, total int64) *counted {
	return &counted{ctx: ctx, r: r, total: total}
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	return n, err
}

func (c *counted) counters() ui.Counters { return ui.Counters{Bytes: c.n.Load(), TotalBytes: c.total} }
