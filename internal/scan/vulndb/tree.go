package vulndb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state/boltfile"
)

const (
	maxDepth   = 64       // of a tree; with some hundred children a page, ten are out of reach
	maxNesting = 8        // of buckets; Trivy's has three
	maxSpan    = 64 << 20 // bytes of one page with its overflow: one value
	maxSources = 10_000
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
	h, err := boltfile.ReadHeader(f, size)
	switch {
	case errors.Is(err, boltfile.ErrForeign):
		return nil, failure.Errorf(failure.Untrustworthy, "this is no vulnerability database: it is no file of bbolt")
	case err != nil:
		return nil, &DamageError{-1, err.Error()}
	}
	w := &walker{ctx: ctx, f: f, h: h, progress: progress, used: make([]uint64, h.Pages/64+1), found: &contents{ecosystems: map[string]int{}}}
	w.take(0, 2)
	if h.Freelist != boltfile.NoFreelist { // Trivy's builder may leave it out
		p, err := w.page(h.Freelist, 0)
		if err != nil {
			return nil, err
		}
		if p.Flags != boltfile.Freelist {
			return nil, damaged(p.ID, "should be the list of free pages")
		}
	}
	if err := w.tree(h.Root, nil, nil, 0, 0); err != nil {
		return nil, err
	}
	return w.found, nil
}

// walker walks the trees of a file.
type walker struct {
	ctx      context.Context
	f        io.ReaderAt
	h        boltfile.Header
	progress func(int64)
	read     int64

	used    []uint64
	buffers [][]byte

	top   string // the bucket at the top that it is in
	found *contents
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
func (w *walker) page(id uint64, level int) (p boltfile.Page, err error) {
	if err := context.Cause(w.ctx); err != nil {
		return p, err
	}
	if id < 2 || id >= w.h.Pages {
		return p, damaged(id, "is outside of the file")
	}
	for len(w.buffers) <= level {
		w.buffers = append(w.buffers, make([]byte, w.h.PageSize))
	}
	b := w.buffers[level][:w.h.PageSize]
	if _, err := w.f.ReadAt(b, int64(id)*w.h.PageSize); err != nil {
		return p, fmt.Errorf("read page %d of the database: %w", id, err)
	}
	p = boltfile.DecodePage(b)
	switch {
	case p.ID != id:
		return p, damaged(id, "calls itself page %d", p.ID)
	case p.Overflow >= w.h.Pages-id || p.Overflow > maxSpan/uint64(w.h.PageSize) && p.Flags != boltfile.Freelist:
		return p, damaged(id, "reaches beyond the file or its limit: %d pages", p.Overflow)
	case !w.take(id, p.Overflow+1):
		return p, damaged(id, "is used twice")
	}
	if p.Overflow > 0 && p.Flags != boltfile.Freelist {
		whole := int64(p.Overflow+1) * w.h.PageSize
		if int64(cap(w.buffers[level])) < whole {
			w.buffers[level] = make([]byte, whole)
		}
		b = w.buffers[level][:whole]
		if _, err := w.f.ReadAt(b, int64(id)*w.h.PageSize); err != nil {
			return p, fmt.Errorf("read page %d of the database: %w", id, err)
		}
	}
	p.Data = b
	w.read += int64(p.Overflow+1) * w.h.PageSize
	w.progress(w.read)
	return p, nil
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
	if p.Flags != boltfile.Branch && p.Flags != boltfile.Leaf {
		return damaged(id, "is of the wrong type %#x", p.Flags)
	}
	return w.entries(&p, low, high, level, nesting)
}

// entries walks the entries of a page, or of a small bucket within one.
func (w *walker) entries(p *boltfile.Page, low, high []byte, level, nesting int) error {
	if err := p.Fits(); err != nil {
		return damaged(p.ID, "%v", err)
	}
	if p.Flags == boltfile.Branch && p.Count == 0 {
		return damaged(p.ID, "is a branch without children")
	}
	var next boltfile.Element
	var err error
	if p.Count > 0 {
		if next, err = p.Element(0); err != nil {
			return damaged(p.ID, "%v", err)
		}
	}
	for i := range p.Count {
		e := next
		if low != nil && (bytes.Compare(e.Key, low) < 0 || i > 0 && bytes.Equal(e.Key, low)) || high != nil && bytes.Compare(e.Key, high) >= 0 {
			return damaged(p.ID, "its keys are out of order")
		}
		low = e.Key
		until := high
		if i+1 < p.Count {
			if next, err = p.Element(i + 1); err != nil {
				return damaged(p.ID, "%v", err)
			}
			until = next.Key
		}
		switch {
		case p.Flags == boltfile.Branch:
			err = w.tree(e.Child, e.Key, until, level+1, nesting)
		case e.Bucket:
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
func (w *walker) bucket(p *boltfile.Page, e boltfile.Element, level, nesting int) error {
	if len(e.Value) < boltfile.BucketHeader || nesting >= maxNesting {
		return damaged(p.ID, "the header of a bucket is cut off, or buckets are too deep")
	}
	if nesting == 0 {
		w.top = string(e.Key)
	}
	if root := boltfile.Order.Uint64(e.Value); root != 0 {
		return w.tree(root, nil, nil, level+1, nesting+1)
	}
	inline, ok := e.Inline(p.ID)
	if !ok {
		return damaged(p.ID, "a small bucket in it is damaged")
	}
	return w.entries(&inline, nil, nil, level, nesting+1)
}

// value counts a value by the bucket that it lies in.
func (w *walker) value(p *boltfile.Page, e boltfile.Element, nesting int) error {
	if nesting == 0 {
		return nil // in no bucket: nothing of Trivy's
	}
	switch w.top {
	case "vulnerability":
		w.found.vulnerabilities++
	case "data-source":
		if len(w.found.sources) == maxSources {
			return damaged(p.ID, "there are more than %d sources", maxSources)
		}
		var d struct{ ID, Name, URL string }
		if err := json.Unmarshal(e.Value, &d); err != nil {
			return damaged(p.ID, "the source %.60q is no JSON: %v", e.Key, err)
		}
		w.found.sources = append(w.found.sources, DataSource{string(e.Key), d.ID, d.Name, d.URL})
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
	if v := bytes.TrimSpace(e.Value); len(v) < 2 || v[0] != '{' || v[len(v)-1] != '}' {
		return damaged(p.ID, "what is said of %.60q is no JSON", e.Key)
	}
	return nil
}
