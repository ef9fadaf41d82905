package scan

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show ID|KEY",
		Short: "Show all that is known of a vulnerability, on every asset that has it",
		Long: `Show all that is known of a vulnerability, on every asset that has it.

ID is that of a vulnerability, a rule or a check; KEY is one item, as scan list
prints it.`,
		Example: `
mobileops scan show CVE-2021-44228     # runbook: where is it, since when, what mends it?
mobileops scan show 1f3a09c2d4
`,
		Args:     cobra.ExactArgs(1),
		Statuses: []app.Status{{Code: 0, Text: "it was shown"}, {Code: 1, Text: "no scan ever found it"}, governed()},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, args []string) error { return runShow(ctx, a, args[0]) },
		Complete: completeItems(a),
	})
}

func runShow(ctx context.Context, a *app.App, word string) error {
	l, store, err := memory(a)
	if err != nil {
		return err
	}
	now := time.Now()
	var items []ledger.Item
	if err := store.View(ctx, func(tx *state.Tx) error {
		if items, err = l.List(tx, ledger.Filter{ID: word}, now); err != nil || len(items) > 0 {
			return err
		}
		if strings.Trim(word, "0123456789abcdef") != "" || len(word) < ledger.MinPrefix {
			return ledger.ErrNotFound // no beginning of a key either
		}
		item, err := l.Find(tx, word, now)
		if err == nil {
			items = append(items, *item)
		}
		return err
	}); err != nil {
		if failure.KindOf(err) == failure.No {
			return failure.Hint(failure.Errorf(failure.No, "no scan ever found %s", ui.Escape(word)), "what they found: mobileops scan list")
		}
		return err
	}
	list := l.Policy.Deadlines(items, now)
	switch a.Streams.Format {
	case ui.JSONL:
		return printLines(a, list)
	case ui.JSON:
		return a.Streams.Document(itemsDocument{"mobileops.scan.show/v1", list})
	}
	for n := range list {
		if n > 0 {
			if _, err := fmt.Fprintln(a.Streams.Out); err != nil {
				return err
			}
		}
		if err := showItem(a, &list[n], now); err != nil {
			return err
		}
	}
	return nil
}

func showItem(a *app.App, i *ledger.Deadline, now time.Time) error {
	theme := a.Streams.Theme()
	var b strings.Builder
	severity := severityCell(a, i.Severity)
	fmt.Fprintf(&b, "%s  %s  %s\n", theme.Heading(ui.Escape(i.ID)), severity.Style(severity.Text), ui.Escape(i.Title))
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-12s %s\n", name, ui.Printable(value))
		}
	}
	moment := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return moment(t, now)
	}
	line("asset", i.Asset)
	line("key", i.Key.Short())
	line("state", string(i.State)+unseen(&i.Item))
	line("urgency", i.Why)
	line("package", strings.TrimSpace(i.Package+" "+strings.Join(i.Installed, ", ")))
	if i.Class == ledger.Vulnerability {
		line("fixed in", fixed(&i.Item))
	}
	line("where", strings.Join(i.Paths, ", "))
	line("match", i.Match)
	line("first seen", moment(i.FirstSeen))
	line("last seen", moment(i.LastSeen))
	line("fix known", moment(i.FixSince))
	if i.DueState != "" && !i.Due.IsZero() {
		line("due", moment(i.Due)+", "+string(i.DueState)+", counted from "+i.From)
	}
	line("resolved", moment(i.ResolvedAt))
	if i.Waiver != nil {
		line("waiver", fmt.Sprintf("%s by %s until %s: %s", i.Waiver.ID, i.Waiver.Owner, i.Waiver.Until.Local().Format(time.DateOnly), i.Waiver.Reason))
	}
	if i.VEX != nil {
		line("VEX", fmt.Sprintf("%s according to %s: %s %s", i.VEX.Status, i.VEX.Author, i.VEX.Justification, i.VEX.Impact))
	}
	line("message", i.Message)
	line("to do", i.Resolution)
	line("read", i.URL)
	for _, e := range i.Events {
		line(e.At.Local().Format(time.DateOnly), strings.TrimSpace(string(e.What)+" "+change(e)))
	}
	_, err := io.WriteString(a.Streams.Out, b.String())
	return err
}

func unseen(i *ledger.Item) string {
	if i.Unseen {
		return ", but the last scan could not look there"
	}
	return ""
}

// change is what an event changed.
func change(e ledger.Event) string {
	switch {
	case e.From != "" && e.To != "":
		return e.From + " → " + e.To
	case e.To != "":
		return e.To
	}
	return e.From
}

// completeItems completes the ids that scans found.
func completeItems(a *app.App) func(context.Context, []string, string) []string {
	return func(ctx context.Context, args []string, prefix string) (words []string) {
		if len(args) > 0 {
			return nil
		}
		l, store, err := memory(a)
		if err != nil {
			return nil
		}
		known := map[string]bool{}
		_ = store.View(ctx, func(tx *state.Tx) error {
			items, err := l.List(tx, ledger.Filter{ID: prefix + "*"}, time.Now())
			for i := range items {
				if id := items[i].ID; !known[id] && len(words) < 200 {
					known[id] = true
					words = append(words, id+"\t"+strings.ToLower(string(items[i].Severity))+" "+items[i].Subject)
				}
			}
			return err
		})
		return words
	}
}
