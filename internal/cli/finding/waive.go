package finding

import (
	"context"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/spf13/cobra"
)

type waiveOptions struct {
	owner  string
	reason string
	until  string
}

func newWaive(a *app.App) *cobra.Command {
	var opts waiveOptions
	cmd := a.Command(app.Spec{
		Use:   "waive ID... --owner NAME --reason TEXT --until WHEN",
		Short: "Accept findings until a date, on somebody's responsibility",
		Long: `Accept findings until a date, on somebody's responsibility.

They are no longer listed until the date has passed; then they are open again
by themselves, and so they are when they become more severe. Every waiver has
an owner, a reason and an end. A new one replaces the one in force. Several
findings are waived together or not at all.`,
		Example: `
mobileops finding waive 3fa9 --owner net-team --reason 'vendor fix due in May' --until 2026-05-31
mobileops finding waive 3fa9 b07c --owner alice --reason 'test host' --until 90d
`,
		Args:     cobra.MinimumNArgs(1),
		Statuses: decided(),
		Files:    []string{stateFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runWaive(ctx, a, &opts, args) },
		Complete: completeIDs(a, finding.Open, finding.Acknowledged, finding.Waived),
	})
	opts.addFlags(cmd)
	return cmd
}

func (o *waiveOptions) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&o.owner, "owner", "", "`NAME` of who answers for it (required)")
	fs.StringVar(&o.reason, "reason", "", "why it is acceptable, in `TEXT` (required)")
	fs.StringVar(&o.until, "until", "", "the end, `WHEN`: a span such as 90d, or a date, which counts in full (required)")
	app.CompleteValues(cmd, "until", "7d\ta week", "30d\ta month", "90d\ta quarter")
}

func runWaive(ctx context.Context, a *app.App, o *waiveOptions, ids []string) error {
	switch {
	case o.owner == "":
		return app.UsageError("say who answers for it: --owner NAME")
	case o.reason == "":
		return app.UsageError("say why it is acceptable: --reason TEXT")
	case o.until == "":
		return app.UsageError("say when the waiver ends: --until 90d, or a date")
	}
	now := time.Now()
	until, err := parseUntil(o.until, now)
	if err != nil {
		return err
	}
	d := finding.Decision{Who: a.Actor().Name(), Reason: o.reason, At: now}
	return decide(ctx, a, "waive", "waived", ids, now, func(tx *state.Tx, id string) (*finding.Record, error) {
		return finding.Waive(tx, id, d, o.owner, until)
	})
}
