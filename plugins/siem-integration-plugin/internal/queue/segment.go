package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A segment begins with 16 bytes: segmentMagic and the number of its first
// record. Then come records, all numbers little-endian:
//
//	4  recordMagic
//	4  CRC-32C (Castagnoli) of everything after it
//	4  length of id and event together
//	8  number of the record
//	2  length of the id
//	   id, event
const (
	segmentMagic = "MOQSEG1\n"
	recordMagic  = "MOr\x01"
	headerSize   = 16
	recordHeader = 22
)

// castagnoli is the polynomial for which processors have an instruction. The
// table is made once by the library, at the first use.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

type segment struct {
	path   string
	f      *os.File
	first  uint64 // number of its first record
	end    int64  // what is safely on the disk ends here
	broken bool   // a write failed: what follows end is not known
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d.seg", first))
}

// createSegment makes an empty segment that survives a power cut.
func createSegment(dir string, first uint64) (*segment, error) {
	path := segmentPath(dir, first)
	// One that a crash left without a record in it has the same name.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	head := binary.LittleEndian.AppendUint64([]byte(segmentMagic), first)
	if _, err = f.Write(head); err == nil {
		if err = f.Sync(); err == nil {
			err = syncDir(dir)
		}
	}
	if err != nil {
		f.Close()
		os.Remove(path)
		return nil, fmt.Errorf("queue: %w", err)
	}
	return &segment{path: path, f: f, first: first, end: headerSize}, nil
}

// listSegments opens the segments of dir in order. A file whose beginning is
// not that of a segment was being made when the machine stopped, if it is the
// last one; otherwise it is damaged, and put aside with another name.
func listSegments(dir string) ([]*segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	var list []*segment
	for _, e := range entries {
		stem, ok := strings.CutSuffix(e.Name(), ".seg")
		first, err := strconv.ParseUint(stem, 10, 64)
		if !ok || err != nil || len(stem) != 20 || first == 0 || !e.Type().IsRegular() {
			continue
		}
		s, err := openSegment(filepath.Join(dir, e.Name()), first)
		if errors.Is(err, errNoSegment) {
			if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(dir, e.Name()+".damaged")); err != nil {
				return nil, fmt.Errorf("open queue: %w", err)
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	return list, nil
}

var errNoSegment = errors.New("this is no segment of a queue")

func openSegment(path string, first uint64) (*segment, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	var head [headerSize]byte
	if n, _ := f.ReadAt(head[:], 0); n < headerSize || string(head[:8]) != segmentMagic || binary.LittleEndian.Uint64(head[8:]) != first {
		f.Close()
		return nil, errNoSegment
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open queue: %w", err)
	}
	return &segment{path: path, f: f, first: first, end: st.Size()}, nil
}

// append writes b and syncs it. After an error the segment is broken: the
// kernel may have forgotten what it could not write, so that a second fsync
// says nothing. The records before it stay readable.
func (s *segment) append(b []byte) error {
	_, err := s.f.WriteAt(b, s.end)
	if err == nil {
		err = fdatasync(s.f)
	}
	if err != nil {
		s.broken = true
		_ = s.f.Truncate(s.end)
		return fmt.Errorf("queue: %w", err)
	}
	return nil
}

func (s *segment) remove() error {
	err := os.Remove(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, s.f.Close())
}

// recover finds where the last segment ends, cuts off what is no record there,
// and returns the number of the record that comes next and how much was cut.
// What a crash left is at the end and nothing whole follows it.
func (s *segment) recover() (next uint64, cut int64, err error) {
	next = s.first
	at, good := int64(headerSize), int64(headerSize)
	buf := make([]byte, 1<<20)
	for at < s.end {
		n, err := s.f.ReadAt(buf[:min(int64(len(buf)), s.end-at)], at)
		if n == 0 {
			return 0, 0, fmt.Errorf("open queue: read %s: %w", s.path, err)
		}
		used, whole := 0, 0
		for used < n {
			rec, size, state := parseRecord(buf[used:n])
			if state == recordPart && at+int64(n) < s.end && used > 0 {
				break // the rest of it is in the next piece
			}
			if state == recordPart && at+int64(n) < s.end {
				buf = make([]byte, 2*len(buf))
				break
			}
			if state != recordWhole {
				used += 1 + nextMagic(buf[used+1:n])
				continue
			}
			used += size
			whole = used
			next = max(next, rec.Seq+1)
		}
		if whole > 0 {
			good = at + int64(whole)
		}
		at += int64(used)
	}
	if good < s.end {
		cut = s.end - good
		if err := s.f.Truncate(good); err != nil {
			return 0, 0, fmt.Errorf("open queue: cut %s: %w", s.path, err)
		}
		if err := s.f.Sync(); err != nil {
			return 0, 0, fmt.Errorf("open queue: %w", err)
		}
		s.end = good
	}
	return next, cut, nil
}

func appendRecord(b []byte, seq uint64, id string, raw []byte) []byte {
	start := len(b)
	b = append(b, recordMagic...)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(id)+len(raw)))
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(id)))
	b = append(b, id...)
	b = append(b, raw...)
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(b[start+8:], castagnoli()))
	return b
}

// What parseRecord found.
type recordState int

const (
	recordWhole recordState = iota
	recordPart              // it goes on after the end of the bytes
	recordBad               // no record, or a damaged one
)

// parseRecord reads the record at the beginning of b. The entry refers to b.
func parseRecord(b []byte) (Entry, int, recordState) {
	if len(b) < recordHeader {
		if n := min(len(b), len(recordMagic)); string(b[:n]) != recordMagic[:n] {
			return Entry{}, 0, recordBad
		}
		return Entry{}, 0, recordPart
	}
	length, idLen := int(binary.LittleEndian.Uint32(b[8:])), int(binary.LittleEndian.Uint16(b[20:]))
	if string(b[:4]) != recordMagic || length > MaxRecord+MaxID || idLen > MaxID || idLen > length {
		return Entry{}, 0, recordBad
	}
	size := recordHeader + length
	if len(b) < size {
		return Entry{}, 0, recordPart
	}
	if crc32.Checksum(b[8:size], castagnoli()) != binary.LittleEndian.Uint32(b[4:]) {
		return Entry{}, 0, recordBad
	}
	return Entry{
		Seq: binary.LittleEndian.Uint64(b[12:]),
		ID:  b[recordHeader : recordHeader+idLen : recordHeader+idLen],
		Raw: b[recordHeader+idLen : size : size],
	}, size, recordWhole
}

// nextMagic returns how far the next possible beginning of a record is away.
func nextMagic(b []byte) int {
	if i := bytes.Index(b, []byte(recordMagic)); i >= 0 {
		return i
	}
	// The last bytes may be the beginning of one.
	for i := max(0, len(b)-len(recordMagic)+1); i < len(b); i++ {
		if strings.HasPrefix(recordMagic, string(b[i:])) {
			return i
		}
	}
	return len(b)
}
