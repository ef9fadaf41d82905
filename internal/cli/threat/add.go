package threat

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/threat"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type addOptions struct {
	id, kind, severity, source, reason, expires string
}

func newAdd(a *app.App) *cobra.Command {
	var opts addOptions
	cmd := a.Command(app.Spec{
		Use:   "add INDICATOR... [flags]",
		Short: "Store a threat by what it is known by",
		Long: `Store a threat by what it is known by.

An INDICATOR is TYPE:VALUE, or an address or network alone. The types are ip, cidr,
mac, port, uid, cgroup, pid, container, interface and domain. A process is stored
with when it started, so that no other of its number is taken for it. Nothing is
blocked by this: that does mobileops network isolate-threat.`,
		Example: `
mobileops threat add 203.0.113.7 --kind scanner --severity high --reason 'case 17'
mobileops threat add ip:203.0.113.7 domain:evil.example --kind c2 --expires 30d
mobileops network isolate-threat "$(mobileops threat add pid:4711 --quiet)"  # runbook: store it and cut it off
`,
		Args: cobra.MinimumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "it is stored"},
			{Code: 8, Text: "there is a threat of that ID, or another process holds the state"},
		},
		Files:   []string{stateFile},
		Audited: true,
		Complete: func(context.Context, []string, string) (words []string) {
			for _, t := range typeWords() {
				words = append(words, t+":")
			}
			return words
		},
		Run: func(ctx context.Context, args []string) error { return runAdd(ctx, a, &opts, args) },
	})
	fs := cmd.Flags()
	fs.StringVar(&opts.id, "id", "", "call it `ID` (default a new one, such as T-7Q2FM3)")
	fs.StringVar(&opts.kind, "kind", "threat", "what it is, in one `WORD`: scanner, c2, malware, intruder")
	app.Choice(cmd, fs, &opts.severity, "severity", finding.Medium.String(), severityWords(), "how bad it is: `SEVERITY`")
	fs.StringVar(&opts.source, "source", "", "who says so: a finding, a feed, a `NAME` (default you)")
	fs.StringVar(&opts.reason, "reason", "", "why, in `WORDS`, or the number of a case")
	fs.StringVar(&opts.expires, "expires", "", "it holds until `WHEN`: a span such as 30d, or a date (default for ever)")
	app.CompleteValues(cmd, "kind", "scanner", "c2", "malware", "intruder")
	app.CompleteValues(cmd, "expires", "1d", "7d", "30d")
	return cmd
}

func runAdd(ctx context.Context, a *app.App, o *addOptions, args []string) error {
	now := time.Now().Round(0)
	t := threat.Threat{ID: o.id, Kind: o.kind, Source: o.source, Reason: o.reason}
	if t.Source == "" {
		t.Source = a.Actor().Name()
	}
	var err error
	if t.Severity, err = finding.ParseSeverity(o.severity); err != nil {
		return err
	}
	if o.expires != "" {
		var ok bool
		if t.Expires, ok = moment.Future(o.expires, now); !ok || !t.Expires.After(now) {
			return app.UsageError("bad value %q for --expires: a span such as 12h or 30d, or a date to come", o.expires)
		}
	}
	for _, arg := range args {
		i, err := threat.ParseIndicator(arg)
		if err != nil {
			return err
		}
		if i.Type == threat.PID && !strings.Contains(i.Value, "@") {
			pid, _, _ := threat.SplitPID(i.Value)
			start, err := threat.ProcessStart(pid)
			if err != nil {
				return app.UsageError("process %d is not running", pid)
			}
			i.Value = fmt.Sprintf("%d@%d", pid, start)
		}
		t.Indicators = append(t.Indicators, i)
	}
	store, err := a.State()
	if err != nil {
		return err
	}
	var added *threat.Threat
	if err := store.Update(ctx, func(tx *state.Tx) error {
		added, err = threat.Add(tx, t, now)
		return err
	}); err != nil {
		return err
	}
	a.SetResult("%s: %s", added.ID, indicators(added, 8))
	if done, err := printRecords(a, "add", []*threat.Threat{added}, now); done {
		return err
	}
	if a.Streams.Quiet { // for scripts
		_, err := fmt.Fprintln(a.Streams.Out, added.ID)
		return err
	}
	_, err = fmt.Fprintf(a.Streams.Out, "%s: %s (cut it off: mobileops network isolate-threat %s)\n", added.ID, ui.Escape(indicators(added, 8)), added.ID)
	return err
}
