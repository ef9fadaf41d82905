package integrity

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type historyOptions struct {
	name  string
	since string
	limit int
}

func newHistory(a *app.App) *cobra.Command {
	var opts historyOptions
	cmd := a.Command(app.Spec{
		Use:   "history [flags]",
		Short: "Show who changed which baseline, when and why, and prove that it is so",
		Long: `Show who changed which baseline, when and why, and prove that it is so.

Every baseline that is taken or imported, every change that is accepted, every
removal and every change of key is a record. The records are one chain: each
has the digest of the one before it, and a signature that minisign verifies.
Nothing is ever dropped from it.

What a chain cannot show is that all of it was put back to an earlier state:
keep anchors for that, see mobileops integrity anchor.`,
		Example: `
mobileops integrity history
mobileops integrity history --name default --since 30d
mobileops integrity history --output jsonl | jq 'select(.ticket == "CHG-42")'
mobileops integrity history --limit 1 --quiet   # runbook: silent when all is proved
`,
		Statuses: []app.Status{
			{Code: 0, Text: "the records were shown, and they prove what they say"},
			{Code: 5, Text: "the history cannot be trusted, or a record that must be signed is not; it is said which"},
		},
		Files: []string{stateFile, historyFile},
		Run:   func(ctx context.Context, _ []string) error { return runHistory(ctx, a, &opts) },
	})
	fs := cmd.Flags()
	fs.StringVar(&opts.name, "name", "", "only records of the baseline `NAME`")
	a.CompleteFlag(cmd, "name", func(ctx context.Context, _ []string, _ string) []string { return completeNames(ctx, a, false) })
	fs.StringVar(&opts.since, "since", "", "only records from `WHEN` on: a span such as 30d, or a date")
	app.CompleteValues(cmd, "since", "1d", "7d", "30d")
	fs.IntVar(&opts.limit, "limit", 0, "only the last `N` records")
	cmd.AddCommand(newHistoryShow(a), newHistoryExport(a))
	return cmd
}

// recordReport is a record in JSON.
type recordReport struct {
	history.Record
	Digest   history.Digest `json:"digest"`
	Proof    string         `json:"proof"`               // signed, covered (by a later signature) or unsigned
	SignedBy string         `json:"signed_by,omitempty"` // id of the key, as minisign shows it
}

// Ways in which a record is vouched for.
const (
	proofSigned   = "signed"
	proofCovered  = "covered"
	proofUnsigned = "unsigned"
)

func newRecordReport(e *history.Entry, v *history.Verification) recordReport {
	r := recordReport{Record: e.Record, Digest: e.Digest, Proof: proofCovered}
	switch {
	case len(e.Signature) > 0:
		r.Proof, r.SignedBy = proofSigned, history.KeyID(e.Signer)
	case slices.Contains(v.Unsigned, e.Counter):
		r.Proof = proofUnsigned
	}
	return r
}

// historyReport is the document of integrity history.
type historyReport struct {
	Schema   string            `json:"schema"`
	Trusted  bool              `json:"trusted"`
	Total    uint64            `json:"total"` // records that there are
	Key      string            `json:"key,omitempty"`
	KeyID    string            `json:"key_id,omitempty"`
	Unsigned []uint64          `json:"unsigned"`
	Problems []history.Problem `json:"problems"`
	Warnings []string          `json:"warnings"`
	Records  []recordReport    `json:"records"`
}

func runHistory(ctx context.Context, a *app.App, o *historyOptions) error {
	if o.limit < 0 {
		return failure.Errorf(failure.Usage, "--limit %d: write a number of records", o.limit)
	}
	if o.name != "" {
		if err := engine.CheckName(o.name); err != nil {
			return err
		}
	}
	var since time.Time
	if o.since != "" {
		var ok bool
		if since, ok = moment.Past(o.since, time.Now(), false); !ok {
			return failure.Errorf(failure.Usage, "--since %q: write a span such as 30d, or a date such as 2026-05-01", o.since)
		}
	}
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	chain, v, err := e.Past(ctx)
	if err != nil {
		return err
	}
	doc := historyReport{
		Schema: "mobileops.integrity.history/v1", Trusted: v.Kind() == failure.None, Total: v.Records, Key: v.Key,
		Unsigned: some(v.Unsigned), Problems: some(v.Problems), Warnings: some(v.Warnings), Records: []recordReport{},
	}
	if v.Key != "" {
		doc.KeyID = history.KeyID(v.Key)
	}
	// A record that cannot be read is one of the problems; what is before it is shown.
	_ = chain.Records(func(e *history.Entry) error {
		if (o.name == "" || e.Name == o.name) && !e.Time.Before(since) {
			doc.Records = append(doc.Records, newRecordReport(e, v))
		}
		return nil
	})
	if o.limit > 0 && len(doc.Records) > o.limit {
		doc.Records = doc.Records[len(doc.Records)-o.limit:]
	}
	if err := printHistory(a, &doc); err != nil {
		return err
	}
	return failure.Silent(v.Kind())
}

func printHistory(a *app.App, doc *historyReport) error {
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(doc)
	case ui.JSONL:
		lines := a.Streams.Lines()
		for _, r := range doc.Records {
			if err := lines.Print(r); err != nil {
				return err
			}
		}
		if err := lines.Flush(); err != nil {
			return err
		}
		writeProblems(a.Streams.Err, a.Streams.Theme(), doc.Problems)
		writeUnsigned(a.Streams.Err, a.Streams.Theme(), doc.Unsigned)
		return nil
	}
	theme := a.Streams.Theme()
	if !a.Streams.Quiet {
		if err := printRecords(a, doc.Records); err != nil {
			return err
		}
	}
	var w strings.Builder
	writeProblems(&w, theme, doc.Problems)
	writeUnsigned(&w, theme, doc.Unsigned)
	if !a.Streams.Quiet {
		writeWarnings(&w, theme, doc.Warnings)
		switch {
		case doc.Total == 0 && len(doc.Problems) == 0:
			a.Streams.Notice("no records (take a baseline: mobileops integrity baseline)")
		case doc.Trusted:
			fmt.Fprintf(&w, "%s: %s, one chain, signed by %s.\n", theme.Good("Proved"), ui.Plural(int64(doc.Total), "record", "records"), doc.KeyID)
		}
	}
	_, err := a.Streams.Out.Write([]byte(w.String()))
	return err
}

func printRecords(a *app.App, list []recordReport) error {
	now := time.Now()
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(
		ui.Column{Title: "N", Right: true}, ui.Column{Title: "WHEN"}, ui.Column{Title: "WHAT"}, ui.Column{Title: "BASELINE"},
		ui.Column{Title: "WHO", Min: 6, Drop: 2}, ui.Column{Title: "WHY", Min: 10, Drop: 1}, ui.Column{Title: "TICKET", Drop: 4},
		ui.Column{Title: "ROOT", Drop: 5}, ui.Column{Title: "PROOF", Drop: 3})
	for i := range list {
		r := &list[i]
		proof := ui.Cell{Text: r.Proof}
		if r.Proof == proofUnsigned {
			proof.Style = theme.Bad
		}
		root := ""
		if r.Root != (history.Digest{}) {
			root = r.Root.String()[:12]
		}
		table.Row(fmt.Sprint(r.Counter), ui.Ago(r.Time, now), whatWas(&r.Record), subject(&r.Record), who(&r.Record), why(&r.Record), r.Ticket, root, proof)
	}
	if err := table.Print(); err != nil || table.Len() == 0 {
		return err
	}
	_, err := fmt.Fprintln(a.Streams.Out)
	return err
}

// whatWas says in a word what a record tells of.
func whatWas(r *history.Record) string {
	if r.Kind == history.Acceptance {
		return fmt.Sprintf("accepted %d", r.Accepted)
	}
	return string(r.Kind)
}

// subject says what a record is about.
func subject(r *history.Record) string {
	if r.Kind == history.KeyChange {
		return history.KeyID(r.Key)
	}
	return r.Name + "@" + r.ID[:min(8, len(r.ID))]
}

// who says who did it: the one who logged in, when that is another one than
// who it was done as.
func who(r *history.Record) string {
	name := r.Actor.User
	if name == "" {
		name = "uid " + strconv.Itoa(r.Actor.UID)
	}
	if r.Actor.LoginUID >= 0 && r.Actor.LoginUID != int64(r.Actor.UID) {
		name += fmt.Sprintf(" (login uid %d)", r.Actor.LoginUID)
	}
	return name
}

// why is the reason that was given.
func why(r *history.Record) string {
	if r.Kind == history.KeyChange && r.Lost {
		return strings.TrimSpace("former key lost " + r.Reason)
	}
	return r.Reason
}
