// Package threat holds the commands of mobileops threat: what is known to
// threaten hosts, kept until it is acted upon.
package threat

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/threat"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// New returns the command threat with its verbs.
func New(a *app.App) *cobra.Command {
	return a.Group("threat", "Keep what is known to threaten hosts",
		newAdd(a), newList(a), newShow(a), newRemove(a))
}

// stateFile is the line about state.db in every help text here.
const stateFile = "/var/lib/mobileops/state.db: the threats"

// severityWords are the severities as words, most severe first.
func severityWords() (words []string) {
	all := finding.Severities()
	for i := len(all) - 1; i >= 0; i-- {
		words = append(words, all[i].String())
	}
	return words
}

func typeWords() (words []string) {
	for _, t := range threat.Types() {
		words = append(words, string(t))
	}
	return words
}

// record is a threat in JSON, with the state that it is in now.
type record struct {
	*threat.Threat
	State threat.State `json:"state"`
}

// document is what every verb but list prints with --output json.
type document struct {
	Schema  string   `json:"schema"`
	Threats []record `json:"threats"`
}

func records(list []*threat.Threat, now time.Time) []record {
	out := []record{}
	for _, t := range list {
		out = append(out, record{t, t.At(now)})
	}
	return out
}

// printRecords prints threats for programs, and says whether that was asked for.
func printRecords(a *app.App, verb string, list []*threat.Threat, now time.Time) (bool, error) {
	switch a.Streams.Format {
	case ui.JSON:
		return true, a.Streams.Document(document{"mobileops.threat." + verb + "/v1", records(list, now)})
	case ui.JSONL:
		out := a.Streams.Lines()
		for _, r := range records(list, now) {
			if err := out.Print(r); err != nil {
				return true, err
			}
		}
		return true, out.Flush()
	}
	return false, nil
}

// completeIDs completes IDs of threats.
func completeIDs(a *app.App) func(context.Context, []string, string) []string {
	return func(ctx context.Context, _ []string, typed string) (words []string) {
		list, err := stored(ctx, a, threat.Filter{}, time.Now())
		if err != nil {
			return nil
		}
		for _, t := range list {
			if strings.HasPrefix(strings.ToLower(t.ID), strings.ToLower(typed)) && len(words) < 200 {
				words = append(words, t.ID+"\t"+t.Severity.String()+" "+t.Kind+": "+ui.Escape(indicators(t, 2)))
			}
		}
		return words
	}
}

func stored(ctx context.Context, a *app.App, f threat.Filter, now time.Time) (list []*threat.Threat, err error) {
	store, err := a.State()
	if err != nil {
		return nil, err
	}
	err = store.View(ctx, func(tx *state.Tx) error {
		list, err = threat.List(tx, f, now)
		return err
	})
	return list, err
}

// indicators writes the first of a threat's indicators.
func indicators(t *threat.Threat, most int) string {
	var words []string
	for i, x := range t.Indicators {
		if i == most {
			words = append(words, fmt.Sprintf("and %d more", len(t.Indicators)-most))
			break
		}
		words = append(words, x.String())
	}
	return strings.Join(words, " ")
}
