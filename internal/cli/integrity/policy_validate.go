package integrity

import (
	"context"
	"errors"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newPolicyValidate(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "validate FILE",
		Short: "Check a policy file",
		Long: `Check a policy file.

Everything that is wrong is listed, each with its line. Nothing is changed, and
whether the paths exist is not looked at.`,
		Example: `
mobileops integrity policy validate ./policy.yaml
mobileops integrity policy validate ./policy.yaml && sudo install -m 644 policy.yaml /etc/mobileops/
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "nothing is wrong with it"},
			{Code: 1, Text: "mistakes were found"},
			{Code: 2, Text: "there is no such file"},
			{Code: 4, Text: "the file may not be read"},
		},
		Files:    []string{"FILE: the policy"},
		Run:      func(_ context.Context, args []string) error { return runPolicyValidate(a, args[0]) },
		Complete: completePolicies,
	})
}

// policyValidateReport is the document of integrity policy validate --output json.
type policyValidateReport struct {
	Schema   string              `json:"schema"`
	File     jsonPath            `json:"file"`
	Valid    bool                `json:"valid"`
	Paths    int                 `json:"paths"`
	Rules    int                 `json:"rules"`
	Problems []*document.Problem `json:"problems"`
}

func runPolicyValidate(a *app.App, file string) error {
	source, err := policySource(file)
	if err != nil {
		return err
	}
	report := policyValidateReport{Schema: "mobileops.integrity.policy.validate/v1", File: newJSONPath(file), Problems: []*document.Problem{}}
	p, err := policy.Parse(policyFileName(file), source)
	var wrong *document.Error
	outcome := failure.None
	switch {
	case errors.As(err, &wrong):
		report.Problems = wrong.Problems
		outcome = failure.No
	case err != nil:
		return err
	default:
		report.Valid, report.Paths, report.Rules = true, len(p.Paths), len(p.Rules)
	}
	if err := printPolicyValidation(a, &report); err != nil {
		return err
	}
	return failure.Silent(outcome)
}

func printPolicyValidation(a *app.App, report *policyValidateReport) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(report)
	}
	for _, p := range report.Problems {
		if _, err := fmt.Fprintln(a.Streams.Out, ui.Printable(p.Error())); err != nil {
			return err
		}
	}
	if !report.Valid || a.Streams.Quiet {
		return nil
	}
	_, err := fmt.Fprintf(a.Streams.Out, "%s: nothing is wrong with it (%s, %s)\n", ui.Escape(report.File.Path),
		ui.Plural(int64(report.Paths), "path", "paths"), ui.Plural(int64(report.Rules), "rule", "rules"))
	return err
}
