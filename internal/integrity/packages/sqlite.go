package packages

import (
	"encoding/binary"
	"fmt"
	"io"
)

// maxTreeDepth bounds a B-tree: five levels hold more than a file may have.
const maxTreeDepth = 20

// window reads a file in large pieces, since pages are mostly next to each
// other.
type window struct {
	r    io.ReaderAt
	size int64
	buf  []byte
	at   int64
}

const windowBytes = 256 << 10

// bytes returns n bytes at offset, valid until the next call.
func (w *window) bytes(offset int64, n int) ([]byte, error) {
	if offset < 0 || int64(n) > w.size-offset {
		return nil, &CorruptError{Offset: offset, Reason: fmt.Sprintf("%d bytes should be there, and the file ends at %d", n, w.size)}
	}
	if offset < w.at || offset+int64(n) > w.at+int64(len(w.buf)) {
		size := min(int64(max(windowBytes, n)), w.size-offset)
		if int64(cap(w.buf)) < size {
			w.buf = make([]byte, size)
		}
		w.buf, w.at = w.buf[:size], offset
		if m, err := w.r.ReadAt(w.buf, offset); int64(m) < size {
			w.buf = w.buf[:0]
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return w.buf[offset-w.at:][:n:n], nil
}

// sqlite reads a table of an SQLite 3 database, and the write-ahead log beside
// it, without SQLite: that wants a path, not a handle below a root, and writes
// an index of the log beside the database, in a tree that may be evidence.
//
// Source: sqlite.org/fileformat2.html.
type sqlite struct {
	db       window
	wal      window
	page     int              // bytes
	usable   int              // of them
	pages    uint32           // of the database
	inWAL    map[uint32]int64 // page → where its last committed content is in the log
	visited  int64
	overflow []byte
	level    [maxTreeDepth + 1][]byte // the page that is walked at each depth
}

// readSQLite calls fn with the blob in the second column of each row of a
// table. wal may be nil.
func readSQLite(db io.ReaderAt, size int64, wal io.ReaderAt, walSize int64, table string, fn func(blob []byte) error) error {
	s := &sqlite{db: window{r: db, size: size}, wal: window{r: wal, size: walSize}}
	h, err := s.db.bytes(0, 100)
	if err != nil {
		return err
	}
	if string(h[:16]) != "SQLite format 3\x00" {
		return &CorruptError{Offset: 0, Reason: "not an SQLite database"}
	}
	s.page = int(binary.BigEndian.Uint16(h[16:]))
	if s.page == 1 {
		s.page = 65536
	}
	s.usable = s.page - int(h[20])
	if s.page < 512 || s.page&(s.page-1) != 0 || s.usable < 480 {
		return &CorruptError{Offset: 16, Reason: "not a page size"}
	}
	s.pages = uint32(min(size/int64(s.page), 1<<32-2))
	if wal != nil && walSize > 0 {
		if err := s.readWAL(); err != nil {
			return err
		}
	}
	root := uint32(0)
	err = s.table(1, func(payload []byte) error {
		kind, name, page, err := schemaRow(payload)
		if err == nil && kind == "table" && name == table {
			root = page
		}
		return err
	})
	if err != nil {
		return err
	}
	if root == 0 {
		return &CorruptError{Offset: 0, Reason: fmt.Sprintf("it has no table %s", table)}
	}
	s.visited = 0
	return s.table(root, func(payload []byte) error {
		row, err := sqliteRecord(payload)
		if err != nil {
			return err
		}
		if len(row) < 2 || row[1].kind < 12 {
			return &CorruptError{Offset: -1, Reason: "a row without a blob"}
		}
		return fn(row[1].data)
	})
}

// readWAL finds which pages the log has newer content of: in all frames up to
// the last that ends a transaction, as long as salts and checksums are right.
func (s *sqlite) readWAL() error {
	if s.wal.size < 32 {
		return nil
	}
	h, err := s.wal.bytes(0, 32)
	if err != nil {
		return err
	}
	magic := binary.BigEndian.Uint32(h)
	if magic&^1 != 0x377f0682 || int(binary.BigEndian.Uint32(h[8:])) != s.page {
		return nil // as SQLite does: what is not a log of this database is not looked at
	}
	var order binary.ByteOrder = binary.LittleEndian
	if magic&1 != 0 {
		order = binary.BigEndian
	}
	c0, c1 := walSum(order, 0, 0, h[:24])
	if c0 != binary.BigEndian.Uint32(h[24:]) || c1 != binary.BigEndian.Uint32(h[28:]) {
		return nil
	}
	salt := binary.BigEndian.Uint64(h[16:])
	s.inWAL = map[uint32]int64{}
	open := map[uint32]int64{} // of the transaction that has not ended yet
	for at := int64(32); at+24+int64(s.page) <= s.wal.size; at += 24 + int64(s.page) {
		f, err := s.wal.bytes(at, 24+s.page)
		if err != nil {
			return err
		}
		c0, c1 = walSum(order, c0, c1, f[:8])
		c0, c1 = walSum(order, c0, c1, f[24:])
		if binary.BigEndian.Uint64(f[8:]) != salt || c0 != binary.BigEndian.Uint32(f[16:]) || c1 != binary.BigEndian.Uint32(f[20:]) {
			break // from an earlier use of the file, or not yet written to its end
		}
		open[binary.BigEndian.Uint32(f)] = at + 24
		if n := binary.BigEndian.Uint32(f[4:]); n != 0 {
			for p, at := range open {
				s.inWAL[p] = at
			}
			clear(open)
			s.pages = n // may be more than either file has: get bounds what is visited
		}
	}
	return nil
}

// walSum continues the checksum of a log.
func walSum(order binary.ByteOrder, c0, c1 uint32, b []byte) (uint32, uint32) {
	for ; len(b) >= 8; b = b[8:] {
		c0 += order.Uint32(b) + c1
		c1 += order.Uint32(b[4:]) + c0
	}
	return c0, c1
}

// get returns a page, valid until the next call, and where it is.
func (s *sqlite) get(n uint32) ([]byte, int64, error) {
	if n == 0 || n > s.pages {
		return nil, 0, &CorruptError{Offset: -1, Reason: fmt.Sprintf("page %d is not one of %d", n, s.pages)}
	}
	// Every page belongs to one place, so more visits than pages are a circle.
	if s.visited++; s.visited > s.most() {
		return nil, 0, &CorruptError{Offset: -1, Reason: "its pages lead in a circle"}
	}
	if at, ok := s.inWAL[n]; ok {
		b, err := s.wal.bytes(at, s.page)
		return b, at, err
	}
	at := int64(n-1) * int64(s.page)
	b, err := s.db.bytes(at, s.page)
	return b, at, err
}

// most is the number of pages that the two files can have.
func (s *sqlite) most() int64 { return (s.db.size + s.wal.size) / int64(s.page) }

// table calls fn with the payload of every row of a table, in their order.
func (s *sqlite) table(root uint32, fn func(payload []byte) error) error {
	return s.walk(root, 0, fn)
}

func (s *sqlite) walk(n uint32, depth int, fn func(payload []byte) error) error {
	b, at, err := s.get(n)
	if err != nil {
		return err
	}
	bad := func(reason string) error { return &CorruptError{Offset: at, Reason: reason} }
	if depth > maxTreeDepth {
		return bad("its tree is too deep")
	}
	page := append(s.level[depth][:0], b[:s.usable]...)
	s.level[depth] = page
	head := 0
	if n == 1 {
		head = 100
	}
	cells := int(binary.BigEndian.Uint16(page[head+3:]))
	leaf := page[head] == 0x0d
	if !leaf && page[head] != 0x05 {
		return bad(fmt.Sprintf("page %d is no part of a table", n))
	}
	index := head + 12
	if leaf {
		index = head + 8
	}
	if index+2*cells > len(page) {
		return bad("more cells than fit")
	}
	for i := range cells {
		cell := int(binary.BigEndian.Uint16(page[index+2*i:]))
		if cell+4 > len(page) {
			return bad("a cell is behind the end")
		}
		if !leaf {
			if err := s.walk(binary.BigEndian.Uint32(page[cell:]), depth+1, fn); err != nil {
				return err
			}
			continue
		}
		payload, err := s.payload(page, cell, at)
		if err != nil {
			return err
		}
		if err := fn(payload); err != nil {
			return err
		}
	}
	if !leaf {
		return s.walk(binary.BigEndian.Uint32(page[head+8:]), depth+1, fn)
	}
	return nil
}

// payload returns that of the cell of a leaf, with its overflow pages. It is
// valid until the next call.
func (s *sqlite) payload(page []byte, cell int, at int64) ([]byte, error) {
	bad := func() ([]byte, error) {
		return nil, &CorruptError{Offset: at + int64(cell), Reason: "a row is malformed"}
	}
	b := page[cell:]
	size, n := sqliteVarint(b)
	if n == 0 {
		return bad()
	}
	b = b[n:]
	if _, n = sqliteVarint(b); n == 0 { // row number
		return bad()
	}
	b = b[n:]
	if size > uint64(s.most())*uint64(s.page) || size > maxRPMData+1<<24 {
		return bad()
	}
	local := int(size)
	if most, least := s.usable-35, (s.usable-12)*32/255-23; local > most {
		if local = least + (int(size)-least)%(s.usable-4); local > most {
			local = least
		}
	}
	if local > len(b) {
		return bad()
	}
	if local == int(size) {
		return b[:local], nil
	}
	if local+4 > len(b) {
		return bad()
	}
	out := append(s.overflow[:0], b[:local]...)
	next := binary.BigEndian.Uint32(b[local:])
	for len(out) < int(size) {
		p, _, err := s.get(next)
		if err != nil {
			return nil, err
		}
		next = binary.BigEndian.Uint32(p)
		out = append(out, p[4:min(s.usable, 4+int(size)-len(out))]...)
	}
	s.overflow = out
	return out, nil
}

// sqliteVarint reads a number of up to nine bytes, seven bits each; n is 0
// when it is cut off.
func sqliteVarint(b []byte) (v uint64, n int) {
	for n < len(b) && n < 8 {
		c := b[n]
		n++
		v = v<<7 | uint64(c&0x7f)
		if c < 0x80 {
			return v, n
		}
	}
	if n == 8 && len(b) > 8 {
		return v<<8 | uint64(b[8]), 9
	}
	return 0, 0
}

// sqliteValue is a column of a record: its serial type and its bytes.
type sqliteValue struct {
	kind uint64
	data []byte
}

// number is the value of an integer.
func (v sqliteValue) number() uint64 {
	if v.kind == 9 {
		return 1
	}
	n := uint64(0)
	for _, c := range v.data {
		n = n<<8 | uint64(c)
	}
	return n
}

// sqliteRecord reads the columns of a row.
func sqliteRecord(b []byte) ([]sqliteValue, error) {
	bad := &CorruptError{Offset: -1, Reason: "a row's columns are malformed"}
	size, n := sqliteVarint(b)
	if n == 0 || size > uint64(len(b)) || size < uint64(n) {
		return nil, bad
	}
	head, body := b[n:size], b[size:]
	var row []sqliteValue
	for len(head) > 0 {
		kind, n := sqliteVarint(head)
		if n == 0 || len(row) == 64 {
			return nil, bad
		}
		head = head[n:]
		length := uint64(0)
		switch {
		case kind >= 12:
			length = (kind - 12) / 2
		case kind < 8:
			length = uint64([...]int{0, 1, 2, 3, 4, 6, 8, 8}[kind])
		}
		if length > uint64(len(body)) {
			return nil, bad
		}
		row = append(row, sqliteValue{kind, body[:length]})
		body = body[length:]
	}
	return row, nil
}

// schemaRow reads a row of sqlite_schema: type, name, table, root page, SQL.
func schemaRow(payload []byte) (kind, name string, root uint32, err error) {
	row, err := sqliteRecord(payload)
	if err != nil {
		return "", "", 0, err
	}
	if len(row) < 4 {
		return "", "", 0, &CorruptError{Offset: -1, Reason: "its schema is malformed"}
	}
	return string(row[0].data), string(row[1].data), uint32(row[3].number()), nil
}
