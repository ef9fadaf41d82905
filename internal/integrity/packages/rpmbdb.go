package packages

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The numbers of a hash database of Berkeley DB, in which rpm kept its
// packages until version 4.15 (dbinc/db_page.h of db 5.3).
const (
	bdbHashMagic    = 0x061561
	bdbPageHead     = 26
	bdbPageUnsorted = 2
	bdbPageOverflow = 7
	bdbPageHash     = 13
	bdbKeyData      = 1
	bdbOffPage      = 3
)

// bdb reads a Berkeley DB hash, version 8 to 10 of the format.
type bdb struct {
	w     window
	order binary.ByteOrder
	page  int64
	pages uint32
}

// readBDB calls fn with the data of each key, in the order of the pages.
func readBDB(r io.ReaderAt, size int64, fn func(blob []byte) error) error {
	d := &bdb{w: window{r: r, size: size}, order: binary.LittleEndian}
	h, err := d.w.bytes(0, 72)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(h[12:]) == bdbHashMagic {
		d.order = binary.BigEndian
	}
	if d.order.Uint32(h[12:]) != bdbHashMagic {
		return &CorruptError{Offset: 12, Reason: "not a hash of Berkeley DB"}
	}
	version, last := d.order.Uint32(h[16:]), d.order.Uint32(h[32:])
	d.page = int64(d.order.Uint32(h[20:]))
	if version < 8 || version > 10 {
		return fmt.Errorf("%w: version %d of a Berkeley DB hash", ErrUnsupported, version)
	}
	if h[24] != 0 {
		return fmt.Errorf("%w: an encrypted Berkeley DB", ErrUnsupported)
	}
	if d.page < 512 || d.page > 65536 || d.page&(d.page-1) != 0 {
		return &CorruptError{Offset: 20, Reason: "not a page size"}
	}
	if int64(last) >= size/d.page {
		return &CorruptError{Offset: 32, Reason: "more pages than the file has"}
	}
	d.pages = last + 1
	read := uint32(0) // overflow pages: more than there are is a circle
	var blob []byte
	for n := uint32(1); n < d.pages; n++ {
		page, err := d.w.bytes(int64(n)*d.page, int(d.page))
		if err != nil {
			return err
		}
		if page[25] != bdbPageHash && page[25] != bdbPageUnsorted {
			continue
		}
		items, err := d.items(page, n)
		if err != nil {
			return err
		}
		for _, it := range items { // page is not valid any more after the first
			if blob, err = d.data(blob, it, &read); err != nil {
				return err
			}
			if err := fn(blob); err != nil {
				return err
			}
		}
	}
	return nil
}

// bdbItem is the data of a key: in the page, or on overflow pages.
type bdbItem struct {
	inline []byte
	first  uint32 // page
	size   uint32
}

// items returns the data of a page's keys. The index has the offsets of key,
// data, key, data…; items fill the page from its end.
func (d *bdb) items(page []byte, n uint32) ([]bdbItem, error) {
	bad := func() ([]bdbItem, error) {
		return nil, &CorruptError{Offset: int64(n) * d.page, Reason: "a hash page is malformed"}
	}
	count := int(d.order.Uint16(page[20:]))
	if count%2 != 0 || bdbPageHead+2*count > len(page) {
		return bad()
	}
	at := func(i int) int { return int(d.order.Uint16(page[bdbPageHead+2*i:])) }
	var list []bdbItem
	for i := 1; i < count; i += 2 {
		begin, end := at(i), at(i-1)
		if begin+1 > len(page) {
			return bad()
		}
		switch page[begin] {
		case bdbOffPage:
			if begin+12 > len(page) {
				return bad()
			}
			list = append(list, bdbItem{first: d.order.Uint32(page[begin+4:]), size: d.order.Uint32(page[begin+8:])})
		case bdbKeyData:
			if end <= begin || end > len(page) {
				return bad()
			}
			list = append(list, bdbItem{inline: append([]byte(nil), page[begin+1:end]...)})
		default:
			return bad()
		}
	}
	return list, nil
}

// data returns the bytes of an item, in the room of buf.
func (d *bdb) data(buf []byte, it bdbItem, read *uint32) ([]byte, error) {
	if it.first == 0 {
		return append(buf[:0], it.inline...), nil
	}
	if it.size > maxRPMData+1<<24 {
		return nil, &CorruptError{Offset: int64(it.first) * d.page, Reason: "an item of an impossible size"}
	}
	buf = buf[:0]
	for n := it.first; n != 0; {
		at := int64(n) * d.page
		if *read++; n >= d.pages || *read > d.pages {
			return nil, &CorruptError{Offset: at, Reason: "overflow pages lead out of the file or in a circle"}
		}
		page, err := d.w.bytes(at, int(d.page))
		if err != nil {
			return nil, err
		}
		length := int(d.order.Uint16(page[22:]))
		if page[25] != bdbPageOverflow || bdbPageHead+length > len(page) {
			return nil, &CorruptError{Offset: at, Reason: "not an overflow page"}
		}
		buf = append(buf, page[bdbPageHead:][:length]...)
		n = d.order.Uint32(page[16:])
	}
	if len(buf) != int(it.size) {
		return nil, &CorruptError{Offset: int64(it.first) * d.page, Reason: "an item is not as long as it claims"}
	}
	return buf, nil
}
