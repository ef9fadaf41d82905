// Package pack builds, signs and reads packages of plugins, and proves what is
// installed of them.
//
// A package is a directory or a tar archive, packed with zstd or gzip, that has
// in this order: plugin.yaml, its signature plugin.yaml.minisig, and the files
// that plugin.yaml lists, in the order of their names (bytewise), with mode
// 0644 or 0755. Directories are only implied; there are no links, no devices
// and nothing else.
//
// The signature is of plugin.yaml alone, and plugin.yaml has the BLAKE3 digest
// and the size of each file. So what is proved goes one way:
//
//	trusted key → signature, release → plugin.yaml → digests → files
//
// Open reads the first two entries and nothing else. Verify proves them. Only
// then does Unpack read on: it checks name, mode, size and digest of each file
// while it writes it, and removes everything when one of them is wrong.
// VerifyDir proves an installed directory by the same digests again, at every
// start of a plugin.
//
// Invariants: what Unpack leaves behind is exactly what was signed, or nothing.
// Build proves what it writes by reading it back as a host would.
//
// docs/formats/plugin-package.md describes the format and every code.
package pack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/trust"
)

// MaxSignatureBytes bounds plugin.yaml.minisig: it has two lines of base64 and
// two of comments.
const MaxSignatureBytes = 16 << 10

// Verifier knows the keys that are trusted; *trust.Keys is one.
type Verifier interface {
	Verifier(signature []byte) (*trust.Verifier, error)
}

// Package is a package that was opened. Nothing that it says of itself is to be
// relied on before Verify.
type Package struct {
	Manifest      *manifest.Manifest
	ManifestBytes []byte // plugin.yaml as it is in the package, which the signature is of
	Signature     []byte // plugin.yaml.minisig

	// Release is what the signature says, and Key the key that made it, both
	// after Verify.
	Release trust.Release
	Key     trust.Key

	proved bool
	source source
}

// source gives the files of a package.
type source interface {
	// each calls take for the files of m, in the order of their names, and
	// refuses whatever is not exactly one of them. Content and size are for
	// take to check.
	each(ctx context.Context, m *manifest.Manifest, take taker) error
	close() error
}

// taker takes a file that a manifest lists.
type taker func(name string, f manifest.File, content io.Reader) error

// Open opens a package: a directory, or a file that is an archive by its first
// bytes. It reads the manifest and its signature.
func Open(path string) (*Package, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, access(err)
	}
	if info.IsDir() {
		return openDir(path)
	}
	other := func(info os.FileInfo) error {
		return refuse(CodeNotPackage, "", "name a directory or a .tar.zst or .tar.gz file", "%q is neither a file nor a directory (%s)", path, info.Mode())
	}
	if !info.Mode().IsRegular() { // opening a device may do something
		return nil, other(info)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, access(err)
	}
	var p *Package
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = other(info)
	}
	if err == nil {
		p, err = openArchive(f, f.Close)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

// OpenReader begins to read an archive, up to its signature. It unpacks ahead,
// in a goroutine that reads r until the end, an error or Close; r is not closed.
func OpenReader(r io.Reader) (*Package, error) {
	return openArchive(r, func() error { return nil })
}

// newPackage makes a package of its first two entries.
func newPackage(raw, signature []byte, s source) (*Package, error) {
	m, err := manifest.Parse(raw)
	if err != nil {
		return nil, &Error{Code: archive.CodeManifest, Err: err}
	}
	return &Package{Manifest: m, ManifestBytes: raw, Signature: signature, source: s}, nil
}

// Verify proves that a trusted key signed the manifest, that what the signature
// says of it is what it says of itself, and that the release may be installed
// at now: the later one of what the clock says and of what is known to have
// been. The zero time does not ask for that, as for what is installed already.
// Nothing beyond the first two entries is read.
func (p *Package) Verify(keys Verifier, now time.Time) error {
	p.proved = false
	v, err := keys.Verifier(p.Signature)
	if err != nil {
		return signatureError(err)
	}
	v.Write(p.ManifestBytes) // a hash: never fails
	if err := v.Verify(); err != nil {
		return signatureError(err)
	}
	rel := v.Release()
	if rel.Name != p.Manifest.Name || rel.Version != p.Manifest.Version {
		return refuse(CodeNameMismatch, "", hintPublisher, "plugin.yaml is of %s %s, and the signature says %s %s",
			p.Manifest.Name, p.Manifest.Version, rel.Name, rel.Version)
	}
	if err := p.Manifest.CheckPackaged(); err != nil {
		return &Error{Code: archive.CodeManifest, Err: err, Hint: hintPublisher}
	}
	if !now.IsZero() {
		if err := rel.Current(now, time.Time{}); err != nil {
			return signatureError(err)
		}
	}
	p.Release, p.Key, p.proved = rel, v.Key(), true
	return nil
}

// errNotVerified is a mistake of the program.
var errNotVerified = failure.New(failure.Failed, "files of a package were asked for that nobody verified")

// Prove reads all files and holds them against the manifest, as Unpack does,
// without writing any. It is after Verify. Of an archive, either can be done
// once.
func (p *Package) Prove(ctx context.Context) error {
	if !p.proved {
		return errNotVerified
	}
	return p.prove(ctx)
}

func (p *Package) prove(ctx context.Context) error {
	copier := newCopier(ctx)
	return p.source.each(ctx, p.Manifest, func(name string, f manifest.File, content io.Reader) error {
		return copier.copy(io.Discard, name, f, content)
	})
}

// Close gives back what reading takes, and closes the file that Open opened.
func (p *Package) Close() error { return p.source.close() }

// ArchiveName is how the archive of a plugin is called:
// NAME-VERSION.plugin.tar.zst.
func ArchiveName(m *manifest.Manifest, format archive.Format) string {
	return m.Name + "-" + m.Version + ".plugin." + string(format)
}

// names returns the files of a manifest in the order of a package.
func names(m *manifest.Manifest) []string { return slices.Sorted(maps.Keys(m.Files)) }

// modeOf returns the permissions of a file.
func modeOf(f manifest.File) uint32 {
	if f.Executable {
		return 0o755
	}
	return 0o644
}

// access says what helps against missing rights.
func access(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return failure.Wrap(failure.NotAllowed, err)
	}
	return err
}

// readLimited reads a file of a package that has at most most bytes.
func readLimited(r io.Reader, name string, most int64) ([]byte, error) {
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(r, most+1)); err != nil {
		return nil, err
	}
	if int64(b.Len()) > most {
		return nil, refuse(archive.CodeTooLarge, name, hintPublisher, "it has more than %d bytes", most)
	}
	return b.Bytes(), nil
}
