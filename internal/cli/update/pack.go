package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/signing"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/spf13/cobra"
)

type packOptions struct {
	releaseOptions
	sign     string
	manifest string
	level    int
	force    bool
}

func newPack(a *app.App) *cobra.Command {
	var opts packOptions
	cmd := a.Command(app.Spec{
		Use:   "pack DIR [PACKAGE] [--name NAME] [--version VERSION] [--sign KEY --sequence NUMBER] [flags]",
		Short: "Build a package from a directory, and sign it",
		Long: `Build a package from a directory, and sign it when --sign names a key.

PACKAGE ends with .tar.zst or .tar.gz; without it NAME-VERSION.tar.zst is written
into the present directory. The same directory makes the same package, byte for
byte, when file times are the same, or SOURCE_DATE_EPOCH is set in the
environment. What hosts would refuse is refused here.

DIR/.mobileops/package.yaml is the manifest, and hooks lie beside it; --manifest
takes another one. A directory without a manifest makes an overlay: its files are
laid over what is installed. A manifest begins with "schema: mobileops.package/v1";
name, version, config (files that admins edit), data (directories that outlive
updates), hooks and health (what must hold, or the host goes back) may follow:
see package.yaml among the examples of the documentation.

` + signing.Forms,
		Example: `
mobileops update pack build/ --name platform --version 2.4.1 --sign release.key --sequence 17
mobileops update pack build/ --sign release.key --password-file pw --sequence "$(date +%Y%m%d%H)" --quiet   # in a build job
mobileops update pack build/ platform.tar.gz --name platform --version 2.4.1                  # signed later, elsewhere
`,
		Args: cobra.RangeArgs(1, 2),
		Statuses: []app.Status{
			{Code: 0, Text: "the package is there, and signed if that was asked for"},
			{Code: 3, Text: "failed, or a host would refuse what is in DIR; no package was written"},
			{Code: 4, Text: "the password is wrong, or others may read a key that is not encrypted"},
			{Code: 5, Text: "the key or the manifest is damaged"},
			{Code: 7, Text: "there is no such directory, key or token, or a program that is needed is missing"},
		},
		Files:   []string{"PACKAGE: what is built", "PACKAGE.minisig: its signature", "state.db in the state directory: who signed what"},
		Audited: true,
		Run:     func(ctx context.Context, args []string) error { return runPack(ctx, a, &opts, args) },
		Complete: func(_ context.Context, args []string, _ string) []string {
			if len(args) == 0 {
				return app.Dirs()
			}
			return app.Files()
		},
	})
	fs := cmd.Flags()
	fs.StringVar(&opts.sign, "sign", "", "sign it with `KEY`")
	opts.addFlags(cmd)
	fs.StringVar(&opts.manifest, "manifest", "", "`FILE` takes the place of DIR/.mobileops/package.yaml")
	fs.IntVar(&opts.level, "level", 0, "pack as hard as `N` says: 1 to 19 for .tar.zst, 1 to 9 for .tar.gz")
	fs.BoolVar(&opts.force, "force", false, "replace files that exist")
	signing.Complete(a, cmd, "sign")
	app.CompleteFiles(cmd, "manifest", "yaml", "yml")
	app.CompleteValues(cmd, "level")
	return cmd
}

// packedContent is what is in a package that was built.
type packedContent struct {
	pack.BuildReport
}

func (c *packedContent) text() string {
	return fmt.Sprintf("%s, %s, packed to %s", ui.Plural(int64(c.Files), "file", "files"), ui.Bytes(c.Bytes), ui.Bytes(c.PackedBytes))
}

func runPack(ctx context.Context, a *app.App, o *packOptions, args []string) error {
	rel, err := o.check(time.Now())
	if err != nil {
		return err
	}
	if o.sign == "" {
		a.OnlyLooked() // a file was built; nobody vouched for it
	}
	dir := args[0]
	if st, err := os.Stat(dir); err != nil {
		return signing.Named(err)
	} else if !st.IsDir() {
		return app.UsageError("%s is not a directory", dir)
	}
	manifest, err := o.readManifest(dir)
	if err != nil {
		return err
	}
	rel.Name, rel.Version = o.name, o.version
	target := o.name + "-" + o.version + "." + string(archive.Zstd)
	if len(args) > 1 {
		target = args[1]
	}
	build := pack.BuildOptions{Level: o.level}
	if build.Format, err = formatOf(target); err != nil {
		return err
	}
	if most := map[archive.Format]int{archive.Zstd: 19, archive.Gzip: 9}[build.Format]; o.level < 0 || o.level > most {
		return app.UsageError("--level %d: a .%s is packed at a level from 1 to %d", o.level, build.Format, most)
	}
	if build.ModTime, err = sourceDate(a); err != nil {
		return err
	}
	if err := o.free(dir, target); err != nil {
		return err
	}
	var signer trust.Signer
	if o.sign != "" { // before the package is built, which takes its time
		if signer, err = signing.Open(ctx, a, o.sign, o.passwordFile); err != nil {
			return err
		}
	}
	doc := &signedPackage{Schema: "mobileops.update.pack/v1", Package: target, PackageB64: lossless(target), Name: o.name, Version: o.version}
	if err := o.build(ctx, a, dir, manifest, build, signer, rel, doc); err != nil {
		return err
	}
	if signer != nil {
		a.SetResult("%s signed by %s: %s", target, doc.Key, rel.Comment())
	}
	return printSigned(a, doc)
}

// check looks at the flags that need nothing else.
func (o *packOptions) check(now time.Time) (trust.Release, error) {
	if o.sign != "" {
		return o.terms(now)
	}
	switch {
	case o.sequence != 0:
		return trust.Release{}, app.UsageError("--sequence goes with --sign")
	case o.passwordFile != "":
		return trust.Release{}, app.UsageError("--password-file goes with --sign")
	case o.comment != "":
		return trust.Release{}, app.UsageError("--comment goes with --sign")
	}
	return trust.Release{}, nil
}

// readManifest returns the manifest that the package gets, nil for the one in
// dir as it is, and settles name and version with it.
func (o *packOptions) readManifest(dir string) (*pack.Manifest, error) {
	path := o.manifest
	if path == "" {
		path = filepath.Join(dir, filepath.FromSlash(pack.ManifestName))
	}
	text, err := readLimited(path)
	if errors.Is(err, fs.ErrNotExist) && o.manifest == "" {
		if err := o.identify("", ""); err != nil {
			return nil, err
		}
		return &pack.Manifest{Schema: pack.ManifestSchema, Kind: pack.KindOverlay, Name: o.name, Version: o.version}, nil
	}
	if err != nil {
		return nil, signing.Named(err)
	}
	m, err := pack.ParseManifest(text, archive.DefaultLimits())
	if err != nil && o.manifest != "" { // the error calls it by its name in the package
		err = fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	if err := o.identify(m.Name, m.Version); err != nil {
		return nil, err
	}
	if o.manifest == "" && m.Name != "" && m.Version != "" {
		return nil, nil
	}
	m.Name, m.Version = o.name, o.version
	return m, nil
}

// free makes sure that what is written neither replaces a file nor becomes part
// of the package.
func (o *packOptions) free(dir, target string) error {
	into, err := filepath.EvalSymlinks(filepath.Dir(target))
	if err != nil {
		return signing.Named(err)
	}
	from, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return signing.Named(err)
	}
	if into, err = filepath.Abs(into); err != nil {
		return err
	}
	if from, err = filepath.Abs(from); err != nil {
		return err
	}
	if back, err := filepath.Rel(from, into); err == nil && back != ".." && !strings.HasPrefix(back, "../") {
		return app.UsageError("%s would lie within %s, and become part of itself; name another place", target, dir)
	}
	for _, path := range []string{target, trust.SignaturePath(target)} {
		if _, err := os.Lstat(path); err == nil && !o.force {
			return exists(path, "--force replaces it")
		}
	}
	return nil
}

// build writes the package and its signature, each whole. The signature comes
// last, so at no moment one lies there whose package does not.
func (o *packOptions) build(ctx context.Context, a *app.App, dir string, m *pack.Manifest, build pack.BuildOptions, signer trust.Signer, rel trust.Release, doc *signedPackage) error {
	_ = durable.Clean(doc.Package)
	f, err := durable.Create(doc.Package, 0o644)
	if err != nil {
		return signing.Named(err)
	}
	defer f.Abort()
	digest := trust.NewDigest()
	count := &counted{ctx: ctx, w: io.MultiWriter(f, digest)}
	progress := a.Streams.Progress("pack", count.counters)
	report, err := pack.Build(ctx, count, dir, m, build)
	progress.Stop()
	if err != nil {
		return err
	}
	sum := digest.Sum(nil)
	doc.Digest, doc.Content = fmt.Sprintf("%x", sum), &packedContent{report}
	signature := trust.SignaturePath(doc.Package)
	var text []byte
	if signer != nil {
		if text, err = trust.SignDigest(ctx, signer, sum, rel, o.comment); err != nil {
			return err
		}
		doc.Signature, doc.Key, doc.Release = signature, signer.Public().ID(), newReleaseRecord(rel)
	}
	if o.force { // that of the former package
		if err := os.Remove(signature); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := commit(f, doc.Package, o.force); err != nil || signer == nil {
		return err
	}
	return writeFresh(signature, text, 0o644, o.force)
}

// formatOf tells from the name of a package how it is to be packed.
func formatOf(path string) (archive.Format, error) {
	switch {
	case strings.HasSuffix(path, "."+string(archive.Zstd)):
		return archive.Zstd, nil
	case strings.HasSuffix(path, "."+string(archive.Gzip)), strings.HasSuffix(path, ".tgz"):
		return archive.Gzip, nil
	}
	return "", app.UsageError("%s ends neither with .tar.zst nor with .tar.gz", path)
}

// sourceDate returns the time in SOURCE_DATE_EPOCH, by which reproducible
// builds bound the times of files (reproducible-builds.org/specs).
func sourceDate(a *app.App) (time.Time, error) {
	text := a.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > 253402300799 { // the end of the year 9999
		return time.Time{}, app.UsageError("SOURCE_DATE_EPOCH is %q, not a number of seconds since 1970", text)
	}
	return time.Unix(n, 0), nil
}

// maxManifest bounds what is read as a manifest, in bytes; the parser has limits
// of its own.
const maxManifest = 4 << 20

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err == nil && len(b) > maxManifest {
		err = failure.Errorf(failure.Untrustworthy, "%s is larger than %d bytes: it is no manifest", path, maxManifest)
	}
	return b, err
}
