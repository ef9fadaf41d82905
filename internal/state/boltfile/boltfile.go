// Package boltfile knows the little of bbolt's file format that must be known
// before bbolt's own code, which trusts a file and maps it into memory, may be
// let near one: where its pages are, and what entries a page has. Package state
// proves state.db so, and package vulndb a database that somebody else made.
//
// Everything is read plainly, so that a damaged file is an error and nothing
// worse. Errors say what is wrong; what that means is for the caller.
//
// Source: bbolt 1.5, internal/common/{meta,page,inode}.go; format version 2,
// native byte order.
package boltfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

const (
	magic       = 0xED0CDAED
	version     = 2
	metaSize    = 64 // magic, version, page size, flags uint32; root, sequence, freelist, high water mark, txid, checksum uint64
	elementSize = 16 // branch: pos, ksize uint32, page uint64; leaf: flags, pos, ksize, vsize uint32

	// PageHeader is how long what DecodePage reads is: id uint64, flags, count
	// uint16, overflow uint32.
	PageHeader   = 16
	BucketHeader = 16         // of the value of an entry that is a bucket: root page, sequence uint64
	NoFreelist   = ^uint64(0) // Header.Freelist of a file that has no list of free pages

	MinPageSize = 1024
	maxPageSize = 1 << 24
)

// Flags of a page.
const (
	Branch   = 0x01
	Leaf     = 0x02
	Freelist = 0x10
)

// Order is the byte order of a file: that of the machine.
var Order = binary.NativeEndian

// ErrForeign says that nothing in a file looks like bbolt.
var ErrForeign = errors.New("no meta page found")

// Header is what the newer valid meta page of a file says.
type Header struct {
	PageSize int64
	Root     uint64 // page of the root bucket
	Freelist uint64
	Pages    uint64 // high water mark: pages in use are [0, Pages)
	Txid     uint64
	Size     int64 // of the file, in bytes
}

// Begins reports whether b, the beginning of a file, looks like bbolt.
func Begins(b []byte) bool {
	return len(b) >= PageHeader+4 && Order.Uint32(b[PageHeader:]) == magic
}

// ReadHeader examines the two meta pages of a file of size bytes. Its error is
// ErrForeign, or says why bbolt made the file, but it cannot be used.
func ReadHeader(f io.ReaderAt, size int64) (Header, error) {
	var best Header
	var found, seen, odd bool
	try := func(off int64) {
		m, isBolt, ok := readMeta(f, off)
		seen = seen || isBolt
		if !ok {
			return
		}
		// A meta page says how large pages are, so it must stand at offset
		// zero or at that size. bbolt does not look at that, and would take
		// one that is newer for what another, examined one is not.
		if m.PageSize < MinPageSize || m.PageSize > maxPageSize || m.PageSize&(m.PageSize-1) != 0 || off != 0 && off != m.PageSize {
			odd = true
			return
		}
		if !found || m.Txid > best.Txid {
			best, found = m, true
		}
	}
	try(0)
	for off := int64(MinPageSize); off <= maxPageSize && off < size; off *= 2 {
		if !found || off == best.PageSize {
			try(off)
		}
	}
	best.Size = size
	switch {
	case odd:
		return Header{}, errors.New("its two meta pages contradict each other")
	case !found && seen:
		return Header{}, errors.New("neither of its two meta pages is valid")
	case !found:
		return Header{}, ErrForeign
	case best.Pages > uint64(size/best.PageSize):
		return Header{}, fmt.Errorf("it is cut off: %d bytes of %d are there", size, int64(best.Pages)*best.PageSize)
	case best.Root < 2 || best.Root >= best.Pages || best.Freelist != NoFreelist && (best.Freelist < 2 || best.Freelist >= best.Pages):
		return Header{}, errors.New("its meta page points outside of the file")
	}
	return best, nil
}

// readMeta reads the meta page at off. isBolt says that bbolt's magic is there,
// ok that bbolt takes it.
func readMeta(f io.ReaderAt, off int64) (h Header, isBolt, ok bool) {
	var b [PageHeader + metaSize]byte
	n, err := f.ReadAt(b[:], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return h, false, false
	}
	isBolt = Begins(b[:n])
	if !isBolt || n < len(b) {
		return h, isBolt, false
	}
	m := b[PageHeader:]
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8])
	if Order.Uint32(m[4:]) != version || Order.Uint64(m[56:]) != sum.Sum64() {
		return h, isBolt, false
	}
	h = Header{
		PageSize: int64(Order.Uint32(m[8:])),
		Root:     Order.Uint64(m[16:]),
		Freelist: Order.Uint64(m[32:]),
		Pages:    Order.Uint64(m[40:]),
		Txid:     Order.Uint64(m[48:]),
	}
	return h, isBolt, true
}

// Page is a page.
type Page struct {
	ID       uint64 // what it calls itself
	Flags    uint16
	Count    int    // of entries
	Overflow uint64 // how many pages after it belong to it
	Data     []byte // of all of them, with the header
}

// DecodePage reads the header of a page, which is PageHeader bytes. Data is b.
func DecodePage(b []byte) Page {
	return Page{
		ID:       Order.Uint64(b),
		Flags:    Order.Uint16(b[8:]),
		Count:    int(Order.Uint16(b[10:])),
		Overflow: uint64(Order.Uint32(b[12:])),
		Data:     b,
	}
}

// Element is one entry of a branch or leaf page. Key and Value are parts of the page.
type Element struct {
	Bucket bool // of a leaf: the value is a bucket
	Key    []byte
	Value  []byte // of a leaf
	Child  uint64 // of a branch
}

// Fits says whether Data has room for the entries of a branch or leaf page. Without
// that Element must not be asked for any.
func (p *Page) Fits() error {
	if PageHeader+p.Count*elementSize > len(p.Data) {
		return fmt.Errorf("%d entries do not fit into it", p.Count)
	}
	return nil
}

// Element decodes entry i of a branch or leaf page.
func (p *Page) Element(i int) (e Element, err error) {
	at := PageHeader + i*elementSize
	b := p.Data[at : at+elementSize]
	var pos, ksize, vsize uint64
	if p.Flags == Branch {
		pos, ksize, e.Child = uint64(Order.Uint32(b)), uint64(Order.Uint32(b[4:])), Order.Uint64(b[8:])
	} else {
		e.Bucket = Order.Uint32(b)&1 != 0
		pos, ksize, vsize = uint64(Order.Uint32(b[4:])), uint64(Order.Uint32(b[8:])), uint64(Order.Uint32(b[12:]))
	}
	from := uint64(at) + pos
	if pos < elementSize || from+ksize+vsize > uint64(len(p.Data)) {
		return e, fmt.Errorf("entry %d reaches beyond it", i)
	}
	e.Key, e.Value = p.Data[from:from+ksize], p.Data[from+ksize:from+ksize+vsize]
	return e, nil
}

// Inline returns the page within the value of an entry that is a small bucket, one
// whose root page is 0.
func (e *Element) Inline(id uint64) (Page, bool) {
	if len(e.Value) < BucketHeader+PageHeader {
		return Page{}, false
	}
	p := DecodePage(e.Value[BucketHeader:])
	p.ID = id
	return p, p.Flags == Leaf
}
