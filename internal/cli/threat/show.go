package threat

import (
	"bufio"
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/threat"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show ID...",
		Short: "Show all that is stored of threats",
		Long: `Show all that is stored of threats.

An ID can be shortened to four characters when no other begins so, and typed in
lower case.`,
		Example: `
mobileops threat show T-7Q2FM3
mobileops threat show t-7q --output json
`,
		Args:     cobra.MinimumNArgs(1),
		Statuses: []app.Status{{Code: 1, Text: "no threat has such an ID"}},
		Files:    []string{stateFile},
		Complete: completeIDs(a),
		Run:      func(ctx context.Context, args []string) error { return runShow(ctx, a, args) },
	})
}

func runShow(ctx context.Context, a *app.App, ids []string) error {
	store, err := a.State()
	if err != nil {
		return err
	}
	var list []*threat.Threat
	if err := store.View(ctx, func(tx *state.Tx) error {
		list = nil
		for _, id := range ids {
			t, err := threat.Get(tx, id)
			if err != nil {
				return err
			}
			list = append(list, t)
		}
		return nil
	}); err != nil {
		return err
	}
	now := time.Now()
	if done, err := printRecords(a, "show", list, now); done {
		return err
	}
	out, theme := bufio.NewWriter(a.Streams.Out), a.Streams.Theme()
	for i, t := range list {
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "%s  %s  %s\n", theme.Heading(t.ID), theme.Severity(int(t.Severity), t.Severity.String()), t.Kind)
		field := func(name, value string) {
			if value != "" {
				fmt.Fprintf(out, "  %-10s %s\n", name, ui.Escape(value))
			}
		}
		at := func(m time.Time) string {
			if m.IsZero() {
				return ""
			}
			return m.Local().Format("2006-01-02 15:04:05 -0700") + " (" + ui.Ago(m, now) + ")"
		}
		for n, x := range t.Indicators {
			name := "known by"
			if n > 0 {
				name = ""
			}
			field(name, x.String())
		}
		field("state", string(t.At(now)))
		field("source", t.Source)
		field("reason", t.Reason)
		field("first seen", at(t.FirstSeen))
		field("last seen", at(t.LastSeen))
		field("expires", at(t.Expires))
	}
	return out.Flush()
}
