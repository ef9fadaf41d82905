package archive

import (
	"encoding/binary"
	"io"
)

const (
	zstdMagic      = "\x28\xb5\x2f\xfd"
	zstdSkippable  = "\x2a\x4d\x18" // after a byte 0x50 to 0x5f
	zstdBlockBytes = 128 << 10      // most that a block packs or unpacks to
)

// zstdFrame passes a zstd stream on, following the framing of RFC 8878 section
// 3.1.1 with it. The decoder would take frame after frame, skip some, and
// unpack a stream without end; and of a frame of one segment it would make
// the window as large as the frame says. This refuses all but one frame,
// without a dictionary, of a bounded window, and sees where it ends.
type zstdFrame struct {
	src    io.Reader
	window uint64 // most that is allowed
	off    int64

	state    int
	head     [18]byte // what of a header was seen: that of the frame has 18 bytes at most
	have     int
	want     int
	skip     int64 // left of a block
	last     bool  // the block is the last one
	checksum bool

	problem *Error // what was refused
}

// What of a frame comes next.
const (
	inDescriptor = iota // magic number and descriptor, 5 bytes
	inHeader            // what the descriptor says
	inBlockHeader
	inBlock
	inChecksum
	afterFrame
)

func (f *zstdFrame) Read(p []byte) (int, error) {
	if f.problem != nil {
		return 0, f.problem
	}
	n, err := f.src.Read(p)
	if e := f.follow(p[:n]); e != nil {
		f.problem = e
		return 0, e
	}
	if err == io.EOF && f.state != afterFrame {
		f.problem = refusePacked(CodeTruncated, f.off, "the package ends within the zstd frame")
		return n, f.problem
	}
	return n, err
}

// follow takes the next bytes of the stream.
func (f *zstdFrame) follow(p []byte) *Error {
	if f.want == 0 {
		f.want = 5
	}
	for len(p) > 0 {
		switch f.state {
		case afterFrame:
			return refusePacked(CodeTrailing, f.off, "bytes after the end of the zstd frame")
		case inBlock:
			n := min(f.skip, int64(len(p)))
			f.skip -= n
			f.off += n
			p = p[n:]
			if f.skip == 0 {
				f.afterBlock()
			}
		default:
			n := copy(f.head[f.have:f.want], p)
			f.have += n
			f.off += int64(n)
			p = p[n:]
			if f.have == f.want {
				if e := f.header(); e != nil {
					return e
				}
			}
		}
	}
	return nil
}

// expect sets what comes next, and how long it is.
func (f *zstdFrame) expect(state, bytes int) {
	f.state, f.have, f.want = state, 0, bytes
}

// afterBlock sets what comes after a block.
func (f *zstdFrame) afterBlock() {
	switch {
	case !f.last:
		f.expect(inBlockHeader, 3)
	case f.checksum:
		f.expect(inChecksum, 4)
	default:
		f.state = afterFrame
	}
}

// header looks at a header that has been seen whole.
func (f *zstdFrame) header() *Error {
	switch f.state {
	case inDescriptor:
		if string(f.head[:4]) != zstdMagic {
			return refusePacked(CodeFormat, 0, "it does not begin with a zstd frame")
		}
		d := f.head[4]
		if d&0x08 != 0 {
			return refusePacked(CodeCorrupt, f.off, "a reserved bit of the zstd frame is set")
		}
		f.checksum = d&0x04 != 0
		window, dictionary, size := f.fields()
		f.state, f.want = inHeader, 5+window+dictionary+size // head keeps the descriptor
		if f.want == 5 {
			return f.header()
		}
	case inHeader:
		if e := f.frameHeader(); e != nil {
			return e
		}
		f.expect(inBlockHeader, 3)
	case inBlockHeader:
		h := uint32(f.head[0]) | uint32(f.head[1])<<8 | uint32(f.head[2])<<16
		f.last = h&1 != 0
		size := int64(h >> 3)
		switch h >> 1 & 3 {
		case 1: // one byte, repeated
			size = 1
		case 3:
			return refusePacked(CodeCorrupt, f.off, "a zstd block of the reserved type")
		}
		if h>>3 > zstdBlockBytes {
			return refusePacked(CodeCorrupt, f.off, "a zstd block of %d bytes; %d are the most there can be", h>>3, zstdBlockBytes)
		}
		f.state, f.skip = inBlock, size
		if size == 0 {
			f.afterBlock()
		}
	case inChecksum:
		f.state = afterFrame
	}
	return nil
}

// fields returns the lengths of the fields that follow the descriptor.
func (f *zstdFrame) fields() (window, dictionary, size int) {
	d := f.head[4]
	single := d&0x20 != 0
	if !single {
		window = 1
	}
	dictionary = []int{0, 1, 2, 4}[d&3]
	size = []int{0, 2, 4, 8}[d>>6]
	if single && size == 0 {
		size = 1
	}
	return window, dictionary, size
}

// frameHeader looks at the window and the dictionary.
func (f *zstdFrame) frameHeader() *Error {
	windowBytes, dictionaryBytes, sizeBytes := f.fields()
	rest := f.head[5:f.want]
	for _, b := range rest[windowBytes : windowBytes+dictionaryBytes] {
		if b != 0 {
			return refusePacked(CodeFormat, f.off, "it needs a zstd dictionary")
		}
	}
	var window uint64
	if windowBytes == 1 {
		base := uint64(1) << (10 + rest[0]>>3)
		window = base + base/8*uint64(rest[0]&7)
	} else {
		var size [8]byte
		copy(size[:], rest[dictionaryBytes:])
		window = binary.LittleEndian.Uint64(size[:])
		if sizeBytes == 2 {
			window += 256
		}
	}
	if window > f.window {
		return refusePacked(CodeTooLarge, f.off, "unpacking it takes a window of %d bytes; %d are allowed (zstd --long=%d is the most)", window, f.window, log2(f.window))
	}
	return nil
}

// log2 rounds down.
func log2(n uint64) int {
	bits := -1
	for ; n > 0; n >>= 1 {
		bits++
	}
	return bits
}
