package integrity

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newPolicyExplain(a *app.App) *cobra.Command {
	var opts policyExplainOptions
	cmd := a.Command(app.Spec{
		Use:   "explain PATH… [--policy P]",
		Short: "Show which rule decides about a path",
		Long: `Show which rule decides about a path.

For each PATH: whether the policy covers it, how bad a change would be, what is
compared, and every rule that matches it or a directory above it, in order. The
last one decides.

Names alone are looked at: the path need not exist. When a directory above it
is a symbolic link, the path that a walk would meet is explained too.`,
		Example: `
mobileops integrity policy explain /etc/passwd /var/log/syslog
mobileops integrity policy explain --policy ./policy.yaml /srv/www/upload/x.php
mobileops integrity policy explain --quiet /etc/mobileops || echo "not watched"  # in a runbook
`,
		Args: cobra.MinimumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "all of the paths are covered"},
			{Code: 1, Text: "one of them is not"},
			{Code: 2, Text: "there is no such policy, or its file has mistakes"},
			{Code: 4, Text: "the policy or the configuration may not be read"},
			{Code: 5, Text: "others than root can write root's configuration"},
		},
		Files:    []string{"FILE: the policy, when P is not a built-in one"},
		Run:      func(_ context.Context, args []string) error { return runPolicyExplain(a, &opts, args) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	opts.addFlags(a, cmd)
	return cmd
}

type policyExplainOptions struct{ policy string }

func (o *policyExplainOptions) addFlags(a *app.App, cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.policy, "policy", "", "explain `P`, a built-in policy or a file, instead of the configured one")
	a.CompleteFlag(cmd, "policy", func(ctx context.Context, _ []string, word string) []string { return completePolicies(ctx, nil, word) })
}

// policyExplainReport is the document of integrity policy explain --output json.
type policyExplainReport struct {
	Schema string          `json:"schema"`
	Policy string          `json:"policy"`
	Paths  []explainedPath `json:"paths"`
}

type explainedPath struct {
	jsonPath
	Covered    bool          `json:"covered"`
	Start      *jsonPath     `json:"start,omitempty"` // the path of the policy at or below which it lies; absent when outside
	Severity   string        `json:"severity,omitempty"`
	Attributes []string      `json:"attributes,omitempty"`
	Growing    bool          `json:"growing,omitempty"`
	DecidedBy  *ruleReport   `json:"decided_by,omitempty"` // absent when outside
	Matches    []matchReport `json:"matches"`
	Real       *jsonPath     `json:"real,omitempty"` // where the path leads when a directory above it is a symbolic link; it is explained next

	explanation policy.Explanation
}

type matchReport struct {
	ruleReport
	At jsonPath `json:"at"` // the path or the directory above it that the pattern matches
}

func runPolicyExplain(a *app.App, o *policyExplainOptions, args []string) error {
	config, err := a.Config()
	if err != nil {
		return err
	}
	name := o.policy
	if name == "" {
		name = config.Integrity.Policy
	}
	p, err := policy.Load(name)
	if err != nil {
		return err
	}
	report := policyExplainReport{Schema: "mobileops.integrity.policy.explain/v1", Policy: p.Name}
	outcome := failure.None
	for _, arg := range args {
		path, err := filepath.Abs(arg)
		if err != nil {
			return err
		}
		e := newExplainedPath(p.Explain(path))
		covered := e.Covered
		if real := realPath(config.Root, path); real != path {
			at := newJSONPath(real)
			e.Real = &at
			report.Paths = append(report.Paths, e)
			e = newExplainedPath(p.Explain(real))
			covered = e.Covered // what a walk meets is there, not here
		}
		report.Paths = append(report.Paths, e)
		if !covered {
			outcome = failure.No
		}
	}
	if a.Streams.Format != ui.Text {
		err = a.Streams.Document(report)
	} else {
		err = printExplanations(a, &report)
	}
	if err != nil {
		return err
	}
	return failure.Silent(outcome)
}

// realPath resolves the symbolic links in the directories above path. The last
// component stays: a link is watched itself. In another tree than / the path
// is left as it is, since links there lead into this one.
func realPath(root, path string) string {
	if root != "" && root != "/" {
		return path
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path // it need not exist
	}
	return filepath.Join(dir, filepath.Base(path))
}

func newExplainedPath(e policy.Explanation) explainedPath {
	out := explainedPath{jsonPath: newJSONPath(e.Path), Covered: e.Covered, Growing: e.Growing, Matches: []matchReport{}, explanation: e}
	if e.Start != "" {
		start := newJSONPath(e.Start)
		out.Start = &start
	}
	if e.Decides != nil {
		rule := newRuleReport(e.Decides)
		out.DecidedBy = &rule
	}
	if e.Covered {
		out.Severity, out.Attributes = e.Severity.String(), e.Attrs.Names()
	}
	for _, m := range e.Matches {
		out.Matches = append(out.Matches, matchReport{newRuleReport(m.Rule), newJSONPath(m.At)})
	}
	return out
}

func printExplanations(a *app.App, report *policyExplainReport) error {
	var b strings.Builder
	theme := a.Streams.Theme()
	for i := range report.Paths {
		p := &report.Paths[i]
		if a.Streams.Quiet && (p.Covered || p.Real != nil) {
			continue
		}
		e := &p.explanation
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s\n", theme.Heading(ui.Escape(p.Path)))
		switch {
		case e.Covered:
			fmt.Fprintf(&b, "  watched:    below %s of policy %s, a change is %s\n", ui.Escape(e.Start), ui.Escape(report.Policy),
				theme.Severity(int(e.Severity), e.Severity.String()))
			fmt.Fprintf(&b, "  compared:   %s\n", describeAttrs(e))
		case e.Start != "":
			fmt.Fprintf(&b, "  %s below %s of policy %s, but excluded\n", theme.Warn("not watched:"), ui.Escape(e.Start), ui.Escape(report.Policy))
		default:
			fmt.Fprintf(&b, "  %s outside the paths of policy %s\n", theme.Warn("not watched:"), ui.Escape(report.Policy))
		}
		if e.Decides != nil {
			fmt.Fprintf(&b, "  decided by: %s\n", describeRule(e.Decides))
		}
		if len(e.Matches) > 0 {
			fmt.Fprintf(&b, "  rules that match, in order:\n")
		}
		for _, m := range e.Matches {
			fmt.Fprintf(&b, "    %s", describeRule(m.Rule))
			if m.At != e.Path {
				fmt.Fprintf(&b, " (matches %s)", ui.Escape(m.At))
			}
			b.WriteByte('\n')
		}
		if p.Real != nil {
			fmt.Fprintf(&b, "  a directory above it is a symbolic link: a walk meets %s\n", ui.Escape(p.Real.Path))
		}
	}
	_, err := fmt.Fprint(a.Streams.Out, b.String())
	return err
}

// describeAttrs names what is compared, and says what that means for a log.
func describeAttrs(e *policy.Explanation) string {
	text := strings.Join(e.Attrs.Names(), " ")
	if text == "" {
		text = "nothing: only that it exists"
	}
	if e.Growing {
		text += " (growing: it may get longer, what was there must stay)"
	}
	return text
}

// describeRule names a rule and what it decides.
func describeRule(r *policy.Rule) string {
	text := ui.Escape(ruleName(r))
	if origin := ruleOrigin(r); origin != "" {
		text = ui.Escape(origin) + "  " + text
	}
	if r.Exclude {
		return text + "  excluded"
	}
	return text + "  " + r.Severity.String()
}
