package update

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/repo"
	"github.com/spf13/cobra"
)

func newRepoRollout(a *app.App) *cobra.Command {
	var part share
	var given func() bool
	cmd := a.Command(app.Spec{
		Use:   "rollout DIR NAME VERSION --percent PERCENT",
		Short: "Offer a package to more of the hosts, or to fewer",
		Long: `Offer a package to more of the hosts, or to fewer, from the next publication on.
Hosts that were offered it stay so while the percentage grows. At 0 nobody is
offered it any more; hosts that have it keep it.`,
		Example: `
mobileops update repo rollout /srv/updates platform 2.4.1 --percent 50
mobileops update repo rollout /srv/updates platform 2.4.1 --percent 0 && mobileops update repo publish /srv/updates    # runbook: stop a bad release
`,
		Args: cobra.ExactArgs(3),
		Statuses: []app.Status{
			{Code: 0, Text: "staged"},
			{Code: 1, Text: "there is no such package"},
			{Code: 5, Text: "the repository was altered"},
			{Code: 7, Text: "there is no repository"},
			{Code: 8, Text: "another process changes the repository"},
		},
		Files:    []string{repoPrivate, "state.db in the state directory: who did it"},
		Audited:  true,
		Run:      func(_ context.Context, args []string) error { return runRepoRollout(a, args, float64(part), given()) },
		Complete: repoPackages,
	})
	cmd.Flags().Var(&part, "percent", "`PERCENT` of the hosts, with at most two decimals (required)")
	given = func() bool { return cmd.Flags().Changed("percent") }
	app.CompleteValues(cmd, "percent", "0", "1", "10", "25", "50", "100")
	return cmd
}

func runRepoRollout(a *app.App, args []string, part float64, given bool) error {
	if !given {
		return app.UsageError("--percent is needed: for how many of the hosts the package is")
	}
	dir, name, version := args[0], args[1], args[2]
	before, after, err := repo.OpenPublisher(dir, nil).SetRollout(name, version, part)
	if err != nil {
		return repoError(err)
	}
	a.SetResult("%s %s for %s of the hosts, before %s", name, version, percent(after.Percent), percent(before.Percent))
	return staged(a, "rollout", dir, name, version, fmt.Sprintf("%s %s is staged for %s of the hosts (before: %s)", name, version, percent(after.Percent), percent(before.Percent)))
}

// staged says what was staged of a package.
func staged(a *app.App, verb, dir, name, version, text string) error {
	if a.Streams.Format != ui.Text {
		r, err := repo.OpenPublisher(dir, nil).Report()
		if err != nil {
			return err
		}
		doc := newRepoDocument(verb, dir)
		for _, o := range r.Offers {
			if o.Release.Name == name && o.Release.Version == version {
				doc.Packages = append(doc.Packages, newOfferRecord(o.Target, o.State))
			}
		}
		return a.Streams.Document(doc)
	}
	if a.Streams.Quiet {
		return nil
	}
	if _, err := fmt.Fprintln(a.Streams.Out, ui.Escape(text)); err != nil {
		return err
	}
	a.Streams.Notice("next: mobileops update repo publish %s", ui.Escape(dir))
	return nil
}
