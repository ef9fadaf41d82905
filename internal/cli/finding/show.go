package finding

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show ID...",
		Short: "Show everything known about findings",
		Long: `Show everything known about findings: what was found, when, what is advised,
what was decided about it, by whom and why.

An ID is what finding list shows, or its beginning: four digits or more, as
long as no other finding's id begins with them.`,
		Example: `
mobileops finding show 3fa9                # the beginning of an id is enough
mobileops finding show 3fa9 --output json  # with exact bytes, for a script
`,
		Args:     cobra.MinimumNArgs(1),
		Statuses: statuses(),
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, args []string) error { return runShow(ctx, a, args) },
		Complete: completeIDs(a),
	})
}

// showReport is the document of finding show --output json.
type showReport struct {
	Schema   string            `json:"schema"`
	Findings []*finding.Record `json:"findings"`
}

func runShow(ctx context.Context, a *app.App, ids []string) error {
	store, err := a.State()
	if err != nil {
		return err
	}
	now := time.Now()
	var list []*finding.Record
	err = store.View(ctx, func(tx *state.Tx) error {
		list = nil
		for _, id := range ids {
			r, err := finding.Get(tx, id, now)
			if err != nil {
				return err
			}
			list = append(list, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(showReport{"mobileops.finding.show/v1", list})
	case ui.JSONL:
		return lines(a, list)
	}
	out := bufio.NewWriter(a.Streams.Out)
	for i, r := range list {
		if i > 0 {
			fmt.Fprintln(out)
		}
		printRecord(out, a.Streams.Theme(), r, now)
	}
	return out.Flush()
}

// printRecord prints one finding. The bufio.Writer below w keeps the first
// error.
func printRecord(w io.Writer, theme ui.Theme, r *finding.Record, now time.Time) {
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-12s %s\n", name, value)
		}
	}
	moment := func(t time.Time) string {
		return t.Local().Format("2006-01-02 15:04:05 -0700") + " (" + ui.Ago(t, now) + ")"
	}
	fmt.Fprintf(w, "%s  %s  %s\n", theme.Heading(r.ID()), theme.Severity(int(r.Severity), r.Severity.String()), theme.Heading(ui.Escape(r.Title)))
	field("subject", ui.Escape(r.Subject))
	field("state", r.State.String())
	field("owner", ui.Escape(r.Owner))
	if r.State == finding.Waived {
		field("until", moment(r.WaivedUntil))
	}
	field("reason", ui.Escape(r.Reason))
	field("rule", ui.Escape(r.Source)+"/"+ui.Escape(r.Rule))
	field("first seen", moment(r.FirstSeen))
	field("last seen", moment(r.LastSeen))
	field("times seen", ui.Count(int64(r.TimesSeen)))
	var scopes []string
	for _, s := range r.Scopes {
		if s != "" {
			scopes = append(scopes, ui.Escape(s))
		}
	}
	field("seen in", strings.Join(scopes, ", "))
	for _, k := range slices.Sorted(maps.Keys(r.Evidence)) {
		field(ui.Escape(k), ui.Escape(r.Evidence[k]))
	}
	field("advice", ui.Escape(r.Remediation))
	for _, ref := range r.References {
		field("see", ui.Escape(ref))
	}
	var tags []string
	for _, t := range r.Tags {
		tags = append(tags, ui.Escape(t))
	}
	field("tags", strings.Join(tags, ", "))
	field("fingerprint", r.Fingerprint.String())
	if r.Truncated {
		field("note", "the sensor reported more than is kept; long texts were cut")
	}
	for i, c := range r.History {
		if i == 1 && r.Forgotten > 0 {
			field("", fmt.Sprintf("%s left out here", ui.Plural(int64(r.Forgotten), "older change", "older changes")))
		}
		name := ""
		if i == 0 {
			name = "history"
		}
		fmt.Fprintf(w, "  %-12s %s  %s -> %s by %s: %s\n", name, c.At.Local().Format("2006-01-02 15:04"), c.From, c.To, ui.Escape(c.Who), ui.Escape(c.Why))
	}
}
