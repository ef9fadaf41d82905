package memo

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
)

// A frame holds what one process added: magic, length of its records, how many, and
// a checksum of both numbers and the records. A record is fingerprint, hour of use,
// length, value.
const (
	frameMagic       = 0x6d72666d // "mfrm"
	frameHeaderBytes = 16
	frameRecordBytes = 40
	maxFrame         = 4 << 20 // bytes of records, from which the next frame is begun
)

// The frames of a file are put into a map when it is opened, so there is an end to
// them: an eighth of the table, but no less and no more than this.
const (
	minTail = 2 << 20
	maxTail = 8 << 20
)

// tail are the entries of the frames behind the table. Later ones win.
type tail struct {
	entries []entry
	at      map[uint64]uint32 // first eight bytes of a fingerprint → the last entry that has them
	end     int64             // where the last whole frame ends in the file
}

func (t *tail) find(print fingerprint) (entry, bool) {
	i, ok := t.at[binary.LittleEndian.Uint64(print[:])]
	if !ok || t.entries[i].print != print {
		return entry{}, false
	}
	return t.entries[i], true
}

// readTail reads the frames from start to size. whole is false when what follows
// the last good frame isn't one: a process died while it wrote, or still writes.
func readTail(f *os.File, start, size int64) (*tail, bool, error) {
	if size-start > 4*maxTail { // never written by us
		return &tail{end: start}, false, nil
	}
	b := make([]byte, size-start)
	n, err := f.ReadAt(b, start)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	t, used := parseTail(b[:n])
	t.end = start + int64(used)
	return t, used == len(b), nil
}

// parseTail takes frames from the front of b, up to the first that isn't whole, and
// returns how many bytes they are. The values lie in b.
func parseTail(b []byte) (*tail, int) {
	t := &tail{at: make(map[uint64]uint32, len(b)/64)}
	used := 0
	for {
		records, count, ok := nextFrame(b[used:])
		if !ok {
			return t, used
		}
		used += frameHeaderBytes + len(records)
		for range count {
			length := binary.LittleEndian.Uint32(records[36:])
			e := entry{
				print: fingerprint(records[:32]), used: binary.LittleEndian.Uint32(records[32:]),
				value: records[frameRecordBytes : frameRecordBytes+length],
			}
			records = records[frameRecordBytes+length:]
			t.at[binary.LittleEndian.Uint64(e.print[:])] = uint32(len(t.entries))
			t.entries = append(t.entries, e)
		}
	}
}

// nextFrame returns the records of the frame at the front of b, after it has seen
// that they are whole.
func nextFrame(b []byte) (records []byte, count uint32, ok bool) {
	if len(b) < frameHeaderBytes || binary.LittleEndian.Uint32(b) != frameMagic {
		return nil, 0, false
	}
	length := binary.LittleEndian.Uint32(b[4:])
	count = binary.LittleEndian.Uint32(b[8:])
	if uint64(length) > uint64(len(b)-frameHeaderBytes) {
		return nil, 0, false
	}
	records = b[frameHeaderBytes : frameHeaderBytes+length]
	sum := crc32.Update(crc32.Checksum(b[4:12], castagnoli()), castagnoli(), records)
	if binary.LittleEndian.Uint32(b[12:]) != sum {
		return nil, 0, false
	}
	// The checksum is no secret, so the lengths are looked at too.
	rest := records
	for range count {
		if len(rest) < frameRecordBytes {
			return nil, 0, false
		}
		length := binary.LittleEndian.Uint32(rest[36:])
		if length > MaxResult || uint64(length) > uint64(len(rest)-frameRecordBytes) {
			return nil, 0, false
		}
		rest = rest[frameRecordBytes+length:]
	}
	return records, count, len(rest) == 0
}

// appendFrames appends entries as frames.
func appendFrames(b []byte, entries []entry) []byte {
	for len(entries) > 0 {
		start := len(b)
		b = append(b, make([]byte, frameHeaderBytes)...)
		n := 0
		for n < len(entries) && (n == 0 || len(b)-start < maxFrame) {
			e := &entries[n]
			b = append(b, e.print[:]...)
			b = binary.LittleEndian.AppendUint32(b, e.used)
			b = binary.LittleEndian.AppendUint32(b, uint32(len(e.value)))
			b = append(b, e.value...)
			n++
		}
		entries = entries[n:]
		header := b[start : start+frameHeaderBytes]
		binary.LittleEndian.PutUint32(header, frameMagic)
		binary.LittleEndian.PutUint32(header[4:], uint32(len(b)-start-frameHeaderBytes))
		binary.LittleEndian.PutUint32(header[8:], uint32(n))
		sum := crc32.Update(crc32.Checksum(header[4:12], castagnoli()), castagnoli(), b[start+frameHeaderBytes:])
		binary.LittleEndian.PutUint32(header[12:], sum)
	}
	return b
}
