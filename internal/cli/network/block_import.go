package network

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/block"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type blockImportOptions struct {
	name, ttl, format, reason string
	dryRun                    bool
}

func newBlockImport(a *app.App) *cobra.Command {
	var opts blockImportOptions
	cmd := a.Command(app.Spec{
		Use:   "import FILE|URL [--name NAME] [--ttl DURATION] [flags]",
		Short: "Block all addresses of a list, and keep it as a feed",
		Long: `Block all addresses of a list, and keep it as a feed.

The list has an address, a network or a range (FIRST-LAST) a line, fields of CSV
of which the first of these counts, or JSON: a document, or one a line, with
members such as "ip" or "cidr". It may be packed by gzip. Comments begin with # or
;. Spamhaus DROP, the netsets of FireHOL and the lists of abuse.ch are such lists.

Private and reserved addresses, and those that must never be blocked (the host's
own, its gateways and name servers, network.management, network.never_block), are
left out; if they become so later, they pass. A list of which too many lines
cannot be read changes nothing. What is new is exchanged in one step.

A URL begins with https:// or http://; mobileops network block refresh gets it
again. With --ttl a list lapses that was not refreshed for so long.`,
		Example: `
mobileops network block import https://www.spamhaus.org/drop/drop_v4.json --name drop --ttl 3d
mobileops network block import firehol_level1.netset  # a file; its name is the feed's
mobileops network block import blocklist.csv.gz --format csv --reason 'case 17'
0 */6 * * * root mobileops network block refresh --quiet  # cron: news of all lists that came from a URL
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "its addresses are blocked"},
			{Code: 1, Text: "--dry-run: something would change"},
			{Code: 3, Text: "it could not be had, or is no list of addresses; nothing was changed"},
			{Code: 6, Text: "its addresses are blocked, but for lines that could not be read"},
			{Code: 7, Text: "this kernel lacks what is needed"},
			{Code: 8, Text: "another command holds the lock"},
		},
		Files:    []string{blockTables, blockState, feedFiles},
		Audited:  true,
		Complete: func(context.Context, []string, string) []string { return app.Files() },
		Run:      func(ctx context.Context, args []string) error { return runBlockImport(ctx, a, &opts, args[0]) },
	})
	fs := cmd.Flags()
	fs.StringVar(&opts.name, "name", "", "call the feed `NAME` (default made of the file's name)")
	fs.StringVar(&opts.ttl, "ttl", "", "let it lapse after `DURATION` unless it is refreshed (default never)")
	var formats []string
	for _, f := range block.Formats() {
		formats = append(formats, string(f))
	}
	app.Choice(cmd, fs, &opts.format, "format", string(block.Auto), formats, "read it as `FORMAT`")
	fs.StringVar(&opts.reason, "reason", "", "why, in `WORDS`")
	fs.BoolVar(&opts.dryRun, "dry-run", false, "only read it, and say what would be blocked")
	app.CompleteValues(cmd, "ttl", "1d", "3d", "7d")
	a.CompleteFlag(cmd, "name", completeFeeds(a))
	return cmd
}

// importRecord is what came of one feed, in JSON.
type importRecord struct {
	feedRecord
	Unchanged bool            `json:"unchanged"`
	Read      int             `json:"read"` // addresses, networks and ranges, before what is in several was joined
	FirstBad  []block.BadLine `json:"first_bad_lines"`
}

// importReport is the document of network block import and refresh.
type importReport struct {
	Schema string         `json:"schema"`
	Feeds  []importRecord `json:"feeds"`
}

func runBlockImport(ctx context.Context, a *app.App, o *blockImportOptions, source string) error {
	ttl, err := parseTTL(o.ttl)
	if err != nil {
		return err
	}
	if o.dryRun {
		a.OnlyLooked()
	} else if err := isolation.Allowed("changed"); err != nil {
		return err
	}
	e, err := newBlocks(a)
	if err != nil {
		return err
	}
	in, err := e.Import(ctx, block.Import{
		Source: source, Name: o.name, Format: block.Format(o.format), TTL: ttl, Reason: o.reason, By: a.Actor().Name(), DryRun: o.dryRun,
	})
	if in.Feed.Name == "" {
		return whileIsolated(err)
	}
	a.SetResult("feed %s: %d entries", in.Feed.Name, in.Feed.Total())
	return printImported(a, "import", []block.Imported{in}, o.dryRun, err)
}

// printImported prints feeds that were imported; err is what went wrong beside.
func printImported(a *app.App, verb string, list []block.Imported, dry bool, err error) error {
	where := "network block " + verb
	report := &importReport{Schema: "mobileops.network.block." + verb + "/v1", Feeds: []importRecord{}}
	bad := 0
	for i := range list {
		in := &list[i]
		for _, u := range in.Uncovered {
			a.Streams.Notice("mobileops: %s: not in force: %s", where, ui.Printable(u))
			bad++
		}
		report.Feeds = append(report.Feeds, importRecord{feedRecordOf(&block.FeedStatus{Feed: in.Feed, Left: in.Feed.TTL}), in.Unchanged, in.Entries, append([]block.BadLine{}, in.BadLines...)})
		if in.Unchanged {
			continue
		}
		bad += in.Feed.Bad
		if a.Streams.Quiet && in.Feed.Bad == in.BadBefore {
			continue // it was said before
		}
		for _, l := range in.BadLines {
			a.Streams.Notice("mobileops: %s: %s: line %d: %s: %q", where, in.Feed.Name, l.Line, l.Why, ui.Escape(l.Text))
		}
		if more := in.Feed.Bad - len(in.BadLines); more > 0 {
			a.Streams.Notice("mobileops: %s: %s: and %s more that cannot be read", where, in.Feed.Name, ui.Plural(int64(more), "line", "lines"))
		}
		if !a.Streams.Quiet {
			sayLeftOut(a, where+": "+in.Feed.Name, in.Feed.LeftOut)
		}
	}
	if a.Streams.Format != ui.Text {
		if err := a.Streams.Document(report); err != nil {
			return err
		}
	} else {
		for i := range list {
			say(a, "%s", importText(&list[i], dry))
		}
	}
	switch {
	case err != nil && len(list) > 0 && verb == "import":
		return failure.Wrap(failure.Incomplete, err)
	case err != nil:
		return err
	}
	kind := failure.None
	for i := range list {
		if dry && list[i].Changes {
			kind = failure.No
		}
	}
	if bad > 0 {
		kind = failure.Worse(kind, failure.Incomplete)
	}
	return failure.Silent(kind)
}

// whileIsolated says of a server that cannot be reached from an isolated host
// that isolation is why: what the kernel says sounds as if root were not root.
func whileIsolated(err error) error {
	var op *net.OpError
	var name *net.DNSError
	if !errors.As(err, &op) && !errors.As(err, &name) {
		return err
	}
	if now, bad := isolation.Read(); bad != nil || !now.InForce {
		return err
	}
	return failure.Hint(fmt.Errorf("this host is isolated: %w", err),
		"allow the server, and who resolves its name: mobileops network isolate --replace --allow ADDRESS; or import a file")
}

func importText(in *block.Imported, dry bool) string {
	f := &in.Feed
	if in.Unchanged {
		return fmt.Sprintf("feed %s: no news since %s", f.Name, f.Imported.Local().Format("2006-01-02 15:04"))
	}
	verb := "blocked"
	switch {
	case dry && in.Changes:
		verb = "would be blocked"
	case dry:
		verb = "blocked already"
	}
	text := fmt.Sprintf("feed %s: %s and %s %s", f.Name, ui.Plural(int64(f.Singles4+f.Singles6), "address", "addresses"), ui.Plural(int64(f.Ranges4+f.Ranges6), "network", "networks"), verb)
	if !f.Until.IsZero() {
		text += " until " + f.Until.Local().Format("2006-01-02 15:04")
	}
	if t := cutText(in.Sockets, in.Tracked); t != "" {
		text += "; " + t
	}
	return text
}
