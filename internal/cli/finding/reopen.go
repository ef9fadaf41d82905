package finding

import (
	"context"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

type reopenOptions struct {
	reason string
}

func newReopen(a *app.App) *cobra.Command {
	var opts reopenOptions
	cmd := a.Command(app.Spec{
		Use:   "reopen ID... --reason TEXT",
		Short: "Take back an acknowledgement or a waiver",
		Long: `Take back an acknowledgement or a waiver: the findings are open again.

A resolved finding cannot be reopened by hand: it opens by itself when a scan
finds it again. Several findings are reopened together or not at all.`,
		Example: `
mobileops finding reopen 3fa9 --reason 'the fix did not help'
`,
		Args:     cobra.MinimumNArgs(1),
		Statuses: decided(),
		Files:    []string{stateFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runReopen(ctx, a, &opts, args) },
		Complete: completeIDs(a, finding.Acknowledged, finding.Waived),
	})
	opts.addFlags(cmd.Flags())
	return cmd
}

func (o *reopenOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.reason, "reason", "", "why, in `TEXT` (required)")
}

func runReopen(ctx context.Context, a *app.App, o *reopenOptions, ids []string) error {
	if o.reason == "" {
		return app.UsageError("say why: --reason TEXT")
	}
	now := time.Now()
	d := finding.Decision{Who: a.Actor().Name(), Reason: o.reason, At: now}
	return decide(ctx, a, "reopen", "reopened", ids, now, func(tx *state.Tx, id string) (*finding.Record, error) {
		return finding.Reopen(tx, id, d)
	})
}
