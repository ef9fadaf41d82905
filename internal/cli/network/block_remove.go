package network

import (
	"context"
	"net/netip"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/block"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/threat"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type blockRemoveOptions struct{ all bool }

func newBlockRemove(a *app.App) *cobra.Command {
	var opts blockRemoveOptions
	cmd := a.Command(app.Spec{
		Use:   "remove FEED|ADDRESS|TARGET|THREAT... | --all",
		Short: "Let through again what was blocked",
		Long: `Let through again what was blocked.

A target is as it was named, or as mobileops network block list shows it; the ID
of a threat stands for all that was blocked for it. All that is named is lifted,
or nothing. Processes go back to the control groups that they were in. With the
last block the tables go.`,
		Example: `
mobileops network block remove 203.0.113.7
mobileops network block remove T-7Q2FM3     # runbook: a threat is over
mobileops network block remove drop uid:1000
mobileops network block remove --all        # runbook: last line
`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case opts.all && len(args) > 0:
				return app.UsageError("--all is about everything that is blocked: give it no names")
			case opts.all:
				return nil
			}
			return cobra.MinimumNArgs(1)(cmd, args)
		},
		Statuses: []app.Status{
			notRoot,
			{Code: 0, Text: "it passes again, or, with --all, nothing was blocked"},
			{Code: 1, Text: "one of them is not blocked; nothing was done"},
			{Code: 6, Text: "it is lifted, and something else blocks it still, or is not blocked that should be; it is said"},
			{Code: 8, Text: "another command holds the lock"},
		},
		Files:    []string{blockTables, blockState, feedFiles},
		Audited:  true,
		Complete: completeBlocked(a),
		Run:      func(ctx context.Context, args []string) error { return runBlockRemove(ctx, a, &opts, args) },
	})
	cmd.Flags().BoolVar(&opts.all, "all", false, "every block and every feed")
	return cmd
}

func runBlockRemove(ctx context.Context, a *app.App, o *blockRemoveOptions, names []string) error {
	if err := isolation.Allowed("changed"); err != nil {
		return err
	}
	e, err := newBlocks(a)
	if err != nil {
		return err
	}
	var change block.Change
	if o.all {
		change, err = e.RemoveAll(ctx)
	} else {
		change, err = e.Remove(ctx, names)
	}
	if err != nil {
		return err
	}
	a.SetResult("lifted %s", strings.Join(change.Removed, " "))
	if a.Streams.Format != ui.Text {
		if err := a.Streams.Document(struct {
			Schema  string   `json:"schema"`
			Removed []string `json:"removed"`
		}{"mobileops.network.block.remove/v1", append([]string{}, change.Removed...)}); err != nil {
			return err
		}
	} else {
		for _, name := range change.Removed {
			say(a, "%s is no longer blocked", ui.Escape(name))
		}
		if len(change.Removed) == 0 && !a.Streams.Quiet {
			a.Streams.Notice("nothing is blocked")
		}
	}
	covered := stillBlocked(ctx, e, change.Removed)
	for _, c := range covered {
		a.Streams.Notice("mobileops: network block remove: %s (see: mobileops network block show %s)", ui.Escape(c[0]+" is still cut off by "+c[1]), ui.Escape(c[0]))
	}
	err = incomplete(a, "network block remove", change.Uncovered, nil)
	if err == nil && len(covered) > 0 {
		return failure.Silent(failure.Incomplete)
	}
	return err
}

// stillBlocked finds addresses that a network or a feed blocks although they were
// lifted by name, and what does: whoever lifts one believes that it passes.
func stillBlocked(ctx context.Context, e *block.Engine, removed []string) (list [][2]string) {
	for _, name := range removed {
		value, ok := strings.CutPrefix(name, string(threat.IP)+":")
		addr, err := netip.ParseAddr(value)
		if !ok || err != nil {
			continue
		}
		why, err := e.Explain(ctx, addr)
		if err != nil || !why.Dropped {
			continue
		}
		by := why.Blocks
		for _, f := range why.Feeds {
			by = append(by, "the feed "+f)
		}
		list = append(list, [2]string{value, strings.Join(by, ", ")})
	}
	return list
}
