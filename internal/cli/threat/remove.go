package threat

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/threat"
	"github.com/spf13/cobra"
)

func newRemove(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "remove ID...",
		Short: "Forget threats",
		Long: `Forget threats.

All that are named, or none. What is blocked because of them stays blocked:
mobileops network block remove ID lifts it.`,
		Example: `
mobileops threat remove T-7Q2FM3
mobileops network block remove T-7Q2FM3 && mobileops threat remove T-7Q2FM3  # runbook: it is over
`,
		Args:     cobra.MinimumNArgs(1),
		Statuses: []app.Status{{Code: 1, Text: "no threat has such an ID; nothing was done"}},
		Files:    []string{stateFile},
		Audited:  true,
		Complete: completeIDs(a),
		Run:      func(ctx context.Context, args []string) error { return runRemove(ctx, a, args) },
	})
}

func runRemove(ctx context.Context, a *app.App, ids []string) error {
	store, err := a.State()
	if err != nil {
		return err
	}
	var gone []*threat.Threat
	if err := store.Update(ctx, func(tx *state.Tx) error {
		gone = nil
		for _, id := range ids {
			t, err := threat.Remove(tx, id)
			if err != nil {
				return err
			}
			gone = append(gone, t)
		}
		return nil
	}); err != nil {
		return err
	}
	var names []string
	for _, t := range gone {
		names = append(names, t.ID)
	}
	a.SetResult("forgot %s", strings.Join(names, " "))
	if done, err := printRecords(a, "remove", gone, time.Now()); done || a.Streams.Quiet {
		return err
	}
	_, err = fmt.Fprintf(a.Streams.Out, "forgot %s\n", strings.Join(names, " "))
	return err
}
