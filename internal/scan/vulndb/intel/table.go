package intel

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"sort"
	"time"

	"golang.org/x/sys/unix"
)

// The file of a table, all numbers little endian:
//
//	 0  8 bytes  "MOINTEL" and the version, 1
//	 8  uint32   1: KEV, 2: EPSS
//	12  uint32   CRC-32C of everything from byte 16 on
//	16  int64    the date that the document has, in seconds since 1970
//	24  uint64   how many rows
//	32  uint32   size of a row
//	36  uint32   size of the JSON that says where it is from (About)
//	40  uint64   size of the words
//	48           the JSON, the rows in the order of their keys, the words
const (
	magic      = "MOINTEL\x01"
	headerSize = 48
	kindKEV    = 1
	kindEPSS   = 2

	maxTable = 512 << 20 // bytes
	maxAbout = 16 << 10
)

// About says where a table is from.
type About struct {
	Edition  string    `json:"edition,omitempty"` // CISA's version of the catalogue, or EPSS's of the model
	Source   string    `json:"source,omitempty"`  // the file that was imported
	Imported time.Time `json:"imported,omitzero"`
	By       string    `json:"by,omitempty"`
}

// Table is what is known of many CVEs. It is safe for concurrent use.
type Table struct {
	About
	Date time.Time // of what the document says: when CISA released it, or the day of the scores

	kind uint32
	rows []byte
	heap []byte
	file []byte // all of it; nil of one that was parsed
}

// Len returns of how many CVEs something is known.
func (t *Table) Len() int {
	if t == nil {
		return 0
	}
	return len(t.rows) / rowSize(t.kind)
}

func rowSize(kind uint32) int {
	if kind == kindKEV {
		return kevRow
	}
	return epssRow
}

// find returns the row of a CVE.
func (t *Table) find(kind uint32, cve string) ([]byte, bool) {
	if t == nil || t.kind != kind {
		return nil, false
	}
	k, ok := key(cve)
	if !ok {
		return nil, false
	}
	size, n := rowSize(kind), t.Len()
	i := sort.Search(n, func(i int) bool { return binary.LittleEndian.Uint64(t.rows[i*size:]) >= k })
	if i == n || binary.LittleEndian.Uint64(t.rows[i*size:]) != k {
		return nil, false
	}
	return t.rows[i*size : (i+1)*size], true
}

// Append appends the file of the table to b.
func (t *Table) Append(b []byte) ([]byte, error) {
	defer runtime.KeepAlive(t)
	about, err := json.Marshal(t.About)
	if err != nil {
		return nil, err
	}
	if len(about) > maxAbout {
		return nil, fmt.Errorf("where the table is from takes %d bytes, more than %d", len(about), maxAbout)
	}
	le := binary.LittleEndian
	from := len(b)
	b = append(b, magic...)
	b = le.AppendUint32(b, t.kind)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, uint64(t.Date.Unix()))
	b = le.AppendUint64(b, uint64(t.Len()))
	b = le.AppendUint32(b, uint32(rowSize(t.kind)))
	b = le.AppendUint32(b, uint32(len(about)))
	b = le.AppendUint64(b, uint64(len(t.heap)))
	b = append(b, about...)
	b = append(b, t.rows...)
	b = append(b, t.heap...)
	le.PutUint32(b[from+12:], crc32.Checksum(b[from+16:], crc32.MakeTable(crc32.Castagnoli)))
	return b, nil
}

// ReadTable opens the table in a file, which must not change while it is open: it
// is replaced by renaming another one over it. Only that its parts make up its
// size is looked at, so opening costs the same whatever there is in it; what is
// wrong beyond that gives wrong answers and no crash, and Table.Check finds it.
// The error is one of the system, or a *MalformedError.
func ReadTable(path string) (*Table, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxTable || st.Size() < headerSize {
		return nil, &MalformedError{What: "table", Reason: path + " is not a file, or not of the size of one"}
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	t, err := open(data)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(data))
	}
	runtime.AddCleanup(t, func(data []byte) { _ = unix.Munmap(data) }, data)
	return t, nil
}

func open(data []byte) (*Table, error) {
	bad := func(at int, reason string) (*Table, error) {
		return nil, &MalformedError{What: "table", Offset: int64(at), Reason: reason}
	}
	le := binary.LittleEndian
	if len(data) < headerSize || string(data[:8]) != magic {
		return bad(0, "it does not begin like one")
	}
	t := &Table{kind: le.Uint32(data[8:]), Date: time.Unix(int64(le.Uint64(data[16:])), 0).UTC(), file: data}
	if t.kind != kindKEV && t.kind != kindEPSS {
		return bad(8, "it is of a kind that this mobileops does not know")
	}
	count, about, heap := le.Uint64(data[24:]), uint64(le.Uint32(data[36:])), le.Uint64(data[40:])
	size := uint64(rowSize(t.kind))
	left := uint64(len(data) - headerSize)
	if uint64(le.Uint32(data[32:])) != size || count > maxRows || about > maxAbout || heap > left || count*size+about+heap != left {
		return bad(24, "its parts do not make up its size")
	}
	rest := data[headerSize:]
	if err := json.Unmarshal(rest[:about], &t.About); err != nil {
		return bad(headerSize, "where it is from cannot be read: "+err.Error())
	}
	t.rows, t.heap = rest[about:about+count*size:about+count*size], rest[about+count*size:]
	return t, nil
}

// Check proves that all of the table is as it was written, and in order.
func (t *Table) Check() error {
	defer runtime.KeepAlive(t)
	if t.file != nil && crc32.Checksum(t.file[16:], crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(t.file[12:]) {
		return &MalformedError{What: "table", Offset: 12, Reason: "it is not as it was written: the checksum is another"}
	}
	size := rowSize(t.kind)
	var last uint64
	for at := 0; at < len(t.rows); at += size {
		k := binary.LittleEndian.Uint64(t.rows[at:])
		if at > 0 && k <= last {
			return &MalformedError{What: "table", Offset: int64(at), Reason: "its rows are out of order"}
		}
		last = k
	}
	return nil
}

// What says which document the table is of: "kev" or "epss".
func (t *Table) What() string {
	if t.kind == kindKEV {
		return "kev"
	}
	return "epss"
}

// Same reports whether both tables say the same, wherever they are from.
func (t *Table) Same(o *Table) bool {
	defer runtime.KeepAlive(t)
	defer runtime.KeepAlive(o)
	return t.kind == o.kind && t.Date.Equal(o.Date) && t.Edition == o.Edition && bytes.Equal(t.rows, o.rows) && bytes.Equal(t.heap, o.heap)
}
