package journal

import (
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// defaultMaxField and systemdMaxField are the usual and the greatest value of
// Options.MaxField. systemd calls the latter DATA_SIZE_MAX.
const (
	defaultMaxField = 64 << 20
	systemdMaxField = 768 << 20
)

// codec decompresses values, one at a time.
type codec struct {
	max  int
	zstd *zstd.Decoder
	buf  []byte
}

func (c *codec) close() {
	if c.zstd != nil {
		c.zstd.Close()
	}
}

var errTooLarge = errors.New("larger than the limit")

// value returns "FIELD=value" of the data object at an offset. It is valid
// until the next call.
func (c *codec) value(f *file, offset uint64, o []byte) ([]byte, error) {
	packed := o[f.payload:]
	var err error
	switch flags := o[1]; flags {
	case 0:
		return packed, nil
	case flagZSTD:
		err = c.unzstd(packed)
	case flagLZ4:
		err = c.unlz4(packed)
	case flagXZ:
		err = c.unxz(packed)
	default:
		return nil, f.bad(offset, "value with the unknown flags %#x", flags)
	}
	if errors.Is(err, errTooLarge) {
		return nil, f.bad(offset, "compressed field of more than %d bytes, which is the limit", c.max)
	}
	if err != nil {
		return nil, f.bad(offset, "compressed field: %v", err)
	}
	return c.buf, nil
}

func (c *codec) unzstd(packed []byte) (err error) {
	if c.zstd == nil {
		c.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(uint64(c.max)), zstd.WithDecoderMaxWindow(uint64(max(c.max, 1<<20))))
		if err != nil {
			return err
		}
	}
	c.trim()
	c.buf, err = c.zstd.DecodeAll(packed, c.buf[:0])
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) || len(c.buf) > c.max {
		return errTooLarge
	}
	return err
}

func (c *codec) unlz4(packed []byte) error {
	if len(packed) <= 8 {
		return errors.New("LZ4 without data")
	}
	n := le.Uint64(packed)
	if n > uint64(c.max) {
		return errTooLarge
	}
	if n > 255*uint64(len(packed)) { // more than LZ4 can make of it
		return errors.New("LZ4 with an impossible size")
	}
	c.room(int(n))
	k, err := lz4.UncompressBlock(packed[8:], c.buf)
	if err == nil && k != int(n) {
		err = errors.New("LZ4 of another size than it says")
	}
	return err
}

func (c *codec) unxz(packed []byte) error {
	// The size of the dictionary is in the header of the first block: byte 12 is
	// the size of that header, and the filter LZMA2 (0x21) has one byte. What is
	// greater than the limit is refused before memory is taken for it. systemd
	// uses 1 MiB.
	if len(packed) < 18 || packed[13]&0xc0 != 0 || packed[14] != 0x21 || packed[15] != 1 {
		return errors.New("XZ of another kind than systemd writes")
	}
	bits := packed[16]
	if dict := uint64(2|bits&1) << (bits/2 + 11); bits > 40 || dict > uint64(max(c.max, 1<<20)) {
		return errTooLarge
	}
	r, err := xz.ReaderConfig{DictCap: 1 << 20, SingleStream: true}.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	c.trim()
	w := bytes.NewBuffer(c.buf[:0])
	n, err := io.Copy(w, io.LimitReader(r, int64(c.max)+1))
	c.buf = w.Bytes()
	if n > int64(c.max) {
		return errTooLarge
	}
	return err
}

// room makes the buffer n bytes long.
func (c *codec) room(n int) {
	c.trim()
	if cap(c.buf) < n {
		c.buf = make([]byte, n)
	}
	c.buf = c.buf[:n]
}

// trim gives the memory of an unusually large field back.
func (c *codec) trim() {
	if cap(c.buf) > 4<<20 {
		c.buf = nil
	}
}
