package network

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/network/segment/policy"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type policyTestOptions struct {
	from, to, file string
	connect        bool
}

func (o *policyTestOptions) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&o.from, "from", "", "who begins: `WHO` is a workload, a zone, a selector such as app=web, an address, host or internet")
	fs.StringVar(&o.to, "to", "", "whom he asks, and by what: `WHO:PORT`, WHO:PORT/udp or WHO:icmp; [fd00:60::7]:443")
	fs.StringVar(&o.file, "file", "", "ask what would be if `FILE` were applied")
	fs.BoolVar(&o.connect, "connect", false, "also make real connections, and compare")
}

func newPolicyTest(a *app.App) *cobra.Command {
	var opts policyTestOptions
	cmd := a.Command(app.Spec{
		Use:   "test --from WHO --to WHO:PORT [--connect | --file FILE]",
		Short: "Say whether a connection is allowed, and which rule decides",
		Long: `Say whether a connection is allowed, and which rule decides.

The rules that are in force are followed without sending anything, and the line
of the file that decides is named. A selector or a zone stands for each of its
workloads; "allowed" then means all of them.

With --connect the same connections are made: from the network namespace of the
one workload, or this host, to a listener in that of the other, which is there
for as long as the test lasts. When what happens is not what the rules say,
something else is at work, and both are told. What passes must have been counted
by the rule that allows it.`,
		Example: `
mobileops network policy test --from web --to db:5432
mobileops network policy test --from app=web --to internet:443 --file segments.yaml  # before it is applied
mobileops network policy test --from zone=dev --to host:icmp --connect               # runbook: prove it
*/30 * * * * root mobileops network policy test --from web --to db:5432 --connect --quiet  # cron: mails when it does not pass
`,
		Statuses: []app.Status{
			{Code: 0, Text: "allowed"},
			{Code: 1, Text: "denied, one of several at least"},
			{Code: 3, Text: "--connect: what is allowed does not pass"},
			{Code: 5, Text: "--connect: what is denied passes"},
			{Code: 7, Text: "nothing has been applied; or a connection cannot be tried, and why"},
		},
		Files: []string{segmentsFile, segmentTables},
		Run:   func(ctx context.Context, _ []string) error { return runPolicyTest(ctx, a, &opts) },
	})
	opts.addFlags(cmd)
	a.CompleteFlag(cmd, "file", func(context.Context, []string, string) []string { return app.Files() })
	a.CompleteFlag(cmd, "from", func(ctx context.Context, _ []string, _ string) []string { return completeParties(ctx, a, "") })
	a.CompleteFlag(cmd, "to", func(ctx context.Context, _ []string, _ string) []string { return completeParties(ctx, a, ":") })
	return cmd
}

// completeParties offers whom a question can be about.
func completeParties(ctx context.Context, a *app.App, end string) []string {
	words := []string{"host" + end, "internet" + end}
	store, err := a.State()
	if err != nil {
		return words
	}
	l, err := segment.Applied(ctx, store)
	if err != nil || l == nil {
		return words
	}
	seen := map[string]bool{}
	add := func(s string) {
		if !seen[s] && len(words) < 500 {
			seen[s] = true
			words = append(words, s+end)
		}
	}
	for i := range l.Ports {
		add(l.Ports[i].Name)
		for _, label := range l.Ports[i].Labels {
			add(label.String())
		}
	}
	for i := range l.Zones {
		add("zone=" + l.Zones[i].Name)
	}
	return words
}

// policyTestReport is the document of mobileops network policy test.
type policyTestReport struct {
	Schema  string         `json:"schema"`
	From    string         `json:"from"`
	To      string         `json:"to"`
	Traffic string         `json:"traffic"`
	Allowed bool           `json:"allowed"` // all of the answers
	Answers []policyAnswer `json:"answers"`
}

type policyAnswer struct {
	From partyRecord `json:"from"`
	To   partyRecord `json:"to"`
	policy.Decision
	Connection *policyConnection `json:"connection,omitempty"` // with --connect

	kind failure.Kind
}

type policyConnection struct {
	policy.Reality
	Agrees bool `json:"agrees"` // with the rules
}

type partyRecord struct {
	Name    string     `json:"name"`
	Zone    string     `json:"zone,omitempty"`
	Address netip.Addr `json:"address,omitzero"`
}

func recordOf(p *policy.Party) partyRecord {
	return partyRecord{p.Name, p.Place.Zone, p.Place.Address}
}

// maxConnections are made by one test, one after the other.
const maxConnections = 256

func runPolicyTest(ctx context.Context, a *app.App, o *policyTestOptions) error {
	if o.from == "" || o.to == "" {
		return app.UsageError("say --from and --to: mobileops network policy test --from web --to db:5432")
	}
	if o.connect && o.file != "" {
		return app.UsageError("--connect is about what is in force, --file about what could be: one of them")
	}
	name, traffic, err := policy.ParseTarget(o.to)
	if err != nil {
		return err
	}
	p, err := policyToAsk(ctx, a, o.file)
	if err != nil {
		return err
	}
	if err := p.Here(); err != nil {
		return err
	}
	answers, err := p.Ask(o.from, name, traffic)
	if err != nil {
		return err
	}
	if o.connect && len(answers) > maxConnections {
		return app.UsageError("%d connections would be made, and %d are the most: name fewer workloads", len(answers), maxConnections)
	}
	r := policyTestReport{"mobileops.network.policy.test/v1", o.from, name, traffic.String(), true, []policyAnswer{}}
	kind := failure.None
	for i := range answers {
		one := &answers[i]
		record := policyAnswer{From: recordOf(&one.From), To: recordOf(&one.To), Decision: one.Decision}
		if !one.Decision.Allowed {
			record.kind, r.Allowed = failure.No, false
		}
		if o.connect {
			reality, err := policy.Connect(ctx, one)
			if err != nil {
				return fmt.Errorf("from %s to %s: %w", one.From.Name, one.To.Name, err)
			}
			record.Connection = &policyConnection{reality, reality.Passed == one.Decision.Allowed && (!reality.Passed || reality.Counted || one.Decision.Chain == "")}
			switch {
			case reality.Passed && (!one.Decision.Allowed || !record.Connection.Agrees):
				record.kind = failure.Untrustworthy
			case one.Decision.Allowed && !reality.Passed:
				record.kind = failure.Failed
			}
		}
		kind = failure.Worse(kind, record.kind)
		r.Answers = append(r.Answers, record)
	}
	if a.Streams.Format != ui.Text {
		err = a.Streams.Document(r)
	} else {
		err = printAnswers(a.Streams, &r, o.connect)
	}
	if err != nil {
		return err
	}
	return failure.Silent(kind)
}

func policyToAsk(ctx context.Context, a *app.App, file string) (*policy.Policy, error) {
	if file != "" {
		return policyOf(ctx, a, file)
	}
	return policyInForce(ctx, a)
}

func printAnswers(s *ui.Streams, r *policyTestReport, connected bool) error {
	columns := []ui.Column{{Title: "FROM"}, {Title: "TO"}, {Title: "BY"}, {Title: "VERDICT"}, {Title: "RULE", Min: 16}, {Title: "LINE"}}
	if connected {
		columns = append(columns, ui.Column{Title: "CONNECTION", Min: 12})
	}
	table, theme := s.NewTable(columns...), s.Theme()
	for i := range r.Answers {
		one := &r.Answers[i]
		if s.Quiet && one.kind == failure.None || i > 0 && !connected && sameAnswer(one, &r.Answers[i-1]) {
			continue
		}
		verdict := theme.Good("allowed")
		if !one.Allowed {
			verdict = theme.Bad("denied")
		}
		line := "-"
		if one.Line > 0 {
			line = fmt.Sprintf("%s:%d", one.Document, one.Line)
		}
		from, to := one.From.Name, one.To.Name
		if connected {
			from, to = from+" "+one.From.Address.String(), to+" "+one.To.Address.String()
		}
		cells := []any{from, to, r.Traffic, verdict, one.Rule, line}
		if connected {
			text := one.Connection.How
			switch {
			case one.kind == failure.Untrustworthy && one.Allowed:
				text = theme.Bad(text + ", but not by this rule")
			case one.Connection.Passed && !one.Allowed:
				text = theme.Bad("PASSES: " + text)
			case !one.Connection.Passed && one.Allowed:
				text = theme.Bad("DOES NOT PASS: " + text)
			}
			cells = append(cells, text)
		}
		table.Row(cells...)
	}
	if table.Len() == 0 {
		return nil
	}
	return table.Print()
}

// sameAnswer reports whether two answers differ in the family of addresses
// alone.
func sameAnswer(a, b *policyAnswer) bool {
	return a.From.Name == b.From.Name && a.To.Name == b.To.Name && a.Allowed == b.Allowed && a.Line == b.Line && strings.TrimSuffix(a.Rule, ", IPv6") == strings.TrimSuffix(b.Rule, ", IPv6")
}
