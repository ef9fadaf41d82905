package integrity

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

// maxFindings bounds what one comparison stores: beyond it, one more finding
// says how many were left out. The report has them all.
const maxFindings = 20000

// store brings the stored findings up to date with a report.
func (e *Engine) store(ctx context.Context, r *Report) error {
	found := findings(r)
	report := finding.Report
	if len(r.Problems) > 0 || len(r.Changes) > maxFindings {
		// What was not looked at or not kept may still be so: resolve nothing.
		report = finding.ReportPartial
	}
	entry, err := e.keepReport(ctx, r)
	if err != nil {
		return err
	}
	var gone []string
	err = e.Store.Update(ctx, func(tx *state.Tx) (err error) {
		if r.Findings, err = report(tx, Source, scope(r), found, r.Started); err != nil {
			return err
		}
		if gone, err = e.putReport(tx, entry); err != nil {
			return err
		}
		return noteMissed(tx, time.Now())
	})
	if err != nil {
		e.dropReport(entry)
		r.ID = ""
		return err
	}
	r.ID = entry.ID
	for _, f := range gone {
		os.Remove(f)
	}
	return nil
}

// scope is under which name findings of a report are kept. Those of the host
// are of the current baseline and the tree that it was taken of; looking at
// another tree, or with a former baseline, must not resolve them.
func scope(r *Report) string {
	s := "baseline:" + r.Baseline.Name
	if !r.Baseline.Current {
		s += "@" + r.Baseline.ID
	}
	if r.Tree != r.Baseline.Tree {
		sum := blake3.Sum256([]byte(r.Tree)) // a path may be longer than a scope
		s += " tree:" + hex.EncodeToString(sum[:8])
	}
	return s
}

// findings turns the changes of a report, the worst of which come first, into
// findings.
func findings(r *Report) []finding.Finding {
	found := make([]finding.Finding, 0, min(len(r.Changes), maxFindings)+1)
	for i := range r.Changes {
		if i == maxFindings {
			rest := len(r.Changes) - i
			found = append(found, finding.Finding{
				Source: Source, Rule: "too-many-changes", Severity: r.Changes[i].Severity, Subject: r.Tree, Observed: r.Started,
				Title:       fmt.Sprintf("%d more changes are not listed one by one", rest),
				Remediation: "See the whole report: mobileops integrity check --name " + r.Baseline.Name,
			})
			break
		}
		found = append(found, r.Changes[i].finding(r))
	}
	return found
}

func (c *Change) finding(r *Report) finding.Finding {
	f := finding.Finding{
		Source: Source, Rule: "file-" + string(c.Kind), Severity: c.Severity, Subject: string(c.Path), Observed: r.Started,
		Evidence: map[string]string{"baseline": r.Baseline.Name + "@" + r.Baseline.ID},
		Tags:     []string{"file-integrity"},
	}
	switch c.Kind {
	case Added:
		f.Title = "File added since the baseline"
		f.Remediation = "Find out who put it there; when it belongs there, take a new baseline: mobileops integrity baseline"
	case Removed:
		f.Title = "File of the baseline removed"
		f.Remediation = "Restore it, or take a new baseline: mobileops integrity baseline"
	case Moved:
		f.Title = "File of the baseline moved"
		f.Evidence["from"] = string(c.From)
		c.evidence(f.Evidence)
		f.Remediation = "Find out who moved it; when that was right, take a new baseline: mobileops integrity baseline"
	case Changed:
		names := make([]string, 0, len(c.Attributes))
		for _, a := range c.Attributes {
			if !slices.Contains(names, a.Name) {
				names = append(names, a.Name)
			}
		}
		c.evidence(f.Evidence)
		f.Title = "File changed since the baseline: " + strings.Join(names, ", ")
		f.Remediation = "Compare it with a known good copy; when the change was right, take a new baseline: mobileops integrity baseline"
	}
	return f
}

// evidence adds the values of the attributes. Several extended attributes can
// stand under one name.
func (c *Change) evidence(to map[string]string) {
	for _, a := range c.Attributes {
		for key, value := range map[string]string{a.Name + ".old": a.Old, a.Name + ".new": a.New} {
			if before, several := to[key]; several {
				value = before + "; " + value
			}
			to[key] = value
		}
	}
}
