package update

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/sla"
	"github.com/spf13/cobra"
)

func newSLAShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show UPDATE",
		Short: "Show all that is known of a security update, and what happened to it",
		Long: `Show all that is known of a security update, and what happened to it.

UPDATE is as mobileops update sla shows it; the package or the advisory alone
do where they can mean only one.`,
		Example: `
mobileops update sla show apt/openssl/3.0.15-1~deb12u1
mobileops update sla show CVE-2026-1234 --output json | jq '.advisories[].events'
`,
		Args:     cobra.ExactArgs(1),
		Statuses: []app.Status{{Code: 1, Text: "there is no such update"}},
		Files:    []string{slaState},
		Run:      func(ctx context.Context, args []string) error { return runSLAShow(ctx, a, args[0]) },
		Complete: completeSLA(a, func(*sla.Entry) bool { return true }),
	})
}

// slaOne is the document of the verbs that are about one update.
type slaOne struct {
	Schema     string      `json:"schema"`
	Advisories []slaRecord `json:"advisories"`
}

func runSLAShow(ctx context.Context, a *app.App, word string) error {
	v, _, err := newSLAView(a)
	if err != nil {
		return err
	}
	store, err := a.State()
	if err != nil {
		return err
	}
	var r *sla.Record
	if err := store.View(ctx, func(tx *state.Tx) error {
		r, err = v.ledger.Find(tx, word)
		return err
	}); err != nil {
		return err
	}
	if done, err := v.printOne(a, "show", r); done {
		return err
	}
	e := v.entry(r)
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %s\n", ui.Escape(e.ID()), e.Severity, e.State)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-12s %s\n", name, ui.Escape(value))
		}
	}
	line("what", e.Summary)
	line("installed", e.Installed)
	line("fixed in", e.FixedIn)
	line("packages", strings.Join(e.Packages, " "))
	line("note", e.Note)
	line("published", v.at(e.Published))
	line("first known", v.at(e.FirstKnown))
	line("last seen", v.at(e.LastSeen))
	line("due", strings.TrimSuffix(v.at(e.Due)+", "+v.left(e), ", "))
	line("fixed", v.at(e.FixedAt))
	waiver := func(name string, w *sla.Waiver) {
		if w == nil {
			return
		}
		line(name, fmt.Sprintf("until %s, owner %s: %s", v.at(w.Until), w.Owner, w.Reason))
		line("", "asked for by "+w.Requested.By.Describe()+" on "+v.at(w.Requested.At))
		if w.Approved != nil {
			line("", "approved by "+w.Approved.By.Describe()+" on "+v.at(w.Approved.At))
		}
	}
	waiver("waiver", e.Waiver)
	waiver("asked for", e.Request)
	b.WriteString("history\n")
	for _, ev := range e.Events {
		who := ev.Who
		if who != "" {
			who += ": "
		}
		fmt.Fprintf(&b, "  %s  %s\n", v.at(ev.At), ui.Escape(who+ev.What))
	}
	_, err = fmt.Fprint(a.Streams.Out, b.String())
	return err
}

// at writes a moment in the zone of the host.
func (v *slaView) at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(v.now.Location()).Format("2006-01-02 15:04:05")
}

func (v *slaView) entry(r *sla.Record) *sla.Entry {
	return &sla.Entry{Record: r, State: r.State(v.ledger.Policy, v.now), Due: r.Due(v.ledger.Policy)}
}

// printOne prints one update for programs, and says whether that was asked for.
func (v *slaView) printOne(a *app.App, verb string, r *sla.Record) (bool, error) {
	records := slaRecords([]sla.Entry{*v.entry(r)}, v.now)
	switch a.Streams.Format {
	case ui.JSON:
		return true, a.Streams.Document(slaOne{"mobileops.update.sla." + verb + "/v1", records})
	case ui.JSONL:
		return true, printSLALines(a, records)
	}
	return false, nil
}
