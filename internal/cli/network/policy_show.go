package network

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment/policy"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newPolicyShow(a *app.App) *cobra.Command {
	var rules bool
	cmd := a.Command(app.Spec{
		Use:   "show [--rules]",
		Short: "List flows, egress and services that are in force, and what was denied, with counters",
		Long: `List flows, egress and services that are in force, and what was denied, with counters.

A flow counts the first packets of connections; what follows is counted together.
Denials are listed when there were some. Counters go on when a file is applied
again, and begin anew after a reboot.`,
		Example: `
mobileops network policy show
mobileops network policy show --output json | jq '.rows[] | select(.kind == "flow" and .packets == 0)'  # flows that nobody uses
mobileops network policy show --rules  # as commands for nft, to be read
`,
		Statuses: []app.Status{
			{Code: 0, Text: "exactly these rules are in force"},
			{Code: 1, Text: "other rules are in force, or none"},
			{Code: 7, Text: "nothing has been applied"},
		},
		Files: []string{segmentsFile, segmentTables},
		Run:   func(ctx context.Context, _ []string) error { return runPolicyShow(ctx, a, rules) },
	})
	cmd.Flags().BoolVar(&rules, "rules", false, "print the rules that belong to what was applied, as commands for nft -f")
	return cmd
}

// policyShowReport is the document of mobileops network policy show.
type policyShowReport struct {
	Schema      string       `json:"schema"`
	InForce     bool         `json:"in_force"` // exactly these rules
	Established countRecord  `json:"established"`
	Rows        []policy.Row `json:"rows"`
}

type countRecord struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

func runPolicyShow(ctx context.Context, a *app.App, rules bool) error {
	sayWhose(a)
	p, err := policyInForce(ctx, a)
	if err != nil {
		return err
	}
	if rules {
		_, err := fmt.Fprint(a.Streams.Out, p.Text())
		return err
	}
	shown, err := p.Show(ctx)
	if err != nil {
		return err
	}
	switch {
	case a.Streams.Format == ui.JSONL:
		lines := a.Streams.Lines()
		for _, r := range append(slices.Clone(shown.Rows), policy.Row{Kind: "allowed", Text: followed, Packets: shown.Established.Packets, Bytes: shown.Established.Bytes}) {
			lines.Print(r)
		}
		err = lines.Flush()
	case a.Streams.Format == ui.JSON:
		err = a.Streams.Document(policyShowReport{"mobileops.network.policy.show/v1", shown.Exact, countRecord{shown.Established.Packets, shown.Established.Bytes}, append([]policy.Row{}, shown.Rows...)})
	case !a.Streams.Quiet:
		err = printPolicy(a.Streams, shown)
	}
	if err != nil {
		return err
	}
	if !shown.Exact {
		a.Streams.Notice("mobileops: the rules in force are not those that were applied (put it right: mobileops network reconcile)")
		return failure.Silent(failure.No)
	}
	return nil
}

// followed is the row of what no flow counts.
const followed = "what followed in allowed connections"

func printPolicy(s *ui.Streams, shown *policy.Shown) error {
	table := s.NewTable(ui.Column{Title: "KIND"}, ui.Column{Title: "WHAT", Min: 20}, ui.Column{Title: "LINE", Drop: 2}, ui.Column{Title: "PACKETS", Right: true}, ui.Column{Title: "BYTES", Right: true, Drop: 1})
	for _, r := range shown.Rows {
		line := "-"
		if r.Line > 0 {
			line = fmt.Sprintf("%s:%d", r.Document, r.Line)
		}
		table.Row(r.Kind, r.Text, line, strconv.FormatUint(r.Packets, 10), strconv.FormatUint(r.Bytes, 10))
	}
	table.Row("allowed", followed, "-", strconv.FormatUint(shown.Established.Packets, 10), strconv.FormatUint(shown.Established.Bytes, 10))
	return table.Print()
}
