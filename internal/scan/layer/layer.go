// Package layer reads the layers of container images: tar archives that strangers
// made, in the form that the OCI image specification describes (layer.md).
//
// Nothing is unpacked. Walk hands out one entry after the other, holds all layers
// of an image to one Budget, and tells what is wrong with entries instead of
// leaving them out silently: names that lead out of the layer, entries beneath a
// link, and what is more than the budget has left.
package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync/atomic"
)

// The limits of an image unless it is said otherwise.
const (
	DefaultBytes   = 64 << 30   // of all layers, unpacked
	DefaultEntries = 10_000_000 // of all layers

	maxName  = 4096    // bytes of a name: PATH_MAX of Linux
	maxLinks = 100_000 // links of a layer that are remembered
)

// ErrTooLarge says that a layer has more than the budget has left. What comes
// after the entry that is named was not looked at.
var ErrTooLarge = errors.New("more than the limits allow")

// Budget is what the layers of one image may cost together. It is safe for
// concurrent use.
type Budget struct {
	bytes   atomic.Int64
	entries atomic.Int64
}

// NewBudget returns a budget of so many unpacked bytes and entries; 0 is the
// default of either.
func NewBudget(bytes, entries int64) *Budget {
	b := new(Budget)
	if bytes <= 0 {
		bytes = DefaultBytes
	}
	if entries <= 0 {
		entries = DefaultEntries
	}
	b.bytes.Store(bytes)
	b.entries.Store(entries)
	return b
}

// Flaw is what is wrong with an entry.
type Flaw int

// The flaws. An entry that escapes is not handed out; one that lies beneath a
// link is, under the name that it has in the archive.
const (
	Escapes     Flaw = iota + 1 // its name leads out of the layer, or is none
	BeneathLink                 // its directory is a link in the same layer
)

// Take charges what a layer costs that Walk has been through before, and tells
// whether there is as much left. When there isn't, nothing is charged.
func (b *Budget) Take(bytes, entries int64) bool {
	if b.entries.Add(-entries) < 0 {
		b.entries.Add(entries)
		return false
	}
	if b.bytes.Add(-bytes) < 0 {
		b.bytes.Add(bytes)
		b.entries.Add(entries)
		return false
	}
	return true
}

// Visitor is told what a layer has.
type Visitor struct {
	// File is called for each regular file. content is valid until it returns.
	File func(name string, info fs.FileInfo, content io.Reader) error
	// SkipDir says whether everything beneath a directory is to be left out; it may be nil.
	SkipDir func(name string) bool
	// Flaw is told what is wrong with an entry.
	Flaw func(f Flaw, name string)
}

// Contents says what a layer does beside bringing files.
type Contents struct {
	Opaque    []string // directories, with a slash at the end, of which layers below show nothing
	Whiteouts []string // names that layers below don't show
	Files     int64    // regular files
	Special   int64    // links, devices and the like
	Bytes     int64    // charged to the budget
	Entries   int64    // likewise
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// Walk reads the entries of one layer in their order. An error of r is returned as
// it is, wrapped; r is read to its end. An archive that ends too early or is none is an error that
// names the last entry that was read. After an error that is ErrTooLarge the
// contents so far are returned too.
func Walk(ctx context.Context, r io.Reader, budget *Budget, v Visitor) (*Contents, error) {
	w := &walk{v: v, budget: budget, contents: new(Contents), links: map[string]bool{}}
	m := &metered{ctx: ctx, r: r, budget: budget, contents: w.contents}
	tr := tar.NewReader(m)
	last := ""
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// What comes after the end of the archive belongs to its digest.
			if _, err := io.Copy(io.Discard, m); err != nil {
				return w.contents, fmt.Errorf("read what comes after %q: %w", last, err)
			}
			return w.contents, nil
		}
		if err != nil {
			if last == "" {
				return w.contents, fmt.Errorf("read the first entry: %w", err)
			}
			return w.contents, fmt.Errorf("read what comes after %q: %w", last, err)
		}
		if err := w.charge(hdr); err != nil {
			return w.contents, err
		}
		last = hdr.Name
		if err := w.entry(hdr, tr); err != nil {
			return w.contents, err
		}
	}
}

type walk struct {
	v        Visitor
	budget   *Budget
	contents *Contents
	links    map[string]bool // names of symbolic links of this layer
	skipped  []string
}

// charge holds an entry to what is left of the budget before a byte of it is
// read: the size in a header cannot be less than what comes.
func (w *walk) charge(hdr *tar.Header) error {
	w.contents.Entries++
	if w.budget.entries.Add(-1) < 0 {
		return fmt.Errorf("entry %q: %w: too many entries", hdr.Name, ErrTooLarge)
	}
	if left := w.budget.bytes.Load(); hdr.Size > left {
		return fmt.Errorf("entry %q: %w: it has %d bytes, and %d are left", hdr.Name, ErrTooLarge, hdr.Size, max(left, 0))
	}
	if isSparse(hdr) {
		// What is handed out is more than what is read, and costs as much as other bytes.
		w.contents.Bytes += hdr.Size
		w.budget.bytes.Add(-hdr.Size)
	}
	return nil
}

// isSparse tells whether an entry leaves out zeros that its content has: the formats
// of GNU tar (its manual, "Storing Sparse Files").
func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (w *walk) entry(hdr *tar.Header, content io.Reader) error {
	name, ok := clean(hdr.Name)
	if !ok {
		w.v.Flaw(Escapes, hdr.Name)
		return nil
	}
	dir, base := path.Split(name)
	switch {
	case base == opaque:
		w.contents.Opaque = append(w.contents.Opaque, dir)
		return nil
	case strings.HasPrefix(base, whiteout):
		w.contents.Whiteouts = append(w.contents.Whiteouts, dir+strings.TrimPrefix(base, whiteout))
		return nil
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		if w.v.SkipDir != nil && w.v.SkipDir(name) {
			w.skipped = append(w.skipped, name+"/")
		}
		return nil
	case tar.TypeReg, tar.TypeGNUSparse:
	case tar.TypeSymlink:
		w.contents.Special++
		if len(w.links) < maxLinks {
			w.links[name] = true
		}
		return nil
	default:
		w.contents.Special++
		return nil
	}
	if w.beneathSkipped(name) {
		return nil
	}
	if w.beneathLink(name) {
		w.v.Flaw(BeneathLink, name)
	}
	w.contents.Files++
	return w.v.File(name, hdr.FileInfo(), content)
}

func (w *walk) beneathSkipped(name string) bool {
	for _, d := range w.skipped {
		if strings.HasPrefix(name, d) {
			return true
		}
	}
	return false
}

// beneathLink tells whether a directory above name is a link: whoever unpacks the
// layer puts the file elsewhere then, which is a way of hiding it.
func (w *walk) beneathLink(name string) bool {
	if len(w.links) == 0 {
		return false
	}
	for i := strings.IndexByte(name, '/'); i >= 0; {
		if w.links[name[:i]] {
			return true
		}
		next := strings.IndexByte(name[i+1:], '/')
		if next < 0 {
			return false
		}
		i += 1 + next
	}
	return false
}

// clean returns the name of an entry relative to the root of the image. A leading
// slash is nothing unusual and means that root; ".." above it leads out.
func clean(name string) (string, bool) {
	if len(name) > maxName || strings.IndexByte(name, 0) >= 0 {
		return "", false
	}
	name = path.Clean(strings.TrimLeft(name, "/"))
	if name == ".." || strings.HasPrefix(name, "../") || strings.HasPrefix(name, "/") {
		return "", false
	}
	return name, true
}

// metered counts what is read against the budget, and ends when the context does.
type metered struct {
	ctx      context.Context
	r        io.Reader
	budget   *Budget
	contents *Contents
}

func (m *metered) Read(p []byte) (int, error) {
	if err := context.Cause(m.ctx); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	m.contents.Bytes += int64(n)
	if m.budget.bytes.Add(-int64(n)) < 0 {
		return n, ErrTooLarge
	}
	return n, err
}
