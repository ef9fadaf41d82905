package grep

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// content is what the first bytes of a file say that it holds.
type content int

const (
	contentText   content = iota
	contentBinary         // there is a NUL
	contentGzip           // RFC 1952
	contentXZ             // the .xz file format 1.2, section 2.1.1
	contentZstd           // RFC 8878, section 3.1.1
	contentBzip2
)

// headBytes is how much of a file decides about what it holds.
const headBytes = 64 << 10

// sniffBytes is what tells compressed files; more may be long in coming.
const sniffBytes = 10

// sniff tells what a file holds by its first bytes.
func sniff(head []byte) content {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return contentGzip
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return contentXZ
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return contentZstd
	case len(head) >= 10 && string(head[:3]) == "BZh" && '1' <= head[3] && head[3] <= '9' &&
		(string(head[4:10]) == "1AY&SY" || string(head[4:10]) == "\x17\x72\x45\x38\x50\x90"):
		return contentBzip2
	case bytes.IndexByte(head[:min(len(head), headBytes)], 0) >= 0:
		return contentBinary
	}
	return contentText
}

// Beginning returns the first bytes of a file, n at most; of a compressed one,
// of its text. Of a pipe it is what comes at once. What cannot be read is left
// out: whoever searches the file says so.
func Beginning(r io.Reader, n int) []byte {
	head := make([]byte, headBytes)
	k, _ := fill(r, head, sniffBytes)
	head = head[:k]
	kind := sniff(head)
	if kind == contentText || kind == contentBinary {
		return head[:min(n, k)]
	}
	unpacked, release, err := unpack(io.MultiReader(bytes.NewReader(head), r), kind)
	if err != nil {
		return nil
	}
	defer release()
	text := make([]byte, n)
	k, _ = io.ReadFull(unpacked, text)
	return text[:k]
}

// maxDictionary is the memory that a compressed file may ask for: xz -9 asks
// for 64 MiB.
const maxDictionary = 64 << 20

// unpack returns the text of a compressed file, and what releases it.
func unpack(r io.Reader, kind content) (io.Reader, func(), error) {
	in := bufio.NewReaderSize(r, 64<<10)
	switch kind {
	case contentGzip:
		z, err := gzip.NewReader(in)
		return z, func() {}, err
	case contentXZ:
		if err := checkDictionary(in); err != nil {
			return nil, nil, err
		}
		z, err := xz.NewReader(in)
		return z, func() {}, err
	case contentZstd:
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case contentBzip2:
		return bzip2.NewReader(in), func() {}, nil
	}
	return nil, nil, fmt.Errorf("content %d is not compressed", kind)
}

// checkDictionary refuses an .xz file whose first block asks for more memory
// than maxDictionary; the library would take it before it reads a byte. Later
// blocks of one file are made with the same settings by all known programs.
// Sections of the format: 2.1.1 stream header, 3.1 block header, 1.2 integers,
// 5.3.1 properties of LZMA2.
func checkDictionary(in *bufio.Reader) error {
	const streamHeader, blockHeader = 12, 32
	h, err := in.Peek(streamHeader + blockHeader)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(h) < streamHeader+2 {
		return io.ErrUnexpectedEOF
	}
	b := h[streamHeader:]
	flags, i := b[1], 2
	for _, present := range []byte{0x40, 0x80} { // the sizes before and after
		if flags&present == 0 {
			continue
		}
		for i < len(b) && b[i]&0x80 != 0 {
			i++
		}
		i++
	}
	const lzma2 = 0x21
	if flags&3 != 0 || i+2 >= len(b) || b[i] != lzma2 {
		return nil // not what the library reads: it says so
	}
	bits := b[i+2]
	if bits > 40 || (2|uint64(bits)&1)<<(bits/2+11) > maxDictionary {
		return fmt.Errorf("unpacking it takes more than %d MiB of memory (unpack it with xz)", maxDictionary>>20)
	}
	return nil
}
