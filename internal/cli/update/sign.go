package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/signing"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/spf13/cobra"
)

type signOptions struct {
	releaseOptions
	key   string
	force bool
}

func newSign(a *app.App) *cobra.Command {
	var opts signOptions
	cmd := a.Command(app.Spec{
		Use:   "sign PACKAGE --key KEY --sequence NUMBER [--name NAME] [--version VERSION] [flags]",
		Short: "Sign a package that exists: PACKAGE.minisig says what it is, and until when it may be installed",
		Long: `Sign a package that exists: PACKAGE.minisig says what it is, and until when it
may be installed. A package that plain tar made will do; it is read as hosts
read it, and one that they would refuse is not signed.

` + signing.Forms + `

minisign makes the same signature, when its comment is written as in the
example.`,
		Example: `
mobileops update sign platform.tar.gz --key release.key --name platform --version 2.4.1 --sequence 17
mobileops update sign platform.tar.zst --key release.key --sequence 17 --expires 90d      # its manifest has name and version
mobileops update sign platform.tar.zst --key 'pkcs11:token=ops;object=update-key' --sequence 17
minisign -S -s release.key -m platform.tar.gz -t 'name=platform version=2.4.1 sequence=17 channel=stable expires=2027-01-01T00:00:00Z'
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the package is signed"},
			{Code: 4, Text: "the password is wrong, or others may read a key that is not encrypted"},
			{Code: 5, Text: "hosts would refuse the package, or the key is damaged"},
			{Code: 7, Text: "there is no such package, key or token, or a program that is needed is missing"},
		},
		Files:    []string{"PACKAGE.minisig: the signature", "state.db in the state directory: who signed what"},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runSign(ctx, a, &opts, args[0]) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	cmd.Flags().StringVar(&opts.key, "key", "", "sign with `KEY` (required)")
	opts.addFlags(cmd)
	cmd.Flags().BoolVar(&opts.force, "force", false, "replace a signature that exists")
	signing.Complete(a, cmd, "key")
	return cmd
}

func runSign(ctx context.Context, a *app.App, o *signOptions, path string) error {
	if o.key == "" {
		return app.UsageError("--key is needed: which key signs (make one: mobileops update key generate)")
	}
	rel, err := o.terms(time.Now())
	if err != nil {
		return err
	}
	target := trust.SignaturePath(path)
	if _, err := os.Lstat(target); err == nil && !o.force {
		return exists(target, "--force replaces it")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return signing.Named(err)
	}
	defer f.Close()
	signer, err := signing.Open(ctx, a, o.key, o.passwordFile) // before the package is read, which takes its time
	if err != nil {
		return err
	}
	digest, err := examine(ctx, a, f, &o.releaseOptions)
	if err != nil {
		return explainPackage(path, err)
	}
	rel.Name, rel.Version = o.name, o.version
	text, err := trust.SignDigest(ctx, signer, digest, rel, o.comment)
	if err != nil {
		return err
	}
	if err := writeFresh(target, text, 0o644, o.force); err != nil {
		return err
	}
	a.SetResult("%s signed by %s: %s", path, signer.Public().ID(), rel.Comment())
	return printSigned(a, &signedPackage{
		Schema: "mobileops.update.sign/v1", Package: path, PackageB64: lossless(path), Digest: fmt.Sprintf("%x", digest),
		Name: rel.Name, Version: rel.Version, Signature: target, Key: signer.Public().ID(), Release: newReleaseRecord(rel),
	})
}

// examine reads a package to its end, as a host does before it installs it, and
// returns its digest. Name and version are settled with its manifest.
func examine(ctx context.Context, a *app.App, f *os.File, o *releaseOptions) ([]byte, error) {
	digest := trust.NewDigest()
	count := newCounted(ctx, io.TeeReader(f, digest), fileSize(f))
	progress := a.Streams.Progress("read the package", count.counters)
	defer progress.Stop()
	r, err := pack.NewReader(count, archive.Limits{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := o.identify(r.Manifest().Name, r.Manifest().Version); err != nil {
		return nil, err
	}
	for {
		if _, err := r.Next(); err == io.EOF {
			return digest.Sum(nil), nil
		} else if err != nil {
			return nil, err
		}
	}
}

// explainPackage says that it is the package that is refused, before anybody
// signed it.
func explainPackage(path string, err error) error {
	var refused *archive.Error
	if errors.As(err, &refused) {
		return fmt.Errorf("%s is not signed, for hosts would refuse it: %w", path, err)
	}
	return err
}

func printSigned(a *app.App, p *signedPackage) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(p)
	}
	if a.Streams.Quiet {
		return nil
	}
	rows := [][2]string{{"Package", p.Package}, {"Digest", p.Digest}}
	if p.Content != nil {
		rows = append(rows, [2]string{"Content", p.Content.text()})
	}
	if p.Release != nil {
		r := p.Release
		rows = append(rows, [2]string{"Release", fmt.Sprintf("%s %s, number %d in %s, until %s", r.Name, r.Version, r.Sequence, r.Channel, r.Expires.Format(time.RFC3339))},
			[2]string{"Signed", p.Signature + " by key " + p.Key})
	}
	theme := a.Streams.Theme()
	for _, row := range rows {
		if _, err := fmt.Fprintf(a.Streams.Out, "%s %s\n", theme.Heading(fmt.Sprintf("%-8s", row[0])), ui.Escape(row[1])); err != nil {
			return err
		}
	}
	if p.Release == nil {
		a.Streams.Notice("it is not signed; hosts will refuse it (sign it: mobileops update sign %s --key KEY --sequence NUMBER)", ui.Escape(p.Package))
	}
	return nil
}

// fileSize returns the size of a regular file, 0 when it has none.
func fileSize(f *os.File) int64 {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return 0
	}
	return st.Size()
}
