package integrity

import (
	"fmt"
	"iter"

	"github.com/mobileops/mobileops/internal/finding"
)

// Records returns everything that a report says in the common vocabulary: each
// change of a file, each change beside files, each entry that could not be
// read. Unlike the stored findings nothing is put together or left out, and
// all of them are open, whatever was decided since. The sequence can be ranged
// over again.
func (r *Report) Records() iter.Seq[*finding.Record] {
	return func(yield func(*finding.Record) bool) {
		give := func(f finding.Finding) bool {
			return yield(&finding.Record{
				Finding: f, Fingerprint: f.Fingerprint(), FirstSeen: r.Started, LastSeen: r.Started, TimesSeen: 1, Scopes: []string{scope(r)},
			})
		}
		for i := range r.Changes {
			if !give(r.Changes[i].finding(r)) {
				return
			}
		}
		for i := range r.Drift {
			if !give(driftFinding(r, &r.Drift[i])) {
				return
			}
		}
		for i := range r.Problems {
			if !give(r.Problems[i].finding(r)) {
				return
			}
		}
	}
}

// finding says that an entry could not be read, so that no list of findings
// looks whole that is not.
func (p *Problem) finding(r *Report) finding.Finding {
	f := finding.Finding{
		Source: Source, Rule: "file-" + string(p.Kind), Severity: finding.Medium, Subject: string(p.Path), Observed: r.Started,
		Title:       fmt.Sprintf("Could not be compared: %s", p.Reason),
		Evidence:    map[string]string{"baseline": r.Baseline.Name + "@" + r.Baseline.ID, "reason": p.Reason},
		Tags:        []string{"file-integrity", "incomplete"},
		Remediation: "Nothing is known of it: run the check as root, and see why it cannot be read",
	}
	if p.Before {
		f.Remediation = "The baseline lacks it: take a new one as root: mobileops integrity baseline"
	}
	return f
}
