package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/failure"
)

// Format is how an archive is packed.
type Format string

// The formats. Zstd is unpacked several times as fast.
const (
	Zstd Format = "tar.zst"
	Gzip Format = "tar.gz"
)

// WriterOptions are how a Writer packs.
type WriterOptions struct {
	Format Format // Zstd when ""
	// Level is that of zstd(1), 1 to 19, or of gzip(1), 1 to 9; 0 is a good one.
	Level int
	// Latest is the latest that anything may have been changed: later times
	// become it, as reproducible builds do with SOURCE_DATE_EPOCH. None when
	// zero.
	Latest time.Time
}

// writerWindow is the window of zstd that archives are made with: unpacking
// takes little more memory than that.
const writerWindow = 8 << 20

// Writer packs an archive. The same calls make the same bytes, whoever makes
// them wherever; owners are not recorded.
type Writer struct {
	tar    *tar.Writer
	packer io.WriteCloser
	latest time.Time
	copy   []byte
}

// NewWriter begins an archive. Options that make no sense are failure.Usage.
func NewWriter(w io.Writer, o WriterOptions) (*Writer, error) {
	packer, err := packer(w, o)
	if err != nil {
		return nil, err
	}
	return &Writer{tar: tar.NewWriter(packer), packer: packer, latest: o.Latest, copy: make([]byte, 256<<10)}, nil
}

// packer makes what packs the archive, with a checksum.
func packer(w io.Writer, o WriterOptions) (io.WriteCloser, error) {
	level := o.Level
	switch o.Format {
	case Gzip:
		if level == 0 {
			level = gzip.BestCompression
		}
		z, err := gzip.NewWriterLevel(w, level)
		if err != nil {
			return nil, failure.Wrap(failure.Usage, err)
		}
		return z, nil
	case Zstd, "":
		if level == 0 {
			level = 9
		}
		return zstd.NewWriter(w, zstd.WithEncoderCRC(true), zstd.WithWindowSize(writerWindow),
			zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)))
	}
	return nil, failure.Errorf(failure.Usage, "%q is no format of packages; there are %s and %s", o.Format, Zstd, Gzip)
}

// Bytes writes a file whose content is in memory.
func (w *Writer) Bytes(name string, mode uint32, mtime time.Time, content []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: int64(len(content)), ModTime: w.time(mtime)}
	if err := w.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.tar.Write(content)
	return err
}

// Dir writes a directory.
func (w *Writer) Dir(name string, mode uint32, mtime time.Time) error {
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: int64(mode), ModTime: w.time(mtime)})
}

// Symlink writes a symbolic link.
func (w *Writer) Symlink(name, target string, mtime time.Time) error {
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: w.time(mtime)})
}

// File writes the file of that name beneath root, which is what info says and
// must not change meanwhile, and returns its size in bytes. A file with
// capabilities or an access control list is refused with CodeXattr: archives do
// not carry these. tee, when it is not nil, gets the content too.
func (w *Writer) File(ctx context.Context, root *os.Root, name string, info fs.FileInfo, mode uint32, mtime time.Time, tee io.Writer) (int64, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	changed := failure.Errorf(failure.Failed, "%q changed while it was read; build from a tree that nobody works in", name)
	now, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !os.SameFile(now, info) {
		return 0, changed
	}
	for _, attr := range []string{"security.capability", "system.posix_acl_access"} {
		if n, err := unix.Fgetxattr(int(f.Fd()), attr, nil); err == nil && n > 0 {
			return 0, &Error{Code: CodeXattr, Entry: name, Err: fmt.Errorf("it has %s, which packages do not carry", attr)}
		}
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: now.Size(), ModTime: w.time(mtime)}
	if err := w.tar.WriteHeader(h); err != nil {
		return 0, err
	}
	to := io.Writer(w.tar)
	if tee != nil {
		to = io.MultiWriter(w.tar, tee)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{&patient{ctx, f}}, w.copy)
	switch {
	case errors.Is(err, tar.ErrWriteTooLong), err == nil && n != h.Size:
		return n, changed
	}
	return n, err
}

// Close writes the end of the archive.
func (w *Writer) Close() error {
	if err := w.tar.Close(); err != nil {
		return err
	}
	return w.packer.Close()
}

// time makes a time one that a header of whole seconds has.
func (w *Writer) time(t time.Time) time.Time {
	if !w.latest.IsZero() && t.After(w.latest) {
		t = w.latest
	}
	return clampTime(t.Unix(), 0)
}

// patient reads until its context is done.
type patient struct {
	ctx context.Context
	r   io.Reader
}

func (p *patient) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}
