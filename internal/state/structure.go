package state

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/mobileops/mobileops/internal/state/boltfile"
)

// maxDepth bounds how deep trees and nested buckets may go. bbolt's trees have
// some hundred children a page, so ten levels are already out of reach.
const maxDepth = 64

// maxProblems bounds what a check lists; a file with more is no better known.
const maxProblems = 20

// structure walks every page of a database file by plain reads and returns
// what is wrong with it: pages that are outside of the file, used twice, free
// and used, neither, entries that are cut off or out of order. It does what
// bbolt's own check does, but cannot be made to crash by what it reads.
func structure(ctx context.Context, f *os.File, h boltfile.Header) ([]string, error) {
	w := &walker{ctx: ctx, f: f, h: h, used: newBitmap(h.Pages)}
	free, err := readFreelist(f, h)
	if err != nil {
		return []string{err.Error()}, nil
	}
	w.used.set(0)
	w.used.set(1)
	w.visit(h.Freelist, func(p boltfile.Page) {})
	w.tree(h.Root, nil, nil, 0)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for id := uint64(2); id < h.Pages && len(w.problems) < maxProblems; id++ {
		switch {
		case free.has(id) && w.used.has(id):
			w.report("page %d is in use and in the list of free pages", id)
		case !free.has(id) && !w.used.has(id):
			w.report("page %d is neither in use nor in the list of free pages", id)
		}
	}
	return w.problems, nil
}

type walker struct {
	ctx      context.Context
	f        *os.File
	h        boltfile.Header
	used     bitmap
	problems []string
}

func (w *walker) report(format string, args ...any) {
	if len(w.problems) < maxProblems {
		w.problems = append(w.problems, fmt.Sprintf(format, args...))
	}
}

// visit reads a page, notes it as used and gives it to fn.
func (w *walker) visit(id uint64, fn func(boltfile.Page)) {
	p, err := readPage(w.f, w.h, id)
	if err != nil {
		w.report("%v", err)
		return
	}
	for i := range p.Overflow + 1 {
		if !w.used.fresh(id + i) {
			w.report("page %d is used twice", id+i)
			return
		}
	}
	fn(p)
}

// tree walks the B+ tree whose root is page id. Its keys are at least low and
// below high, where those are not nil.
func (w *walker) tree(id uint64, low, high []byte, depth int) {
	if w.ctx.Err() != nil || len(w.problems) >= maxProblems {
		return
	}
	if depth > maxDepth {
		w.report("page %d: the tree is deeper than %d levels", id, maxDepth)
		return
	}
	w.visit(id, func(p boltfile.Page) {
		if p.Flags != boltfile.Branch && p.Flags != boltfile.Leaf {
			w.report("page %d is of the wrong type %#x", id, p.Flags)
			return
		}
		elems, err := elements(&p)
		if err != nil {
			w.report("page %d: %v", id, err)
			return
		}
		if p.Flags == boltfile.Branch && len(elems) == 0 {
			w.report("page %d is a branch without children", id)
			return
		}
		if !ordered(elems, low, high) {
			w.report("page %d: its keys are out of order", id)
			return
		}
		for i, e := range elems {
			if p.Flags == boltfile.Branch {
				next := high
				if i+1 < len(elems) {
					next = elems[i+1].Key
				}
				w.tree(e.Child, e.Key, next, depth+1)
			} else if e.Bucket {
				w.bucket(id, e, depth)
			}
		}
	})
}

// bucket walks the bucket that a leaf entry of page id holds: a tree of its
// own, or a small leaf page inside of the entry.
func (w *walker) bucket(id uint64, e boltfile.Element, depth int) {
	if len(e.Value) < boltfile.BucketHeader {
		w.report("page %d: the header of a bucket is cut off", id)
		return
	}
	if root := boltfile.Order.Uint64(e.Value); root != 0 {
		w.tree(root, nil, nil, depth+1)
		return
	}
	inline, ok := e.Inline(id)
	if !ok {
		w.report("page %d: a small bucket in it is damaged", id)
		return
	}
	elems, err := elements(&inline)
	if err != nil {
		w.report("page %d: a small bucket in it: %v", id, err)
		return
	}
	if !ordered(elems, nil, nil) {
		w.report("page %d: the keys of a small bucket in it are out of order", id)
	}
	for _, e := range elems {
		if e.Bucket {
			w.report("page %d: a small bucket in it holds a bucket", id)
		}
	}
}

func ordered(elems []boltfile.Element, low, high []byte) bool {
	for i, e := range elems {
		if low != nil && (bytes.Compare(e.Key, low) < 0 || i > 0 && bytes.Equal(e.Key, low)) {
			return false
		}
		if high != nil && bytes.Compare(e.Key, high) >= 0 {
			return false
		}
		low = e.Key
	}
	return true
}
