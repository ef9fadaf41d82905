package threat

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/network/block"
	"github.com/mobileops/mobileops/internal/threat"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type listOptions struct {
	states, kinds, types []string
	severity             string
}

func newList(a *app.App) *cobra.Command {
	var opts listOptions
	cmd := a.Command(app.Spec{
		Use:   "list [flags]",
		Short: "List threats, the most severe first",
		Long: `List threats, the most severe first.

Without --state, those that are active; with --quiet, of these only those that
nothing is done about: that are not cut off. The status is 0 whatever is listed.`,
		Example: `
mobileops threat list
mobileops threat list --severity high --type ip
mobileops threat list --state all --output jsonl | jq -r .id
0 7 * * * root mobileops threat list --quiet  # cron: mails what is not cut off
`,
		Statuses: []app.Status{{Code: 5, Text: "the stored threats are damaged"}, {Code: 8, Text: "another process holds the state"}},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, _ []string) error { return runList(ctx, a, &opts) },
	})
	fs := cmd.Flags()
	fs.StringSliceVar(&opts.states, "state", nil, "in `STATE`: active, expired, closed or all; may be repeated (default active)")
	fs.StringSliceVar(&opts.kinds, "kind", nil, "of the kind `WORD`; may be repeated")
	fs.StringSliceVar(&opts.types, "type", nil, "known by a `TYPE`, such as ip; may be repeated")
	app.Choice(cmd, fs, &opts.severity, "severity", "", severityWords(), "at least as severe as `SEVERITY`")
	app.CompleteValues(cmd, "state", "active", "expired", "closed", "all")
	app.CompleteValues(cmd, "type", typeWords()...)
	return cmd
}

func (o *listOptions) filter() (f threat.Filter, err error) {
	f = threat.Filter{Kinds: o.kinds}
	if o.severity != "" {
		if f.MinSeverity, err = finding.ParseSeverity(o.severity); err != nil {
			return f, err
		}
	}
	for _, w := range o.types {
		f.Types = append(f.Types, threat.Type(strings.ToLower(w)))
	}
	if len(o.states) == 0 {
		f.States = []threat.State{threat.Active}
	}
	for _, w := range o.states {
		switch s := threat.State(strings.ToLower(w)); s {
		case "all":
			f.States = append(f.States, threat.States()...)
		case threat.Active, threat.Expired, threat.Closed:
			f.States = append(f.States, s)
		default:
			return f, app.UsageError("bad value %q for --state: active, expired, closed or all", w)
		}
	}
	return f, nil
}

func runList(ctx context.Context, a *app.App, o *listOptions) error {
	now := time.Now().Round(0)
	f, err := o.filter()
	if err != nil {
		return err
	}
	list, err := stored(ctx, a, f, now)
	if err != nil {
		return err
	}
	if a.Streams.Quiet && len(o.states) == 0 {
		if list, err = notCutOff(ctx, a, list); err != nil {
			return err
		}
	}
	if done, err := printRecords(a, "list", list, now); done {
		return err
	}
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(
		ui.Column{Title: "ID"}, ui.Column{Title: "SEVERITY"}, ui.Column{Title: "STATE", Drop: 4}, ui.Column{Title: "KIND"},
		ui.Column{Title: "KNOWN BY", Min: 16}, ui.Column{Title: "SEEN", Drop: 3}, ui.Column{Title: "SOURCE", Drop: 2}, ui.Column{Title: "REASON", Min: 12, Drop: 1})
	for _, t := range list {
		table.Row(t.ID, ui.Cell{Text: t.Severity.String(), Style: func(s string) string { return theme.Severity(int(t.Severity), s) }},
			string(t.At(now)), t.Kind, indicators(t, 3), ui.Ago(t.LastSeen, now), t.Source, t.Reason)
	}
	if table.Len() == 0 && !a.Streams.Quiet {
		a.Streams.Notice("no threats (store one: mobileops threat add ADDRESS)")
	}
	return table.Print()
}

// notCutOff leaves the threats that network isolate-threat was not told about, or
// of which the blocks have lapsed.
func notCutOff(ctx context.Context, a *app.App, list []*threat.Threat) ([]*threat.Threat, error) {
	store, err := a.State()
	if err != nil {
		return nil, err
	}
	blocks, err := block.New(block.Options{Store: store}).Blocks(ctx)
	if err != nil {
		return nil, err
	}
	clock, err := block.ReadClock()
	if err != nil {
		return nil, err
	}
	ids, targets := map[string]bool{}, map[threat.Indicator]bool{}
	for i := range blocks {
		if left, ends := blocks[i].Left(clock); !ends || left > 0 {
			ids[blocks[i].Threat], targets[blocks[i].Target] = true, true
		}
	}
	return slices.DeleteFunc(list, func(t *threat.Threat) bool {
		// One that was named by what it is known by is cut off, too.
		return ids[t.ID] || !slices.ContainsFunc(t.Indicators, func(i threat.Indicator) bool { return !targets[i] })
	}), nil
}
