package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/cli/signing"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type packOptions struct {
	key          string
	passwordFile string
	sequence     uint64
	expires      string
	include      []string
	exclude      []string
	dst          string
	force        bool
}

func newPack(a *app.App, reserved []string) *cobra.Command {
	var o packOptions
	cmd := a.Command(app.Spec{
		Use:   "pack DIR [PACKAGE] --key KEY --sequence NUMBER [flags]",
		Short: "Build a signed package from the directory of a plugin",
		Long: `Build a signed package from the directory of a plugin, which has plugin.yaml and the
program. PACKAGE ends with .plugin.tar.zst or .plugin.tar.gz; without it,
NAME-VERSION.plugin.tar.zst is written into the present directory. With --dir the
package is a directory.

Packed are the program, what is in files/, and the files README*, LICENSE*, COPYING*
and NOTICE*, or instead of these what --include names. The same files make the same
bytes, whoever builds them. What hosts would refuse is refused here.

` + signing.Forms,
		Example: `
mobileops plugin pack ./forwarder --key release.key --sequence 12
mobileops plugin pack ./forwarder --key release.key --password-file pw --sequence "$(date +%Y%m%d%H)" --quiet   # in a build job
mobileops plugin pack ./forwarder --key release.key --sequence 12 --include 'templates/**' --expires 90d
`,
		Args: cobra.RangeArgs(1, 2),
		Statuses: []app.Status{
			{Code: 0, Text: "the package is there, and signed"},
			{Code: 4, Text: "the password is wrong, or others may read a key that is not encrypted"},
			{Code: 5, Text: "plugin.yaml is not valid, hosts would refuse what is in DIR, or the key is damaged; no package was written"},
			{Code: 7, Text: "there is no such directory, key or token, or a program that is needed is missing"},
		},
		Files:   []string{"PACKAGE: what is built", "state.db in the state directory: who signed what"},
		Audited: true,
		Run:     func(ctx context.Context, args []string) error { return runPack(ctx, a, &o, reserved, args) },
		Complete: func(_ context.Context, args []string, _ string) []string {
			if len(args) == 0 {
				return app.Dirs()
			}
			return app.Files()
		},
	})
	fs := cmd.Flags()
	fs.StringVar(&o.key, "key", "", "sign it with `KEY` (required)")
	fs.StringVar(&o.passwordFile, "password-file", "", "the password of the key, or the PIN of its token, is the first line of `FILE`")
	fs.Uint64Var(&o.sequence, "sequence", 0, "`NUMBER` of the release, greater than that of every earlier one; a date such as 2026112201 will do")
	fs.StringVar(&o.expires, "expires", "365d", "it cannot be installed any more after `WHEN`: a span such as 90d, or a date")
	fs.StringArrayVar(&o.include, "include", nil, "pack files that match `PATTERN` beside the program, instead of the usual ones; may be repeated")
	fs.StringArrayVar(&o.exclude, "exclude", nil, "leave files and directories out that match `PATTERN`; may be repeated")
	fs.StringVar(&o.dst, "dir", "", "make a package that is the directory `DST`")
	fs.BoolVar(&o.force, "force", false, "replace a file that exists")
	signing.Complete(a, cmd, "key")
	app.CompleteFiles(cmd, "password-file")
	app.CompleteValues(cmd, "sequence")
	app.CompleteValues(cmd, "expires", "30d", "90d", "365d")
	app.CompleteValues(cmd, "include")
	app.CompleteValues(cmd, "exclude")
	app.CompleteDirs(cmd, "dir")
	return cmd
}

// packDocument is the document of plugin pack.
type packDocument struct {
	Schema      string    `json:"schema"`
	Package     string    `json:"package"`
	PackageB64  []byte    `json:"package_b64,omitempty"` // present when the path is not valid UTF-8
	Name        string    `json:"name"`
	Version     string    `json:"version"`
	Sequence    uint64    `json:"sequence"`
	Expires     time.Time `json:"expires"`
	Key         string    `json:"key"`
	Files       int       `json:"files"`
	Bytes       int64     `json:"bytes"`
	PackedBytes int64     `json:"packed_bytes,omitempty"` // absent of a directory
}

// until reads --expires.
func until(expires string, now time.Time) (time.Time, error) {
	t, ok := moment.Future(expires, now)
	if !ok || !t.After(now) || t.UTC().Year() > 9999 {
		return t, app.UsageError("bad value %q for --expires: a span such as 90d, or a date to come such as 2027-06-30", expires)
	}
	return t.UTC().Truncate(time.Second), nil
}

func runPack(ctx context.Context, a *app.App, o *packOptions, reserved, args []string) error {
	now := time.Now()
	switch {
	case o.key == "":
		return app.UsageError("--key is needed: which key signs (make one: mobileops update key generate)")
	case o.sequence == 0:
		return app.UsageError("--sequence is needed: a number greater than that of every earlier release, such as a date: --sequence %s01", now.Format("20060102"))
	case o.sequence > trust.MaxSequence:
		return app.UsageError("--sequence is greater than %d", uint64(trust.MaxSequence))
	case o.dst != "" && len(args) > 1:
		return app.UsageError("--dir and PACKAGE exclude each other")
	}
	expires, err := until(o.expires, now)
	if err != nil {
		return err
	}
	dir := args[0]
	m, err := readManifest(dir)
	if err != nil {
		return err
	}
	if err := m.CheckAgainst(reserved); err != nil {
		return err
	}
	target := pack.ArchiveName(m, archive.Zstd)
	if len(args) > 1 {
		target = args[1]
	}
	build := pack.BuildOptions{Sequence: o.sequence, Expires: expires, Include: o.include, Exclude: o.exclude}
	switch {
	case o.dst != "":
		target = o.dst
	case strings.HasSuffix(target, ".plugin.tar.gz"):
		build.Format = archive.Gzip
	case !strings.HasSuffix(target, ".plugin.tar.zst"):
		return app.UsageError("%s ends neither with .plugin.tar.zst nor with .plugin.tar.gz: hosts tell packages by that", target)
	}
	if _, err := os.Lstat(target); err == nil && (!o.force || o.dst != "") {
		err := app.UsageError("%s exists already", target)
		if o.dst == "" {
			return failure.Hint(err, "--force replaces it")
		}
		return err
	}
	if build.Signer, err = signing.Open(ctx, a, o.key, o.passwordFile); err != nil {
		return err
	}
	report, err := o.build(ctx, dir, target, build)
	if err != nil {
		return err
	}
	a.SetResult("%s signed by %s: %s", target, report.KeyID, report.Release.Comment())
	return printPacked(a, &packDocument{
		Schema: "mobileops.plugin.pack/v1", Package: target, PackageB64: lossless(target), Name: report.Manifest.Name, Version: report.Manifest.Version,
		Sequence: o.sequence, Expires: expires, Key: report.KeyID, Files: report.Files, Bytes: report.Bytes, PackedBytes: report.PackedBytes,
	})
}

// readManifest reads the manifest of a directory that is to be packed.
func readManifest(dir string) (*manifest.Manifest, error) {
	if st, err := os.Stat(dir); err != nil {
		return nil, signing.Named(err)
	} else if !st.IsDir() {
		return nil, app.UsageError("%s is not a directory", dir)
	}
	path := filepath.Join(dir, manifest.FileName)
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, failure.Hint(failure.Wrap(failure.NotReady, err), "begin with: mobileops plugin init NAME")
	case err != nil:
		return nil, signing.Named(err)
	case !st.Mode().IsRegular() || st.Size() > manifest.MaxBytes:
		return nil, failure.Errorf(failure.Untrustworthy, "%s is no file of at most %s", path, ui.Bytes(manifest.MaxBytes))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, signing.Named(err)
	}
	m, err := manifest.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("in %s: %w", dir, err)
	}
	return m, nil
}

// build writes the package whole, or not at all.
func (o *packOptions) build(ctx context.Context, dir, target string, build pack.BuildOptions) (*pack.BuildReport, error) {
	if o.dst != "" {
		report, err := pack.BuildDir(ctx, dir, target, build)
		if err == nil {
			err = durable.SyncDir(filepath.Dir(target))
		}
		return report, err
	}
	_ = durable.Clean(target)
	f, err := durable.Create(target, 0o644)
	if err != nil {
		return nil, signing.Named(err)
	}
	defer f.Abort()
	report, err := pack.Build(ctx, dir, f, build)
	if err != nil {
		return nil, err
	}
	if o.force {
		return report, f.Commit()
	}
	return report, f.CommitNew()
}

func printPacked(a *app.App, doc *packDocument) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(doc)
	}
	if a.Streams.Quiet {
		return nil
	}
	content := fmt.Sprintf("%s, %s", ui.Plural(int64(doc.Files), "file", "files"), ui.Bytes(doc.Bytes))
	if doc.PackedBytes > 0 {
		content += ", packed to " + ui.Bytes(doc.PackedBytes)
	}
	err := printFacts(a.Streams, []fact{
		{"Package", doc.Package}, {"Content", content},
		{"Release", doc.Name + " " + doc.Version + ", number " + strconv.FormatUint(doc.Sequence, 10) + ", until " + doc.Expires.Format(time.RFC3339)},
		{"Signed", "by key " + doc.Key},
	})
	if err == nil {
		a.Streams.Notice("on a host that trusts the key: mobileops plugin install %s", ui.Escape(asPath(doc.Package)))
	}
	return err
}

// asPath writes a path so that it is not taken for a name.
func asPath(path string) string {
	if strings.Contains(path, "/") {
		return path
	}
	return "./" + path
}
