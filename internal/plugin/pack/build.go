package pack

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/zeebo/blake3"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/trust"
)

// DefaultChannel is that of releases for which no other was named.
const DefaultChannel = "stable"

// BuildOptions are how Build makes a package.
type BuildOptions struct {
	Signer   trust.Signer
	Sequence uint64    // each release of a plugin has a greater one than those before
	Expires  time.Time // may not be installed from then on; whole seconds
	Channel  string    // DefaultChannel when ""
	// Include are patterns (archive.Match) of the files that are packed, beside
	// the program: DefaultInclude when nil. Each must match something.
	Include []string
	// Exclude are patterns of files and directories that are left out
	// nevertheless.
	Exclude []string
	Format  archive.Format // of Build; archive.Zstd when ""
	Level   int            // of Build; see archive.WriterOptions
}

// BuildReport is what was made.
type BuildReport struct {
	Manifest    *manifest.Manifest `json:"manifest"` // with files
	Release     trust.Release      `json:"release"`
	KeyID       string             `json:"key"`
	Files       int                `json:"files"`                  // with manifest and signature
	Bytes       int64              `json:"bytes"`                  // of all files
	PackedBytes int64              `json:"packed_bytes,omitempty"` // of the archive
}

// Build packs the directory of a plugin as a signed archive, whose name
// ArchiveName tells. The same files, manifest, key and options make the same
// bytes, whoever builds it wherever: times and owners are not recorded.
//
// What is written is read back at the same time, so nothing is built that a
// host refuses. After an error, what w got is no package.
func Build(ctx context.Context, dir string, w io.Writer, opts BuildOptions) (*BuildReport, error) {
	b, err := prepare(ctx, dir, &opts)
	if err != nil {
		return nil, err
	}
	defer b.tree.close()
	n, err := archive.WriteProved(w, func(w io.Writer) error { return b.write(ctx, w, opts) }, func(r io.Reader) error { return b.readBack(ctx, r) })
	var refused *Error
	if errors.As(err, &refused) {
		return nil, failure.Errorf(failure.Failed, "build a package that no host would take: %w", refused)
	}
	if err != nil {
		return nil, err
	}
	b.report.PackedBytes = n
	return &b.report, nil
}

// BuildDir is Build into the directory dst, which must not exist: a package
// that is a directory. After an error nothing of it is left. It is for the
// caller to sync the directory above.
func BuildDir(ctx context.Context, dir, dst string, opts BuildOptions) (*BuildReport, error) {
	b, err := prepare(ctx, dir, &opts)
	if err != nil {
		return nil, err
	}
	defer b.tree.close()
	err = write(ctx, dst, b.raw, b.signature, b.each)
	var refused *Error
	if errors.As(err, &refused) && refused.Code == CodeDigest {
		return nil, changed(refused.Entry)
	}
	if err != nil {
		return nil, err
	}
	return &b.report, nil
}

// build is a package that is complete but for being written.
type build struct {
	tree      *tree
	infos     map[string]fs.FileInfo
	raw       []byte // the manifest with its files
	signature []byte
	report    BuildReport
}

// prepare chooses and hashes the files, and signs the manifest that lists them.
func prepare(ctx context.Context, dir string, opts *BuildOptions) (b *build, err error) {
	if opts.Signer == nil {
		return nil, failure.New(failure.Usage, "a package needs a key that signs it")
	}
	if opts.Channel == "" {
		opts.Channel = DefaultChannel
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, access(err)
	}
	defer func() {
		if err != nil {
			root.Close()
		}
	}()
	b = &build{tree: &tree{root}, report: BuildReport{KeyID: opts.Signer.Public().ID()}}
	raw, err := b.tree.small(manifest.FileName, manifest.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "%s has no %s", dir, manifest.FileName), "make one: mobileops plugin init NAME")
	}
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(raw)
	if err != nil {
		return nil, err
	}
	rel := trust.Release{Name: m.Name, Version: m.Version, Sequence: opts.Sequence, Channel: opts.Channel, Expires: opts.Expires}
	if err := rel.Check(); err != nil { // before a long reading, not after
		return nil, err
	}
	if b.infos, err = choose(ctx, b.tree, m, opts); err != nil {
		return nil, err
	}
	if err := b.hash(ctx, m); err != nil {
		return nil, err
	}
	if err := m.CheckPackaged(); err != nil {
		return nil, err
	}
	if b.raw, err = m.Marshal(); err != nil {
		return nil, err
	}
	if len(b.raw) > manifest.MaxBytes {
		return nil, failure.Errorf(failure.Failed, "with its files, %s has %d bytes; %d are allowed: pack fewer files", manifest.FileName, len(b.raw), manifest.MaxBytes)
	}
	if b.signature, err = trust.SignPackage(ctx, opts.Signer, bytes.NewReader(b.raw), rel, ""); err != nil {
		return nil, err
	}
	b.report.Manifest, b.report.Release = m, rel
	b.report.Files = len(m.Files) + 2
	b.report.Bytes += int64(len(b.raw)) + int64(len(b.signature))
	return b, nil
}

// hash fills the files of the manifest.
func (b *build) hash(ctx context.Context, m *manifest.Manifest) error {
	m.Files = make(map[string]manifest.File, len(b.infos))
	buf := make([]byte, 256<<10)
	for name, info := range b.infos {
		f, err := b.hashFile(ctx, name, info, name == m.Program(), buf)
		if err != nil {
			return err
		}
		m.Files[name] = f
		b.report.Bytes += f.Size
	}
	return nil
}

func (b *build) hashFile(ctx context.Context, name string, info fs.FileInfo, program bool, buf []byte) (manifest.File, error) {
	in, err := b.tree.open(name, info)
	if err != nil {
		return manifest.File{}, err
	}
	defer in.Close()
	h := blake3.New()
	f := manifest.File{Executable: info.Mode().Perm()&0o111 != 0}
	for {
		if err := ctx.Err(); err != nil {
			return f, err
		}
		n, err := io.ReadFull(in, buf)
		if program && f.Size == 0 && !canRun(buf[:n]) {
			return f, failure.Errorf(failure.Failed, "%q is neither an ELF program nor a script that begins with #!: build the plugin first", name)
		}
		h.Write(buf[:n])
		f.Size += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return f, err
		}
	}
	if f.Size > manifest.MaxFileBytes {
		return f, failure.Errorf(failure.Failed, "%q has %d bytes; %d are allowed", name, f.Size, int64(manifest.MaxFileBytes))
	}
	f.Digest = hex.EncodeToString(h.Sum(nil))
	return f, nil
}

// canRun tells whether the kernel starts a file that begins so.
func canRun(head []byte) bool {
	return bytes.HasPrefix(head, []byte("\x7fELF")) || bytes.HasPrefix(head, []byte("#!"))
}

func changed(name string) error {
	return failure.Errorf(failure.Failed, "%q changed while it was read; build from a directory that nobody works in", name)
}

// each gives the files to take, which holds them against the manifest.
func (b *build) each(take taker) error {
	m := b.report.Manifest
	for _, name := range names(m) {
		if err := b.tree.take(name, m.Files[name], b.infos[name], take); err != nil {
			return err
		}
	}
	return nil
}

// write packs everything.
func (b *build) write(ctx context.Context, w io.Writer, opts BuildOptions) error {
	out, err := archive.NewWriter(w, archive.WriterOptions{Format: opts.Format, Level: opts.Level})
	if err != nil {
		return err
	}
	if err := out.Bytes(manifest.FileName, 0o644, time.Time{}, b.raw); err != nil {
		return err
	}
	if err := out.Bytes(manifest.SignatureName, 0o644, time.Time{}, b.signature); err != nil {
		return err
	}
	m := b.report.Manifest
	for _, name := range names(m) {
		f, h := m.Files[name], blake3.New()
		n, err := out.File(ctx, b.tree.root, name, b.infos[name], modeOf(f), time.Time{}, h)
		if err != nil {
			return err
		}
		if n != f.Size || hex.EncodeToString(h.Sum(nil)) != f.Digest {
			return changed(name)
		}
	}
	return out.Close()
}

// readBack reads what was written as a host would, but for whether the key is
// trusted: package trust has proved what it signed.
func (b *build) readBack(ctx context.Context, r io.Reader) error {
	p, err := OpenReader(r)
	if err != nil {
		return err
	}
	defer p.Close()
	if !bytes.Equal(p.ManifestBytes, b.raw) || !bytes.Equal(p.Signature, b.signature) {
		return fmt.Errorf("%s came back different", manifest.FileName)
	}
	return p.prove(ctx)
}
