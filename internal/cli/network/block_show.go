package network

import (
	"bufio"
	"context"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/block"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newBlockShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show ADDRESS|TARGET|FEED",
		Short: "Show whether an address is blocked and by what, or all about a block or feed",
		Long: `Show whether an address is blocked and by what, or all about a block or feed.

For an address, what names it, which feeds have it, and whether it passes
nonetheless since it must never be blocked.`,
		Example: `
mobileops network block show 203.0.113.7   # why can nobody reach it?
mobileops network block show container:shop
mobileops network block show drop --output json
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "it is blocked"},
			{Code: 1, Text: "it is not"},
		},
		Files:    []string{blockTables, blockState, feedFiles},
		Complete: completeBlocked(a),
		Run:      func(ctx context.Context, args []string) error { return runBlockShow(ctx, a, args[0]) },
	})
}

func runBlockShow(ctx context.Context, a *app.App, name string) error {
	if err := isolation.Allowed("read"); err != nil {
		return err
	}
	e, err := newBlocks(a)
	if err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(name); err == nil && addr.Zone() == "" {
		return showAddress(ctx, a, e, addr.Unmap())
	}
	s, err := e.Status(ctx)
	if err != nil {
		return err
	}
	for i := range s.Blocks {
		if b := &s.Blocks[i]; b.Target.String() == name || b.Target.Value == name {
			r := blockRecordOf(&b.Block, b.Left)
			r.Lapsed = b.Lapsed
			return showRecord(a, "block", r, blockLines(b), b.Lapsed)
		}
	}
	for i := range s.Feeds {
		if f := &s.Feeds[i]; f.Name == name {
			return showRecord(a, "feed", feedRecordOf(f), feedLines(f), f.Lapsed)
		}
	}
	return failure.Errorf(failure.No, "nothing called %q is blocked (see what is: mobileops network block list)", name)
}

// showRecord prints a record, as a document or in lines of name and value.
func showRecord(a *app.App, what string, record any, lines [][2]string, lapsed bool) error {
	if a.Streams.Format != ui.Text {
		if err := a.Streams.Document(struct {
			Schema string `json:"schema"`
			What   string `json:"what"`
			Record any    `json:"record"`
		}{"mobileops.network.block.show/v1", what, record}); err != nil {
			return err
		}
	} else if !a.Streams.Quiet {
		say(a, "%s", a.Streams.Theme().Heading(ui.Escape(lines[0][1])))
		for _, l := range lines[1:] {
			if l[1] != "" {
				detail(a, l[0], l[1])
			}
		}
	}
	if lapsed {
		return failure.Silent(failure.No)
	}
	return nil
}

func blockLines(b *block.BlockStatus) [][2]string {
	yes := ""
	if b.Forced {
		yes = "yes: it is blocked though this host may need it"
	}
	var cgroups, addresses []string
	for _, c := range b.Parts.Cgroups {
		cgroups = append(cgroups, c.Path)
	}
	for _, x := range b.Parts.Addresses {
		addresses = append(addresses, x.String())
	}
	return [][2]string{
		{"target", b.Target.String()}, {"for", leftText(b.Left, b.Until, b.Lapsed)}, {"since", b.Since.Local().Format(time.DateTime)},
		{"by", b.By}, {"threat", b.Threat}, {"reason", b.Reason}, {"forced", yes},
		{"interfaces", strings.Join(b.Parts.Interfaces, " ")}, {"addresses", strings.Join(addresses, " ")}, {"cgroups", strings.Join(cgroups, " ")},
		{"not covered", strings.Join(b.Parts.Uncovered, "; ")},
	}
}

func feedLines(f *block.FeedStatus) [][2]string {
	lines := [][2]string{
		{"name", "feed " + f.Name}, {"source", redacted(f.Source)}, {"for", leftText(f.Left, f.Until, f.Lapsed)},
		{"entries", ui.Plural(int64(f.Singles4), "address", "addresses") + " and " + ui.Plural(int64(f.Ranges4), "network", "networks") + " of IPv4, " + ui.Count(int64(f.Singles6)) + " and " + ui.Count(int64(f.Ranges6)) + " of IPv6"},
		{"imported", f.Imported.Local().Format(time.DateTime)}, {"checked", f.Checked.Local().Format(time.DateTime)},
		{"by", f.By}, {"reason", f.Reason}, {"dropped", ui.Plural(int64(f.Packets), "packet", "packets") + ", " + ui.Bytes(int64(f.Bytes))},
	}
	if f.Bad > 0 {
		lines = append(lines, [2]string{"bad lines", ui.Count(int64(f.Bad))})
	}
	for _, l := range f.LeftOut {
		lines = append(lines, [2]string{"left out", l.What + " (" + l.Why + ")"})
	}
	return lines
}

func showAddress(ctx context.Context, a *app.App, e *block.Engine, addr netip.Addr) error {
	why, err := e.Explain(ctx, addr)
	if err != nil {
		return err
	}
	answer := "is not blocked"
	switch {
	case why.Dropped:
		answer = "is blocked"
	case why.Never != "" && len(why.Blocks)+len(why.Feeds) > 0:
		answer = "passes nonetheless: " + why.Never
	}
	lines := [][2]string{{"", addr.String() + " " + answer}, {"named by", strings.Join(why.Blocks, " ")}, {"feeds", strings.Join(why.Feeds, " ")}}
	return showRecord(a, "address", why, lines, !why.Dropped)
}

// printLines prints one line each.
func printLines(w io.Writer, list []string) error {
	out := bufio.NewWriter(w)
	for _, s := range list {
		out.WriteString(s)
		out.WriteByte('\n')
	}
	return out.Flush()
}
