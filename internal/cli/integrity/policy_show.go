package integrity

import (
	"context"
	"encoding/hex"
	"slices"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newPolicyShow(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "show NAME",
		Short: "Print a policy",
		Long: `Print a policy: a built-in one by its name, else a file.

It is printed as it was written, with the comment to each decision, so it can
be the beginning of a policy of your own. As JSON it is printed as it is
understood: with the rules of the policy that it extends, and with each rule's
attributes spelled out.`,
		Example: `
mobileops integrity policy show system | less
mobileops integrity policy show mobileops > /etc/mobileops/policy.yaml  # begin a policy of your own
mobileops integrity policy show full --output json | jq '.rules | length'
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 2, Text: "there is no such policy, or its file has mistakes"},
			{Code: 4, Text: "the file may not be read"},
		},
		Files:    []string{"FILE: the policy, when NAME is not a built-in one"},
		Run:      func(_ context.Context, args []string) error { return runPolicyShow(a, args[0]) },
		Complete: completePolicies,
	})
}

// policyReport is the document of integrity policy show --output json.
type policyReport struct {
	Schema           string       `json:"schema"`
	Name             string       `json:"name"`
	Description      string       `json:"description"`
	Digest           string       `json:"digest"` // BLAKE3 of the canonical form, which a baseline records
	Paths            []jsonPath   `json:"paths"`
	CrossFilesystems bool         `json:"cross_filesystems"`
	Defaults         ruleReport   `json:"defaults"`
	Rules            []ruleReport `json:"rules"`
}

func runPolicyShow(a *app.App, name string) error {
	source, err := policySource(name)
	if err != nil {
		return err
	}
	p, err := policy.Parse(policyFileName(name), source)
	if err != nil {
		return err
	}
	if a.Streams.Format == ui.Text {
		_, err := a.Streams.Out.Write(source)
		return err
	}
	digest := p.Digest()
	report := policyReport{
		Schema: "mobileops.integrity.policy.show/v1",
		Name:   p.Name, Description: p.Description, Digest: hex.EncodeToString(digest[:]),
		CrossFilesystems: p.CrossFilesystems, Defaults: newRuleReport(&p.Default), Rules: []ruleReport{},
	}
	for _, path := range p.Paths {
		report.Paths = append(report.Paths, newJSONPath(path))
	}
	for i := range p.Rules {
		report.Rules = append(report.Rules, newRuleReport(&p.Rules[i]))
	}
	return a.Streams.Document(report)
}

// policySource returns what a policy is written in.
func policySource(name string) ([]byte, error) {
	if isBuiltin(name) {
		return policy.Source(name)
	}
	return policy.ReadFile(name)
}

func policyFileName(name string) string {
	if isBuiltin(name) {
		return name + ".yaml"
	}
	return name
}

func isBuiltin(name string) bool { return slices.Contains(policy.BuiltinNames(), name) }
