package packed

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// xzReader reads the .xz file format, version 1.2.1 (tukaani.org/xz), with the
// filter LZMA2: streams of blocks, each with a header that says how much memory
// it takes. What takes more than is allowed is refused before it is taken,
// in whichever block; that is why the container is read here. The index at the
// end of a stream, which says once more what was found, is passed over.
type xzReader struct {
	in    counted
	most  uint64    // bytes that a dictionary may have
	check byte      // kind of the check of blocks
	block io.Reader // content of the current block; nil: between blocks
	begin int64     // of its compressed bytes
	sum   hash.Hash // of its content; nil: no check that is known
	open  bool      // in a stream
	err   error
}

// counted counts what is read, byte by byte where that is wanted.
type counted struct {
	r *bufio.Reader
	n int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

func (c *counted) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

var errXZ = errors.New("it is no sound xz file")

func newXZ(in *bufio.Reader, maxDictionary uint64) *xzReader {
	return &xzReader{in: counted{r: in}, most: maxDictionary}
}

func (x *xzReader) Read(b []byte) (int, error) {
	for x.err == nil && len(b) > 0 {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(b)
		if x.sum != nil {
			x.sum.Write(b[:n])
		}
		if err == io.EOF {
			err = x.endBlock()
		}
		x.err = within(err)
		if n > 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// within makes an end into one that comes too early.
func within(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next begins a stream or a block. It returns io.EOF behind the last stream.
func (x *xzReader) next() error {
	if !x.open {
		return x.stream()
	}
	size, err := x.in.ReadByte()
	if err != nil {
		return within(err)
	}
	if size == 0 {
		x.open = false
		return within(x.index())
	}
	h := make([]byte, 4*(int(size)+1))
	h[0] = size
	if _, err := io.ReadFull(&x.in, h[1:]); err != nil {
		return within(err)
	}
	return x.beginBlock(h)
}

// stream reads the header of a stream, or the end of the file.
func (x *xzReader) stream() error {
	var h [12]byte
	for first := true; ; first = false {
		_, err := io.ReadFull(&x.in, h[:4])
		if err == io.EOF && x.in.n > 0 {
			return io.EOF
		}
		if err != nil {
			return within(err)
		}
		if binary.LittleEndian.Uint32(h[:]) != 0 || first && x.in.n == 4 {
			break // otherwise padding between streams
		}
	}
	if _, err := io.ReadFull(&x.in, h[4:]); err != nil {
		return within(err)
	}
	if !bytes.Equal(h[:7], []byte{0xfd, '7', 'z', 'X', 'Z', 0, 0}) || h[7] > 15 || crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) {
		return fmt.Errorf("%w: a stream without header", errXZ)
	}
	x.check, x.open = h[7], true
	return nil
}

// beginBlock begins a block with a header.
func (x *xzReader) beginBlock(h []byte) error {
	body := h[:len(h)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(h[len(h)-4:]) {
		return fmt.Errorf("%w: the header of a block is damaged", errXZ)
	}
	flags, rest := body[1], body[2:]
	for _, bit := range []byte{0x40, 0x80} { // sizes, compressed and not
		if flags&bit == 0 {
			continue
		}
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			return fmt.Errorf("%w: a block without size", errXZ)
		}
		rest = rest[n:]
	}
	if flags&0x3f != 0 || len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 {
		return fmt.Errorf("%w, or one with filters beside LZMA2", errXZ)
	}
	bits := rest[2]
	if bits > 40 {
		return fmt.Errorf("%w: a dictionary of no size", errXZ)
	}
	size := uint64(2|bits&1) << (bits/2 + 11)
	if bits == 40 || size > x.most {
		return fmt.Errorf("its dictionary is larger than %d MiB (unpack it with xz)", x.most>>20)
	}
	x.begin = x.in.n
	r, err := lzma.Reader2Config{DictCap: int(size)}.NewReader2(&x.in)
	if err != nil {
		return within(err)
	}
	x.block = r
	switch x.check {
	case 1:
		x.sum = crc32.NewIEEE()
	case 4:
		x.sum = crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		x.sum = sha256.New()
	default:
		x.sum = nil
	}
	return nil
}

// endBlock reads what is behind the content of a block and checks it.
func (x *xzReader) endBlock() error {
	x.block = nil
	if err := x.padding(x.in.n - x.begin); err != nil {
		return err
	}
	want := make([]byte, [...]int{0, 4, 8, 16, 32, 64}[(int(x.check)+2)/3])
	if _, err := io.ReadFull(&x.in, want); err != nil {
		return within(err)
	}
	if x.sum == nil {
		return nil
	}
	got := x.sum.Sum(nil)
	if x.check != 10 { // the hashes of Go are big endian, those of the file are not
		for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
			got[i], got[j] = got[j], got[i]
		}
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: the content of a block is damaged", errXZ)
	}
	return nil
}

// padding reads the NULs that make a length a multiple of four.
func (x *xzReader) padding(length int64) error {
	for range -length & 3 {
		b, err := x.in.ReadByte()
		if err != nil {
			return within(err)
		}
		if b != 0 {
			return fmt.Errorf("%w: padding of something", errXZ)
		}
	}
	return nil
}

// index passes over the index and the footer of a stream.
func (x *xzReader) index() error {
	begin := x.in.n - 1
	count, err := binary.ReadUvarint(&x.in)
	for ; err == nil && count > 0; count-- {
		if _, err = binary.ReadUvarint(&x.in); err == nil {
			_, err = binary.ReadUvarint(&x.in)
		}
	}
	if err != nil {
		return err
	}
	if err := x.padding(x.in.n - begin); err != nil {
		return err
	}
	var end [4 + 12]byte
	if _, err := io.ReadFull(&x.in, end[:]); err != nil {
		return err
	}
	if string(end[14:]) != "YZ" {
		return fmt.Errorf("%w: a stream without end", errXZ)
	}
	return nil
}
