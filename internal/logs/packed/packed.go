// Package packed reads compressed files of logs: it tells how one is compressed
// by its first bytes, whatever its name is, and gives what is in it.
//
// Such a file may be anybody's, so that what unpacking takes is bounded: a file
// says how much memory it needs, and is refused before it is taken.
package packed

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// How files are compressed.
const (
	Gzip  = "gzip"  // RFC 1952
	XZ    = "xz"    // the .xz file format 1.2, section 2.1.1
	Zstd  = "zstd"  // RFC 8878, section 3.1.1
	Bzip2 = "bzip2" // bzip2's manual
)

// Sniffed is how many bytes at the beginning of a file tell how it is compressed.
const Sniffed = 10

// How returns how a file is compressed by its first bytes; "" when it is not.
func How(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return Gzip
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return XZ
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd
	case len(head) >= Sniffed && string(head[:3]) == "BZh" && head[3] >= '1' && head[3] <= '9' &&
		(string(head[4:10]) == "1AY&SY" || string(head[4:10]) == "\x17\x72\x45\x38\x50\x90"):
		return Bzip2
	}
	return ""
}

// Open begins to read a file from its beginning that is compressed as How said.
// One that asks for a dictionary of more bytes than allowed is refused. Closing
// what is returned releases memory, and leaves the file open.
func Open(file io.Reader, how string, maxDictionary uint64) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(file, 64<<10)
	switch how {
	case Gzip:
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		return z, nil
	case XZ:
		return io.NopCloser(newXZ(in, maxDictionary)), nil
	case Zstd:
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDictionary))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(in)), nil
	}
	return nil, fmt.Errorf("compression %q is not known", how)
}
