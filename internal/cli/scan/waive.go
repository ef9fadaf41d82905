package scan

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	clichange "github.com/mobileops/mobileops/internal/cli/change"
	moments "github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type waiveOptions struct {
	pattern              ledger.Pattern
	class, severity      string
	owner, reason, until string
}

func newWaive(a *app.App) *cobra.Command {
	var opts waiveOptions
	cmd := a.Command(app.Spec{
		Use:   "waive [ID] --owner NAME --reason TEXT --until WHEN",
		Short: "Accept what scans find, until a date",
		Long: `Accept what scans find, until a date.

ID is that of a vulnerability, or the rule of a secret, a check of configuration,
a licence. It accepts these wherever they are found, or only of packages, in paths
and on assets that match; a * stands for anything. What is accepted is still
listed, with who answers for it and why, but it does not count for --fail-on and
deadlines. A waiver lasts a year at most and ends by itself. One that has ended,
and one that matches nothing any more, is reported as a finding.

Where scan.waiver_approval is set, it is in force once somebody else approved it
(mobileops scan approve).`,
		Example: `
mobileops scan waive CVE-2026-1234 --package openssl --asset 'host:edge*' --owner carol --reason 'TLS is off there' --until 30d
mobileops scan waive aws-access-key-id --path 'testdata/**' --owner dev --reason 'made up for tests' --until 2027-03-31
mobileops scan waivers                       # runbook: what is accepted, and until when
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it is accepted, or waits for approval"},
		},
		Files:   []string{stateFile},
		Audited: true,
		Run:     func(ctx context.Context, args []string) error { return runWaive(ctx, a, &opts, args) },
		Complete: func(ctx context.Context, args []string, prefix string) []string {
			return completeItems(a)(ctx, args, prefix)
		},
	})
	opts.addFlags(a, cmd)
	return cmd
}

func (o *waiveOptions) addFlags(a *app.App, cmd *cobra.Command) {
	fs := cmd.Flags()
	textFlag(fs, &o.pattern.Package, "package", "only of packages whose name matches `PATTERN`")
	textFlag(fs, &o.pattern.Path, "path", "only where every path matches `PATTERN`; ** stands for directories")
	textFlag(fs, &o.pattern.Asset, "asset", "only on assets that match `PATTERN`, such as host:edge1 or image:*")
	app.Choice(cmd, fs, &o.class, "class", "", classWords(), "only of one `CLASS`")
	app.Choice(cmd, fs, &o.severity, "severity", "", severityWords(), "only as long as it is not worse than `SEVERITY`")
	textFlag(fs, &o.owner, "owner", "`NAME` of who answers for it (required)")
	textFlag(fs, &o.reason, "reason", "why it is accepted, in `TEXT`, as it is told to those who ask (required)")
	textFlag(fs, &o.until, "until", "the end, `WHEN`: a span such as 30d, or a date, which counts in full (required)")
	app.CompleteValues(cmd, "until", "7d\ta week", "30d\ta month", "90d\ta quarter")
	a.CompleteFlag(cmd, "asset", completeAssets(a))
}

func classWords() (words []string) {
	for _, c := range ledger.Classes() {
		words = append(words, string(c))
	}
	return words
}

func runWaive(ctx context.Context, a *app.App, o *waiveOptions, args []string) error {
	now := time.Now()
	if len(args) > 0 {
		o.pattern.Item = args[0]
	}
	switch {
	case len(args) > 0 && args[0] == "":
		return app.UsageError("the ID is empty: give it one, or leave it out to accept whatever --package and --path say")
	case o.owner == "":
		return app.UsageError("say who answers for it: --owner NAME")
	case o.reason == "":
		return app.UsageError("say why it is accepted: --reason TEXT")
	case o.until == "":
		return app.UsageError("say when the waiver ends: --until 30d, or a date")
	}
	until, ok := moments.Future(o.until, now)
	if !ok {
		return app.UsageError("bad value %q for --until: a span such as 30d, or a date such as 2026-05-01", o.until)
	}
	o.pattern.Class, o.pattern.Severity = ledger.Class(o.class), ledger.Severity(strings.ToUpper(o.severity))
	w := ledger.Waiver{Pattern: o.pattern, Owner: o.owner, Reason: o.reason, Until: until}
	return decide(ctx, a, "waive", func(l ledger.Ledger, tx *state.Tx) (*ledger.Waiver, error) {
		return l.Waive(tx, w, clichange.Who(a), now)
	}, func(w *ledger.Waiver) string {
		if w.State(now) != ledger.InForce {
			return fmt.Sprintf("waiver %s of %s waits for approval (by somebody else: mobileops scan approve %s)", w.ID, w.Pattern.String(), w.ID)
		}
		return fmt.Sprintf("waiver %s: %s is accepted until %s", w.ID, w.Pattern.String(), w.Until.Local().Format("2006-01-02 15:04"))
	})
}

func newApprove(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "approve WAIVER",
		Short: "Approve a waiver that somebody else asked for",
		Long: `Approve a waiver that somebody else asked for.

Who asked for it cannot approve it, nor its owner, nor an account of theirs: what
counts is who logged in, which su and sudo do not change, and the file of people
(change.people in the configuration).`,
		Example: `
mobileops scan waivers --state waiting    # runbook: read the reasons first
mobileops scan approve W-1f3a09c2
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the waiver is in force"},
			{Code: 1, Text: "there is no such waiver, or it does not wait for approval"},
			{Code: 4, Text: "you asked for it, are its owner, or cannot be told from them; or the state belongs to another user"},
		},
		Files:   []string{stateFile, "/etc/mobileops/people.yaml: which accounts are one person, where the configuration names such a file"},
		Audited: true,
		Run: func(ctx context.Context, args []string) error {
			people, err := clichange.People(a)
			if err != nil {
				return err
			}
			return decide(ctx, a, "approve", func(l ledger.Ledger, tx *state.Tx) (*ledger.Waiver, error) {
				return l.Approve(tx, args[0], clichange.Who(a), people, time.Now())
			}, func(w *ledger.Waiver) string {
				return fmt.Sprintf("waiver %s: %s is accepted until %s", w.ID, w.Pattern.String(), w.Until.Local().Format("2006-01-02 15:04"))
			})
		},
		Complete: completeWaivers(a, ledger.Waiting),
	})
}

func newUnwaive(a *app.App) *cobra.Command {
	var reason string
	cmd := a.Command(app.Spec{
		Use:   "unwaive WAIVER --reason TEXT",
		Short: "Take back a waiver",
		Long: `Take back a waiver.

What it accepted counts again, with the deadlines that it always had.`,
		Example: `
mobileops scan unwaive W-1f3a09c2 --reason 'TLS is on again'
mobileops scan waivers                # runbook: their names
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it accepts nothing any more"},
			{Code: 1, Text: "there is no such waiver"},
		},
		Files:   []string{stateFile},
		Audited: true,
		Run: func(ctx context.Context, args []string) error {
			if reason == "" {
				return app.UsageError("say why: --reason TEXT")
			}
			return decide(ctx, a, "unwaive", func(l ledger.Ledger, tx *state.Tx) (*ledger.Waiver, error) {
				return l.Unwaive(tx, args[0], reason, clichange.Who(a), time.Now())
			}, func(w *ledger.Waiver) string { return "waiver " + w.ID + " is taken back" })
		},
		Complete: completeWaivers(a, ledger.InForce, ledger.Waiting),
	})
	textFlag(cmd.Flags(), &reason, "reason", "why, in `TEXT` (required)")
	return cmd
}

// waiverDocument is what waive, approve and unwaive print as JSON.
type waiverDocument struct {
	Schema string             `json:"schema"`
	State  ledger.WaiverState `json:"state"`
	*ledger.Waiver
}

// decide changes a waiver, and brings what it is about up to date.
func decide(ctx context.Context, a *app.App, verb string, change func(ledger.Ledger, *state.Tx) (*ledger.Waiver, error), say func(*ledger.Waiver) string) error {
	l, store, err := memory(a)
	if err != nil {
		return err
	}
	var w *ledger.Waiver
	if err := store.Update(ctx, func(tx *state.Tx) error {
		w, err = change(l, tx)
		return err
	}); err != nil {
		return err
	}
	if err := settle(ctx, l, store); err != nil {
		return err
	}
	line := say(w)
	if w.State(time.Now()) == ledger.InForce {
		line += matching(ctx, a, w.ID)
	}
	a.SetResult("%s", line)
	switch {
	case a.Streams.Format == ui.JSON || a.Streams.Format == ui.JSONL:
		return a.Streams.Document(waiverDocument{"mobileops.scan." + verb + "/v1", w.State(time.Now()), w})
	case a.Streams.Quiet:
		return nil
	}
	_, err = fmt.Fprintln(a.Streams.Out, ui.Printable(line))
	return err
}

// matching says how much a waiver accepts now: an id with a slip of the pen in it
// accepts nothing, and nobody would notice before the waiver is needed.
func matching(ctx context.Context, a *app.App, id string) string {
	list, err := waivers(ctx, a)
	if err != nil {
		return ""
	}
	for i := range list {
		switch {
		case list[i].ID != id:
		case list[i].Matches == 0:
			return "; nothing that scans found so far is like that (see: mobileops scan list)"
		default:
			return "; that is " + ui.Plural(int64(list[i].Matches), "item", "items")
		}
	}
	return ""
}

// settle brings what is known of every asset in line with the waivers and VEX
// documents of now, and the findings about deadlines and waivers with that, one
// asset after the other, so that nobody waits long.
func settle(ctx context.Context, l ledger.Ledger, store *state.Store) error {
	var assets []string
	if err := store.View(ctx, func(tx *state.Tx) error {
		list, err := l.Assets(tx)
		for i := range list {
			assets = append(assets, list[i].ID)
		}
		return err
	}); err != nil {
		return err
	}
	for _, id := range assets {
		if err := store.Update(ctx, func(tx *state.Tx) error {
			now := time.Now()
			if _, err := l.Settle(tx, id, now); err != nil {
				return err
			}
			_, err := l.Report(tx, id, now)
			return err
		}); err != nil {
			return err
		}
	}
	return store.Update(ctx, func(tx *state.Tx) error {
		_, err := l.ReportWaivers(tx, time.Now())
		return err
	})
}
