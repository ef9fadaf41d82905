package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
)

// BuildOptions are how Build makes a package.
type BuildOptions struct {
	Format archive.Format // archive.Zstd when ""
	// Level is that of zstd(1), 1 to 19, or of gzip(1), 1 to 9; 0 is a good one.
	Level int
	// ModTime is the latest that a file may have been changed: later times
	// become it, as reproducible builds do with SOURCE_DATE_EPOCH. None when
	// zero.
	ModTime time.Time
	// Limits are those of the hosts that read the package.
	Limits archive.Limits
}

// BuildReport is what Build made.
type BuildReport struct {
	Files       int   `json:"files"` // with hooks and the manifest
	Directories int   `json:"directories"`
	Symlinks    int   `json:"symlinks"`
	Bytes       int64 `json:"bytes"`        // of all files
	PackedBytes int64 `json:"packed_bytes"` // of the package
}

// Build writes the tree at dir as a package: its manifest first, then the rest
// of .mobileops, then everything else in the order of names. The same tree,
// manifest and options make the same bytes, whoever builds it wherever; owners
// are not recorded. A nil manifest is that in the tree, if it has one; any
// other takes the place of that. Files that the manifest lists under setuid
// get the modes that it lists, for working copies cannot keep these.
//
// What is written is read back at the same time by a Reader with the limits
// given. So what a host would refuse is refused here, with the same
// *archive.Error within one of the kind failure.Failed. After an error, what w got is no
// package.
func Build(ctx context.Context, w io.Writer, dir string, m *Manifest, opts BuildOptions) (BuildReport, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return BuildReport{}, fmt.Errorf("build a package: %w", err)
	}
	defer root.Close()
	b := &builder{ctx: ctx, root: root, opts: opts, limits: opts.Limits.OrDefaults()}
	if err := b.useManifest(m); err != nil {
		return BuildReport{}, err
	}
	packed, err := archive.WriteProved(w, b.write, func(r io.Reader) error { return readAll(r, opts.Limits) })
	if err != nil {
		return BuildReport{}, err
	}
	b.report.PackedBytes = packed
	return b.report, nil
}

// readAll proves a package.
func readAll(src io.Reader, l archive.Limits) error {
	r, err := NewReader(src, l)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		if _, err := r.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

type builder struct {
	ctx      context.Context
	root     *os.Root
	opts     BuildOptions
	limits   archive.Limits
	manifest *Manifest
	raw      []byte // nil: no manifest
	out      *archive.Writer
	report   BuildReport
}

// useManifest takes the manifest given, or else that in the tree.
func (b *builder) useManifest(m *Manifest) error {
	refused := func(err error) error {
		return &failure.Error{Kind: failure.Failed, Msg: "build a package that no host would take", Err: err}
	}
	if m != nil {
		raw, err := m.encode()
		if err != nil {
			return fmt.Errorf("write the manifest: %w", err)
		}
		b.raw = raw
	} else {
		f, err := b.root.Open(ManifestName)
		if errors.Is(err, fs.ErrNotExist) {
			b.manifest = defaultManifest()
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the manifest: %w", err)
		}
		defer f.Close()
		if b.raw, err = io.ReadAll(io.LimitReader(f, int64(b.limits.ManifestBytes)+1)); err != nil {
			return fmt.Errorf("read the manifest: %w", err)
		}
	}
	var err error
	if b.manifest, err = ParseManifest(b.raw, b.limits); err != nil {
		return refused(err)
	}
	return nil
}

// write packs everything.
func (b *builder) write(w io.Writer) error {
	out, err := archive.NewWriter(w, archive.WriterOptions{Format: b.opts.Format, Level: b.opts.Level, Latest: b.opts.ModTime})
	if err != nil {
		return err
	}
	b.out = out
	if b.raw != nil {
		if err := out.Bytes(ManifestName, 0o644, b.opts.ModTime, b.raw); err != nil {
			return err
		}
		b.report.Files++
		b.report.Bytes += int64(len(b.raw))
	}
	if info, err := b.root.Lstat(MetaDir); err == nil {
		if err := b.entry(MetaDir, info); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := b.directory("."); err != nil {
		return err
	}
	return out.Close()
}

// directory writes what is in a directory.
func (b *builder) directory(name string) error {
	entries, err := fs.ReadDir(b.root.FS(), name) // sorted
	if err != nil {
		return err
	}
	for _, e := range entries {
		child := path.Join(name, e.Name())
		if child == MetaDir || child == ManifestName {
			continue // these came first
		}
		info, err := b.root.Lstat(child)
		if err != nil {
			return err
		}
		if err := b.entry(child, info); err != nil {
			return err
		}
	}
	return nil
}

// entry writes one thing, and what is in it.
func (b *builder) entry(name string, info fs.FileInfo) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		if err := b.out.Dir(name, bits(info.Mode()), info.ModTime()); err != nil {
			return err
		}
		b.report.Directories++
		return b.directory(name)
	case fs.ModeSymlink:
		target, err := b.root.Readlink(name)
		if err != nil {
			return err
		}
		b.report.Symlinks++
		return b.out.Symlink(name, target, info.ModTime())
	case 0:
		mode := bits(info.Mode())
		if listed := b.manifest.setID(name); listed != 0 {
			mode = listed
		}
		n, err := b.out.File(b.ctx, b.root, name, info, mode, info.ModTime(), nil)
		if err != nil {
			return err
		}
		b.report.Files++
		b.report.Bytes += n
		return nil
	}
	return &archive.Error{Code: archive.CodeDevice, Entry: name, Err: fmt.Errorf("it is a %s", info.Mode().Type())}
}

// bits are the permissions of a file as chmod(2) takes them, without the
// sticky bit, which hosts drop.
func bits(mode fs.FileMode) uint32 {
	n := uint32(mode.Perm())
	if mode&fs.ModeSetuid != 0 {
		n |= 0o4000
	}
	if mode&fs.ModeSetgid != 0 {
		n |= 0o2000
	}
	if mode&fs.ModeSticky != 0 && mode.IsDir() {
		n &^= 0o002
	}
	return n
}
