package source

import (
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"golang.org/x/sys/unix"
)

// reader reads the documents of one source.
type reader struct {
	ctx      context.Context
	sum      *Summary
	fn       func(*Advisory) error
	progress func(int, string)
	seen     int
}

// errSkip says that a document is left out, which has been counted.
var errSkip = errors.New("left out")

// document reads one document. What is wrong with it is a problem.
func (r *reader) document(name string, data []byte, parse func([]byte) (*Advisory, error)) error {
	r.progress(r.seen, name)
	if r.seen++; r.seen > maxDocuments {
		return failure.Errorf(failure.Untrustworthy, "there are more than %d documents", maxDocuments)
	}
	a, err := parse(data)
	var bad *MalformedError
	switch {
	case errors.Is(err, errSkip):
		return nil
	case errors.As(err, &bad):
		r.sum.problem(protocol.Malformed, name, err)
		return nil
	case err != nil:
		return err
	}
	return r.take(a)
}

func (r *reader) take(a *Advisory) error {
	r.sum.date(a.Modified)
	if len(a.Affected) == 0 {
		r.sum.skip("no package that is known here")
		return nil
	}
	r.sum.Documents++
	return r.fn(a)
}

// documents reads every .json file of a directory, or of a ZIP archive.
func (r *reader) documents(at string, parse func([]byte) (*Advisory, error)) error {
	info, err := os.Stat(at)
	if err != nil {
		return missing(err)
	}
	if !info.IsDir() {
		return r.zip(at, parse)
	}
	root, err := os.OpenRoot(at)
	if err != nil {
		return missing(err)
	}
	defer root.Close()
	// WalkDir goes by name, so the same tree is read in the same order.
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if cerr := context.Cause(r.ctx); cerr != nil {
			return cerr
		}
		switch {
		case err != nil:
			r.sum.problem(protocol.Unreadable, name, err)
			return nil
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case d.IsDir() || !isDocument(name):
			return nil
		case !d.Type().IsRegular():
			r.sum.skip("not a file")
			return nil
		}
		data, err := readBeneath(root, name)
		if err != nil {
			r.sum.problem(kindOf(err), name, err)
			return nil
		}
		return r.document(name, data, parse)
	})
}

// isDocument tells advisories from indexes of them, which the Go database has
// in the directory index.
func isDocument(name string) bool {
	return path.Ext(name) == ".json" && !strings.HasPrefix(name, "index/") && !strings.Contains(name, "/index/")
}

func kindOf(err error) protocol.ProblemKind {
	if errors.Is(err, errLarge) {
		return protocol.TooLarge
	}
	return protocol.Unreadable
}

var errLarge = fmt.Errorf("it has more than %d bytes", maxDocument)

func readBeneath(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

func readAll(f io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err == nil && len(data) > maxDocument {
		err = errLarge
	}
	return data, err
}

func missing(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failure.Wrap(failure.NotReady, err)
	case errors.Is(err, fs.ErrPermission):
		return failure.Wrap(failure.NotAllowed, err)
	}
	return err
}

// zip reads an archive, such as the all.zip that osv.dev has of each ecosystem.
// Names in it name documents and nothing else: no file is made.
func (r *reader) zip(at string, parse func([]byte) (*Advisory, error)) error {
	f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return missing(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return failure.Errorf(failure.Usage, "it is neither a directory nor a file")
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return failure.Hint(failure.Wrap(failure.Untrustworthy, err), "a source of this format is a directory of JSON documents, or a ZIP archive of one")
	}
	if len(z.File) > maxDocuments {
		return failure.Errorf(failure.Untrustworthy, "there are %d files in it, more than %d", len(z.File), maxDocuments)
	}
	files := slices.Clone(z.File)
	slices.SortFunc(files, func(a, b *zip.File) int { return cmp.Compare(a.Name, b.Name) })
	for i, e := range files {
		if err := context.Cause(r.ctx); err != nil {
			return err
		}
		if e.FileInfo().IsDir() || !isDocument(e.Name) {
			continue
		}
		name := strings.ToValidUTF8(e.Name, "?")
		if i > 0 && files[i-1].Name == e.Name {
			r.sum.problem(protocol.Malformed, name, errors.New("it is in the archive twice"))
			continue
		}
		in, err := e.Open()
		var data []byte
		if err == nil {
			data, err = readAll(in)
			err = errors.Join(err, in.Close())
		}
		if err != nil {
			r.sum.problem(kindOf(err), name, err)
			continue
		}
		if err := r.document(name, data, parse); err != nil {
			return err
		}
	}
	return nil
}

// open opens one document, packed with gzip or not.
func open(at string, limit int64) (io.Reader, *os.File, error) {
	f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, missing(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = failure.Errorf(failure.Usage, "it is not a file")
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	head := make([]byte, 2)
	_, _ = f.ReadAt(head, 0)
	var in io.Reader = f
	if bytes.Equal(head, []byte{0x1f, 0x8b}) {
		if in, err = gzip.NewReader(f); err != nil {
			f.Close()
			return nil, nil, failure.Wrap(failure.Untrustworthy, err)
		}
	}
	return io.LimitReader(in, limit), f, nil
}
