package pack

import (
	"context"
	"errors"
	"io"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

// limits are those of packages: what a manifest can list, and the directories
// of that.
func limits() archive.Limits {
	return archive.Limits{
		Entries:     manifest.MaxFiles * 16,
		TotalBytes:  manifest.MaxAllBytes + manifest.MaxBytes + MaxSignatureBytes,
		FileBytes:   manifest.MaxFileBytes,
		HeaderBytes: 8 << 10,
	}
}

// packed reads the files of an archive.
type packed struct {
	archive   *archive.Reader
	closeFile func() error
	read      int                // entries accepted
	manifest  *manifest.Manifest // whose files come next; nil before these
	names     []string           // that are to come
	err       error              // what a rule of ours refused, which tells more than a Problem can
	done      bool
}

// openArchive reads an archive up to its signature.
func openArchive(r io.Reader, closeFile func() error) (*Package, error) {
	s := &packed{closeFile: closeFile}
	a, err := archive.NewReader(r, limits(), archive.Rules{Admit: s.admit})
	if err != nil {
		return nil, err
	}
	return s.begin(a)
}

// begin reads the first two entries, and closes the archive after an error.
func (s *packed) begin(a *archive.Reader) (p *Package, err error) {
	s.archive = a
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	raw, err := s.small(manifest.MaxBytes, refuse(CodeNotPackage, "", "name a package, as mobileops plugin pack builds it", "it is empty"))
	if err != nil {
		return nil, err
	}
	signature, err := s.small(MaxSignatureBytes, refuse(CodeUnsigned, "", hintPublisher, "nothing comes after %s", manifest.FileName))
	if err != nil {
		return nil, err
	}
	return newPackage(raw, signature, s)
}

// small reads one of the first two entries.
func (s *packed) small(most int64, absent error) ([]byte, error) {
	e, err := s.next()
	if err == io.EOF {
		return nil, absent
	}
	if err != nil {
		return nil, err
	}
	return readLimited(e.Body, e.Name, most)
}

// next returns the next entry. There is none for the root of the tree, which
// packages do not have.
func (s *packed) next() (*archive.Entry, error) {
	h, err := s.archive.Header()
	if err != nil {
		return nil, err
	}
	e, err := s.archive.Accept(h)
	switch {
	case s.err != nil:
		return nil, s.err
	case err != nil:
		return nil, err
	case e == nil:
		return nil, refuse(archive.CodeType, h.Name, hintPublisher, "packages have no entries for directories")
	}
	return e, nil
}

// admit decides about an entry before its content is looked at.
func (s *packed) admit(e *archive.Entry, mode uint32) *archive.Problem {
	if err := s.decide(e, mode); err != nil {
		s.err = err
		return &archive.Problem{Code: err.Code, Err: err.Err}
	}
	s.read++
	return nil
}

func (s *packed) decide(e *archive.Entry, mode uint32) *Error {
	if err := s.expected(e); err != nil {
		return err
	}
	switch e.Kind {
	case archive.File:
	case archive.Dir:
		return refuse(archive.CodeType, e.Name, hintPublisher, "packages have no entries for directories")
	default:
		return refuse(archive.CodeType, e.Name, hintPublisher, "a %s; packages have files only", e.Kind)
	}
	want := uint32(0o644)
	if s.manifest != nil {
		f := s.manifest.Files[e.Name]
		if want = modeOf(f); f.Size != e.Size {
			return refuse(CodeDigest, e.Name, hintPackage, "it has %d bytes, and %d were signed", e.Size, f.Size)
		}
	}
	switch {
	case mode&0o6000 != 0:
		return refuse(archive.CodeSetID, e.Name, hintPublisher, "mode %04o: no file of a plugin has such bits", mode)
	case mode != want:
		return refuse(CodeMode, e.Name, hintPublisher, "mode %04o; it must be %04o", mode, want)
	}
	return nil
}

// expected tells whether an entry is the one that comes next.
func (s *packed) expected(e *archive.Entry) *Error {
	switch {
	case s.read == 0 && e.Name != manifest.FileName:
		return refuse(CodeNotPackage, e.Name, "name a package, as mobileops plugin pack builds it", "the first file of a package is %s", manifest.FileName)
	case s.read == 0:
		return nil
	case s.read == 1 && e.Name != manifest.SignatureName:
		return refuse(CodeUnsigned, e.Name, hintPublisher, "it comes where %s must be", manifest.SignatureName)
	case s.read == 1:
		return nil
	}
	if _, listed := s.manifest.Files[e.Name]; !listed {
		return refuse(CodeExtraFile, e.Name, hintPackage, "%s does not list it", manifest.FileName)
	}
	if len(s.names) == 0 {
		return refuse(archive.CodeDuplicate, e.Name, hintPackage, "the name is there twice")
	}
	if s.names[0] != e.Name {
		return refuse(CodeMissingFile, s.names[0], hintPackage, "%q comes in its place: it is missing, or files do not come in the order of their names", archive.Abridge(e.Name))
	}
	s.names = s.names[1:]
	return nil
}

// errReadOnce is a mistake of the program.
var errReadOnce = failure.New(failure.Failed, "the files of an archive were asked for a second time")

func (s *packed) each(ctx context.Context, m *manifest.Manifest, take taker) error {
	if s.done {
		return errReadOnce
	}
	s.done, s.manifest, s.names = true, m, names(m)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := s.next()
		if err == io.EOF { // all was proved, to the last byte
			break
		}
		if err != nil {
			return err
		}
		if err := take(e.Name, m.Files[e.Name], e.Body); err != nil {
			return err
		}
	}
	if len(s.names) > 0 {
		return refuse(CodeMissingFile, s.names[0], hintPackage, "%s lists it, and it is not in the package", manifest.FileName)
	}
	return nil
}

func (s *packed) close() error { return errors.Join(s.archive.Close(), s.closeFile()) }
