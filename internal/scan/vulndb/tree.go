package vulndb

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// The little of bbolt's file format that is needed to prove a file before bbolt,
// which trusts its file and maps it into memory, is let near it. Pages of the
// file are read plainly, so a damaged one is an error and nothing worse. Source:
// bbolt 1.5, internal/common/{meta,page,inode}.go; version 2, native byte order.
const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	pageHeaderSize = 16 // id uint64, flags uint16, count uint16, overflow uint32
	metaSize       = 64 // magic, version, page size, flags uint32; root, sequence, freelist, high water mark, txid, checksum uint64
	elementSize    = 16 // branch: pos, ksize uint32, page uint64; leaf: flags, pos, ksize, vsize uint32
	bucketHeader   = 16 // root page, sequence uint64

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketLeaf   = 0x01 // flag of a leaf element that holds a bucket
	noFreelist   = ^uint64(0)

	minPageSize = 1024
	maxPageSize = 1 << 24
	maxDepth    = 64       // of a tree; with some hundred children a page, ten are out of reach
	maxNesting  = 8        // of buckets; Trivy's has three
	maxSpan     = 64 << 20 // bytes of one page with its overflow: one value
	maxSources  = 10_000
)

// DamageError says where the file of a database is not what bbolt writes. It
// wraps ErrDamaged.
type DamageError struct {
	Page   int64  // -1: the file as a whole
	Detail string // what is wrong
}

func (e *DamageError) Error() string {
	if e.Page < 0 {
		return "the database is damaged: " + e.Detail
	}
	return fmt.Sprintf("the database is damaged: page %d: %s", e.Page, e.Detail)
}

// Unwrap makes it an ErrDamaged, and so failure.Untrustworthy.
func (e *DamageError) Unwrap() error { return ErrDamaged }

func damaged(page uint64, format string, args ...any) error {
	return &DamageError{int64(page), fmt.Sprintf(format, args...)}
}

// contents is what a database has.
type contents struct {
	advisories, vulnerabilities int
	ecosystems                  map[string]int
	sources                     []DataSource
}

// inspect reads every page of a bbolt file of size bytes and counts what is in
// it. progress is told how many bytes of pages were read.
func inspect(ctx context.Context, f io.ReaderAt, size int64, progress func(done int64)) (*contents, error) {
	w := &walker{ctx: ctx, f: f, size: size, progress: progress, found: &contents{ecosystems: map[string]int{}}}
	if err := w.header(); err != nil {
		return nil, err
	}
	w.used = make([]uint64, w.pages/64+1)
	w.take(0, 2)
	if w.freelist != noFreelist { // Trivy's builder may leave it out
		p, err := w.page(w.freelist, 0)
		if err != nil {
			return nil, err
		}
		if p.flags != freelistPage {
			return nil, damaged(p.id, "should be the list of free pages")
		}
	}
	if err := w.tree(w.root, nil, nil, 0, 0); err != nil {
		return nil, err
	}
	return w.found, nil
}

// walker walks the trees of a file.
type walker struct {
	ctx      context.Context
	f        io.ReaderAt
	size     int64
	progress func(int64)
	read     int64

	pageSize              int64
	root, freelist, pages uint64
	used                  []uint64
	buffers               [][]byte

	top   string // the bucket at the top that it is in
	found *contents
}

var order = binary.NativeEndian

// header finds the newer valid one of the two meta pages.
func (w *walker) header() error {
	var best uint64
	seen := false
	try := func(off int64) {
		var b [pageHeaderSize + metaSize]byte
		if _, err := w.f.ReadAt(b[:], off); err != nil {
			return
		}
		m := b[pageHeaderSize:]
		if order.Uint32(m) != boltMagic {
			return
		}
		seen = true
		sum := fnv.New64a()
		sum.Write(m[:metaSize-8])
		ps, txid := int64(order.Uint32(m[8:])), order.Uint64(m[48:])
		switch {
		case order.Uint32(m[4:]) != boltVersion || order.Uint64(m[56:]) != sum.Sum64():
		case ps < minPageSize || ps > maxPageSize || ps&(ps-1) != 0 || off != 0 && off != ps:
		case w.pageSize == 0 || txid > best:
			best, w.pageSize = txid, ps
			w.root, w.freelist, w.pages = order.Uint64(m[16:]), order.Uint64(m[32:]), order.Uint64(m[40:])
		}
	}
	try(0)
	for off := int64(minPageSize); off <= maxPageSize && off < w.size; off *= 2 {
		if w.pageSize == 0 || off == w.pageSize {
			try(off)
		}
	}
	switch {
	case w.pageSize == 0 && seen:
		return &DamageError{-1, "neither of its two meta pages is valid"}
	case w.pageSize == 0:
		return failure.Errorf(failure.Untrustworthy, "this is no vulnerability database: it is no file of bbolt")
	case w.pages > uint64(w.size/w.pageSize):
		return &DamageError{-1, fmt.Sprintf("it is cut off: %d bytes of %d are there", w.size, int64(w.pages)*w.pageSize)}
	case w.root < 2 || w.root >= w.pages || w.freelist != noFreelist && (w.freelist < 2 || w.freelist >= w.pages):
		return &DamageError{-1, "its meta page points outside of the file"}
	}
	return nil
}

type page struct {
	id    uint64
	flags uint16
	count int
	data  []byte // with the header and the overflow
}

// take notes n pages as used, and reports whether they were free.
func (w *walker) take(id, n uint64) bool {
	for i := id; i < id+n; i++ {
		if w.used[i/64]&(1<<(i%64)) != 0 {
			return false
		}
		w.used[i/64] |= 1 << (i % 64)
	}
	return true
}

// page reads a page and its overflow into the buffer of a level.
func (w *walker) page(id uint64, level int) (page, error) {
	if err := context.Cause(w.ctx); err != nil {
		return page{}, err
	}
	if id < 2 || id >= w.pages {
		return page{}, damaged(id, "is outside of the file")
	}
	for len(w.buffers) <= level {
		w.buffers = append(w.buffers, make([]byte, w.pageSize))
	}
	b := w.buffers[level][:w.pageSize]
	if _, err := w.f.ReadAt(b, int64(id)*w.pageSize); err != nil {
		return page{}, fmt.Errorf("read page %d of the database: %w", id, err)
	}
	p := page{id: id, flags: order.Uint16(b[8:]), count: int(order.Uint16(b[10:]))}
	overflow := uint64(order.Uint32(b[12:]))
	switch {
	case order.Uint64(b) != id:
		return page{}, damaged(id, "calls itself page %d", order.Uint64(b))
	case overflow >= w.pages-id || overflow > maxSpan/uint64(w.pageSize) && p.flags != freelistPage:
		return page{}, damaged(id, "reaches beyond the file or its limit: %d pages", overflow)
	case !w.take(id, overflow+1):
		return page{}, damaged(id, "is used twice")
	}
	if overflow > 0 && p.flags != freelistPage {
		whole := int64(overflow+1) * w.pageSize
		if int64(cap(w.buffers[level])) < whole {
			w.buffers[level] = make([]byte, whole)
		}
		b = w.buffers[level][:whole]
		if _, err := w.f.ReadAt(b, int64(id)*w.pageSize); err != nil {
			return page{}, fmt.Errorf("read page %d of the database: %w", id, err)
		}
	}
	p.data = b
	w.read += int64(overflow+1) * w.pageSize
	w.progress(w.read)
	return p, nil
}

type element struct {
	flags      uint32
	key, value []byte // value: of a leaf
	child      uint64 // of a branch
}

// element decodes one entry of a branch or leaf page.
func (p *page) element(i int) (e element, err error) {
	at := pageHeaderSize + i*elementSize
	b := p.data[at : at+elementSize]
	var pos, ksize, vsize uint64
	if p.flags == branchPage {
		pos, ksize, e.child = uint64(order.Uint32(b)), uint64(order.Uint32(b[4:])), order.Uint64(b[8:])
	} else {
		e.flags = order.Uint32(b)
		pos, ksize, vsize = uint64(order.Uint32(b[4:])), uint64(order.Uint32(b[8:])), uint64(order.Uint32(b[12:]))
	}
	from := uint64(at) + pos
	if pos < elementSize || from+ksize+vsize > uint64(len(p.data)) {
		return e, damaged(p.id, "entry %d reaches beyond it", i)
	}
	e.key, e.value = p.data[from:from+ksize], p.data[from+ksize:from+ksize+vsize]
	return e, nil
}

// tree walks the tree below a page, whose keys are at least low and below high,
// where those are not nil. nesting is in how many buckets it lies.
func (w *walker) tree(id uint64, low, high []byte, level, nesting int) error {
	if level > maxDepth {
		return damaged(id, "the tree is deeper than %d levels", maxDepth)
	}
	p, err := w.page(id, level)
	if err != nil {
		return err
	}
	if p.flags != branchPage && p.flags != leafPage {
		return damaged(id, "is of the wrong type %#x", p.flags)
	}
	return w.entries(&p, low, high, level, nesting)
}

// entries walks the entries of a page, or of a small bucket within one.
func (w *walker) entries(p *page, low, high []byte, level, nesting int) error {
	if pageHeaderSize+p.count*elementSize > len(p.data) {
		return damaged(p.id, "%d entries do not fit into it", p.count)
	}
	if p.flags == branchPage && p.count == 0 {
		return damaged(p.id, "is a branch without children")
	}
	var next element
	var err error
	if p.count > 0 {
		if next, err = p.element(0); err != nil {
			return err
		}
	}
	for i := range p.count {
		e := next
		if low != nil && (bytes.Compare(e.key, low) < 0 || i > 0 && bytes.Equal(e.key, low)) || high != nil && bytes.Compare(e.key, high) >= 0 {
			return damaged(p.id, "its keys are out of order")
		}
		low = e.key
		until := high
		if i+1 < p.count {
			if next, err = p.element(i + 1); err != nil {
				return err
			}
			until = next.key
		}
		switch {
		case p.flags == branchPage:
			err = w.tree(e.child, e.key, until, level+1, nesting)
		case e.flags&bucketLeaf != 0:
			err = w.bucket(p, e, level, nesting)
		default:
			err = w.value(p, e, nesting)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket walks a bucket: a tree of its own, or a small leaf page within the entry.
func (w *walker) bucket(p *page, e element, level, nesting int) error {
	if len(e.value) < bucketHeader || nesting >= maxNesting {
		return damaged(p.id, "the header of a bucket is cut off, or buckets are too deep")
	}
	if nesting == 0 {
		w.top = string(e.key)
	}
	if root := order.Uint64(e.value); root != 0 {
		return w.tree(root, nil, nil, level+1, nesting+1)
	}
	inline := e.value[bucketHeader:]
	if len(inline) < pageHeaderSize || order.Uint16(inline[8:]) != leafPage {
		return damaged(p.id, "a small bucket in it is damaged")
	}
	small := &page{id: p.id, flags: leafPage, count: int(order.Uint16(inline[10:])), data: inline}
	return w.entries(small, nil, nil, level, nesting+1)
}

// value counts a value by the bucket that it lies in.
func (w *walker) value(p *page, e element, nesting int) error {
	if nesting == 0 {
		return nil // in no bucket: nothing of Trivy's
	}
	switch w.top {
	case "vulnerability":
		w.found.vulnerabilities++
	case "data-source":
		if len(w.found.sources) == maxSources {
			return damaged(p.id, "there are more than %d sources", maxSources)
		}
		var d struct{ ID, Name, URL string }
		if err := json.Unmarshal(e.value, &d); err != nil {
			return damaged(p.id, "the source %.60q is no JSON: %v", e.key, err)
		}
		w.found.sources = append(w.found.sources, DataSource{string(e.key), d.ID, d.Name, d.URL})
		return nil
	case "Red Hat CPE", "advisory-detail", "vulnerability-detail", "vulnerability-id", "trivy", "":
		return nil // tables beside advisories, and what builders leave
	default:
		if nesting < 2 {
			return nil
		}
		ecosystem, _, _ := strings.Cut(w.top, "::")
		w.found.ecosystems[ecosystem]++
		w.found.advisories++
	}
	if v := bytes.TrimSpace(e.value); len(v) < 2 || v[0] != '{' || v[len(v)-1] != '}' {
		return damaged(p.id, "what is said of %.60q is no JSON", e.key)
	}
	return nil
}
