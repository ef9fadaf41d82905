package vulndb

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
)

// archiveLimits bound an archive of a database, or an OCI layout of one.
func (s *Store) archiveLimits() archive.Limits {
	return archive.Limits{Entries: 1000, FileBytes: s.opts.MaxBytes, TotalBytes: s.opts.MaxBytes + s.opts.MaxBytes/4, Depth: 8}
}

// errLayout says that an archive holds an OCI layout, which is read in another way.
var errLayout = errors.New("an OCI layout")

// archive takes a database from an archive, or from the OCI layout within it.
func (st *stage) archive(ctx context.Context, f *os.File, plain bool) error {
	a := archiveLayout{s: st.s, f: f, plain: plain}
	err := a.each(func(e *archive.Entry) error { return st.entry(ctx, e) })
	if errors.Is(err, errLayout) {
		return st.layout(ctx, &a)
	}
	return err
}

// unpack takes a database from a stream that is an archive, packed.
func (st *stage) unpack(ctx context.Context, r io.Reader) error {
	err := each(r, st.s.archiveLimits(), func(e *archive.Entry) error { return st.entry(ctx, e) })
	if errors.Is(err, errLayout) {
		return failure.Errorf(failure.Untrustworthy, "there is an OCI layout in the layer, and no database")
	}
	return err
}

// entry takes what an entry of an archive has of a database.
func (st *stage) entry(ctx context.Context, e *archive.Entry) error {
	if e.Kind != archive.File {
		return nil
	}
	if e.Name == "oci-layout" || e.Name == "index.json" || strings.HasPrefix(e.Name, "blobs/") {
		return errLayout
	}
	switch path.Base(e.Name) {
	case Vulnerabilities.file():
		return st.database(ctx, Vulnerabilities, e.Body, e.Size)
	case Java.file():
		return st.database(ctx, Java, e.Body, e.Size)
	case metadataFile:
		return st.metadata(e.Body)
	}
	return nil // a README, a licence
}

// each calls fn for every entry of a packed archive, and proves its end.
func each(r io.Reader, l archive.Limits, fn func(*archive.Entry) error) error {
	in, err := archive.NewReader(r, l, archive.Rules{})
	if err != nil {
		return err
	}
	defer in.Close()
	for {
		e, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(e); err != nil {
			return err
		}
	}
}

// archiveLayout is a tar file in which an OCI layout may be. It is read from its
// beginning each time.
type archiveLayout struct {
	s     *Store
	f     *os.File
	plain bool // not packed
	small map[string][]byte
	sizes map[string]int64
}

// each calls fn for every entry. The reader of archives expects them packed, so
// a plain one is packed on the way, without being made smaller.
func (a *archiveLayout) each(fn func(*archive.Entry) error) error {
	info, err := a.f.Stat()
	if err != nil {
		return err
	}
	var r io.Reader = io.NewSectionReader(a.f, 0, info.Size())
	if a.plain {
		pr, pw := io.Pipe()
		defer pr.Close()
		go func(r io.Reader) {
			zw, err := gzip.NewWriterLevel(pw, gzip.NoCompression)
			if err == nil {
				if _, err = io.Copy(zw, r); err == nil {
					err = zw.Close()
				}
			}
			pw.CloseWithError(err)
		}(r)
		r = pr
	}
	return each(r, a.s.archiveLimits(), fn)
}

// index remembers where what is, and the content of what is small.
func (a *archiveLayout) index() error {
	if a.small != nil {
		return nil
	}
	a.small, a.sizes = map[string][]byte{}, map[string]int64{}
	var total int
	return a.each(func(e *archive.Entry) error {
		if e.Kind != archive.File {
			return nil
		}
		a.sizes[e.Name] = e.Size
		if e.Size > maxManifest || total > 16*maxManifest {
			return nil
		}
		data, err := io.ReadAll(e.Body)
		a.small[e.Name] = data
		total += len(data)
		return err
	})
}

func (a *archiveLayout) read(name string) ([]byte, error) {
	if err := a.index(); err != nil {
		return nil, err
	}
	data, ok := a.small[name]
	if !ok {
		return nil, missing(name)
	}
	return data, nil
}

func (a *archiveLayout) stream(name string, fn func(io.Reader, int64) error) error {
	found := false
	err := a.each(func(e *archive.Entry) error {
		if e.Name != name || e.Kind != archive.File {
			return nil
		}
		found = true
		return fn(e.Body, e.Size)
	})
	if err == nil && !found {
		err = missing(name)
	}
	return err
}
