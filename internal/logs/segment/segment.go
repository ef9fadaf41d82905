// Package segment is the file in which the store keeps records of one stream:
// compressed by what log lines have in common, and searchable without
// unpacking more than a question needs.
//
// A record is split into a template and variables. A variable is a token, that
// is a run of bytes without delimiter, that has a digit; the rest, delimiters
// included, is the template. The time that most records begin with is neither:
// it is replaced by a place that remembers how it was written, since the
// number is kept beside the record anyway. So
//
//	Nov 22 05:55:12 web1 sshd[712]: Failed password for root from 192.0.2.7
//
// becomes the template "‹time› ‹1› sshd[‹2›]: Failed password for root from ‹3›"
// and the values web1, 712 and 192.0.2.7. Records are kept in blocks of about
// 4 MiB. A block has one dictionary of templates, and one column for each
// place of each template: values that resemble each other lie together.
//
// What a search for a literal does is decided in the dictionary first: in
// which ways can these bytes lie in an instance of this template? Templates
// have no digits and variables have no delimiters, so there are few ways, and
// each says what a column must hold: a value equal to, beginning with, ending
// with or containing a part of the literal. Each column remembers the lengths
// and the bytes of its values (a stamp), and each block has a Bloom filter of
// its values; most columns are ruled out by these, and only those left are
// unpacked. The answer is exact, so that counting needs no text at all.
//
// The idea of templates and typed variables is that of CLP (Rodrigues et al.,
// OSDI 2021), stamps that of LogGrep (Wei et al., EuroSys 2023), the filter a
// split block Bloom filter (Putze et al., 2007; as in Apache Parquet). The
// bytes are described in docs/formats/logs-segment.md.
package segment

import (
	"fmt"
	"hash/crc32"
	"io"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
)

const (
	magic   = "MOLSEG1\n"
	trailer = "MOLSEND\n"

	// targetBlock is how many bytes of raw records a block holds before the
	// next one begins; the last record may exceed it.
	targetBlock = 4 << 20
	// targetFrame is how many bytes of columns are compressed together.
	targetFrame = 256 << 10
	// maxTemplates bounds the dictionary of a block: records beyond it are
	// kept whole.
	maxTemplates = 4096
	// maxVariables bounds the places of a template; longer records are kept
	// whole.
	maxVariables = 256

	// MaxRecord is the size of the largest record that a segment takes, in
	// bytes.
	MaxRecord = 16 << 20
	// maxSection bounds what a section of a file may unpack to, in bytes.
	maxSection = 128 << 20
	maxBlocks  = 1 << 20
	maxRecords = 1 << 20 // in a block
)

// Meta says where all records of a segment come from.
type Meta struct{ event.Origin }

// Data is the content of a segment: a file, or one that is decrypted as it is
// read. It is safe for concurrent use.
type Data interface {
	io.ReaderAt
	Size() int64 // bytes
}

// Summary says what a segment holds.
type Summary struct {
	Records  int64
	RawBytes int64 // of the records, without newlines between them
	Bytes    int64 // of the file
	MinTime  int64 // nanoseconds since 1970-01-01 UTC, inclusive
	MaxTime  int64
	Blocks   int
}

// CorruptError says that a segment is not as it was written.
type CorruptError struct {
	Offset int64 // in the file, where the damaged part begins
	What   string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("damaged at byte %d: %s", e.Offset, e.What)
}

// Unwrap says that a damaged segment cannot be trusted.
func (e *CorruptError) Unwrap() error { return failure.New(failure.Untrustworthy, e.What) }

func corrupt(off int64, format string, args ...any) error {
	return &CorruptError{off, fmt.Sprintf(format, args...)}
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli()) }
