package change

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newShow(a *app.App) *cobra.Command {
	var message bool
	cmd := a.Command(app.Spec{
		Use:   "show ID... [--message]",
		Short: "Show a change: what it is, who agreed, what is missing and what to do next",
		Long: `Show a change: what it is, who agreed, what is missing and what to do next.

An ID can be shortened to four characters when no other begins so, and typed in
lower case. With --message it prints what an approver elsewhere signs, and
nothing else: see mobileops change approve --signature.`,
		Example: `
mobileops change show C-7Q2FM3
mobileops change show c-7q --output json | jq -r '.changes[0].why_not'
mobileops change show C-7Q2FM3 --message > C-7Q2FM3.txt  # runbook: for an approver elsewhere
`,
		Args:     cobra.MinimumNArgs(1),
		Statuses: []app.Status{{Code: 1, Text: "no change has such an ID"}},
		Files:    []string{stateFile},
		Complete: completeIDs(a, false),
		Run:      func(ctx context.Context, args []string) error { return runShow(ctx, a, args, message) },
	})
	cmd.Flags().BoolVar(&message, "message", false, "print what an approver elsewhere signs")
	return cmd
}

func runShow(ctx context.Context, a *app.App, ids []string, message bool) error {
	if message && len(ids) > 1 {
		return app.UsageError("--message is about one change: each is signed on its own")
	}
	now := time.Now()
	var list []*change.Change
	if err := read(ctx, a, now, func(tx *state.Tx) error {
		list = nil
		for _, id := range ids {
			c, err := change.Get(tx, id)
			if err != nil {
				return err
			}
			list = append(list, c)
		}
		return nil
	}); err != nil {
		return err
	}
	if message {
		_, err := a.Streams.Out.Write(list[0].Message())
		return err
	}
	if done, err := printRecords(a, "show", list, now); done {
		return err
	}
	out := bufio.NewWriter(a.Streams.Out)
	for i, c := range list {
		if i > 0 {
			fmt.Fprintln(out)
		}
		printChange(out, a.Streams.Theme(), c, now)
	}
	return out.Flush()
}

// printChange writes one change for people.
func printChange(out io.Writer, theme ui.Theme, c *change.Change, now time.Time) {
	title := string(c.Kind) + " " + c.Subject()
	if c.Emergency {
		title += ", emergency"
	}
	fmt.Fprintf(out, "%s  %s  %s\n", theme.Heading(c.ID), theme.Severity(severity(c.Risk), string(c.Risk)+" risk"), ui.Escape(title))
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(out, "  %-10s %s\n", name, ui.Escape(value))
		}
	}
	comment := func(s string) string {
		if s == "" {
			return ""
		}
		return ": " + s
	}
	field("state", string(c.At(now)))
	field("reason", c.Reason)
	field("way back", c.Rollback)
	field("digest", c.Digest)
	field("host", c.Host)
	field("window", c.From.Local().Format("2006-01-02 15:04")+" to "+at(c.Until, now))
	field("requested", at(c.Requested, now)+" by "+c.Requester.Describe()+where(&c.Requester))
	for _, p := range c.Approvals {
		how := where(&p.By)
		if p.Signed != nil {
			how = ", brought by " + p.By.Describe() + how
		}
		field("approved", at(p.At, now)+" by "+p.Approver(nil)+how+comment(p.Comment))
	}
	if d := c.Rejection; d != nil {
		field("rejected", at(d.At, now)+" by "+d.By.Describe()+where(&d.By)+comment(d.Comment))
	}
	if d := c.Withdrawal; d != nil {
		field("withdrawn", at(d.At, now)+" by "+d.By.Describe()+where(&d.By)+comment(d.Comment))
	}
	for _, u := range c.Uses {
		text := at(u.At, now)
		if u.Outcome == change.RolledBack {
			text += ", rolled back " + at(u.Undone, now)
		}
		if u.Unauthorised != "" {
			text += ", not authorised: " + u.Unauthorised
		}
		field("applied", text)
	}
	if over := c.Rejection != nil || c.Withdrawal != nil; !over && c.Missing() > 0 && c.At(now) != change.StateExpired {
		text := fmt.Sprintf("%d of %s", c.Missing(), ui.Plural(int64(c.Required), "approval", "approvals"))
		if c.Untold {
			text += ", one more than usual: it cannot be told who asked"
		}
		field("missing", text)
	}
	if s := c.At(now); s == change.StateRequested || s == change.StateApproved {
		host, _ := os.Hostname()
		if err := cmp.Or(c.On(host), c.InForce(now)); err != nil {
			why, _, _ := strings.Cut(err.Error(), " (")
			field("not yet", why)
		}
	}
	field("next", next(c, now))
}

// where says from where somebody acted.
func where(i *change.Identity) (s string) {
	if i.TTY != "" {
		s += " on " + i.TTY
	}
	if i.Remote != "" {
		s += " from " + i.Remote
	}
	return s
}
