// Package finding holds the commands of mobileops finding: looking at what the
// sensors found, and deciding about it.
package finding

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// New returns the command finding with its verbs.
func New(a *app.App) *cobra.Command {
	return a.Group("finding", "Look at what was found, and decide about it",
		newList(a), newShow(a), newAck(a), newWaive(a), newReopen(a))
}

// stateFile is the line about state.db in every help text here.
const stateFile = "state.db in the state directory: findings and what was decided about them"

// statuses are those of every verb that takes ids.
func statuses(more ...app.Status) []app.Status {
	return append([]app.Status{
		{Code: 1, Text: "no finding has such an id"},
		{Code: 2, Text: "an id is ambiguous or malformed, or a flag is missing; nothing was done"},
		{Code: 5, Text: "the stored findings are damaged"},
		{Code: 8, Text: "another process holds the state"},
	}, more...)
}

// decided are the statuses of the verbs that decide something.
func decided() []app.Status {
	list := statuses()
	list[0].Text = "no finding has such an id, or it is resolved; nothing was done"
	list[3].Text = "it is so already, or another process holds the state; nothing was done"
	return list
}

// severityWords are the severities as words, most severe first.
func severityWords() []string {
	var words []string
	for _, s := range slices.Backward(finding.Severities()) {
		words = append(words, s.String())
	}
	return words
}

// all returns every stored finding as it is now.
func all(ctx context.Context, a *app.App, f finding.Filter, now time.Time) (list []*finding.Record, err error) {
	store, err := a.State()
	if err != nil {
		return nil, err
	}
	err = store.View(ctx, func(tx *state.Tx) error {
		list, err = finding.List(tx, f, now)
		return err
	})
	return list, err
}

// maxOffered bounds how many ids completion offers: more than that nobody
// reads, and the shell asks before it shows them.
const maxOffered = 200

// completeIDs completes ids of findings in the given states, with severity,
// subject and title as description.
func completeIDs(a *app.App, states ...finding.State) func(context.Context, []string, string) []string {
	return func(ctx context.Context, args []string, toComplete string) []string {
		list, err := all(ctx, a, finding.Filter{States: states}, time.Now())
		if err != nil {
			return nil
		}
		var words []string
		for _, r := range list {
			if len(words) == maxOffered {
				break
			}
			if strings.HasPrefix(r.ID(), toComplete) && !slices.Contains(args, r.ID()) {
				words = append(words, r.ID()+"\t"+r.Severity.String()+" "+ui.Escape(r.Subject)+": "+ui.Escape(r.Title))
			}
		}
		return words
	}
}

// completeStored completes a flag with values that the stored findings have.
func completeStored(a *app.App, values func(*finding.Record) []string) func(context.Context, []string, string) []string {
	return func(ctx context.Context, _ []string, _ string) []string {
		list, err := all(ctx, a, finding.Filter{}, time.Now())
		if err != nil {
			return nil
		}
		var words []string
		for _, r := range list {
			for _, v := range values(r) {
				words = append(words, ui.Escape(v))
			}
		}
		slices.Sort(words)
		return slices.Compact(words)
	}
}

// decisionReport is the document of the verbs that decide something.
type decisionReport struct {
	Schema   string            `json:"schema"`
	Findings []*finding.Record `json:"findings"`
}

// decide applies a decision to every finding that ids name, in one
// transaction: to all or to none. A finding named twice counts once.
func decide(ctx context.Context, a *app.App, verb, past string, ids []string, now time.Time, apply func(tx *state.Tx, id string) (*finding.Record, error)) error {
	store, err := a.State()
	if err != nil {
		return err
	}
	var done []*finding.Record
	err = store.Update(ctx, func(tx *state.Tx) error {
		done = nil
		var keys []string
		for _, id := range ids {
			r, err := finding.Get(tx, id, now)
			if err != nil {
				return err
			}
			if key := r.Fingerprint.String(); !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		for _, key := range keys {
			r, err := apply(tx, key)
			if err != nil {
				return err
			}
			done = append(done, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var names []string
	for _, r := range done {
		names = append(names, r.ID())
	}
	a.SetResult("%s %s", past, strings.Join(names, " "))
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(decisionReport{"mobileops.finding." + verb + "/v1", done})
	case ui.JSONL:
		return lines(a, done)
	}
	if a.Streams.Quiet {
		return nil
	}
	for _, r := range done {
		until := ""
		if r.State == finding.Waived {
			until = " until " + r.WaivedUntil.Local().Format("2006-01-02 15:04")
		}
		if _, err := fmt.Fprintf(a.Streams.Out, "%s %s%s: %s %s\n", past, r.ID(), until, r.Severity, ui.Escape(r.Subject)); err != nil {
			return err
		}
	}
	return nil
}

func lines(a *app.App, list []*finding.Record) error {
	out := a.Streams.Lines()
	for _, r := range list {
		if err := out.Print(r); err != nil {
			return err
		}
	}
	return out.Flush()
}
