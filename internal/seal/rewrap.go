package seal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/mobileops/mobileops/internal/failure"
)

// ErrBusy is returned by Rewrap when another one works on the same file.
var ErrBusy = failure.New(failure.Busy, "the file is being rewrapped by another process")

// Rewrap makes the sealed file at path one that the keys of to open, and no
// others. One of ids must open it now. Only the header is written, in place
// and durably; the payload is neither read nor moved, and readers that have
// the file open, and those that open it meanwhile, are not disturbed.
//
// After a crash at any moment the file opens, with the keys from before or
// with the new ones (Object.Interrupted), and Rewrap is to be called again. It
// also mends a header of which one copy is damaged.
//
// Who opened the file before can have kept its data key, or a copy of its
// header: that reads the payload for ever.
func Rewrap(path string, ids []Identity, to []Recipient) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			err = fmt.Errorf("rewrap %s: %w", path, err)
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return failure.New(failure.Usage, "not a regular file")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return ErrBusy
		}
		return err
	}
	return rewrap(f, st.Size(), ids, to)
}

// headerFile is what rewrap needs of a file.
type headerFile interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// rewrap writes the new header. Each step is durable before the next: the
// state says that a slot may be torn before one is; the slot that was not
// opened is overwritten first, so that the other stays whole until it is; and
// the old one is overwritten too, so that nothing of it remains.
func rewrap(f headerFile, size int64, ids []Identity, to []Recipient) error {
	h, err := readHeader(f, size, ids, true)
	if err != nil {
		return err
	}
	defer clear(h.dataKey)
	stanzas, err := wrapAll(h.dataKey, &h.preamble, to)
	if err != nil {
		return err
	}
	s := slot{sequence: h.sequence + 1, stanzas: stanzas}
	b, err := s.encode(&h.preamble, h.dataKey)
	if err != nil {
		return err
	}
	state := func(s string) []byte {
		sector := make([]byte, preambleSize-fixedSize)
		copy(sector, s)
		return sector
	}
	for _, step := range []struct {
		data   []byte
		offset int
	}{
		{state(stateRewrapped), fixedSize},
		{b, h.slotOffset(1 - h.from)},
		{b, h.slotOffset(h.from)},
		{state(stateWhole), fixedSize},
	} {
		_, err := f.WriteAt(step.data, int64(step.offset))
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			return failure.Hint(fmt.Errorf("write the header: %w", err), "the file still opens, with the keys from before or the new ones; rewrap it again")
		}
	}
	return nil
}

// Fixed returns the part of a sealed file that never changes, for digests that
// are to outlive a Rewrap: the fixed preamble, then the payload. It needs no
// key and authenticates nothing.
func Fixed(r io.ReaderAt, size int64) (io.Reader, error) {
	b, err := readHeaderBytes(r, size)
	if err != nil {
		return nil, err
	}
	p, err := parsePreamble(b)
	if err != nil {
		return nil, err
	}
	offset := int64(p.headerSize())
	return io.MultiReader(io.NewSectionReader(r, 0, fixedSize), io.NewSectionReader(r, offset, size-offset)), nil
}
