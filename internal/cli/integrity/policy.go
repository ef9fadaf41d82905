package integrity

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/spf13/cobra"
)

// newPolicy returns mobileops integrity policy.
func newPolicy(a *app.App) *cobra.Command {
	return a.Group("policy", "Show, check and explain what is watched",
		newPolicyList(a), newPolicyShow(a), newPolicyValidate(a), newPolicyExplain(a),
	)
}

// completePolicies completes the first argument with the built-in policies
// and with files.
func completePolicies(_ context.Context, args []string, _ string) []string {
	if len(args) > 0 {
		return nil
	}
	return append(policy.BuiltinNames(), app.Files()...)
}

// jsonPath is a file name in JSON: names are bytes, JSON strings are not.
type jsonPath struct {
	Path    string `json:"path"`
	PathB64 []byte `json:"path_b64,omitempty"` // present when the path is not valid UTF-8
}

func newJSONPath(path string) jsonPath {
	if utf8.ValidString(path) {
		return jsonPath{Path: path}
	}
	return jsonPath{Path: path, PathB64: []byte(path)}
}

// ruleReport is a rule of a policy in JSON.
type ruleReport struct {
	File       string   `json:"file,omitempty"`
	Line       int      `json:"line,omitempty"`
	Pattern    string   `json:"pattern"` // empty: the defaults of the policy
	Exclude    bool     `json:"exclude"`
	Severity   string   `json:"severity,omitempty"`   // absent when excluded
	Attributes []string `json:"attributes,omitempty"` // absent when excluded
	Growing    bool     `json:"growing,omitempty"`
}

func newRuleReport(r *policy.Rule) ruleReport {
	out := ruleReport{File: r.File, Line: r.Line, Pattern: r.Pattern, Exclude: r.Exclude}
	if !r.Exclude {
		out.Severity, out.Attributes, out.Growing = r.Severity.String(), r.Attrs.Names(), r.Growing
	}
	return out
}

// ruleName is how a rule is called in text.
func ruleName(r *policy.Rule) string {
	switch {
	case r.Pattern == "":
		return "the policy's defaults"
	case r.Exclude:
		return "!" + r.Pattern
	}
	return r.Pattern
}

// ruleOrigin is where a rule stands.
func ruleOrigin(r *policy.Rule) string {
	if r.Line == 0 {
		return r.File
	}
	return fmt.Sprintf("%s:%d", r.File, r.Line)
}
