package update

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/signing"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/repo"
	"github.com/spf13/cobra"
)

type repoInitOptions struct {
	roleKeyFlags
	key       string
	threshold int
	expires   map[string]*string // by role
}

func newRepoInit(a *app.App) *cobra.Command {
	opts := repoInitOptions{expires: map[string]*string{}}
	cmd := a.Command(app.Spec{
		Use:   "init DIR --key KEY [--root-key KEY]... [flags]",
		Short: "Make a repository of packages, without any yet",
		Long: `Make a repository of packages, without any yet. DIR is served by any web server
as it is, or copied to a USB stick; the directory .publisher in it is for
whoever publishes, and closed to others.

Four roles sign: root says whose keys count, targets which packages there are,
snapshot what belongs together, timestamp what is newest. --key signs for those
that have no key of their own. A root key that is kept away from the others lets
you replace all of them when they are stolen; with several, --root-threshold of
them have to sign.

` + signing.Forms + `

The root.json that is made is what hosts pin as update.repository_root. Bring it
there by a way that is trusted: with the configuration, not over this web server.`,
		Example: `
mobileops update repo init /srv/updates --key release.key
mobileops update repo init /srv/updates --key online.key --targets-key release.key --root-key alice.key --root-key bob.key --root-threshold 2
mobileops update repo init /srv/updates --key 'pkcs11:token=ops;object=update-key' --timestamp-expires 2d
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the repository is made and can be served"},
			{Code: 4, Text: "the password is wrong, or others may read a key that is not encrypted"},
			{Code: 7, Text: "there is no such key or token"},
			{Code: 8, Text: "there is a repository already"},
		},
		Files:    []string{repoPublic, repoPrivate, "state.db in the state directory: who did it"},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runRepoInit(ctx, a, &opts, args[0]) },
		Complete: repoDir,
	})
	fs := cmd.Flags()
	fs.StringVar(&opts.key, "key", "", "sign with `KEY` for every role that has none of its own")
	signing.Complete(a, cmd, "key")
	opts.addFlags(a, cmd)
	fs.IntVar(&opts.threshold, "root-threshold", 1, "this `NUMBER` of the root keys has to sign a root")
	app.CompleteValues(cmd, "root-threshold")
	for _, role := range repo.Roles() {
		days := int(repo.DefaultLifetimes()[role] / (24 * time.Hour))
		opts.expires[role] = fs.String(role+"-expires", fmt.Sprintf("%dd", days), "the "+role+" is good for `SPAN`")
		app.CompleteValues(cmd, role+"-expires", "2d", "7d", "30d", "90d", "365d")
	}
	return cmd
}

func runRepoInit(ctx context.Context, a *app.App, o *repoInitOptions, dir string) error {
	if o.threshold < 1 {
		return app.UsageError("bad value %d for --root-threshold: 1 or more", o.threshold)
	}
	init := repo.InitOptions{Keys: map[string][]trust.Signer{}, Threshold: o.threshold, Lifetimes: map[string]time.Duration{}}
	specs := o.specs()
	for _, role := range repo.Roles() {
		if len(specs[role]) == 0 && o.key == "" {
			return app.UsageError("--key or --%s-key is needed: which key signs for %s (make one: mobileops update key generate)", role, role)
		}
		d, err := lifetime(role+"-expires", *o.expires[role])
		if err != nil {
			return err
		}
		init.Lifetimes[role] = d
	}
	keys := newRepoKeys(a, o.passwordFile)
	for _, role := range repo.Roles() {
		list := specs[role]
		if len(list) == 0 {
			list = []string{o.key}
		}
		var err error
		if init.Keys[role], err = keys.all(ctx, list); err != nil {
			return err
		}
	}
	p := repo.OpenPublisher(dir, nil)
	if err := p.Init(ctx, init); err != nil {
		return repoError(err)
	}
	r, err := p.Report()
	if err != nil {
		return err
	}
	a.SetResult("repository %s: root %s", dir, r.RootSum)
	doc := newRepoDocument("init", dir)
	doc.Root, doc.Roles = newRootRecord(r.RootPath, r.RootSum), newRoleReports(r)
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(doc)
	}
	if a.Streams.Quiet {
		return nil
	}
	if _, err := fmt.Fprintf(a.Streams.Out, "repository in %s\nroot %s\nSHA-256 %s\n", ui.Escape(dir), ui.Escape(r.RootPath), r.RootSum); err != nil {
		return err
	}
	a.Streams.Notice("next, on every host: copy the root to /etc/mobileops/update-root.json, and set update.repository and update.repository_root")
	return nil
}
