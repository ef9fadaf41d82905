package integrity

import (
	"context"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newPolicyList(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "list",
		Short: "List the built-in policies",
		Long: `List the built-in policies, and mark the one that a new baseline gets.

A policy of your own is a file: it can begin with one of these ("extends:
system") and add paths and rules. See mobileops integrity policy show system
for what such a file looks like.`,
		Example: `
mobileops integrity policy list
mobileops integrity policy list --output json | jq -r '.policies[].name'
`,
		Statuses: []app.Status{
			{Code: 4, Text: "the configuration may not be read"},
			{Code: 5, Text: "others than root can write root's configuration"},
		},
		Run: func(context.Context, []string) error { return runPolicyList(a) },
	})
}

// policyListReport is the document of integrity policy list --output json.
type policyListReport struct {
	Schema   string          `json:"schema"`
	Policies []policySummary `json:"policies"`
}

type policySummary struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Paths       int    `json:"paths"`
	Rules       int    `json:"rules"`
	Builtin     bool   `json:"builtin"`
	Default     bool   `json:"default"` // a new baseline gets it
}

func runPolicyList(a *app.App) error {
	config, err := a.Config()
	if err != nil {
		return err
	}
	names := policy.BuiltinNames()
	own := true
	for _, n := range names {
		own = own && n != config.Integrity.Policy
	}
	if own { // the configured one is a file
		names = append(names, config.Integrity.Policy)
	}
	report := policyListReport{Schema: "mobileops.integrity.policy.list/v1"}
	for i, name := range names {
		p, err := policy.Load(name)
		if err != nil {
			return err
		}
		report.Policies = append(report.Policies, policySummary{
			Name: name, Description: p.Description, Paths: len(p.Paths), Rules: len(p.Rules),
			Builtin: i < len(policy.BuiltinNames()), Default: name == config.Integrity.Policy,
		})
	}
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(report)
	}
	table := a.Streams.NewTable(ui.Column{Title: "NAME"}, ui.Column{Title: "PATHS", Right: true, Drop: 2},
		ui.Column{Title: "RULES", Right: true, Drop: 1}, ui.Column{Title: "DEFAULT"}, ui.Column{Title: "DESCRIPTION", Min: 20})
	for _, p := range report.Policies {
		mark := ""
		if p.Default {
			mark = "yes"
		}
		table.Row(p.Name, p.Paths, p.Rules, mark, p.Description)
	}
	return table.Print()
}
