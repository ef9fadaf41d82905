package source

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"github.com/zeebo/blake3"
)

// promise is what is known of bytes before they come. The zero value is
// nothing.
type promise struct {
	size   int64     // 0: unknown
	digest string    // BLAKE3-256 in hexadecimal; "": unknown
	second hash.Hash // another digest, such as that of a registry; may be nil
	sum    string    // what second has to be
}

// keep writes a package into a temporary file and checks it against what was
// promised, while it comes. The file has no name any more, so that nothing of it
// is left when this process is killed.
func keep(ctx context.Context, b *body, p promise, opts Options) (found *Found, err error) {
	limit := opts.MaxPackage
	if p.size > 0 {
		if p.size > limit {
			return nil, tooLarge(b.where, limit)
		}
		limit = p.size
	}
	if b.size > limit {
		if p.size > 0 {
			return nil, refuse(CodeDigest, "", "%s has %d bytes, but %d were promised", b.where, b.size, p.size)
		}
		return nil, tooLarge(b.where, limit)
	}
	f, err := os.CreateTemp(opts.TempDir, ".plugin-*"+packageEndings()[0])
	if err != nil {
		return nil, &Error{Code: CodeDisk, Err: err, Hint: "make room, or name another directory for temporary files"}
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, &Error{Code: CodeDisk, Err: err}
	}
	t := &transfer{f: f, hash: blake3.New(), p: p, opts: opts, where: b.where, total: max(b.size, p.size)}
	if t.total == 0 {
		t.total = -1
	}
	if err := t.copy(ctx, b, limit); err != nil {
		return nil, err
	}
	if err := t.check(b); err != nil {
		return nil, err
	}
	return &Found{Path: fmt.Sprintf("/proc/self/fd/%d", f.Fd()), Origin: b.where, Digest: hex.EncodeToString(t.hash.Sum(nil)), Size: t.done, temporary: f}, nil
}

func tooLarge(where string, limit int64) error {
	return refuse(CodeTooLarge, "if it is what you want, allow larger packages in the configuration", "%s is larger than %d bytes, the limit for packages", where, limit)
}

// transfer is a package on its way.
type transfer struct {
	f           *os.File
	hash        *blake3.Hasher
	p           promise
	opts        Options
	where       string
	done, total int64
	first       []byte // the first bytes, which tell a package from a page
}

func (t *transfer) copy(ctx context.Context, r io.Reader, limit int64) error {
	buf := make([]byte, 256<<10)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if t.done += int64(n); t.done > limit {
			if t.p.size > 0 {
				return refuse(CodeDigest, "", "%s has more than the %d bytes that were promised", t.where, t.p.size)
			}
			return tooLarge(t.where, limit)
		}
		if len(t.first) < 4 {
			if t.first = append(t.first, buf[:min(n, 4-len(t.first))]...); len(t.first) == 4 && !packed(t.first) {
				return notPackage(t.where, t.first)
			}
		}
		_, _ = t.hash.Write(buf[:n]) // it never fails
		if t.p.second != nil {
			_, _ = t.p.second.Write(buf[:n])
		}
		if _, werr := t.f.Write(buf[:n]); werr != nil {
			return &Error{Code: CodeDisk, Err: werr, Hint: "make room, or name another directory for temporary files"}
		}
		t.opts.Progress(t.done, t.total)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return cutOff(err, t.where, t.done)
		}
	}
}

// cutOff says how far a transfer came, unless it ended for a reason of ours.
func cutOff(err error, where string, done int64) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || CodeOf(err) == CodeUnreachable {
		var own *Error
		if errors.As(err, &own) && own.Err != nil {
			err = own.Err
		}
		return &Error{Code: CodeTruncated, Msg: refuse("", "", "%s broke off after %d bytes", where, done).Msg, Err: err, Hint: "try again"}
	}
	return err
}

// check holds what came against what was promised.
func (t *transfer) check(b *body) error {
	const hint = "get it again; if it stays so, somebody changed it: do not install it"
	switch {
	case b.size >= 0 && t.done < b.size, t.p.size > 0 && t.done < t.p.size:
		return refuse(CodeTruncated, "try again", "%s broke off after %d of %d bytes", t.where, t.done, t.total)
	case len(t.first) < 4:
		return notPackage(t.where, t.first)
	case t.p.digest != "" && !strings.EqualFold(t.p.digest, hex.EncodeToString(t.hash.Sum(nil))):
		return refuse(CodeDigest, hint, "%s is not what was promised: its BLAKE3 digest is %x, not %s", t.where, t.hash.Sum(nil), t.p.digest)
	case t.p.second != nil && t.p.sum != hex.EncodeToString(t.p.second.Sum(nil)):
		return refuse(CodeDigest, hint, "%s is not what was promised: its digest is %x, not %s", t.where, t.p.second.Sum(nil), t.p.sum)
	}
	return nil
}

// packed reports whether bytes begin like a package: zstd (RFC 8878) or gzip
// (RFC 1952).
func packed(first []byte) bool {
	return bytes.HasPrefix(first, []byte{0x28, 0xb5, 0x2f, 0xfd}) || bytes.HasPrefix(first, []byte{0x1f, 0x8b})
}

func notPackage(where string, first []byte) error {
	return refuse(CodeMalformed, "a server that shows a page for people instead looks like that: is the address right, and are credentials needed?",
		"%s is no package: it begins with %q, neither zstd nor gzip", where, first)
}

// read returns all of a small file.
func read(ctx context.Context, b *body, limit int64) ([]byte, error) {
	if b.size > limit {
		return nil, refuse(CodeTooLarge, "", "%s has %d bytes, more than the %d that are read", b.where, b.size, limit)
	}
	data, err := io.ReadAll(io.LimitReader(b, limit+1))
	switch {
	case context.Cause(ctx) != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, cutOff(err, b.where, int64(len(data)))
	case int64(len(data)) > limit:
		return nil, refuse(CodeTooLarge, "", "%s has more than the %d bytes that are read", b.where, limit)
	}
	return data, nil
}
