package change

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type approveOptions struct{ comment, signature string }

func newApprove(a *app.App) *cobra.Command {
	var opts approveOptions
	cmd := a.Command(app.Spec{
		Use:   "approve ID [--comment TEXT] [--signature FILE]",
		Short: "Agree to a change that somebody else asked for",
		Long: `Agree to a change that somebody else asked for.

Who asked cannot approve, and nobody can twice: not under a second account, not
after su or sudo, not with a key of SSH that both sessions were begun with, and
not under accounts that the file of people (change.people) counts as one
person. Where it cannot be told who this is, as for root without a login of its
own, nothing is approved.

With --signature the approver is who signed, wherever that was: the file is a
signature of minisign over what mobileops change show ID --message prints, by a
key that the file of people names. Who brings it here does not matter.`,
		Example: `
mobileops change approve C-7Q2FM3
mobileops change approve C-7Q2FM3 --comment 'tested on web7'
mobileops change show C-7Q2FM3 --message > C-7Q2FM3.txt  # runbook: the approver is elsewhere
minisign -S -s carol.key -m C-7Q2FM3.txt                 # there, after reading it
mobileops change approve C-7Q2FM3 --signature C-7Q2FM3.txt.minisig
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the approval is stored; more may be needed"},
			{Code: 1, Text: "no change has such an ID"},
			{Code: 4, Text: "this is who asked, or that cannot be ruled out; or the change has expired; or a rule of the configuration file is overridden"},
			{Code: 5, Text: "the signature is wrong; the state is damaged, or others than root can write the file of people or root's configuration"},
			{Code: 7, Text: "the file of people is missing"},
			{Code: 8, Text: "nothing is left to approve, or the same person has approved already; or another process holds the state"},
		},
		Files:    []string{stateFile, peopleFile},
		Audited:  true,
		Complete: completeIDs(a, true, change.StateRequested, change.StateApplied),
		Run:      func(ctx context.Context, args []string) error { return runApprove(ctx, a, &opts, args[0]) },
	})
	fs := cmd.Flags()
	fs.StringVar(&opts.comment, "comment", "", "what was looked at, in `TEXT`")
	fs.StringVar(&opts.signature, "signature", "", "the approval of who made the signature in `FILE`")
	app.CompleteFiles(cmd, "signature", "minisig")
	return cmd
}

func runApprove(ctx context.Context, a *app.App, o *approveOptions, id string) error {
	consent := change.Consent{By: Who(a), Comment: o.comment}
	folk, err := People(a)
	if err != nil {
		return err
	}
	if o.signature != "" {
		if consent.Signature, err = change.ReadSignature(o.signature); err != nil {
			return err
		}
	}
	now := time.Now()
	c, err := write(ctx, a, now, func(tx *state.Tx) (*change.Change, error) { return change.Approve(tx, id, consent, folk, now) })
	if err != nil {
		return err
	}
	by := c.Approvals[len(c.Approvals)-1].Approver(folk)
	a.SetResult("%s approved by %s (%d of %d): %s %s, digest %s", c.ID, by, len(c.Approvals), c.Required, c.Kind, c.Subject(), c.Digest)
	if done, err := printRecords(a, "approve", []*change.Change{c}, now); done || a.Streams.Quiet {
		return err
	}
	_, err = fmt.Fprintf(a.Streams.Out, "%s: approved by %s, %d of %d\n", c.ID, ui.Escape(by), len(c.Approvals), c.Required)
	if n := next(c, now); n != "" && err == nil {
		_, err = fmt.Fprintf(a.Streams.Out, "  next: %s\n", ui.Escape(n))
	}
	return err
}
