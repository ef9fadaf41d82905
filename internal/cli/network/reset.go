package network

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/spf13/cobra"
)

type resetOptions struct{ dryRun, forget bool }

func newReset(a *app.App) *cobra.Command {
	var opts resetOptions
	cmd := a.Command(app.Spec{
		Use:   "reset [NAME]... [--dry-run]",
		Short: "Take back what network apply and its presets have made",
		Long: `Take back what network apply and its presets have made.

Without a name everything: interfaces, rules, addresses and switches of the
kernel are as they were before. With the names of files that are in force
(mobileops network segments), only what they asked for. What others have made
stays, as do isolation (mobileops network restore) and blocks (mobileops network
block remove): what is still in force is said.`,
		Example: `
mobileops network reset --dry-run  # what would go
mobileops network reset vm         # what mobileops network setup-vm has made
mobileops network reset            # runbook: last line
`,
		Args:     cobra.ArbitraryArgs,
		Statuses: segmentStatuses("it is taken back, or there was nothing"),
		Files:    []string{segmentLinks, segmentTables, segmentsFile},
		Audited:  true,
		Complete: func(ctx context.Context, _ []string, _ string) []string { return documentNames(ctx, a) },
		Run:      func(ctx context.Context, args []string) error { return runReset(ctx, a, &opts, args) },
	})
	fs := cmd.Flags()
	fs.BoolVar(&opts.dryRun, "dry-run", false, "change nothing, and show what would be")
	fs.BoolVar(&opts.forget, "forget", false, "only forget what was made in a network namespace that is gone")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "forget")
	return cmd
}

// documentNames are those of the documents in force.
func documentNames(ctx context.Context, a *app.App) (names []string) {
	e, err := newSegments(a)
	if err != nil {
		return nil
	}
	docs, err := e.Documents(ctx)
	if err != nil {
		return nil
	}
	for _, d := range docs {
		names = append(names, d.Name)
	}
	return names
}

func runReset(ctx context.Context, a *app.App, o *resetOptions, names []string) error {
	if o.forget {
		if len(names) > 0 {
			return app.UsageError("--forget is about everything: give it no names")
		}
		if err := segment.MayChange(); err != nil {
			return err
		}
		e, err := newSegments(a)
		if err != nil {
			return err
		}
		if err := e.Forget(ctx); err != nil {
			return err
		}
		a.SetResult("forgotten")
		if a.Streams.Quiet {
			return nil
		}
		_, err = fmt.Fprintln(a.Streams.Out, "Forgotten; what may still be there is nobody's now.")
		return err
	}
	r := segment.Request{Drop: names, Only: len(names) == 0}
	name := ""
	if len(names) == 1 {
		name = names[0]
	}
	if err := applyDocuments(ctx, a, r, o.dryRun, name); err != nil || o.dryRun || len(names) > 0 || a.Streams.Quiet {
		return err
	}
	sayStillInForce(ctx, a)
	return nil
}

// sayStillInForce names what reset does not take back: whoever takes everything
// back, as with the script of old, is not to believe that this host is as before.
func sayStillInForce(ctx context.Context, a *app.App) {
	const where = "mobileops: network reset: "
	if now, err := isolation.Read(); err == nil && now.InForce {
		a.Streams.Notice(where + "this host is still isolated (end it: mobileops network restore)")
	}
	others, _, err := inForce(ctx, a)
	for _, f := range others {
		if err == nil && f.Name == "blocks" {
			a.Streams.Notice(where+"still in force: %s (see them: mobileops network block list)", f.Detail)
		}
	}
}
