package logs

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/store"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

type rotateOptions struct{ dryRun bool }

func newRotate(a *app.App) *cobra.Command {
	var opts rotateOptions
	cmd := a.Command(app.Spec{
		Use:   "rotate [--max-age AGE] [--max-size SIZE] [--dry-run]",
		Short: "Let go of old logs, and merge small segments",
		Long: `Let go of old logs, and merge small segments.

Segments whose newest record is older than logs.max_age, or that make the store
larger than logs.max_size, are removed, the oldest first; logs.limits says
otherwise for single sources. What a legal hold covers stays, see mobileops logs
hold. What was removed and merged is recorded in the Merkle log, so that
mobileops logs verify knows about it.`,
		Example: `
mobileops logs rotate --dry-run                          # what would go
mobileops logs rotate --max-age 90d
20 3 * * * root mobileops logs rotate --quiet            # cron: as the configuration says
`,
		Statuses: []app.Status{
			{Code: 0, Text: "done, whether anything went or not"},
			{Code: 1, Text: "the store is larger than its limit, and holds keep the rest"},
		},
		Files:   []string{storeFiles, stateFile},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runRotate(ctx, a, &opts) },
	})
	opts.addFlags(a, cmd.Flags())
	app.CompleteValues(cmd, "max-age", "30d", "90d", "365d")
	app.CompleteValues(cmd, "max-size", "5GB", "20GB", "100GB")
	return cmd
}

func (o *rotateOptions) addFlags(a *app.App, fs *pflag.FlagSet) {
	fs.String("max-age", "", "remove what is older than `AGE`, such as 90d (default: logs.max_age)")
	fs.String("max-size", "", "remove the oldest until the store takes no more than `SIZE`, such as 20GB (default: logs.max_size)")
	fs.BoolVar(&o.dryRun, "dry-run", false, "change nothing, and say what would be")
	a.BindFlag("logs.max_age", fs.Lookup("max-age"))
	a.BindFlag("logs.max_size", fs.Lookup("max-size"))
}

func runRotate(ctx context.Context, a *app.App, o *rotateOptions) error {
	s, c, err := openStore(a)
	if err != nil {
		return err
	}
	policy := store.Policy{Limits: store.Limits{MaxAge: c.Logs.MaxAge, MaxBytes: c.Logs.MaxSize}, Sources: map[string]store.Limits{}, DryRun: o.dryRun}
	for _, item := range c.Logs.Limits {
		name, age, size, err := config.ParseLimit(item)
		if err != nil {
			return failure.Wrap(failure.Usage, err)
		}
		l := policy.Sources[name]
		if age != 0 {
			l.MaxAge = age
		}
		if size != 0 {
			l.MaxBytes = size
		}
		policy.Sources[name] = l
	}
	if o.dryRun {
		a.OnlyLooked()
	}
	r, err := s.Rotate(ctx, policy)
	if r == nil {
		return err
	}
	a.SetResult("%d segments removed, %d merged, %d held, %d bytes freed", len(r.Removed), len(r.Merged), len(r.Held), r.Freed)
	if perr := printRotated(a.Streams, r); perr != nil {
		return perr
	}
	if err != nil {
		return err
	}
	if r.Over > 0 {
		a.Streams.Notice("mobileops: logs rotate: the store is %s larger than its limit, and everything that may go is gone (see the holds: mobileops logs holds)", ui.Bytes(r.Over))
		return failure.Silent(failure.No)
	}
	return nil
}

// rotateReport is the document of mobileops logs rotate --output json.
type rotateReport struct {
	Schema  string           `json:"schema"`
	DryRun  bool             `json:"dry_run"` // nothing was changed: this is what would be
	Removed []removedSegment `json:"removed"`
	Held    []removedSegment `json:"held"` // would have gone, but for a hold
	Merged  []mergedSegments `json:"merged"`
	Freed   int64            `json:"freed"`  // bytes
	Over    int64            `json:"over"`   // bytes beyond the limit that holds keep
	Locked  int              `json:"locked"` // encrypted segments that were not merged for want of a key
}

type removedSegment struct {
	ID       uint64    `json:"id"`
	Source   string    `json:"source"`
	Format   string    `json:"format"`
	Host     string    `json:"host,omitempty"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Records  int64     `json:"records"`
	RawBytes int64     `json:"raw_bytes"`
	Bytes    int64     `json:"bytes"` // on the disk
	Reason   string    `json:"reason"`
}

type mergedSegments struct {
	Source  string   `json:"source"`
	From    []uint64 `json:"from"`
	Into    uint64   `json:"into,omitempty"` // none in a dry run
	Records int64    `json:"records"`
	Before  int64    `json:"bytes_before"`
	After   int64    `json:"bytes_after"`
}

func rotated(r *store.RotateReport) rotateReport {
	segments := func(list []store.Removal) []removedSegment {
		out := []removedSegment{}
		for _, x := range list {
			out = append(out, removedSegment{x.ID, valid(x.Origin.Source), x.Origin.Format, valid(x.Origin.Host),
				time.Unix(0, x.MinTime).UTC(), time.Unix(0, x.MaxTime).UTC(), x.Records, x.RawBytes, x.Bytes, x.Reason})
		}
		return out
	}
	out := rotateReport{"mobileops.logs.rotate/v1", r.DryRun, segments(r.Removed), segments(r.Held), []mergedSegments{}, r.Freed, r.Over, r.Locked}
	for _, m := range r.Merged {
		out.Merged = append(out.Merged, mergedSegments{valid(m.Origin.Source), m.From, m.Into, m.Records, m.Before, m.After})
	}
	return out
}

func printRotated(s *ui.Streams, r *store.RotateReport) error {
	if s.Format != ui.Text {
		return s.Document(rotated(r))
	}
	if s.Quiet {
		return nil
	}
	if r.Locked > 0 {
		s.Notice("mobileops: logs rotate: %s not merged: there is no key to open them, or nobody to encrypt for (set logs.identities and logs.recipients)", ui.Plural(int64(r.Locked), "encrypted segment was", "encrypted segments were"))
	}
	table := s.NewTable(ui.Column{Title: ""}, ui.Column{Title: "SEGMENT", Right: true}, ui.Column{Title: "SOURCE", Min: 12, KeepEnd: true}, ui.Column{Title: "RECORDS", Right: true},
		ui.Column{Title: "BYTES", Right: true}, ui.Column{Title: "WHY", Min: 12, Drop: 1})
	add := func(verb string, list []store.Removal) {
		for _, x := range list {
			table.Row(verb, fmt.Sprint(x.ID), x.Origin.Source, ui.Count(x.Records), ui.Bytes(x.Bytes), x.Reason)
		}
	}
	add("removed", r.Removed)
	add("held", r.Held)
	for _, m := range r.Merged {
		table.Row("merged", fmt.Sprint(m.Into), m.Origin.Source, ui.Count(m.Records), ui.Bytes(m.After), ui.Plural(int64(len(m.From)), "segment", "segments"))
	}
	if table.Len() > 0 {
		if err := table.Print(); err != nil {
			return err
		}
	}
	verb := "freed"
	if r.DryRun {
		verb = "would free"
	}
	_, err := fmt.Fprintf(s.Out, "%s %s: %s removed, %s merged, %s held\n", verb, ui.Bytes(r.Freed),
		ui.Plural(int64(len(r.Removed)), "segment", "segments"), ui.Plural(int64(len(r.Merged)), "group", "groups"), ui.Plural(int64(len(r.Held)), "segment", "segments"))
	return err
}
