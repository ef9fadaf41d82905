package network

import (
	"context"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/block"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type blockListOptions struct{ name string }

func newBlockList(a *app.App) *cobra.Command {
	var opts blockListOptions
	cmd := a.Command(app.Spec{
		Use:   "list [--name FEED]",
		Short: "List what is blocked, for how long, and what was dropped",
		Long: `List what is blocked, for how long, and what was dropped.

With --name, every address, network and range of a feed. What was dropped is
counted since it is in force; a reboot begins anew.`,
		Example: `
mobileops network block list
mobileops network block list --name drop | head  # addresses of a feed, one a line
mobileops network block list --output json | jq -r '.blocks[].target'
*/5 * * * * root mobileops network block list --quiet  # cron: mails when blocks are not in force
`,
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "it was listed, and is in force"},
			{Code: 1, Text: "there is no feed of that name"},
			{Code: 5, Text: "blocks are not in force: somebody else changed the rules"},
		},
		Files: []string{blockTables, blockState, feedFiles},
		Run:   func(ctx context.Context, _ []string) error { return runBlockList(ctx, a, &opts) },
	})
	cmd.Flags().StringVar(&opts.name, "name", "", "the addresses of `FEED`")
	a.CompleteFlag(cmd, "name", completeFeeds(a))
	return cmd
}

// blockListReport is the document of network block list.
type blockListReport struct {
	Schema  string          `json:"schema"`
	InForce bool            `json:"in_force"`
	Bridged bool            `json:"bridged"`
	Blocks  []blockRecord   `json:"blocks"`
	Feeds   []feedRecord    `json:"feeds"`
	Dropped []block.Dropped `json:"dropped"`
}

func runBlockList(ctx context.Context, a *app.App, o *blockListOptions) error {
	if err := isolation.Allowed("read"); err != nil {
		return err
	}
	e, err := newBlocks(a)
	if err != nil {
		return err
	}
	if o.name != "" {
		return printEntries(ctx, a, e, o.name)
	}
	s, err := e.Status(ctx)
	if err != nil {
		return err
	}
	report := &blockListReport{Schema: "mobileops.network.block.list/v1", InForce: s.InForce, Bridged: s.Bridged, Blocks: []blockRecord{}, Feeds: []feedRecord{}, Dropped: s.Dropped}
	for i := range s.Blocks {
		b := &s.Blocks[i]
		r := blockRecordOf(&b.Block, b.Left)
		r.Lapsed = b.Lapsed
		report.Blocks = append(report.Blocks, r)
	}
	for i := range s.Feeds {
		report.Feeds = append(report.Feeds, feedRecordOf(&s.Feeds[i]))
	}
	switch {
	case a.Streams.Format == ui.JSON:
		err = a.Streams.Document(report)
	case a.Streams.Format == ui.JSONL:
		out := a.Streams.Lines()
		for _, r := range report.Blocks {
			out.Print(r)
		}
		for _, r := range report.Feeds {
			out.Print(r)
		}
		err = out.Flush()
	case !a.Streams.Quiet:
		err = printBlockTables(a, &s)
	}
	if err != nil {
		return err
	}
	if s.Missing {
		a.Streams.Notice("mobileops: network block list: the tables %s are gone (put them in force again: mobileops network reconcile)", block.TableName)
		return failure.Silent(failure.Untrustworthy)
	}
	return nil
}

func printBlockTables(a *app.App, s *block.Status) error {
	theme := a.Streams.Theme()
	style := func(lapsed bool) func(string) string {
		if lapsed {
			return theme.Faint
		}
		return nil
	}
	if len(s.Blocks) > 0 {
		t := a.Streams.NewTable(ui.Column{Title: "BLOCKED"}, ui.Column{Title: "FOR"}, ui.Column{Title: "SINCE", Drop: 2}, ui.Column{Title: "THREAT", Drop: 3}, ui.Column{Title: "BY", Drop: 4}, ui.Column{Title: "REASON", Min: 12, Drop: 1})
		for i := range s.Blocks {
			b := &s.Blocks[i]
			t.Row(b.Target.String(), ui.Cell{Text: leftText(b.Left, b.Until, b.Lapsed), Style: style(b.Lapsed)}, b.Since.Local().Format("2006-01-02 15:04"), b.Threat, b.By, b.Reason)
		}
		if err := t.Print(); err != nil {
			return err
		}
	}
	if len(s.Feeds) > 0 {
		if len(s.Blocks) > 0 {
			say(a, "")
		}
		now := time.Now()
		t := a.Streams.NewTable(ui.Column{Title: "FEED"}, ui.Column{Title: "ENTRIES", Right: true}, ui.Column{Title: "FOR"}, ui.Column{Title: "CHECKED", Drop: 2}, ui.Column{Title: "DROPPED", Right: true}, ui.Column{Title: "SOURCE", Min: 16, KeepEnd: true, Drop: 1})
		for i := range s.Feeds {
			f := &s.Feeds[i]
			t.Row(f.Name, ui.Count(int64(f.Total())), ui.Cell{Text: leftText(f.Left, f.Until, f.Lapsed), Style: style(f.Lapsed)}, ui.Ago(f.Checked, now), ui.Count(int64(f.Packets)), redacted(f.Source))
		}
		if err := t.Print(); err != nil {
			return err
		}
	}
	if len(s.Blocks)+len(s.Feeds) == 0 {
		a.Streams.Notice("nothing is blocked")
	}
	for _, d := range s.Dropped {
		if d.Packets > 0 {
			detail(a, "dropped", ui.Plural(int64(d.Packets), "packet", "packets")+", "+ui.Bytes(int64(d.Bytes))+": "+d.Why)
		}
	}
	for _, u := range s.Uncovered {
		detail(a, "not covered", u)
	}
	return nil
}

// printEntries prints what is in a feed.
func printEntries(ctx context.Context, a *app.App, e *block.Engine, name string) error {
	feeds, err := e.Feeds(ctx)
	if err != nil {
		return err
	}
	for i := range feeds {
		if feeds[i].Name != name {
			continue
		}
		list, err := e.Entries(&feeds[i])
		if err != nil {
			return err
		}
		if a.Streams.Format == ui.JSON {
			return a.Streams.Document(struct {
				Schema  string   `json:"schema"`
				Name    string   `json:"name"`
				Entries []string `json:"entries"`
			}{"mobileops.network.block.entries/v1", name, list})
		}
		if a.Streams.Format == ui.JSONL {
			out := a.Streams.Lines()
			for _, e := range list {
				if err := out.Print(e); err != nil {
					return err
				}
			}
			return out.Flush()
		}
		return printLines(a.Streams.Out, list)
	}
	return failure.Errorf(failure.No, "there is no feed %q (see them: mobileops network block list)", name)
}
