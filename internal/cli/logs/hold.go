package logs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/store"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type holdOptions struct {
	sources      []string
	since, until string
	reason       string
}

func newHold(a *app.App) *cobra.Command {
	var opts holdOptions
	cmd := a.Command(app.Spec{
		Use:   "hold NAME --reason TEXT [--source SOURCE] [--since WHEN] [--until WHEN]",
		Short: "Keep stored logs from being removed, as evidence",
		Long: `Keep stored logs from being removed, as evidence.

Whatever retention says, segments with records that the hold covers stay until
mobileops logs release. Without --source, --since and --until it covers
everything, also what comes later.`,
		Example: `
mobileops logs hold case-17 --reason 'police request 17/2026' --since 2026-11-01 --until 2026-11-15
mobileops logs hold breach --reason 'incident 42' --source journal --source '/var/log/auth*'
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the hold is in force"},
			{Code: 8, Text: "there is a hold of that name already"},
		},
		Files:   []string{storeFiles, stateFile},
		Audited: true,
		Run:     func(ctx context.Context, args []string) error { return runHold(ctx, a, &opts, args[0]) },
	})
	fs := cmd.Flags()
	fs.StringArrayVar(&opts.sources, "source", nil, "only records of `SOURCE`; * stands for anything; may be repeated")
	fs.StringVar(&opts.since, "since", "", "only records of `WHEN` or later: a date, or a span such as 7d")
	fs.StringVar(&opts.until, "until", "", "only records until `WHEN`")
	fs.StringVar(&opts.reason, "reason", "", "why, in words, or the number of a case (required)")
	a.CompleteFlag(cmd, "source", func(ctx context.Context, _ []string, _ string) []string { return knownSources(ctx, a) })
	return cmd
}

func runHold(ctx context.Context, a *app.App, o *holdOptions, name string) error {
	if o.reason == "" {
		return app.UsageError("--reason is needed: who asks for the hold, and why")
	}
	now := time.Now()
	h := store.Hold{Name: name, Sources: o.sources, Reason: o.reason, By: who(a.Actor())}
	if o.since != "" {
		t, ok := moment.Past(o.since, now, false)
		if !ok {
			return app.UsageError("bad value %q for --since: a span such as 24h or 7d, or a date such as 2026-05-01", o.since)
		}
		h.Since = t.UnixNano()
	}
	if o.until != "" {
		t, ok := moment.Past(o.until, now, true)
		if !ok {
			return app.UsageError("bad value %q for --until: a span such as 24h or 7d, or a date such as 2026-05-01", o.until)
		}
		h.Until = t.UnixNano()
	}
	s, _, err := openStore(a)
	if err != nil {
		return err
	}
	if err := s.Hold(ctx, h); err != nil {
		return err
	}
	a.SetResult("hold %s: %s", name, o.reason)
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintf(a.Streams.Out, "hold %s is in force (end it: mobileops logs release %s)\n", ui.Escape(name), ui.Escape(name))
	return err
}

func newRelease(a *app.App) *cobra.Command {
	var reason string
	cmd := a.Command(app.Spec{
		Use:   "release NAME --reason TEXT",
		Short: "End a legal hold",
		Long: `End a legal hold.

What it kept goes with the next mobileops logs rotate, if it is old enough.`,
		Example: `
mobileops logs release case-17 --reason 'closed, see letter of 2026-12-01'
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the hold has ended"},
			{Code: 1, Text: "there is no hold of that name"},
		},
		Files:    []string{storeFiles, stateFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runRelease(ctx, a, args[0], reason) },
		Complete: func(ctx context.Context, args []string, _ string) []string { return holdNames(ctx, a, args) },
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why, in words (required)")
	return cmd
}

func holdNames(ctx context.Context, a *app.App, args []string) []string {
	if len(args) > 0 {
		return nil
	}
	s, _, err := openStore(a)
	if err != nil {
		return nil
	}
	list, err := s.Holds(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, h := range list {
		names = append(names, h.Name)
	}
	return names
}

func runRelease(ctx context.Context, a *app.App, name, reason string) error {
	if reason == "" {
		return app.UsageError("--reason is needed: who ended the hold, and why")
	}
	s, _, err := openStore(a)
	if err != nil {
		return err
	}
	err = s.Release(ctx, name, reason, who(a.Actor()))
	if errors.Is(err, store.ErrNoHold) {
		return failure.Hint(err, "see them: mobileops logs holds")
	}
	if err != nil {
		return err
	}
	a.SetResult("hold %s ended: %s", name, reason)
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintf(a.Streams.Out, "hold %s has ended\n", ui.Escape(name))
	return err
}

func newHolds(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "holds",
		Short: "List legal holds on stored logs",
		Long: `List legal holds on stored logs.
`,
		Example: `
mobileops logs holds
mobileops logs holds --output json | jq -r '.holds[].name'
`,
		Statuses: []app.Status{{Code: 0, Text: "there are holds"}, {Code: 1, Text: "there are none"}},
		Files:    []string{stateFile},
		Run:      func(ctx context.Context, _ []string) error { return runHolds(ctx, a) },
	})
}

// holdRecord is a hold in JSON.
type holdRecord struct {
	Name    string    `json:"name"`
	Sources []string  `json:"sources"` // empty: all
	Since   time.Time `json:"since,omitzero"`
	Until   time.Time `json:"until,omitzero"`
	Reason  string    `json:"reason"`
	By      string    `json:"by"`
	Time    time.Time `json:"time"` // when it was set
}

func holdRecords(list []store.Hold) []holdRecord {
	out := []holdRecord{}
	for _, h := range list {
		r := holdRecord{Name: h.Name, Sources: append([]string{}, h.Sources...), Reason: h.Reason, By: h.By, Time: h.Time}
		if h.Since != 0 {
			r.Since = time.Unix(0, h.Since).UTC()
		}
		if h.Until != 0 {
			r.Until = time.Unix(0, h.Until).UTC()
		}
		out = append(out, r)
	}
	return out
}

func runHolds(ctx context.Context, a *app.App) error {
	s, _, err := openStore(a)
	if err != nil {
		return err
	}
	list, err := s.Holds(ctx)
	if err != nil {
		return err
	}
	switch a.Streams.Format {
	case ui.JSON:
		err = a.Streams.Document(struct {
			Schema string       `json:"schema"`
			Holds  []holdRecord `json:"holds"`
		}{"mobileops.logs.holds/v1", holdRecords(list)})
	case ui.JSONL:
		err = printLines(a.Streams, holdRecords(list))
	default:
		table := a.Streams.NewTable(ui.Column{Title: "HOLD"}, ui.Column{Title: "SOURCES", Min: 10}, ui.Column{Title: "SINCE", Drop: 2}, ui.Column{Title: "UNTIL", Drop: 3},
			ui.Column{Title: "SET"}, ui.Column{Title: "BY", Drop: 1}, ui.Column{Title: "REASON", Min: 12})
		at := func(ns int64) string {
			if ns == 0 {
				return ""
			}
			return localTime(time.Unix(0, ns))
		}
		for _, h := range list {
			sources := strings.Join(h.Sources, " ")
			if sources == "" {
				sources = "all"
			}
			table.Row(h.Name, sources, at(h.Since), at(h.Until), localTime(h.Time), h.By, h.Reason)
		}
		if table.Len() > 0 {
			err = table.Print()
		}
	}
	return anyOf(len(list), err)
}
