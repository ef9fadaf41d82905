package update

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/repo"
	"github.com/spf13/cobra"
)

func newRepoShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show DIR",
		Short: "Show the roles, keys and ends of a repository, and its packages",
		Long: `Show the roles, keys and ends of a repository, and its packages, published or
staged. All of it is verified as a host would.`,
		Example: `
mobileops update repo show /srv/updates
mobileops update repo show /srv/updates --output json | jq -r '.roles[] | [.name, .expires] | @tsv'
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "shown"},
			{Code: 5, Text: "the repository was altered, or a role has expired"},
			{Code: 7, Text: "there is no repository"},
		},
		Files:    []string{repoPublic, repoPrivate},
		Run:      func(_ context.Context, args []string) error { return runRepoShow(a, args[0]) },
		Complete: repoDir,
	})
}

func newRoleReports(r *repo.Report) []roleRecord {
	var list []roleRecord
	for _, role := range r.Roles {
		rec := roleRecord{Name: role.Name, Version: role.Version, Expires: role.Expires, Expired: time.Now().After(role.Expires), Threshold: role.Threshold, Lifetime: int64(role.Lifetime / time.Second)}
		for _, k := range role.Keys {
			rec.Keys = append(rec.Keys, keyRecord{k.ID, k.Public})
		}
		list = append(list, rec)
	}
	return list
}

func newOfferRecords(r *repo.Report) []offerRecord {
	var list []offerRecord
	for _, o := range r.Offers {
		list = append(list, newOfferRecord(o.Target, o.State))
	}
	return list
}

func runRepoShow(a *app.App, dir string) error {
	r, err := repo.OpenPublisher(dir, nil).Report()
	if err != nil {
		return repoError(err)
	}
	verdict := error(nil)
	if r.Expired != nil {
		a.Streams.Notice("%s", r.Expired.Error())
		verdict = failure.Silent(failure.Untrustworthy)
	}
	if a.Streams.Format != ui.Text {
		doc := newRepoDocument("show", dir)
		doc.Root, doc.Roles, doc.Packages, doc.Unusable = newRootRecord(r.RootPath, r.RootSum), newRoleReports(r), newOfferRecords(r), newBadRecords(r.Unusable)
		if err := a.Streams.Document(doc); err != nil {
			return err
		}
		return verdict
	}
	if a.Streams.Quiet {
		return verdict
	}
	if _, err := fmt.Fprintf(a.Streams.Out, "root %s\nSHA-256 %s\n\n", ui.Escape(r.RootPath), r.RootSum); err != nil {
		return err
	}
	table := a.Streams.NewTable(ui.Column{Title: "ROLE"}, ui.Column{Title: "VERSION", Right: true}, ui.Column{Title: "EXPIRES"}, ui.Column{Title: "SIGNS"}, ui.Column{Title: "KEYS", Min: 16})
	for _, role := range r.Roles {
		var ids []string
		for _, k := range role.Keys {
			ids = append(ids, k.ID[:16])
		}
		table.Row(role.Name, role.Version, role.Expires.Format(time.RFC3339), fmt.Sprintf("%d of %d", role.Threshold, len(role.Keys)), strings.Join(ids, " "))
	}
	if err := table.Print(); err != nil {
		return err
	}
	if len(r.Offers) > 0 {
		if _, err := fmt.Fprintln(a.Streams.Out); err != nil {
			return err
		}
		if err := printOffers(a, r); err != nil {
			return err
		}
	}
	return verdict
}

// printOffers prints the packages of a repository.
func printOffers(a *app.App, r *repo.Report) error {
	table := a.Streams.NewTable(ui.Column{Title: "NAME"}, ui.Column{Title: "VERSION"}, ui.Column{Title: "SEQUENCE", Right: true}, ui.Column{Title: "CHANNEL", Drop: 2},
		ui.Column{Title: "SEVERITY"}, ui.Column{Title: "HOSTS", Right: true}, ui.Column{Title: "SIZE", Right: true, Drop: 3}, ui.Column{Title: "STATE"}, ui.Column{Title: "PATH", Min: 12, Drop: 1})
	for _, o := range r.Offers {
		table.Row(o.Release.Name, o.Release.Version, o.Release.Sequence, o.Release.Channel, o.Severity, percent(o.Rollout.Percent), ui.Bytes(o.Length), o.State, o.Path)
	}
	if err := table.Print(); err != nil {
		return err
	}
	for _, u := range r.Unusable {
		a.Streams.Notice("%s cannot be used: %s", ui.Escape(u.Path), ui.Escape(u.Reason))
	}
	return nil
}
