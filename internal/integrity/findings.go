package integrity

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
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
	if r.fileProblems() || len(r.Changes) > maxFindings {
		// What was not looked at or not kept may still be so: resolve nothing.
		report = finding.ReportPartial
	}
	entry, err := e.keepReport(ctx, r)
	if err != nil {
		return err
	}
	var gone []string
	err = e.Store.Update(ctx, func(tx *state.Tx) (err error) {
		if r.looked(facts.Files) {
			if r.Findings, err = report(tx, Source, scope(r), found, r.Started); err != nil {
				return err
			}
		}
		if err = r.storeDrift(tx); err != nil {
			return err
		}
		if err = r.Trust.store(tx, r); err != nil {
			return err
		}
		if gone, err = e.putReport(tx, entry); err != nil {
			return err
		}
		r.Missed, err = noteMissed(tx, time.Now())
		return err
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

// fileProblems tells whether a file could not be read: what could not be asked
// beside files has no path.
func (r *Report) fileProblems() bool {
	return slices.ContainsFunc(r.Problems, func(p Problem) bool { return len(p.Path) == 0 || p.Path[0] == '/' })
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
// findings. What a package's update changed, and is as the package says, is one
// finding for the package.
func findings(r *Report) []finding.Finding {
	found := make([]finding.Finding, 0, min(len(r.Changes), maxFindings)+1)
	updates := map[string]int{} // subject → index in found
	for i := range r.Changes {
		c := &r.Changes[i]
		if c.Class == PackageUpdate && c.Package != "" {
			subject := c.updateSubject()
			if at, known := updates[subject]; known {
				c.addUpdate(&found[at])
				continue
			}
			if len(found) < maxFindings {
				updates[subject] = len(found)
				found = append(found, c.update(r))
				continue
			}
		}
		if len(found) >= maxFindings {
			rest := len(r.Changes) - i
			found = append(found, finding.Finding{
				Source: Source, Rule: "too-many-changes", Severity: c.Severity, Subject: r.Tree, Observed: r.Started,
				Title:       fmt.Sprintf("%d more changes are not listed one by one", rest),
				Remediation: "See the whole report: mobileops integrity report --name " + r.Baseline.Name,
			})
			break
		}
		found = append(found, c.finding(r))
	}
	return found
}

// updateSubject names a package whatever its version: "openssl (dpkg)".
func (c *Change) updateSubject() string {
	name, rest, _ := strings.Cut(c.Package, " ")
	if i := strings.LastIndexByte(rest, '('); i >= 0 {
		name += " " + rest[i:]
	}
	return name
}

// update is the finding about a package's update.
func (c *Change) update(r *Report) finding.Finding {
	f := finding.Finding{
		Source: Source, Rule: "package-update", Severity: c.Severity, Subject: c.updateSubject(), Observed: r.Started,
		Title:       "Package changed since the baseline",
		Remediation: "When the update was meant to be, accept it: mobileops integrity accept --class package-update --package " + packageName(c),
		Evidence: map[string]string{
			"baseline": r.Baseline.Name + "@" + r.Baseline.ID, "package": c.Package, "reason": c.Reason,
			"files": "0", "paths": "",
		},
		Tags: []string{"file-integrity", "package"},
	}
	c.addUpdate(&f)
	return f
}

// listedPaths is how many paths the finding about a package names.
const listedPaths = 10

// addUpdate adds a file to the finding about its package.
func (c *Change) addUpdate(f *finding.Finding) {
	n, _ := strconv.Atoi(f.Evidence["files"])
	f.Evidence["files"] = strconv.Itoa(n + 1)
	if n < listedPaths {
		f.Evidence["paths"] = strings.TrimPrefix(f.Evidence["paths"]+"; "+string(c.Path), "; ")
	}
	f.Severity = max(f.Severity, c.Severity)
}

func (c *Change) finding(r *Report) finding.Finding {
	f := finding.Finding{
		Source: Source, Rule: "file-" + string(c.Kind), Severity: c.Severity, Subject: string(c.Path), Observed: r.Started,
		Evidence: map[string]string{"baseline": r.Baseline.Name + "@" + r.Baseline.ID},
		Tags:     []string{"file-integrity"},
	}
	for key, value := range map[string]string{"class": string(c.Class), "package": c.Package, "reason": c.Reason} {
		if value != "" {
			f.Evidence[key] = value
		}
	}
	accept := "accept it: mobileops integrity accept PATH"
	switch c.Kind {
	case Added:
		f.Title = "File added since the baseline"
		f.Remediation = "Find out who put it there; when it belongs there, " + accept
	case Removed:
		f.Title = "File of the baseline removed"
		f.Remediation = "Restore it; when its removal was right, " + accept
	case Moved:
		f.Title = "File of the baseline moved"
		f.Evidence["from"] = string(c.From)
		c.evidence(f.Evidence)
		f.Remediation = "Find out who moved it; when that was right, " + accept
	case Changed:
		names := make([]string, 0, len(c.Attributes))
		for _, a := range c.Attributes {
			if !slices.Contains(names, a.Name) {
				names = append(names, a.Name)
			}
		}
		c.evidence(f.Evidence)
		f.Title = "File changed since the baseline: " + strings.Join(names, ", ")
		f.Remediation = "Compare it with a known good copy; when the change was right, " + accept
	}
	if c.Class == Suspicious {
		f.Title = "Suspicious: " + c.Reason
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
