package scan

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/spf13/cobra"
)

func newSBOM(a *app.App) *cobra.Command {
	opts := targetOptions{kind: protocol.SBOM}
	cmd := a.Command(app.Spec{
		Use:   "sbom FILE [flags]",
		Short: "Scan what an SBOM lists (CycloneDX or SPDX)",
		Long: `Scan what an SBOM lists (CycloneDX or SPDX).

What was inside something that cannot be read here any more, such as a vendor's
appliance, is matched with the vulnerability database of today.`,
		Example: `
mobileops scan sbom appliance.cdx.json
0 6 * * * root mobileops scan sbom --quiet --new-only /srv/sboms/appliance.cdx.json  # cron: mails what became known since
mobileops scan sbom generate image portal.tar > portal.cdx.json
`,
		Args:     cobra.ExactArgs(1),
		Statuses: statuses(),
		Files:    targetFiles(),
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runTarget(ctx, a, &opts, args[0]) },
		Complete: completeTarget(opts.kind),
	})
	opts.addFlags(a, cmd)
	cmd.AddCommand(newSBOMGenerate(a))
	return cmd
}
