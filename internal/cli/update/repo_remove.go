package update

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/update/repo"
	"github.com/spf13/cobra"
)

func newRepoRemove(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "remove DIR NAME VERSION",
		Short: "Offer a package no more",
		Long: `Offer a package no more, from the next publication on. Hosts that have it keep
it. One that is only staged is forgotten at once. Its files go with the
publication after the next one, for hosts may be downloading them.`,
		Example: `
mobileops update repo remove /srv/updates platform 2.3.0
mobileops update repo remove /srv/updates platform 2.4.1 && mobileops update repo publish /srv/updates    # runbook: withdraw a release
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
		Run:      func(_ context.Context, args []string) error { return runRepoRemove(a, args) },
		Complete: repoPackages,
	})
}

func runRepoRemove(a *app.App, args []string) error {
	dir, name, version := args[0], args[1], args[2]
	t, err := repo.OpenPublisher(dir, nil).Remove(name, version)
	if err != nil {
		return repoError(err)
	}
	a.SetResult("%s %s (%s) is removed", name, version, t.Path)
	return staged(a, "remove", dir, name, version, fmt.Sprintf("the removal of %s %s is staged", name, version))
}
