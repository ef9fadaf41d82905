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

type repoPublishOptions struct {
	roleKeyFlags
	expires string
	root    bool
}

func newRepoPublish(a *app.App) *cobra.Command {
	var opts repoPublishOptions
	cmd := a.Command(app.Spec{
		Use:   "publish DIR [--expires SPAN] [--root] [flags]",
		Short: "Offer hosts what is staged, and sign anew what would expire",
		Long: `Offer hosts what is staged, and sign anew what would expire. Without anything
staged the timestamp alone is signed, and the others when half of their time is
over: have cron do that more often than the timestamp lasts, or hosts refuse the
repository.

timestamp.json is replaced last and at once: a web server that serves DIR
meanwhile never gives a mixture. When it is killed, what was published stays, and
the next run goes on.

Keys are those that the repository was made with, unless others are named.`,
		Example: `
mobileops update repo publish /srv/updates
17 */6 * * * mobileops update repo publish /srv/updates --quiet     # cron: the timestamp stays fresh
mobileops update repo publish /srv/updates --expires 30d            # for a USB stick that travels
mobileops update repo publish /srv/updates --root --root-key alice.key --root-key bob.key
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "published"},
			{Code: 4, Text: "a key may not sign, or its password is wrong"},
			{Code: 5, Text: "the repository was altered"},
			{Code: 6, Text: "published, but a role that could not be signed expires before the timestamp does"},
			{Code: 7, Text: "there is no repository or no key"},
			{Code: 8, Text: "another process changes the repository"},
		},
		Files:    []string{repoPublic, repoPrivate, "state.db in the state directory: who did it"},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runRepoPublish(ctx, a, &opts, args[0]) },
		Complete: repoDir,
	})
	opts.addFlags(a, cmd)
	cmd.Flags().StringVar(&opts.expires, "expires", "", "the timestamp is good for `SPAN` this time")
	cmd.Flags().BoolVar(&opts.root, "root", false, "sign the root anew, too, so that it lasts longer")
	app.CompleteValues(cmd, "expires", "2d", "7d", "30d")
	return cmd
}

func runRepoPublish(ctx context.Context, a *app.App, o *repoPublishOptions, dir string) error {
	life, err := lifetime("expires", o.expires)
	if err != nil {
		return err
	}
	p := repo.OpenPublisher(dir, nil)
	keys := newRepoKeys(a, o.passwordFile)
	pub, err := p.Publish(ctx, repo.PublishOptions{Signers: keys.of(ctx, p, o.specs()), Lifetime: life, Root: o.root})
	if err != nil {
		return repoError(err)
	}
	doc := newRepoDocument("publish", dir)
	doc.Roles, doc.Signed, doc.Added, doc.Removed = newRoleRecords(pub.Roles), pub.Signed, pub.Added, pub.Removed
	var timestamp repo.Role
	for _, r := range pub.Roles {
		if r.Name == "timestamp" {
			timestamp = r
		}
	}
	a.SetResult("published %s: timestamp %d, %d added or changed, %d removed", dir, timestamp.Version, len(pub.Added), len(pub.Removed))
	urgent := error(nil)
	for _, d := range pub.Due {
		doc.Due = append(doc.Due, dueRecord{d.Role.Name, d.Role.Expires, d.Urgent, d.Reason.Error()})
		if d.Urgent || !a.Streams.Quiet {
			a.Streams.Notice("the %s expires at %s and was not signed: %s", d.Role.Name, d.Role.Expires.Format(time.RFC3339), ui.Escape(d.Reason.Error()))
		}
		if d.Urgent {
			urgent = failure.Silent(failure.Incomplete)
		}
	}
	if a.Streams.Format != ui.Text {
		if err := a.Streams.Document(doc); err != nil {
			return err
		}
		return urgent
	}
	if a.Streams.Quiet {
		return urgent
	}
	for _, path := range pub.Added {
		if _, err := fmt.Fprintf(a.Streams.Out, "added   %s\n", path); err != nil {
			return err
		}
	}
	for _, path := range pub.Removed {
		if _, err := fmt.Fprintf(a.Streams.Out, "removed %s\n", path); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(a.Streams.Out, "published: signed %s; the timestamp is good until %s\n", strings.Join(pub.Signed, ", "), timestamp.Expires.Format(time.RFC3339)); err != nil {
		return err
	}
	return urgent
}
