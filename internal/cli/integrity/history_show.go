package integrity

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newHistoryShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show [N]",
		Short: "Show everything that a record of the history says",
		Long: `Show everything that a record of the history says; without N, of the last one.
--output json also has its exact bytes and its signature.`,
		Example: `
mobileops integrity history show 12
mobileops integrity history show --output json
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 5, Text: "the history cannot be trusted; the record is shown if it can be read"},
			{Code: 7, Text: "there is no such record"},
		},
		Files: []string{stateFile, historyFile},
		Run:   func(ctx context.Context, args []string) error { return runHistoryShow(ctx, a, args) },
		Complete: func(ctx context.Context, args []string, _ string) []string {
			if len(args) > 0 {
				return nil
			}
			return completeCounters(ctx, a)
		},
	})
}

// completeCounters returns the counters of the records with what they are.
func completeCounters(ctx context.Context, a *app.App) []string {
	e, _, err := newEngine(a)
	if err != nil {
		return nil
	}
	chain, err := e.History().Chain(ctx)
	if err != nil {
		return nil
	}
	var words []string
	_ = chain.Records(func(e *history.Entry) error {
		words = append(words, fmt.Sprintf("%d\t%s %s, %s", e.Counter, whatWas(&e.Record), subject(&e.Record), ui.Ago(e.Time, time.Now())))
		return nil
	})
	return words
}

// historyShowReport is the document of integrity history show.
type historyShowReport struct {
	Schema    string       `json:"schema"`
	Record    recordReport `json:"record"`
	Bytes     []byte       `json:"bytes_b64"`           // its canonical form, which is signed
	Signature string       `json:"signature,omitempty"` // text of the .minisig file
	// What an acceptance accepted, each with its digest.
	Changes []changeReport `json:"changes,omitempty"`
	Drift   []driftReport  `json:"drift,omitempty"`
}

func runHistoryShow(ctx context.Context, a *app.App, args []string) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	chain, v, err := e.Past(ctx)
	if err != nil {
		return err
	}
	n := v.Records
	if len(args) > 0 {
		if n, err = strconv.ParseUint(args[0], 10, 64); err != nil || n == 0 {
			return failure.Errorf(failure.Usage, "%q is no number of a record", args[0])
		}
	} else if n == 0 {
		return failure.Hint(failure.New(failure.NotReady, "the history has no record yet"), "take a baseline: mobileops integrity baseline")
	}
	entry, err := chain.Record(n)
	if err != nil {
		return err
	}
	r := newRecordReport(entry, v)
	accepted := &engine.Report{}
	var lost error
	if r.Kind == history.Acceptance {
		var list *engine.Report
		if list, lost = e.AcceptedChanges(r.ID, r.AcceptedDigest); lost == nil {
			accepted = list
		}
	}
	if a.Streams.Format != ui.Text {
		doc := historyShowReport{Schema: "mobileops.integrity.history.show/v1", Record: r, Bytes: entry.Body, Signature: string(entry.Signature)}
		if r.Kind == history.Acceptance && lost == nil {
			doc.Changes, doc.Drift = changeReports(accepted.Changes), driftReports(accepted.Drift)
		}
		err = a.Streams.Document(doc)
	} else if err = printRecord(a, &r); err == nil {
		err = printAcceptedList(a, accepted)
	}
	if err = errors.Join(err, lost); err != nil {
		return err
	}
	if a.Streams.Format == ui.Text {
		writeProblems(a.Streams.Out, a.Streams.Theme(), v.Problems)
	}
	if len(v.Problems) > 0 {
		return failure.Silent(failure.Untrustworthy)
	}
	return nil
}

// printAcceptedList prints what an acceptance accepted, with the digest of each
// content.
func printAcceptedList(a *app.App, r *engine.Report) error {
	table := a.Streams.NewTable(ui.Column{Title: "ACCEPTED"}, ui.Column{Title: "PATH OR FACT", Min: 20, KeepEnd: true}, ui.Column{Title: "CONTENT", Min: 12})
	for i := range r.Changes {
		c := &r.Changes[i]
		content := ""
		if sum, ok := c.ContentSum(); ok {
			content = sum.String()
		}
		table.Row(string(c.Kind), string(c.Path), content)
	}
	for i := range r.Drift {
		table.Row(string(r.Drift[i].Kind), r.Drift[i].ID(), "")
	}
	if table.Len() == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(a.Streams.Out); err != nil {
		return err
	}
	return table.Print()
}

func printRecord(a *app.App, r *recordReport) error {
	proof := map[string]string{
		proofSigned:   "signed by " + r.SignedBy,
		proofCovered:  "a later record's signature vouches for it",
		proofUnsigned: "nobody vouches for it yet: it waits for " + history.KeyID(r.Signer),
	}[r.Proof]
	digest := func(d history.Digest) string {
		if d == (history.Digest{}) {
			return ""
		}
		return d.String()
	}
	policy := strings.TrimSpace(r.Policy + " " + digest(r.PolicyDigest))
	accepted := ""
	if r.Kind == history.Acceptance {
		accepted = strings.TrimSpace(fmt.Sprintf("%s of report %s, list %s", ui.Plural(int64(r.Accepted), "change", "changes"), r.Report, digest(r.AcceptedDigest)))
	}
	theme := a.Streams.Theme()
	for _, row := range [][2]string{
		{"Record", fmt.Sprintf("%d, %s", r.Counter, whatWas(&r.Record))},
		{"Time", stamp(r.Time)},
		{"Baseline", strings.TrimSuffix(r.Name+"@"+r.ID, "@")},
		{"New key", r.Key},
		{"Who", whoInFull(&r.Record)},
		{"Why", why(&r.Record)},
		{"Ticket", r.Ticket},
		{"Accepted", accepted},
		{"Root", digest(r.Root)},
		{"Policy", policy},
		{"Facts", digest(r.FactsDigest)},
		{"Owners", digest(r.OwnersDigest)},
		{"Host", r.HostName + " " + r.Host},
		{"Boot", r.Boot},
		{"Tool", r.Tool},
		{"Digest", digest(r.Digest)},
		{"Previous", digest(r.Previous)},
		{"Proof", proof},
	} {
		if row[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(a.Streams.Out, "%s %s\n", theme.Heading(fmt.Sprintf("%-9s", row[0])), ui.Escape(row[1])); err != nil {
			return err
		}
	}
	return nil
}

// whoInFull names who did something by everything that is known of them.
func whoInFull(r *history.Record) string {
	text := fmt.Sprintf("%s, uid %d", who(r), r.Actor.UID)
	if r.Actor.LoginUID >= 0 {
		text += fmt.Sprintf(", logged in as uid %d", r.Actor.LoginUID)
	}
	if r.Actor.TTY != "" {
		text += ", at " + r.Actor.TTY
	}
	if r.Actor.Remote != "" {
		text += ", from " + r.Actor.Remote
	}
	return text
}
