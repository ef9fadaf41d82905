package integrity

import (
	"bytes"
	"context"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// single reads single files of a tree again, after a walk: what it reads is
// only believed when it is what the walk had hashed.
type single struct{ root *os.File }

func openSingle(tree string) (*single, error) {
	f, err := os.Open(tree)
	return &single{f}, err
}

func (s *single) Close() error { return s.root.Close() }

// open opens a regular file the way a walk comes to it: through no symbolic
// link, and without waiting for a FIFO that was put in its place.
func (s *single) open(path []byte) (*os.File, error) {
	name := string(bytes.TrimLeft(path, "/"))
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(int(s.root.Fd()), name, &how)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: string(path), Err: err}
		}
		f := os.NewFile(uintptr(fd), string(path))
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			f.Close()
			return nil, fmt.Errorf("%s: no regular file any more", path)
		}
		return f, nil
	}
}

// stat returns the status of what is at a path, which no symbolic link leads to.
func (s *single) stat(path []byte) (st unix.Stat_t, err error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(int(s.root.Fd()), string(bytes.TrimLeft(path, "/")), &how)
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	return st, unix.Fstat(fd, &st)
}

// errOther says that a file is no longer what the walk read.
var errOther = fmt.Errorf("its content is no longer what was compared")

// copyTo copies the content of the file at a record's path to w, and fails with
// errOther when it is not what the record says.
func (s *single) copyTo(ctx context.Context, rec *baseline.Record, w io.Writer) error {
	f, err := s.open(rec.Path())
	if err != nil {
		return err
	}
	defer f.Close()
	h := blake3.New()
	// One byte more than there was shows that it grew, whatever comes then.
	buf := make([]byte, min(256<<10, rec.Info.Size+1))
	n, err := io.CopyBuffer(durable.Writer(ctx, io.MultiWriter(h, w)), io.LimitReader(f, rec.Info.Size+1), buf)
	if err != nil {
		return err
	}
	if n != rec.Info.Size || filehash.Sum(h.Sum(nil)) != rec.Sum {
		return errOther
	}
	return nil
}

// digest computes another digest of a record's content.
func (s *single) digest(ctx context.Context, rec *baseline.Record, h hash.Hash) ([]byte, error) {
	if err := s.copyTo(ctx, rec, h); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// maxAccounts bounds what is read of passwd(5) and group(5).
const maxAccounts = 4 << 20

// accounts returns the numbers by name of passwd(5) or group(5), none when it
// cannot be read.
func (s *single) accounts(file string) map[string]string {
	list := map[string]string{}
	f, err := s.open([]byte(file))
	if err != nil {
		return list
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAccounts))
	if err != nil {
		return list
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.SplitN(line, ":", 4); len(fields) == 4 {
			list[fields[0]] = fields[2]
		}
	}
	return list
}
