package pack

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/mobileops/mobileops/internal/archive"
)

// Reader reads a package from its beginning to its end.
type Reader struct {
	archive  *archive.Reader
	limits   archive.Limits
	manifest *Manifest
	raw      []byte // of the manifest, nil without one
	first    *archive.Header
	past     bool            // begin is done: the place of the manifest is over
	setID    map[string]bool // files that the manifest lists and that were there
	hooks    map[string]bool // hooks that were there, and whether they can be run
	err      error           // what ended it
}

// NewReader begins to read a package, up to its manifest. It starts to unpack
// ahead, in a goroutine that reads r until the end, an error or Close; r is
// not closed.
//
// What is wrong with the package is an *archive.Error; errors of r are passed
// on, and are none.
func NewReader(r io.Reader, l archive.Limits) (*Reader, error) {
	return newReader(l, func(l archive.Limits, rules archive.Rules) (*archive.Reader, error) {
		return archive.NewReader(r, l, rules)
	})
}

// newReader reads the archive that open opens, and closes it after an error.
func newReader(l archive.Limits, open func(archive.Limits, archive.Rules) (*archive.Reader, error)) (*Reader, error) {
	r := &Reader{limits: l.OrDefaults(), manifest: defaultManifest(), setID: map[string]bool{}, hooks: map[string]bool{}}
	a, err := open(r.limits, archive.Rules{Admit: r.admit, Link: r.link, Advice: advice})
	if err != nil {
		return nil, err
	}
	r.archive = a
	if err := r.begin(); err != nil {
		a.Close()
		return nil, err
	}
	r.past = true
	return r, nil
}

// begin reads the manifest, if there is one. The first entry that is another
// is kept for Next.
func (r *Reader) begin() error {
	for {
		h, err := r.archive.Header()
		if err == io.EOF {
			return nil // Next is told the same
		}
		if err != nil {
			return err
		}
		name, p := archive.CleanName(h.Name, &r.limits)
		switch {
		case p == nil && h.Kind == archive.Dir && (name == "" || name == MetaDir):
			if _, err := r.archive.Accept(h); err != nil {
				return err
			}
		case p == nil && h.Kind == archive.File && name == ManifestName:
			e, err := r.archive.Accept(h)
			if err != nil {
				return err
			}
			return r.readManifest(h, e)
		default:
			r.first = h
			return nil
		}
	}
}

func (r *Reader) readManifest(h *archive.Header, e *archive.Entry) error {
	if e.Size > int64(r.limits.ManifestBytes) {
		return refuseManifest(h.Name, fmt.Errorf("%d bytes; %d are allowed", e.Size, r.limits.ManifestBytes))
	}
	data := make([]byte, e.Size)
	if _, err := io.ReadFull(e.Body, data); err != nil {
		return err
	}
	m, err := ParseManifest(data, r.limits)
	if err != nil {
		return err
	}
	r.manifest, r.raw = m, data
	return nil
}

// Manifest returns the manifest, or the defaults when the package has none: an
// overlay that names nothing. It is never nil.
func (r *Reader) Manifest() *Manifest { return r.manifest }

// ManifestBytes returns the manifest as it is in the package, nil when there
// is none.
func (r *Reader) ManifestBytes() []byte { return r.raw }

// Next returns the next entry. It is io.EOF only after everything was proved:
// the end of the archive, the end and the checksum of the packing, and that
// nothing comes after. Until then what was read is not to be relied on.
func (r *Reader) Next() (*Entry, error) {
	for r.err == nil {
		h := r.first
		r.first = nil
		if h == nil {
			var err error
			if h, err = r.archive.Header(); err != nil {
				r.err = err
				break
			}
		}
		e, err := r.archive.Accept(h)
		if err != nil {
			r.err = err
			break
		}
		if e != nil && e.Name != MetaDir && e.Name != ManifestName {
			return &Entry{Entry: *e, Meta: isMeta(e.Name)}, nil
		}
	}
	if r.err == io.EOF {
		if err := r.finish(); err != nil {
			r.err = err
		}
	}
	return nil, r.err
}

// Close ends unpacking and gives its memory back. It waits for a read of the
// source that has begun. What was wrong with the package Next has said.
func (r *Reader) Close() error { return r.archive.Close() }

// admit checks that an entry may be where it is, and have the mode that it has.
func (r *Reader) admit(e *archive.Entry, mode uint32) *archive.Problem {
	if p := r.place(e, mode); p != nil {
		return p
	}
	return r.mode(e, mode)
}

// place checks that an entry may be where it is, beneath .mobileops or with
// regard to data directories.
func (r *Reader) place(e *archive.Entry, mode uint32) *archive.Problem {
	meta := isMeta(e.Name)
	switch {
	case foldsToMeta(e.Name) && !meta:
		return archive.Trouble(archive.CodeCaseClash, "it differs from %s by case alone", MetaDir)
	case meta && e.Kind == archive.Symlink:
		return archive.Trouble(archive.CodeType, "a link; only files and directories may be in %s", MetaDir)
	case e.Name == MetaDir && e.Kind != archive.Dir:
		return archive.Trouble(archive.CodeFileOverDir, "a %s in place of a directory", e.Kind)
	case e.Name == ManifestName && e.Kind == archive.Dir:
		return archive.Trouble(archive.CodeManifest, "a directory in place of the manifest")
	case e.Name == ManifestName && r.past:
		return archive.Trouble(archive.CodeManifest, "it is not the first entry: name it first when calling tar")
	}
	if e.Kind != archive.Dir && !meta {
		for _, d := range r.manifest.Data {
			if archive.Within(d, e.Name) {
				return archive.Trouble(CodeDataPath, "a %s where the manifest has the data directory %q", e.Kind, d)
			}
		}
	}
	if meta && e.Kind == archive.File && archive.Within(e.Name, HooksDir) {
		r.hooks[e.Name] = mode&0o111 != 0
	}
	return nil
}

// mode holds setuid and setgid bits against the manifest.
func (r *Reader) mode(e *archive.Entry, mode uint32) *archive.Problem {
	var want uint32
	if len(r.manifest.SetUID) > 0 && !isMeta(e.Name) {
		want = r.manifest.setID(e.Name)
	}
	switch {
	case want == 0 && mode&0o6000 == 0:
		return nil
	case want == 0 && e.Kind == archive.Dir:
		return archive.Trouble(archive.CodeSetID, "mode %04o: directories have no such bits", mode)
	case want == 0:
		return archive.Trouble(archive.CodeSetID, "mode %04o, and the manifest does not list it", mode)
	case e.Kind != archive.File || want != mode:
		return archive.Trouble(archive.CodeSetID, "a %s of mode %04o, where the manifest lists a file of mode %04o", e.Kind, mode, want)
	}
	e.Mode = want
	r.setID[e.Name] = true
	return nil
}

// link checks that a link leads to what is installed, and out of no data
// directory.
func (r *Reader) link(e *archive.Entry, resolved string) *archive.Problem {
	if isMeta(resolved) {
		return archive.Trouble(archive.CodeSymlinkEscape, "the link points to %q, which is not part of the tree", archive.Abridge(e.Link))
	}
	if data := r.manifest.dataOf(e.Name); data != "" && !archive.Within(resolved, data) {
		return archive.Trouble(CodeDataPath, "the link points to %q, out of the data directory %q that it lies in", archive.Abridge(e.Link), data)
	}
	return nil
}

// foldsToMeta tells whether the first part of a clean name is .mobileops in
// whatever case.
func foldsToMeta(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return len(first) < 4*len(MetaDir) && archive.Fold(first) == MetaDir
}

// finish sees that what the manifest names was there.
func (r *Reader) finish() error {
	bad := func(name, what string) error { return refuseManifest(name, errors.New(what)) }
	for _, s := range r.manifest.SetUID {
		if !r.setID[s.Path] {
			return bad(s.Path, "the manifest lists it under setuid, and it is not in the package")
		}
	}
	var commands [][]string
	for _, h := range []*Hook{r.manifest.Hooks.Before, r.manifest.Hooks.After} {
		if h != nil {
			commands = append(commands, h.Command)
		}
	}
	if h := r.manifest.Health; h != nil && len(h.Command) > 0 {
		commands = append(commands, h.Command)
	}
	for _, c := range commands {
		if !isMeta(c[0]) {
			continue // it may be in the tree already
		}
		switch run, ok := r.hooks[c[0]]; {
		case !ok:
			return bad(c[0], "the manifest runs it, and it is not in the package")
		case !run:
			return bad(c[0], "the manifest runs it, and its mode is not that of a program (chmod +x "+path.Base(c[0])+")")
		}
	}
	return nil
}
