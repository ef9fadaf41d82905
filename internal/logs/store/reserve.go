package store

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/source"
	"golang.org/x/sys/unix"
)

// Reserve is how much of the file system the store leaves free for others. The
// larger of the two counts.
type Reserve struct {
	Bytes   int64
	Percent float64 // of the size of the file system, 0 to 100
}

// ErrFull says that nothing was written because the file system has no more
// room than its reserve. What could not be written is still where it came from.
var ErrFull = source.ErrFull

// room returns ErrFull when writing need more bytes would use the reserve.
func (s *Store) room(need int64) error {
	if s.opts.Reserve == (Reserve{}) {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.opts.Dir, &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: s.opts.Dir, Err: err}
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	keep := s.opts.Reserve.Bytes
	if part := int64(float64(st.Blocks) * float64(st.Bsize) * s.opts.Reserve.Percent / 100); part > keep {
		keep = part
	}
	if free-need >= keep {
		return nil
	}
	return full(fmt.Sprintf("%.1f MB are free, and %.1f MB are kept in reserve", float64(free)/1e6, float64(keep)/1e6))
}

func full(why string) error {
	return failure.Hint(fmt.Errorf("%w: %s", ErrFull, why),
		"nothing is lost: collecting goes on where it stopped; make room, or let old logs go: mobileops logs rotate")
}

// access gives an error of the file system its kind and says what helps.
func access(err error) error {
	switch {
	case err == nil || errors.Is(err, ErrFull):
	case errors.Is(err, fs.ErrPermission):
		return failure.Hint(failure.Wrap(failure.NotAllowed, err), "run as root, or choose another place with --state-dir")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return full(err.Error())
	}
	return err
}
