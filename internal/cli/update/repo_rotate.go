package update

import (
	"context"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/signing"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/repo"
	"github.com/spf13/cobra"
)

type repoRotateOptions struct {
	roleKeyFlags
	roles    []string
	old, new string
}

func newRepoRotateKey(a *app.App) *cobra.Command {
	var opts repoRotateOptions
	cmd := a.Command(app.Spec{
		Use:   "rotate-key DIR --role ROLE... --old-key KEY --new-key KEY [--root-key KEY]... [flags]",
		Short: "Replace a key of a repository",
		Long: `Replace a key of a repository. A new root says so, signed by as many of the old
root keys as have to and, when a root key is replaced, by the new ones. Hosts
follow by themselves from the root that they pinned.

What the role had signed is signed by both keys before the new root appears, so
hosts accept the repository at any moment. When the old key is lost, name its ID
(mobileops update repo show) as --old-key: then there is a moment between two
files at which hosts refuse the repository, and try again.`,
		Example: `
mobileops update repo rotate-key /srv/updates --role timestamp --role snapshot --old-key online.key --new-key online-2027.key
mobileops update repo rotate-key /srv/updates --role root --old-key alice.key --new-key carol.key --root-key bob.key
mobileops update repo rotate-key /srv/updates --role targets --old-key 5f0c2a91 --new-key release-2.key    # runbook: the key was lost
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the key is replaced"},
			{Code: 4, Text: "too few of the root keys are here, a key may not sign, or a password is wrong"},
			{Code: 5, Text: "the repository was altered"},
			{Code: 7, Text: "there is no repository or no key"},
			{Code: 8, Text: "the role has the new key already, or another process changes the repository"},
		},
		Files:    []string{repoPublic, repoPrivate, "state.db in the state directory: who did it"},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runRepoRotate(ctx, a, &opts, args[0]) },
		Complete: repoDir,
	})
	opts.addFlags(a, cmd)
	fs := cmd.Flags()
	fs.StringArrayVar(&opts.roles, "role", nil, "the key signs for `ROLE`: root, targets, snapshot or timestamp; may be repeated (required)")
	fs.StringVar(&opts.old, "old-key", "", "`KEY` that goes, or its ID when it is lost (required)")
	fs.StringVar(&opts.new, "new-key", "", "`KEY` that comes (required)")
	app.CompleteValues(cmd, "role", repo.Roles()...)
	signing.Complete(a, cmd, "old-key")
	signing.Complete(a, cmd, "new-key")
	return cmd
}

func runRepoRotate(ctx context.Context, a *app.App, o *repoRotateOptions, dir string) error {
	switch {
	case len(o.roles) == 0:
		return app.UsageError("--role is needed: %s", strings.Join(repo.Roles(), ", "))
	case o.old == "" || o.new == "":
		return app.UsageError("--old-key and --new-key are needed: which key goes, and which comes")
	}
	p := repo.OpenPublisher(dir, nil)
	keys := newRepoKeys(a, o.passwordFile)
	signers := keys.of(ctx, p, o.specs())
	root, err := signers("root")
	if err != nil {
		return repoError(err)
	}
	fresh, err := keys.open(ctx, o.new)
	if err != nil {
		return repoError(err)
	}
	rotate := repo.RotateOptions{Roles: o.roles, New: fresh, Root: root, Signers: signers}
	if rotate.Old, err = keys.open(ctx, o.old); err != nil {
		if !isHex(o.old) || failure.KindOf(err) != failure.NotReady {
			return repoError(err)
		}
		rotate.Old, rotate.OldID = nil, o.old
	}
	r, err := p.Rotate(ctx, rotate)
	if err != nil {
		return repoError(err)
	}
	a.SetResult("%s: key %s of %s replaced by %s, root %d", dir, r.OldID[:16], strings.Join(r.Roles, ", "), r.NewID[:16], r.Root.Version)
	if a.Streams.Format != ui.Text {
		doc := newRepoDocument("rotate-key", dir)
		doc.Roles, doc.OldKey, doc.NewKey, doc.Signed = newRoleRecords([]repo.Role{r.Root}), r.OldID, r.NewID, r.Roles
		return a.Streams.Document(doc)
	}
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintf(a.Streams.Out, "key %s of %s is replaced by %s (root %d)\n", r.OldID[:16], strings.Join(r.Roles, ", "), r.NewID[:16], r.Root.Version)
	return err
}

// isHex reports whether a word can be the beginning of a key's ID.
func isHex(s string) bool {
	return len(s) >= 8 && !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) })
}
