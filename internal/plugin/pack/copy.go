package pack

import (
	"context"
	"encoding/hex"
	"io"

	"github.com/zeebo/blake3"

	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

// copier copies files, and holds them against the manifest meanwhile.
type copier struct {
	ctx  context.Context
	hash *blake3.Hasher
	buf  []byte
}

func newCopier(ctx context.Context) *copier {
	return &copier{ctx: ctx, hash: blake3.New(), buf: make([]byte, 256<<10)}
}

// copy writes the content of a file to w, and never more of it than the size
// that the manifest gives.
func (c *copier) copy(w io.Writer, name string, f manifest.File, content io.Reader) error {
	c.hash.Reset()
	var n int64
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		k, err := content.Read(c.buf)
		if n += int64(k); n > f.Size {
			return refuse(CodeDigest, name, hintPackage, "it has more than the %d bytes that were signed", f.Size)
		}
		c.hash.Write(c.buf[:k])
		if _, err := w.Write(c.buf[:k]); err != nil {
			return err
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	switch {
	case n != f.Size:
		return refuse(CodeDigest, name, hintPackage, "it has %d bytes, and %d were signed", n, f.Size)
	case hex.EncodeToString(c.hash.Sum(nil)) != f.Digest:
		return refuse(CodeDigest, name, hintPackage, "it is not the file that was signed")
	}
	return nil
}
