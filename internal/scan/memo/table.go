package memo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// The layout of a table; all numbers are little-endian.
const (
	magic       = "mopsmemo"
	formatNow   = 1
	headerBytes = 64
	recordBytes = 48 // fingerprint, hour of use, length, offset in the heap, checksum
	maxFanout   = 20 // bits
)

// castagnoli is the polynomial that processors have an instruction for.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// table is the part of the file that never changes: records sorted by fingerprint,
// in front of them where those of each prefix begin, behind them their values.
type table struct {
	raw     []byte // header, fanout, records, heap
	mapped  bool
	bits    uint // of the prefix
	records uint32
	index   []byte // the fanout
	sorted  []byte // the records
	heap    []byte
}

// errDamaged says that a file is not one of ours, or not a whole one.
var errDamaged = errors.New("damaged")

// extent reads a header and returns where the table ends.
func extent(header []byte) (t table, end int64, err error) {
	if len(header) < headerBytes || string(header[:8]) != magic ||
		binary.LittleEndian.Uint32(header[8:]) != formatNow ||
		binary.LittleEndian.Uint32(header[60:]) != crc32.Checksum(header[:60], castagnoli()) {
		return t, 0, errDamaged
	}
	bits := binary.LittleEndian.Uint32(header[12:])
	records := binary.LittleEndian.Uint64(header[16:])
	heap := binary.LittleEndian.Uint64(header[24:])
	if bits > maxFanout || records > maxLimit/recordBytes || heap > maxLimit {
		return t, 0, errDamaged
	}
	t.bits, t.records = uint(bits), uint32(records)
	return t, headerBytes + fanoutBytes(t.bits) + int64(records)*recordBytes + int64(heap), nil
}

func fanoutBytes(bits uint) int64 { return (1<<bits + 1) * 4 }

// newTable takes the parts of a table out of raw.
func newTable(raw []byte) (*table, error) {
	t, end, err := extent(raw)
	if err != nil || end > int64(len(raw)) {
		return nil, errDamaged
	}
	t.raw = raw[:end]
	rest := t.raw[headerBytes:]
	t.index, rest = rest[:fanoutBytes(t.bits)], rest[fanoutBytes(t.bits):]
	t.sorted, t.heap = rest[:int64(t.records)*recordBytes], rest[int64(t.records)*recordBytes:]
	return &t, nil
}

// load reads the table and the frames of an open file. A note says what could not
// be used; an error is one of reading.
func load(f *os.File, size int64) (*table, *tail, string, error) {
	const begun = "the memo of scans was damaged and is begun again"
	header := make([]byte, headerBytes)
	if _, err := f.ReadAt(header, 0); errors.Is(err, io.EOF) {
		if size == 0 { // another process has just made it
			return nil, nil, "", nil
		}
		return nil, nil, begun, nil
	} else if err != nil {
		return nil, nil, "", err
	}
	_, end, err := extent(header)
	if err != nil || end > size {
		return nil, nil, begun, nil
	}
	raw, err := unix.Mmap(int(f.Fd()), 0, int(end), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, "", err
	}
	t, err := newTable(raw)
	if err != nil { // changed between the two readings
		_ = unix.Munmap(raw)
		return nil, nil, begun, nil
	}
	t.mapped = true
	tail, whole, err := readTail(f, end, size)
	if err != nil {
		t.close()
		return nil, nil, "", err
	}
	note := ""
	if !whole {
		note = "the end of the memo of scans was damaged and is dropped"
	}
	return t, tail, note, nil
}

func (t *table) close() {
	if t != nil && t.mapped {
		_ = unix.Munmap(t.raw)
		t.mapped = false
	}
}

// guard turns a fault in mapped memory (a file that somebody truncated, a disk that
// cannot be read) into damage. Its result is deferred.
func guard(bad *bool) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			if _, ok := r.(interface{ Addr() uintptr }); !ok {
				panic(r)
			}
			*bad = true
		}
	}
}

// find returns a copy of the entry of a fingerprint. bad says that there is one,
// but not as it was written.
func (t *table) find(print fingerprint) (e entry, ok, bad bool) {
	defer guard(&bad)()
	prefix := binary.BigEndian.Uint32(print[:]) >> (32 - t.bits) // a shift by 32 gives 0
	low := binary.LittleEndian.Uint32(t.index[4*prefix:])
	high := binary.LittleEndian.Uint32(t.index[4*prefix+4:])
	if high > t.records {
		return e, false, true
	}
	for low < high {
		middle := (low + high) / 2
		switch bytes.Compare(t.record(middle)[:32], print[:]) {
		case -1:
			low = middle + 1
		case 1:
			high = middle
		default:
			e, ok = t.entry(middle)
			e.value = append([]byte(nil), e.value...)
			return e, ok, !ok
		}
	}
	return e, false, false
}

func (t *table) record(i uint32) []byte { return t.sorted[int(i)*recordBytes : int(i+1)*recordBytes] }

// entry returns record i, if its checksum says that it is as it was written. Its
// value lies in the table.
func (t *table) entry(i uint32) (e entry, ok bool) {
	r := t.record(i)
	length, offset := binary.LittleEndian.Uint32(r[36:]), binary.LittleEndian.Uint32(r[40:])
	if uint64(offset)+uint64(length) > uint64(len(t.heap)) {
		return e, false
	}
	value := t.heap[offset : offset+length]
	sum := crc32.Update(crc32.Checksum(r[:44], castagnoli()), castagnoli(), value)
	if binary.LittleEndian.Uint32(r[44:]) != sum {
		return e, false
	}
	return entry{print: fingerprint(r[:32]), used: binary.LittleEndian.Uint32(r[32:]), value: value}, true
}

// appendHeader appends the header of a table.
func appendHeader(b []byte, bits uint, records uint32, heap int64) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, formatNow)
	b = binary.LittleEndian.AppendUint32(b, uint32(bits))
	b = binary.LittleEndian.AppendUint64(b, uint64(records))
	b = binary.LittleEndian.AppendUint64(b, uint64(heap))
	b = append(b, make([]byte, headerBytes-4-(len(b)-start))...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli()))
}

// appendRecord appends the record of an entry whose value is at offset in the heap.
func appendRecord(b []byte, e *entry, offset uint32) []byte {
	start := len(b)
	b = append(b, e.print[:]...)
	b = binary.LittleEndian.AppendUint32(b, e.used)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.value)))
	b = binary.LittleEndian.AppendUint32(b, offset)
	sum := crc32.Update(crc32.Checksum(b[start:], castagnoli()), castagnoli(), e.value)
	return binary.LittleEndian.AppendUint32(b, sum)
}
