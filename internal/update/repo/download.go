package repo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/sys/unix"
)

// transferBuffer is how much of a package is in memory at a time, in bytes.
const transferBuffer = 256 << 10

// Download puts a package of Available at dst, durable, and whole or not at
// all. When it is there already, nothing is fetched. progress, which may be nil, is told how many bytes came since the last
// time; what an earlier attempt left counts, and when that turns out to be wrong
// it is taken back by a negative number.
//
// It calls Refresh unless that was done, refuses what has expired, and takes
// length and digests from the verified metadata, not from t. What has arrived
// when it is interrupted or the disk is full stays beside dst, and the next
// Download goes on there. Two at once of one package: the second is told so
// (failure.Busy).
func (c *Client) Download(ctx context.Context, t Target, dst string, progress func(n int64)) error {
	if c.now == nil || c.now.offline {
		if _, err := c.Refresh(ctx); err != nil {
			return err
		}
	}
	if f := c.now.freshness(c.opts.Now()); f.Expired != nil {
		return f.Expired
	}
	return c.download(ctx, t.Path, dst, progress)
}

// DownloadSignature puts the minisign signature of a package at dst, as
// Download does. A package without one is an *Error with CodeNotFound.
func (c *Client) DownloadSignature(ctx context.Context, t Target, dst string) error {
	t.Path = trust.SignaturePath(t.Path)
	return c.Download(ctx, t, dst, nil)
}

func (c *Client) download(ctx context.Context, p, dst string, progress func(n int64)) error {
	f := c.now.targets()[p]
	if f == nil || f.Length < 0 {
		return refuse(CodeNotFound, "", "the repository has no %q", p)
	}
	if err := validPath(p); err != nil {
		return &Error{Code: CodeMalformed, Role: metadata.TARGETS, Err: err}
	}
	sums := map[string][]byte{}
	for name, sum := range f.Hashes {
		sums[name] = sum
	}
	if _, err := digests(sums); err != nil {
		return &Error{Code: CodeMalformed, Role: metadata.TARGETS, Msg: p, Err: err}
	}
	d := &transfer{src: c.src, name: remoteTarget(p, sums, c.now.set.Root.Signed.ConsistentSnapshot), path: p, length: f.Length, sums: sums, progress: progress}
	if progress == nil {
		d.progress = func(int64) {}
	}
	return d.run(ctx, dst)
}

// remoteTarget is the name of a target at the source: with consistent
// snapshots its digest comes before the name (TUF 6.2).
func remoteTarget(p string, sums map[string][]byte, consistent bool) string {
	if !consistent {
		return "targets/" + p
	}
	sum := sums["sha256"]
	if sum == nil {
		sum = sums["sha512"]
	}
	dir, name := path.Split(p)
	return "targets/" + dir + hex.EncodeToString(sum) + "." + name
}

// digests returns a new hash for each of the sums. SHA-256 and SHA-512 are
// known; one of them has to be there.
func digests(sums map[string][]byte) (map[string]hash.Hash, error) {
	made := map[string]hash.Hash{}
	for name, sum := range sums {
		var h hash.Hash
		switch name {
		case "sha256":
			h = sha256.New()
		case "sha512":
			h = sha512.New()
		default:
			continue
		}
		if len(sum) != h.Size() {
			return nil, fmt.Errorf("its %s has %d bytes", name, len(sum))
		}
		made[name] = h
	}
	if len(made) == 0 {
		return nil, errors.New("it has neither a SHA-256 nor a SHA-512")
	}
	return made, nil
}

// transfer is one package on its way. What has arrived is in a file beside dst
// that is named after the digest, so that what is left of one package is never
// taken for a part of another.
type transfer struct {
	src      source
	name     string // at the source
	path     string // as people know it
	length   int64
	sums     map[string][]byte
	progress func(int64)

	part   *os.File
	hashes map[string]hash.Hash
	have   int64 // bytes in part, and in hashes
}

func (d *transfer) run(ctx context.Context, dst string) error {
	if here, err := d.here(ctx, dst); err != nil || here {
		return err
	}
	key := d.sums["sha256"]
	if key == nil {
		key = d.sums["sha512"]
	}
	name := partName(dst, hex.EncodeToString(key[:8]))
	part, err := openPart(name)
	if err != nil {
		return err
	}
	defer part.Close()
	d.part = part
	if err := d.fill(ctx); err != nil {
		if d.have == 0 || CodeOf(err) == CodeHash || CodeOf(err) == CodeLength {
			os.Remove(name)
		}
		return err
	}
	if err := part.Chmod(0o600); err != nil {
		return &Error{Code: CodeDisk, Err: err}
	}
	if err := durable.Publish(name, dst); err != nil {
		return &Error{Code: CodeDisk, Err: err, Hint: diskHint(err)}
	}
	sweepParts(dst)
	return nil
}

// here reports whether dst is what was published already.
func (d *transfer) here(ctx context.Context, dst string) (bool, error) {
	f, err := os.OpenFile(dst, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() != d.length {
		return false, nil
	}
	d.hashes, _ = digests(d.sums)
	_, err = d.copy(contextReader{ctx, f}, io.Discard, d.length)
	if err == nil && d.wrong() == nil {
		sweepParts(dst)
		return true, nil
	}
	d.progress(-d.have)
	d.have = 0
	if errors.Is(err, context.Canceled) {
		return false, err
	}
	return false, nil
}

// fill makes the part whole and right. A part that is left of an earlier
// attempt and turns out to be wrong is thrown away once.
func (d *transfer) fill(ctx context.Context) error {
	resumed, err := d.rehash(ctx)
	if err != nil {
		return err
	}
	if err := d.reserve(); err != nil {
		return err
	}
	for {
		if err := d.receive(ctx, &resumed); err != nil {
			return err
		}
		wrong := d.wrong()
		if wrong == nil {
			return nil
		}
		if resumed == 0 {
			return wrong
		}
		if err := d.restart(); err != nil {
			return err
		}
		resumed = 0
	}
}

// restart throws away what has arrived.
func (d *transfer) restart() error {
	d.progress(-d.have)
	d.have = 0
	d.hashes, _ = digests(d.sums)
	if err := d.part.Truncate(0); err != nil {
		return &Error{Code: CodeDisk, Err: err}
	}
	_, err := d.part.Seek(0, io.SeekStart)
	return err
}

// rehash reads what is left of an earlier attempt.
func (d *transfer) rehash(ctx context.Context) (int64, error) {
	d.hashes, _ = digests(d.sums)
	st, err := d.part.Stat()
	if err != nil {
		return 0, &Error{Code: CodeDisk, Err: err}
	}
	if st.Size() > d.length {
		return 0, d.restart()
	}
	n, err := d.copy(contextReader{ctx, d.part}, io.Discard, d.length)
	if err != nil {
		return 0, err
	}
	return n, nil
}

// reserve asks for the room that the package needs before it is fetched, where
// the filesystem can tell.
func (d *transfer) reserve() error {
	if d.length == d.have {
		return nil
	}
	err := unix.Fallocate(int(d.part.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, d.length)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return &Error{Code: CodeDisk, Msg: fmt.Sprintf("%s has %d bytes, of which %d are here", d.path, d.length, d.have), Err: err, Hint: "make room, and try again"}
	}
	return nil
}

// attempts is how often a connection that broke is made again, as long as each
// brings something.
const attempts = 5

// receive fetches what is missing, over several connections if need be.
func (d *transfer) receive(ctx context.Context, resumed *int64) error {
	for n := 1; ; n++ {
		before := d.have
		err := d.once(ctx, resumed)
		if CodeOf(err) != CodeUnreachable || d.have <= before || n == attempts {
			return err
		}
	}
}

func (d *transfer) once(ctx context.Context, resumed *int64) error {
	if d.have == d.length {
		return nil
	}
	body, from, err := d.src.open(ctx, d.name, d.have)
	if err != nil {
		return err
	}
	defer body.Close()
	if from != d.have { // a server that knows no ranges
		if err := d.restart(); err != nil {
			return err
		}
		*resumed = 0
	}
	// The transport notices an interruption a moment later, maybe after the end.
	if _, err := d.copy(contextReader{ctx, body}, d.part, d.length-d.have); err != nil {
		return err
	}
	if d.have < d.length {
		return nil
	}
	var more [1]byte
	if n, _ := io.ReadFull(body, more[:]); n > 0 {
		d.have++ // wrong says that it is too long
	}
	return nil
}

// copy moves at most limit bytes on, through the hashes.
func (d *transfer) copy(from io.Reader, to io.Writer, limit int64) (int64, error) {
	buf := make([]byte, min(transferBuffer, max(limit, 1)))
	var total int64
	for total < limit {
		n, err := from.Read(buf[:min(int64(len(buf)), limit-total)])
		if n > 0 {
			w, werr := to.Write(buf[:n])
			for _, h := range d.hashes {
				h.Write(buf[:w])
			}
			d.have += int64(w)
			total += int64(w)
			d.progress(int64(w))
			if werr != nil {
				return total, &Error{Code: CodeDisk, Err: werr, Hint: diskHint(werr)}
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, readFailure(d.path, err)
		}
	}
	return total, nil
}

// wrong says how what has arrived differs from what was published.
func (d *transfer) wrong() error {
	if d.have != d.length {
		what := "shorter"
		if d.have > d.length {
			what = "longer"
		}
		return refuse(CodeLength, metadata.TARGETS, "%s is %s than the %d bytes that were published", d.path, what, d.length)
	}
	for name, h := range d.hashes {
		if !bytes.Equal(h.Sum(nil), d.sums[name]) {
			return refuse(CodeHash, metadata.TARGETS, "%s is not the file that was published: another %s", d.path, name)
		}
	}
	return nil
}

const partEnd = ".partial"

func partName(dst, key string) string {
	return filepath.Join(filepath.Dir(dst), "."+filepath.Base(dst)+"."+key+partEnd)
}

// openPart opens the file for what arrives, and locks it.
func openPart(name string) (*os.File, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, &Error{Code: CodeDisk, Err: err, Hint: diskHint(err)}
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, failure.Errorf(failure.Busy, "%s is being downloaded by another process", name)
			}
			return nil, &Error{Code: CodeDisk, Err: err}
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			f.Close()
			return nil, refuse(CodeDisk, "", "%s is not a regular file", name)
		}
		if st.Nlink > 0 {
			return f, nil
		}
		f.Close() // another process finished it between open and flock
	}
}

// sweepParts removes what is left of other versions of a file, unless somebody
// still writes it.
func sweepParts(dst string) {
	entries, err := os.ReadDir(filepath.Dir(dst))
	if err != nil {
		return
	}
	for _, e := range entries {
		name := e.Name()
		if !e.Type().IsRegular() || !strings.HasPrefix(name, "."+filepath.Base(dst)+".") || !strings.HasSuffix(name, partEnd) {
			continue
		}
		f, err := openPart(filepath.Join(filepath.Dir(dst), name))
		if err != nil {
			continue
		}
		os.Remove(f.Name())
		f.Close()
	}
}

// lockFile waits for an exclusive lock that is held for moments only.
func lockFile(ctx context.Context, name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}
