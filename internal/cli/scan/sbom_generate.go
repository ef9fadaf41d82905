package scan

import (
	"context"
	"io"
	"slices"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/scan"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// generated are the kinds of targets that an SBOM can be made of, as the verbs
// are called.
func generated() []string { return []string{"fs", "host", "image", "repo", "rootfs"} }

type generateOptions struct {
	format   string
	insecure bool
	platform string
}

func newSBOMGenerate(a *app.App) *cobra.Command {
	var opts generateOptions
	cmd := a.Command(app.Spec{
		Use:   "generate fs|rootfs|image|repo TARGET | generate host",
		Short: "Write down which packages a target has, as CycloneDX or SPDX",
		Long: `Write down which packages a target has, as CycloneDX or SPDX.

No vulnerability database is needed. The document goes to the standard output.`,
		Example: `
mobileops scan sbom generate image portal.tar > portal.cdx.json
mobileops scan sbom generate rootfs /mnt/image --output spdx-json > image.spdx.json
0 3 * * 0 root mobileops scan sbom generate host > /srv/sboms/$(hostname).cdx.json  # cron: to be scanned elsewhere, any day
`,
		Args: cobra.RangeArgs(1, 2),
		Statuses: []app.Status{
			{Code: 0, Text: "the document was written"},
			{Code: 6, Text: "it was written, but something could not be read, which is said: packages may be missing"},
			{Code: 7, Text: "mobileops-scan is missing"},
		},
		Files: []string{workerFile},
		Run:   func(ctx context.Context, args []string) error { return runGenerate(ctx, a, &opts, args) },
		Complete: func(_ context.Context, args []string, _ string) []string {
			switch {
			case len(args) == 0:
				return generated()
			case len(args) > 1 || args[0] == "host":
				return nil
			}
			return completeKind(protocol.Kind(args[0]))
		},
	})
	fs := cmd.Flags()
	app.Choice(cmd, fs, &opts.format, "output", string(protocol.CycloneDX), []string{string(protocol.CycloneDX), string(protocol.SPDXJSON), string(protocol.SPDX)}, "write it as `FORMAT`")
	fs.BoolVar(&opts.insecure, "insecure", false, "talk to a registry without TLS, or with a certificate that nobody vouches for")
	fs.StringVar(&opts.platform, "platform", "", "of an image for several, take that for `OS/ARCH`")
	return cmd
}

func runGenerate(ctx context.Context, a *app.App, o *generateOptions, args []string) error {
	c, err := a.Config()
	if err != nil {
		return err
	}
	kind := args[0]
	var target string
	switch {
	case !slices.Contains(generated(), kind):
		return app.UsageError("no target is called %q: fs, host, image, repo or rootfs", kind)
	case kind == "host" && len(args) > 1:
		return app.UsageError("generate host takes no target (another tree: generate rootfs DIR)")
	case kind == "host":
		kind, target = string(protocol.Rootfs), c.Root
	case len(args) < 2:
		return app.UsageError("say which: mobileops scan sbom generate %s TARGET", kind)
	default:
		target = args[1]
	}
	e, err := newEngine(a, false, "")
	if err != nil {
		return err
	}
	request := engine.Request{Kind: protocol.Kind(kind), Target: target, Document: protocol.Document(o.format), Insecure: o.insecure, Platform: o.platform, Forget: true}
	bar := newProgress(a, "reading "+ui.Escape(target))
	report, err := e.Scan(ctx, request, bar.take)
	bar.stop()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(a.Streams.Out, report.Scanned.Document); err != nil {
		return err
	}
	if len(report.Scanned.Problems) > 0 {
		printProblems(a, report.Scanned.Problems)
		return failure.Silent(failure.Incomplete)
	}
	return nil
}
