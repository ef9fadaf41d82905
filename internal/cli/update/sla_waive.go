package update

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	clichange "github.com/mobileops/mobileops/internal/cli/change"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/sla"
	"github.com/spf13/cobra"
)

type slaWaiveOptions struct{ owner, reason, until string }

func newSLAWaive(a *app.App) *cobra.Command {
	var opts slaWaiveOptions
	cmd := a.Command(app.Spec{
		Use:   "waive UPDATE --owner NAME --reason TEXT --until WHEN",
		Short: "Ask that a security update need not be installed until a date",
		Long: `Ask that a security update need not be installed until a date.

It is not waived by that: somebody else has to approve, with mobileops update
sla approve, who is neither the one who asked nor the owner. A waiver lasts a
year at most, ends by itself, and ends when the update becomes more severe.`,
		Example: `
mobileops update sla waive apt/openssl/3.0.15-1~deb12u1 --owner carol --reason 'modem driver breaks, vendor case 17' --until 30d
mobileops update sla waive CVE-2026-1234 --owner net-team --reason 'service is off here' --until 2027-01-31
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it waits for approval"},
			{Code: 1, Text: "there is no such update, or it is installed already"},
		},
		Files:    []string{slaState},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runSLAWaive(ctx, a, &opts, args[0]) },
		Complete: completeSLA(a, func(e *sla.Entry) bool { return e.State != sla.Fixed }),
	})
	opts.addFlags(cmd)
	return cmd
}

func (o *slaWaiveOptions) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&o.owner, "owner", "", "`NAME` of who answers for it (required)")
	fs.StringVar(&o.reason, "reason", "", "why it need not be installed, in `TEXT`, as it is told to those who ask (required)")
	fs.StringVar(&o.until, "until", "", "the end, `WHEN`: a span such as 30d, or a date, which counts in full (required)")
	app.CompleteValues(cmd, "until", "7d\ta week", "30d\ta month", "90d\ta quarter")
}

func runSLAWaive(ctx context.Context, a *app.App, o *slaWaiveOptions, word string) error {
	switch {
	case o.owner == "":
		return app.UsageError("say who answers for it: --owner NAME")
	case o.reason == "":
		return app.UsageError("say why it need not be installed: --reason TEXT")
	case o.until == "":
		return app.UsageError("say when the waiver ends: --until 30d, or a date")
	}
	until, ok := moment.Future(o.until, time.Now())
	if !ok {
		return app.UsageError("bad value %q for --until: a span such as 30d, or a date such as 2026-05-01", o.until)
	}
	who := clichange.Who(a)
	return decideSLA(ctx, a, "waive", func(l sla.Ledger, tx *state.Tx, now time.Time) (*sla.Record, error) {
		return l.Waive(tx, word, sla.Waiver{Owner: o.owner, Reason: o.reason, Until: until}, who, now)
	}, func(r *sla.Record) string {
		return fmt.Sprintf("%s: a waiver is asked for, and not yet in force (somebody else approves it: mobileops update sla approve %s)", r.ID(), r.ID())
	})
}

func newSLAApprove(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "approve UPDATE",
		Short: "Approve a waiver that somebody else asked for",
		Long: `Approve a waiver that somebody else asked for.

Who asked for it cannot approve it, nor its owner, nor an account of theirs:
what counts is who logged in, which su and sudo do not change, and the file of
people (change.people in the configuration). Where that cannot be told, as of
root that nobody logged in as, the answer is no.`,
		Example: `
mobileops update sla show openssl      # runbook: read the reason first
mobileops update sla approve apt/openssl/3.0.15-1~deb12u1
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the waiver is in force"},
			{Code: 1, Text: "there is no such update, or no waiver of it waits for approval"},
			{Code: 4, Text: "you asked for it, are its owner, or cannot be told from them; or the state belongs to another user"},
		},
		Files:   []string{slaState, "/etc/mobileops/people.yaml: which accounts are one person, where the configuration names such a file"},
		Audited: true,
		Run: func(ctx context.Context, args []string) error {
			people, err := clichange.People(a)
			if err != nil {
				return err
			}
			who := clichange.Who(a)
			return decideSLA(ctx, a, "approve", func(l sla.Ledger, tx *state.Tx, now time.Time) (*sla.Record, error) {
				return l.Approve(tx, args[0], who, people, now)
			}, func(r *sla.Record) string {
				return fmt.Sprintf("%s is waived until %s", r.ID(), r.Waiver.Until.Local().Format("2006-01-02 15:04"))
			})
		},
		Complete: completeSLA(a, func(e *sla.Entry) bool { return e.State != sla.Fixed && e.Request != nil }),
	})
}

func newSLAUnwaive(a *app.App) *cobra.Command {
	var reason string
	cmd := a.Command(app.Spec{
		Use:   "unwaive UPDATE --reason TEXT",
		Short: "Take back a waiver, or a request for one",
		Long: `Take back a waiver, or a request for one.

The update is due as if it had never been waived.`,
		Example: `
mobileops update sla unwaive apt/openssl/3.0.15-1~deb12u1 --reason 'the vendor has a new driver'
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it is not waived any more"},
			{Code: 1, Text: "there is no such update, or it is installed already"},
			{Code: 8, Text: "it is not waived, or another process holds the state"},
		},
		Files:   []string{slaState},
		Audited: true,
		Run: func(ctx context.Context, args []string) error {
			if reason == "" {
				return app.UsageError("say why: --reason TEXT")
			}
			who := clichange.Who(a)
			return decideSLA(ctx, a, "unwaive", func(l sla.Ledger, tx *state.Tx, now time.Time) (*sla.Record, error) {
				return l.Unwaive(tx, args[0], reason, who, now)
			}, func(r *sla.Record) string { return r.ID() + " is not waived any more" })
		},
		Complete: completeSLA(a, func(e *sla.Entry) bool { return e.State == sla.Waived || e.Request != nil }),
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why, in `TEXT` (required)")
	return cmd
}

// decideSLA decides about one update and brings the findings up to date.
func decideSLA(ctx context.Context, a *app.App, verb string, decide func(sla.Ledger, *state.Tx, time.Time) (*sla.Record, error), say func(*sla.Record) string) error {
	v, _, err := newSLAView(a)
	if err != nil {
		return err
	}
	store, err := a.State()
	if err != nil {
		return err
	}
	var r *sla.Record
	if err := store.Update(ctx, func(tx *state.Tx) error {
		if r, err = decide(v.ledger, tx, v.now); err != nil {
			return err
		}
		_, err = v.ledger.Report(tx, v.now)
		return err
	}); err != nil {
		return err
	}
	a.SetResult("%s", say(r))
	if done, err := v.printOne(a, verb, r); done || a.Streams.Quiet {
		return err
	}
	_, err = fmt.Fprintln(a.Streams.Out, ui.Escape(say(r)))
	return err
}
