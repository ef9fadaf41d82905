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

type ackOptions struct {
	reason string
}

func newAck(a *app.App) *cobra.Command {
	var opts ackOptions
	cmd := a.Command(app.Spec{
		Use:   "ack ID... --reason TEXT",
		Short: "Acknowledge findings: somebody works on them",
		Long: `Acknowledge findings: somebody knows of them and works on them.

They stay listed, and no longer count for finding list --fail-on. A scan that
no longer finds one resolves it; one that becomes more severe, or is found with
other evidence (the same file changed once more), is open again.
Several findings are acknowledged together or not at all.`,
		Example: `
mobileops finding ack 3fa9 --reason 'OPS-1234: reinstalling the host tonight'
`,
		Args:     cobra.MinimumNArgs(1),
		Statuses: decided(),
		Files:    []string{stateFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runAck(ctx, a, &opts, args) },
		Complete: completeIDs(a, finding.Open, finding.Waived),
	})
	opts.addFlags(cmd.Flags())
	return cmd
}

func (o *ackOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.reason, "reason", "", "what is done about it, in `TEXT` (required)")
}

func runAck(ctx context.Context, a *app.App, o *ackOptions, ids []string) error {
	if o.reason == "" {
		return app.UsageError("say what is done about it: --reason TEXT")
	}
	now := time.Now()
	d := finding.Decision{Who: a.Actor().Name(), Reason: o.reason, At: now}
	return decide(ctx, a, "ack", "acknowledged", ids, now, func(tx *state.Tx, id string) (*finding.Record, error) {
		return finding.Ack(tx, id, d)
	})
}
