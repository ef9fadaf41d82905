package scan

import (
	"context"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The words that --output knows here, beside json and jsonl.
const (
	formatTable = "table"
	formatCSV   = "csv"
	formatHTML  = "html"
	formatSARIF = "sarif"
	formatJUnit = "junit"
	// formatGitLab is the security report of a job's artifacts.
	formatGitLab = "gitlab"
)

// targetOptions are the flags of every verb that looks at a target.
type targetOptions struct {
	kind protocol.Kind

	scanners      []string
	severity      []string
	failOn        string
	ignoreUnfixed bool
	newOnly       bool
	limit         int

	skipDirs, skipFiles []string
	asset               string
	vex                 []string
	notice, attribution string
	policy              *pflag.Flag // bound when this verb runs: each has one
	allPackages         bool
	noRemember          bool
	allowStale          bool

	host     bool // a rootfs that stands for this host
	remote   bool // image: a reference, not a path
	insecure bool
	platform string
}

// severityWords are the severities that a scan tells, the worst first.
func severityWords() []string { return []string{"critical", "high", "medium", "low", "unknown"} }

// failWords are what --fail-on takes.
func failWords() []string { return append(severityWords(), "any", "kev", "overdue") }

// scannerWords are what --scanners takes.
func scannerWords() (words []string) {
	for _, s := range protocol.Scanners() {
		words = append(words, string(s))
	}
	return words
}

// outputs are what --output takes.
func outputs() []string {
	return []string{
		string(ui.Text), formatTable, string(ui.JSON), string(ui.JSONL), formatSARIF, string(protocol.CycloneDX),
		string(protocol.SPDXJSON), string(protocol.SPDX), formatHTML, formatJUnit, formatGitLab, formatCSV,
	}
}

func (o *targetOptions) addFlags(a *app.App, cmd *cobra.Command) {
	fs := cmd.Flags()
	def := []string{string(protocol.Vulnerabilities), string(protocol.Secrets)}
	if o.kind == protocol.SBOM {
		def = def[:1]
	} else {
		fs.StringSliceVar(&o.skipDirs, "skip-dirs", nil, "leave out directories that match `PATTERN`, relative to the target; may be repeated")
		fs.StringSliceVar(&o.skipFiles, "skip-files", nil, "leave out files that match `PATTERN`, relative to the target; may be repeated")
	}
	fs.StringSliceVar(&o.scanners, "scanners", def, "look for `WHAT`: vuln, secret, license, misconfig, separated by commas")
	fs.StringSliceVar(&o.severity, "severity", nil, "show what is at least as severe as `SEVERITY`, and what nobody knows the severity of; a list such as high,critical shows exactly these")
	fs.BoolVar(&o.ignoreUnfixed, "ignore-unfixed", false, "show only vulnerabilities that a newer version mends")
	fs.BoolVar(&o.newOnly, "new-only", false, "show only what was not there, or was accepted, at the last scan of the same target; what is looked for in it for the first time is counted")
	limitFlag(fs, &o.limit)
	app.Choice(cmd, fs, &o.failOn, "fail-on", "", failWords(), "status 1 when anything shown is at least as severe as `WORD`, or known to be exploited (kev), or overdue")
	textFlag(fs, &o.asset, "asset", "remember it as named:`NAME`, instead of by its kind and path or name")
	fs.StringSliceVar(&o.vex, "vex", nil, "believe the OpenVEX document `FILE` for this scan; may be repeated (for all scans: mobileops scan vex import)")
	textFlag(fs, &o.notice, "notice", "write which licences apply, with their texts and copyright lines, into `FILE` (.txt, .md or .json); looks for licences too")
	textFlag(fs, new(string), "license-policy", "judge licences by the policy in `FILE` (scan.license_policy); looks for licences too")
	o.policy = fs.Lookup("license-policy")
	textFlag(fs, &o.attribution, "attribution", "take what `FILE`, as --notice writes it into a .json file, has texts of as attributed; looks for licences too")
	fs.BoolVar(&o.allPackages, "all-packages", false, "with --output json: list packages without vulnerabilities too")
	fs.BoolVar(&o.noRemember, "no-remember", false, "leave no trace in the memory of scans and in the findings")
	fs.BoolVar(&o.allowStale, "allow-stale", false, "scan with a vulnerability database that is too old; the answer is incomplete then")
	app.Choice(cmd, fs, (*string)(&a.Streams.Format), "output", string(ui.Text), outputs(), "print it as `FORMAT`")
	a.CompleteFlag(cmd, "scanners", completeList(scannerWords()...))
	a.CompleteFlag(cmd, "severity", completeList(severityWords()...))
	a.CompleteFlag(cmd, "asset", completeNames(a))
	app.CompleteFiles(cmd, "vex", "json")
	app.CompleteFiles(cmd, "notice", "txt", "md", "json")
	app.CompleteFiles(cmd, "attribution", "json")
	app.CompleteFiles(cmd, "license-policy", "yaml", "yml")
}

// wanted are the scanners that the flags ask for.
func (o *targetOptions) wanted() (list []protocol.Scanner, err error) {
	for _, w := range o.scanners {
		s := protocol.Scanner(strings.ToLower(strings.TrimSpace(w)))
		if !slices.Contains(protocol.Scanners(), s) {
			return nil, app.UsageError("bad value %q for --scanners: vuln, secret, license, misconfig, or several of them separated by commas", w)
		}
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	licences := o.notice != "" || o.attribution != "" || o.policy != nil && o.policy.Changed
	if licences && !slices.Contains(list, protocol.Licenses) {
		list = append(list, protocol.Licenses)
	}
	if len(list) == 0 {
		return nil, app.UsageError("--scanners names nothing to look for")
	}
	if o.kind == protocol.SBOM {
		for _, s := range list {
			if s == protocol.Secrets || s == protocol.Misconfigurations {
				return nil, app.UsageError("--scanners %s: an SBOM lists packages, it has no files to look into", s)
			}
		}
	}
	return list, nil
}

// severities are those that are shown: from one word on, or exactly a list. What
// nobody knows the severity of is never less than another one.
func (o *targetOptions) severities() ([]string, error) {
	all := severityWords()
	for i, w := range o.severity {
		if o.severity[i] = strings.ToLower(strings.TrimSpace(w)); !slices.Contains(all, o.severity[i]) {
			return nil, app.UsageError("bad value %q for --severity: critical, high, medium, low or unknown", w)
		}
	}
	if len(o.severity) != 1 || o.severity[0] == "unknown" {
		return o.severity, nil
	}
	from := slices.Index(all, o.severity[0])
	return append(slices.Clone(all[:from+1]), "unknown"), nil
}

// document is the SBOM that --output asks for.
func document(f ui.Format) protocol.Document {
	switch d := protocol.Document(f); d {
	case protocol.CycloneDX, protocol.SPDXJSON, protocol.SPDX:
		return d
	}
	return protocol.NoDocument
}

// statuses are the exit statuses of every verb that looks at a target.
func statuses() []app.Status {
	return []app.Status{
		{Code: 0, Text: "it was looked at wholly; with --fail-on: nothing of that severity or above was found"},
		{Code: 1, Text: "with --fail-on: something is shown that is as bad and that nobody waived"},
		{Code: 3, Text: "the scan failed, or was ended because it took too much time or memory; nothing was remembered of it"},
		{Code: 5, Text: "the vulnerability database, mobileops-scan or the state is damaged or not what it should be; or the image or SBOM cannot be read as one"},
		{Code: 6, Text: "something could not be looked at, which is listed, or the database is too old (--allow-stale): what was found is right, but there may be more"},
		{Code: 7, Text: "there is no vulnerability database, it is too old, or mobileops-scan is missing, or with --fail-on kev the list of what is exploited: what to do is said"},
	}
}

// targetFiles are what every verb that looks at a target touches.
func targetFiles() []string {
	return []string{stateFile, databaseFile, memoFile, workerFile, policyFile}
}

// completeTarget completes the one argument of such a verb.
func completeTarget(kind protocol.Kind) func(context.Context, []string, string) []string {
	return func(_ context.Context, args []string, _ string) []string {
		if len(args) > 0 {
			return nil
		}
		return completeKind(kind)
	}
}

func completeKind(kind protocol.Kind) []string {
	switch kind {
	case protocol.Image:
		return app.Files("tar")
	case protocol.SBOM:
		return app.Files("json", "spdx", "xml")
	case protocol.Filesystem:
		return app.Files()
	}
	return app.Dirs()
}
