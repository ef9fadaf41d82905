package state

import (
	"errors"
	"fmt"
	"os"

	"github.com/mobileops/mobileops/internal/state/boltfile"
	"golang.org/x/sys/unix"
)

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
func readHeader(f *os.File) (boltfile.Header, error) {
	st, err := f.Stat()
	if err != nil {
		return boltfile.Header{}, err
	}
	if st.Size() == 0 {
		return boltfile.Header{}, fmt.Errorf("%w: the file is empty", ErrCorrupt)
	}
	h, err := boltfile.ReadHeader(f, st.Size())
	switch {
	case errors.Is(err, boltfile.ErrForeign):
		return h, fmt.Errorf("%w: %w", ErrForeign, err)
	case err != nil:
		return h, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return h, nil
}

// readPage reads page id and its overflow pages, and checks that they are what
// they say they are.
func readPage(f *os.File, h boltfile.Header, id uint64) (boltfile.Page, error) {
	if id < 2 || id >= h.Pages {
		return boltfile.Page{}, fmt.Errorf("page %d is outside of the file", id)
	}
	var b [boltfile.PageHeader]byte
	if _, err := f.ReadAt(b[:], int64(id)*h.PageSize); err != nil {
		return boltfile.Page{}, fmt.Errorf("page %d: %w", id, err)
	}
	p := boltfile.DecodePage(b[:])
	if p.ID != id {
		return boltfile.Page{}, fmt.Errorf("page %d calls itself page %d", id, p.ID)
	}
	if id+p.Overflow >= h.Pages {
		return boltfile.Page{}, fmt.Errorf("page %d reaches beyond the file", id)
	}
	p.Data = make([]byte, int64(p.Overflow+1)*h.PageSize)
	if _, err := f.ReadAt(p.Data, int64(id)*h.PageSize); err != nil {
		return boltfile.Page{}, fmt.Errorf("page %d: %w", id, err)
	}
	return p, nil
}

// elements decodes the entries of a branch or leaf page.
func elements(p *boltfile.Page) ([]boltfile.Element, error) {
	if err := p.Fits(); err != nil {
		return nil, err
	}
	out := make([]boltfile.Element, p.Count)
	for i := range out {
		var err error
		if out[i], err = p.Element(i); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// readFreelist returns which of the pages [0, h.Pages) are free.
func readFreelist(f *os.File, h boltfile.Header) (bitmap, error) {
	free := newBitmap(h.Pages)
	if h.Freelist == boltfile.NoFreelist {
		return nil, errors.New("it has no list of free pages")
	}
	p, err := readPage(f, h, h.Freelist)
	if err != nil {
		return nil, fmt.Errorf("list of free pages: %w", err)
	}
	if p.Flags != boltfile.Freelist {
		return nil, fmt.Errorf("page %d is not the list of free pages", p.ID)
	}
	ids, n := p.Data[boltfile.PageHeader:], uint64(p.Count)
	if n == 0xFFFF { // the true count did not fit and stands first
		n, ids = boltfile.Order.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids)/8) {
		return nil, fmt.Errorf("the list of free pages says it has %d entries, which do not fit into it", n)
	}
	for i := range n {
		id := boltfile.Order.Uint64(ids[i*8:])
		if id < 2 || id >= h.Pages {
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
