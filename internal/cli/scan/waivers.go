package scan

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newWaivers(a *app.App) *cobra.Command {
	var only string
	cmd := a.Command(app.Spec{
		Use:   "waivers [--state STATE]",
		Short: "List what is accepted, by whom, why and until when",
		Long: `List what is accepted, by whom, why and until when.

A waiver that is in force and matched nothing in the last complete scan of
everything that it could concern is unused: take it back, or correct it.`,
		Example: `
mobileops scan waivers
mobileops scan waivers --state expired
mobileops scan waivers --output json | jq -r '.waivers[] | select(.unused) | .id'   # runbook: what to clear away
`,
		Statuses: []app.Status{{Code: 0, Text: "they were listed, however many"}, governed()},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, _ []string) error { return runWaivers(ctx, a, only) },
	})
	app.Choice(cmd, cmd.Flags(), &only, "state", "", waiverStates(), "only those in `STATE`")
	return cmd
}

func waiverStates() (words []string) {
	for _, s := range []ledger.WaiverState{ledger.InForce, ledger.Waiting, ledger.Expired, ledger.Removed} {
		words = append(words, string(s))
	}
	return words
}

func waivers(ctx context.Context, a *app.App) (list []ledger.WaiverStatus, err error) {
	l, store, err := memory(a)
	if err != nil {
		return nil, err
	}
	err = store.View(ctx, func(tx *state.Tx) error {
		list, err = l.Waivers(tx, time.Now())
		return err
	})
	return list, err
}

func runWaivers(ctx context.Context, a *app.App, only string) error {
	all, err := waivers(ctx, a)
	if err != nil {
		return err
	}
	list := []ledger.WaiverStatus{}
	for _, w := range all {
		if only == "" || string(w.State) == only {
			list = append(list, w)
		}
	}
	switch a.Streams.Format {
	case ui.JSONL:
		return printLines(a, list)
	case ui.JSON:
		return a.Streams.Document(struct {
			Schema  string                `json:"schema"`
			Waivers []ledger.WaiverStatus `json:"waivers"`
		}{"mobileops.scan.waivers/v1", list})
	}
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(ui.Column{Title: "ID"}, ui.Column{Title: "STATE"}, ui.Column{Title: "UNTIL"}, ui.Column{Title: "ACCEPTS", Min: 16}, ui.Column{Title: "MATCHES", Right: true}, ui.Column{Title: "OWNER", Drop: 2}, ui.Column{Title: "REASON", Min: 16, Drop: 1})
	for i := range list {
		w := &list[i]
		state := ui.Cell{Text: string(w.State)}
		switch {
		case w.Unused:
			state = ui.Cell{Text: "unused", Style: theme.Warn}
		case w.State == ledger.Expired:
			state.Style = theme.Warn
		}
		table.Row(w.ID, state, w.Until.Local().Format(time.DateOnly), w.Pattern.String(), w.Matches, w.Owner, w.Reason)
	}
	if table.Len() == 0 && !a.Streams.Quiet {
		line := "Nothing is accepted."
		if only != "" {
			line = "No waiver is " + strings.ReplaceAll(only, "-", " ") + "."
		}
		_, err := fmt.Fprintln(a.Streams.Out, line)
		return err
	}
	return table.Print()
}

// completeWaivers completes the id of a waiver in one of some states.
func completeWaivers(a *app.App, states ...ledger.WaiverState) func(context.Context, []string, string) []string {
	return func(ctx context.Context, args []string, _ string) (words []string) {
		if len(args) > 0 {
			return nil
		}
		list, err := waivers(ctx, a)
		if err != nil {
			return nil
		}
		for i := range list {
			if slices.Contains(states, list[i].State) {
				words = append(words, list[i].ID+"\t"+list[i].Pattern.String())
			}
		}
		return words
	}
}
