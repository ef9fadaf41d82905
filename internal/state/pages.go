package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The little of bbolt's file format that must be known before its code, which
// trusts the file and maps it into memory, may be let near it. Source: bbolt
// 1.5, internal/common/{meta,page,inode}.go; format version 2, native byte
// order.
const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	pageHeaderSize = 16 // id uint64, flags uint16, count uint16, overflow uint32
	metaSize       = 64 // magic, version, page size, flags uint32; root, sequence, freelist, high water mark, txid, checksum uint64
	elementSize    = 16 // branch: pos, ksize uint32, page uint64; leaf: flags, pos, ksize, vsize uint32
	bucketHeader   = 16 // root page, sequence uint64
	noFreelist     = ^uint64(0)

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketLeaf   = 0x01 // flag of a leaf element that holds a bucket

	minPageSize = 1024
	maxPageSize = 1 << 24
)

var order = binary.NativeEndian

// header is what the newer valid meta page of a database file says.
type header struct {
	pageSize int64
	root     uint64 // page of the root bucket
	freelist uint64
	pages    uint64 // high water mark: pages in use are [0, pages)
	txid     uint64
	size     int64 // of the file, in bytes
}

// openRegular opens path without following a link at its end, without
// blocking on a FIFO, and only if it is a regular file.
func openRegular(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: %s is a symbolic link", ErrForeign, path)
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a regular file", ErrForeign, path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readHeader examines the two meta pages of a database file. Its error wraps
// ErrForeign when nothing in it looks like bbolt, and ErrCorrupt when bbolt
// made it but it cannot be used.
func readHeader(f *os.File) (header, error) {
	st, err := f.Stat()
	if err != nil {
		return header{}, err
	}
	size := st.Size()
	if size == 0 {
		return header{}, fmt.Errorf("%w: the file is empty", ErrCorrupt)
	}
	var best header
	var found, seen bool
	try := func(off int64) {
		m, isBolt, ok := readMeta(f, off)
		seen = seen || isBolt
		// A meta page says how large pages are, so it must stand at offset
		// zero or at that size.
		if !ok || (off != 0 && off != m.pageSize) {
			return
		}
		if !found || m.txid > best.txid {
			best, found = m, true
		}
	}
	try(0)
	for off := int64(minPageSize); off <= maxPageSize && off < size; off *= 2 {
		if found && off != best.pageSize {
			continue
		}
		try(off)
	}
	switch {
	case !found && seen:
		return header{}, fmt.Errorf("%w: neither of its two meta pages is valid", ErrCorrupt)
	case !found:
		return header{}, fmt.Errorf("%w: no meta page found", ErrForeign)
	}
	best.size = size
	if used := int64(best.pages) * best.pageSize; best.pages > uint64(size) || used > size {
		return header{}, fmt.Errorf("%w: it is cut off: %d bytes of %d are there", ErrCorrupt, size, used)
	}
	if best.root < 2 || best.root >= best.pages || (best.freelist != noFreelist && (best.freelist < 2 || best.freelist >= best.pages)) {
		return header{}, fmt.Errorf("%w: the meta page points outside of the file", ErrCorrupt)
	}
	return best, nil
}

// readMeta reads the meta page at off. isBolt says that bbolt's magic is there,
// ok that all of it is valid.
func readMeta(f *os.File, off int64) (h header, isBolt, ok bool) {
	var b [pageHeaderSize + metaSize]byte
	n, err := f.ReadAt(b[:], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return h, false, false
	}
	m := b[pageHeaderSize:]
	isBolt = n >= pageHeaderSize+4 && order.Uint32(m) == boltMagic
	if !isBolt || n < len(b) {
		return h, isBolt, false
	}
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8])
	if order.Uint32(m[4:]) != boltVersion || order.Uint64(m[56:]) != sum.Sum64() {
		return h, isBolt, false
	}
	h = header{
		pageSize: int64(order.Uint32(m[8:])),
		root:     order.Uint64(m[16:]),
		freelist: order.Uint64(m[32:]),
		pages:    order.Uint64(m[40:]),
		txid:     order.Uint64(m[48:]),
	}
	valid := h.pageSize >= minPageSize && h.pageSize <= maxPageSize && h.pageSize&(h.pageSize-1) == 0
	return h, isBolt, valid
}

// page is one page with its overflow, as bytes.
type page struct {
	id       uint64
	flags    uint16
	count    int
	overflow uint64
	data     []byte
}

// readPage reads page id and its overflow pages, and checks that they are what
// they say they are.
func readPage(f *os.File, h header, id uint64) (page, error) {
	if id < 2 || id >= h.pages {
		return page{}, fmt.Errorf("page %d is outside of the file", id)
	}
	var b [pageHeaderSize]byte
	if _, err := f.ReadAt(b[:], int64(id)*h.pageSize); err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	p := page{
		id:       id,
		flags:    order.Uint16(b[8:]),
		count:    int(order.Uint16(b[10:])),
		overflow: uint64(order.Uint32(b[12:])),
	}
	if self := order.Uint64(b[:]); self != id {
		return page{}, fmt.Errorf("page %d calls itself page %d", id, self)
	}
	if id+p.overflow >= h.pages {
		return page{}, fmt.Errorf("page %d reaches beyond the file", id)
	}
	p.data = make([]byte, int64(p.overflow+1)*h.pageSize)
	if _, err := f.ReadAt(p.data, int64(id)*h.pageSize); err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	return p, nil
}

// element is one entry of a branch or leaf page.
type element struct {
	flags uint32
	key   []byte
	value []byte // leaf
	child uint64 // branch
}

// elements decodes the entries of a branch or leaf page whose bytes are data,
// header included.
func elements(data []byte, flags uint16, count int) ([]element, error) {
	if pageHeaderSize+count*elementSize > len(data) {
		return nil, fmt.Errorf("%d entries do not fit into it", count)
	}
	out := make([]element, count)
	for i := range out {
		at := pageHeaderSize + i*elementSize
		e := data[at : at+elementSize]
		var pos, ksize, vsize uint64
		if flags == branchPage {
			pos, ksize = uint64(order.Uint32(e)), uint64(order.Uint32(e[4:]))
			out[i].child = order.Uint64(e[8:])
		} else {
			out[i].flags = order.Uint32(e)
			pos, ksize, vsize = uint64(order.Uint32(e[4:])), uint64(order.Uint32(e[8:])), uint64(order.Uint32(e[12:]))
		}
		from := uint64(at) + pos
		if pos < elementSize || from+ksize+vsize > uint64(len(data)) {
			return nil, fmt.Errorf("entry %d reaches beyond it", i)
		}
		out[i].key = data[from : from+ksize]
		out[i].value = data[from+ksize : from+ksize+vsize]
	}
	return out, nil
}

// readFreelist returns which of the pages [0, h.pages) are free.
func readFreelist(f *os.File, h header) (bitmap, error) {
	free := newBitmap(h.pages)
	if h.freelist == noFreelist {
		return nil, errors.New("it has no list of free pages")
	}
	p, err := readPage(f, h, h.freelist)
	if err != nil {
		return nil, fmt.Errorf("list of free pages: %w", err)
	}
	if p.flags != freelistPage {
		return nil, fmt.Errorf("page %d is not the list of free pages", p.id)
	}
	ids, n := p.data[pageHeaderSize:], uint64(p.count)
	if n == 0xFFFF { // the true count did not fit and stands first
		n, ids = order.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids)/8) {
		return nil, fmt.Errorf("the list of free pages says it has %d entries, which do not fit into it", n)
	}
	for i := range n {
		id := order.Uint64(ids[i*8:])
		if id < 2 || id >= h.pages {
			return nil, fmt.Errorf("the list of free pages names page %d, which is outside of the file", id)
		}
		if free.has(id) {
			return nil, fmt.Errorf("the list of free pages names page %d twice", id)
		}
		free.set(id)
	}
	return free, nil
}

// bitmap is a set of page ids.
type bitmap []uint64

func newBitmap(n uint64) bitmap       { return make(bitmap, (n+63)/64) }
func (b bitmap) has(id uint64) bool   { return b[id/64]&(1<<(id%64)) != 0 }
func (b bitmap) set(id uint64)        { b[id/64] |= 1 << (id % 64) }
func (b bitmap) fresh(id uint64) bool { old := b.has(id); b.set(id); return !old }
