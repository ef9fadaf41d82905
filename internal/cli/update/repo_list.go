package update

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/repo"
	"github.com/spf13/cobra"
)

func newRepoList(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "list DIR",
		Short: "List the packages of a repository, published and staged",
		Long:  `List the packages of a repository, published and staged.`,
		Example: `
mobileops update repo list /srv/updates
mobileops update repo list /srv/updates --output jsonl | jq -r 'select(.state != "published") | .path'
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "there are packages"},
			{Code: 1, Text: "there are none"},
			{Code: 5, Text: "the repository was altered"},
			{Code: 7, Text: "there is no repository"},
		},
		Files:    []string{repoPublic, repoPrivate},
		Run:      func(_ context.Context, args []string) error { return runRepoList(a, args[0]) },
		Complete: repoDir,
	})
}

func runRepoList(a *app.App, dir string) error {
	r, err := repo.OpenPublisher(dir, nil).Report()
	if err != nil {
		return repoError(err)
	}
	switch {
	case a.Streams.Format == ui.JSON:
		doc := newRepoDocument("list", dir)
		doc.Packages, doc.Unusable = newOfferRecords(r), newBadRecords(r.Unusable)
		err = a.Streams.Document(doc)
	case a.Streams.Format == ui.JSONL:
		lines := a.Streams.Lines()
		for _, o := range newOfferRecords(r) {
			if err := lines.Print(o); err != nil {
				return err
			}
		}
		err = lines.Flush()
	case a.Streams.Quiet:
	case len(r.Offers) == 0:
		a.Streams.Notice("there are no packages (add one: mobileops update repo add)")
	default:
		err = printOffers(a, r)
	}
	if err == nil && len(r.Offers) == 0 {
		err = failure.Silent(failure.No)
	}
	return err
}
