package state

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"syscall"

	"github.com/mobileops/mobileops/internal/state/boltfile"
)

// A seal is the checksum of every page of state.db that is in use, because
// bbolt keeps none: without it, a flipped bit in a value would be read as if it
// had been written, and one in the newer meta page would silently undo the
// last transaction. It is written beside the database (state.sum) after each
// transaction, under the same exclusive lease, and appended to backups.
//
// The seal needs no fsync: bbolt fsyncs first, so after a crash it is at most
// older than the database. One transaction older, the pages that it knows and
// that are still in use must match, since bbolt never overwrites a page that is
// in use; those that went out of use may have been overwritten by a transaction
// that did not come to its end. The rest is held to the rules of the format
// (structure) until the next transaction seals it again. A database older than
// its seal has lost something.
//
// Encoding, little endian: the magic, page size uint32, count of pages uint32,
// transaction uint64, inode uint64, size, mtime and ctime in nanoseconds int64,
// one CRC-32C uint32 for each page (0: not in use), CRC-32C of all before.
type seal struct {
	pageSize uint32
	txid     uint64
	id       identity
	sums     []uint32
}

const (
	sealMagic      = "MOSEAL\x00\x01"
	sealHeaderSize = 8 + 4 + 4 + 8 + 4*8
	sealMaxPages   = 1 << 28 // 1 TiB of 4 KiB pages
	trailerMagic   = "MOSEALED"
	trailerSize    = 8 + 8 // length of the seal uint64, trailerMagic

	// alwaysVerified is the size up to which every lease reads and sums the
	// whole database, which takes about a millisecond. A larger one is summed
	// when its identity is not that of the last transaction, and by Check.
	alwaysVerified = 4 << 20
)

// identity tells whether a file was touched since we last wrote it.
type identity struct {
	ino                uint64
	size, mtime, ctime int64
}

func identify(f *os.File) (identity, error) {
	fi, err := f.Stat()
	if err != nil {
		return identity{}, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return identity{ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}, nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func (s *seal) encode() []byte {
	b := make([]byte, 0, sealHeaderSize+4*len(s.sums)+4)
	le := binary.LittleEndian
	b = append(b, sealMagic...)
	b = le.AppendUint32(b, s.pageSize)
	b = le.AppendUint32(b, uint32(len(s.sums)))
	b = le.AppendUint64(b, s.txid)
	b = le.AppendUint64(b, s.id.ino)
	b = le.AppendUint64(b, uint64(s.id.size))
	b = le.AppendUint64(b, uint64(s.id.mtime))
	b = le.AppendUint64(b, uint64(s.id.ctime))
	for _, sum := range s.sums {
		b = le.AppendUint32(b, sum)
	}
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

// decodeSeal returns nil for anything that is not a whole, valid seal.
func decodeSeal(b []byte) *seal {
	le := binary.LittleEndian
	if len(b) < sealHeaderSize+4 || !bytes.HasPrefix(b, []byte(sealMagic)) {
		return nil
	}
	n := le.Uint32(b[12:])
	if n > sealMaxPages || len(b) != sealHeaderSize+4*int(n)+4 {
		return nil
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli()) != le.Uint32(b[len(body):]) {
		return nil
	}
	s := &seal{
		pageSize: le.Uint32(b[8:]),
		txid:     le.Uint64(b[16:]),
		id: identity{
			ino:   le.Uint64(b[24:]),
			size:  int64(le.Uint64(b[32:])),
			mtime: int64(le.Uint64(b[40:])),
			ctime: int64(le.Uint64(b[48:])),
		},
		sums: make([]uint32, n),
	}
	for i := range s.sums {
		s.sums[i] = le.Uint32(body[sealHeaderSize+4*i:])
	}
	return s
}

// readSeal reads the seal file; a missing or invalid one is nil.
func readSeal(path string) *seal {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return decodeSeal(b)
}

// writeSeal replaces the seal file. It cannot fail: without a seal the
// database is as good, only checked in another way.
func writeSeal(path string, s *seal) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	b := s.encode()
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Truncate(int64(len(b)))
	}
	if err != nil { // the disk is full
		os.Remove(path)
	}
}

// sealOf sums the pages in use of a database file, taking over the sums of
// last, which may be nil, where it is one transaction older: bbolt writes new
// content to pages that were not in use before, never over pages that were.
func sealOf(f *os.File, h boltfile.Header, last *seal) (*seal, error) {
	free, err := readFreelist(f, h)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	s := &seal{pageSize: uint32(h.PageSize), txid: h.Txid, sums: make([]uint32, h.Pages)}
	if s.id, err = identify(f); err != nil {
		return nil, err
	}
	if last != nil && (last.txid+1 != h.Txid || last.pageSize != s.pageSize) {
		last = nil
	}
	err = s.eachPage(f, func(id uint64) bool {
		if id < 2 || free.has(id) {
			return false
		}
		if last != nil && id < uint64(len(last.sums)) && last.sums[id] != 0 {
			s.sums[id] = last.sums[id]
			return false
		}
		return true
	}, func(id uint64, sum uint32) error {
		s.sums[id] = sum
		return nil
	})
	return s, err
}

// eachPage sums the pages for which want says so, reading neighbours at once.
func (s *seal) eachPage(f *os.File, want func(id uint64) bool, got func(id uint64, sum uint32) error) error {
	table := castagnoli()
	size := int(s.pageSize)
	buf := make([]byte, max(size, 256<<10))
	per := len(buf) / size
	n := uint64(len(s.sums))
	for id := uint64(0); id < n; {
		if !want(id) {
			id++
			continue
		}
		run := 1
		for run < per && id+uint64(run) < n && want(id+uint64(run)) {
			run++
		}
		b := buf[:run*size]
		if _, err := f.ReadAt(b, int64(id)*int64(size)); err != nil {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("%w: page %d is missing", ErrCorrupt, id)
			}
			return fmt.Errorf("read state.db at %d: %w", int64(id)*int64(size), err)
		}
		for i := range run {
			sum := crc32.Checksum(b[i*size:(i+1)*size], table)
			if sum == 0 {
				sum = 1 // 0 says "not in use"
			}
			if err := got(id+uint64(i), sum); err != nil {
				return err
			}
		}
		id += uint64(run)
	}
	return nil
}

// header is readHeader for a file that has, or had, this seal.
func (s *seal) header(f *os.File) (boltfile.Header, error) {
	h, err := readHeader(f)
	if s != nil && errors.Is(err, ErrForeign) {
		return h, fmt.Errorf("%w: its beginning was overwritten", ErrCorrupt)
	}
	return h, err
}

// verify compares a database file with its seal, nil where there is none. With
// thorough it always reads all of it. A nil error means that bbolt can be let
// near the file.
func (s *seal) verify(ctx context.Context, f *os.File, h boltfile.Header, thorough bool) error {
	if s != nil && s.pageSize != uint32(h.PageSize) {
		return fmt.Errorf("%w: its pages have %d bytes, and had %d when it was last written", ErrCorrupt, h.PageSize, s.pageSize)
	}
	if s != nil && h.Txid < s.txid {
		return fmt.Errorf("%w: it stands at transaction %d, but had reached %d: the last change is damaged, or an older file was put in its place", ErrCorrupt, h.Txid, s.txid)
	}
	if s != nil && h.Txid == s.txid && !thorough && h.Size > alwaysVerified {
		if id, err := identify(f); err == nil && id == s.id {
			return nil
		}
	}
	if s != nil && h.Txid <= s.txid+1 {
		if uint64(len(s.sums)) > h.Pages {
			return fmt.Errorf("%w: it has %d pages, and had %d", ErrCorrupt, h.Pages, len(s.sums))
		}
		known := func(id uint64) bool { return s.sums[id] != 0 }
		if h.Txid > s.txid {
			free, err := readFreelist(f, h)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			known = func(id uint64) bool { return s.sums[id] != 0 && !free.has(id) }
		}
		err := s.eachPage(f, known, func(id uint64, sum uint32) error {
			if sum != s.sums[id] {
				return fmt.Errorf("%w: page %d (offset %d) is not what was written", ErrCorrupt, id, int64(id)*h.PageSize)
			}
			return nil
		})
		if err != nil || h.Txid == s.txid {
			return err
		}
	}
	problems, err := structure(ctx, f, h)
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		return fmt.Errorf("%w: %s", ErrCorrupt, problems[0])
	}
	return nil
}
