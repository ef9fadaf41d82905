package anchor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// maxFile bounds how much of the end of a file of anchors is read, in bytes:
// some thousands of lines.
const maxFile = 1 << 20

// File is a file with one anchor a line. It is only ever appended to, so the
// attribute "append only" (chattr(1)) may be set on it.
type File struct{ Path string }

func (f *File) String() string { return "file:" + f.Path }

// Readable tells that a file can be read.
func (f *File) Readable() bool { return true }

// Read returns the last anchor of a host.
func (f *File) Read(ctx context.Context, host string) (*Anchor, error) {
	file, err := openRegular(f.Path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		// A directory that is missing is a mount that is missing.
		if _, dirErr := os.Stat(filepath.Dir(f.Path)); dirErr != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, dirErr)
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer file.Close()
	text, err := tail(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	last, _ := Last(text, host)
	return last, ctx.Err()
}

// Write appends an anchor and makes it durable.
func (f *File) Write(ctx context.Context, a Anchor) error {
	_, statErr := os.Lstat(f.Path)
	file, err := openRegular(f.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE)
	if err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return failure.Errorf(failure.Failed, "%s: lock: %w", f.Path, err)
	}
	text, err := tail(file)
	if err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	line := a.String() + "\n"
	if text != "" && text[len(text)-1] != '\n' {
		line = "\n" + line // the line before was cut off by a crash
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := io.WriteString(file, line); err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	if err := file.Sync(); err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	if statErr != nil {
		return failure.Wrap(failure.Failed, durable.SyncDir(filepath.Dir(f.Path)))
	}
	return nil
}

// OnFilesystemOf tells whether the file lies on the same filesystem as dir:
// then what rolls one back may roll the other back with it.
func (f *File) OnFilesystemOf(dir string) bool {
	var a, b unix.Stat_t
	return unix.Stat(filepath.Dir(f.Path), &a) == nil && unix.Stat(dir, &b) == nil && a.Dev == b.Dev
}

// openRegular opens a regular file, and does not wait for the other end of a
// FIFO.
func openRegular(path string, flags int) (*os.File, error) {
	file, err := os.OpenFile(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// tail returns the end of a file, from the beginning of a line on.
func tail(file *os.File) (string, error) {
	st, err := file.Stat()
	if err != nil {
		return "", err
	}
	from := max(0, st.Size()-maxFile)
	b, err := io.ReadAll(io.NewSectionReader(file, from, maxFile))
	if err != nil {
		return "", err
	}
	return string(b), nil
}
