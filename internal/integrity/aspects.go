package integrity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/facts/binaries"
	"github.com/mobileops/mobileops/internal/integrity/facts/containers"
	"github.com/mobileops/mobileops/internal/integrity/facts/netstate"
	"github.com/mobileops/mobileops/internal/state"
)

// Collectors ask the host for what it is beside its files. The zero value asks
// where everything usually is.
type Collectors struct {
	Network    netstate.Collector
	Containers containers.Collector
	Binaries   binaries.Collector
}

// Unknown is a source of facts that nobody could ask, neither when the baseline
// was taken nor now. It does not make a report incomplete, which never was
// meant to tell about it, but it is said.
type Unknown struct {
	Source string `json:"source"` // "network:nftables"
	Reason string `json:"reason"`
}

// Facts returns how the host is now in the given aspects.
func (e *Engine) Facts(ctx context.Context, aspects []string) (*facts.Snapshot, error) {
	started := time.Now()
	var sources []facts.Source
	var list []facts.Fact
	for _, a := range aspects {
		collect := e.Collectors.Network.Collect
		switch a {
		case facts.Network:
		case facts.Containers:
			collect = e.Collectors.Containers.Collect
		case facts.Binaries:
			collect = e.Collectors.Binaries.Collect
		default:
			return nil, failure.Errorf(failure.Usage, "%q is no aspect of a host (%s)", a, strings.Join(facts.Aspects(), ", "))
		}
		s, f, err := collect(ctx)
		if err != nil {
			return nil, err
		}
		sources, list = append(sources, s...), append(list, f...)
	}
	return facts.New(started, aspects, sources, list), nil
}

// Aspects returns the aspects that a baseline has, files first.
func (c *Entry) aspects() []string {
	var list []string
	if c.Entries > 0 {
		list = append(list, facts.Files)
	}
	return append(list, c.Aspects...)
}

// factsFile is the path of the facts of a baseline.
func (e *Engine) factsFile(c Entry) string { return e.path(c.ID + ".facts") }

// saveFacts writes the facts of a new baseline and notes them in c. With none,
// it does nothing.
func (e *Engine) saveFacts(c *Entry, s *facts.Snapshot) error {
	if s == nil {
		return nil
	}
	b, sum, err := facts.Encode(s)
	if err != nil {
		return fmt.Errorf("keep the facts: %w", err)
	}
	c.Facts, c.Aspects = sum, s.Aspects
	return failure.Wrap(failure.Failed, durable.WriteFile(e.factsFile(*c), b, 0o600))
}

// loadFacts reads the facts of a baseline; nil when it has none.
func (e *Engine) loadFacts(c Entry) (*facts.Snapshot, error) {
	if c.Facts == (baseline.Hash{}) {
		if len(c.Aspects) > 0 {
			return nil, fmt.Errorf("baseline %s@%s: %w: the catalogue names aspects, and there are no facts of them", c.Name, c.ID, facts.ErrDamaged)
		}
		return nil, nil
	}
	b, err := readAtMost(e.factsFile(c), facts.MaxEncoded)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "the facts of baseline %s@%s are gone: %s is missing", c.Name, c.ID, e.factsFile(c)),
			"take a new one: mobileops integrity baseline")
	}
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	s, err := facts.Decode(b, c.Facts)
	if err == nil && !slices.Equal(s.Aspects, c.Aspects) {
		err = fmt.Errorf("%w: they are of other aspects than the catalogue says", facts.ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("baseline %s@%s: %w", c.Name, c.ID, err)
	}
	return s, nil
}

// FactsOf returns the facts of a baseline, after comparing them with their
// digest; nil when it has none.
func (e *Engine) FactsOf(c Entry) (*facts.Snapshot, error) { return e.loadFacts(c) }

// takeFacts collects what TakeOptions.Aspects names beside files.
func (e *Engine) takeFacts(ctx context.Context, o *TakeOptions, t *Taken) (*facts.Snapshot, error) {
	aspects := beside(o.Aspects)
	if len(aspects) == 0 {
		return nil, nil
	}
	s, err := e.Facts(ctx, aspects)
	if err != nil {
		return nil, err
	}
	for _, src := range s.Sources {
		if src.State != facts.OK && src.State != facts.Absent {
			t.Unknown = append(t.Unknown, Unknown{src.ID(), src.Detail})
		}
	}
	t.Facts = len(s.Facts)
	return s, nil
}

// beside returns the aspects without that of files.
func beside(aspects []string) []string {
	return slices.DeleteFunc(slices.Clone(aspects), func(a string) bool { return a == facts.Files })
}

// ErrNoAspect is wrapped when a baseline has nothing of an aspect.
var ErrNoAspect = failure.New(failure.NotReady, "nothing of that kind in the baseline")

type noAspectError struct{ baseline, aspect string }

func (e *noAspectError) Error() string {
	return fmt.Sprintf("baseline %q has no %s to compare with", e.baseline, e.aspect)
}
func (e *noAspectError) Unwrap() error { return ErrNoAspect }

// wanted returns the aspects of a baseline that are to be compared: those that
// only names, or all of them. It is an error to name one that it does not have.
func (c *Entry) wanted(only []string) ([]string, error) {
	has := c.aspects()
	if only == nil {
		return has, nil
	}
	for _, a := range only {
		if !slices.Contains(facts.Aspects(), a) {
			return nil, failure.Errorf(failure.Usage, "%q is no aspect of a host (%s)", a, strings.Join(facts.Aspects(), ", "))
		}
		if !slices.Contains(has, a) {
			hint := "take one that has: mobileops integrity baseline"
			if c.Name != DefaultName {
				hint += " --name " + c.Name
			}
			if a != facts.Files {
				hint += " --only " + strings.Join(append(has, a), ",")
			}
			return nil, failure.Hint(&noAspectError{c.Name, a}, hint)
		}
	}
	return only, nil
}

// compareFacts adds to a report how the host differs from the baseline in the
// aspects of the report beside files.
func (e *Engine) compareFacts(ctx context.Context, r *Report, old *facts.Snapshot) error {
	aspects := beside(r.Aspects)
	if len(aspects) == 0 || old == nil {
		return nil
	}
	if r.Tree != "/" { // what runs here says nothing about a tree that lies here
		r.Aspects = slices.DeleteFunc(r.Aspects, func(a string) bool { return a != facts.Files })
		for _, a := range aspects {
			r.Unknown = append(r.Unknown, Unknown{a, "not compared: " + r.Tree + " is not the system that runs here"})
		}
		return nil
	}
	now, err := e.Facts(ctx, aspects)
	if err != nil {
		return err
	}
	r.Sources = now.Sources
	changes, gaps := facts.Diff(old.Narrow(aspects), now)
	r.Drift = beyondFiles(changes, r.Changes)
	for _, g := range gaps {
		reason := g.Source.Detail
		switch {
		case g.Both:
			r.Unknown = append(r.Unknown, Unknown{g.Source.ID(), reason})
			continue
		case g.Before:
			reason = "it is not in the baseline, which could not read it when it was taken"
		case reason == "":
			reason = string(g.Source.State)
		}
		r.Problems = append(r.Problems, Problem{Path: []byte(g.Source.ID()), Kind: Unreadable, Reason: reason,
			Denied: !g.Before && (g.Source.State == facts.Denied || g.Source.State == facts.Partial), Before: g.Before})
	}
	return nil
}

// beyondFiles leaves out the changes of programs that the change of a file says
// already.
func beyondFiles(changes []facts.Change, files []Change) []facts.Change {
	inFiles := map[string]bool{}
	for i := range files {
		inFiles[facts.Text(files[i].Path)] = true
	}
	return slices.DeleteFunc(changes, func(c facts.Change) bool {
		f := c.Fact()
		return f.Aspect == facts.Binaries && inFiles[binaries.Path(f)]
	})
}

// looked tells whether a report is about an aspect. One that names none is of
// files.
func (r *Report) looked(aspect string) bool {
	return slices.Contains(r.Aspects, aspect) || r.Aspects == nil && aspect == facts.Files
}

// storeDrift brings the findings of every aspect beside files up to date.
func (r *Report) storeDrift(tx *state.Tx) error {
	for _, aspect := range beside(r.Aspects) {
		var found []finding.Finding
		report := finding.Report
		for i := range r.Drift {
			if c := &r.Drift[i]; c.Fact().Aspect == aspect {
				if len(found) == maxFindings {
					report = finding.ReportPartial
					break
				}
				found = append(found, driftFinding(r, c))
			}
		}
		ours := func(source string) bool { return source == aspect || strings.HasPrefix(source, aspect+":") }
		if slices.ContainsFunc(r.Problems, func(p Problem) bool { return ours(string(p.Path)) }) ||
			slices.ContainsFunc(r.Unknown, func(u Unknown) bool { return ours(u.Source) }) {
			report = finding.ReportPartial // what was not looked at may still be so
		}
		sum, err := report(tx, Source, scope(r)+" "+aspect, found, r.Started)
		if err != nil {
			return err
		}
		r.Findings.New += sum.New
		r.Findings.Seen += sum.Seen
		r.Findings.Reopened += sum.Reopened
		r.Findings.Resolved += sum.Resolved
	}
	return nil
}

func driftFinding(r *Report, c *facts.Change) finding.Finding {
	f := c.Fact()
	out := finding.Finding{
		Source: Source, Rule: f.Aspect + "-" + f.Kind + "-" + string(c.Kind), Severity: c.Severity, Subject: c.ID(), Observed: r.Started,
		Evidence: map[string]string{"baseline": r.Baseline.Name + "@" + r.Baseline.ID},
		Tags:     []string{f.Aspect},
	}
	what := f.Kind + " " + f.Key
	switch c.Kind {
	case facts.Added:
		out.Title = "Not in the baseline: " + what
	case facts.Removed:
		out.Title = "Gone since the baseline: " + what
	case facts.Changed:
		names := make([]string, 0, len(c.Attributes))
		for _, a := range c.Attributes {
			names = append(names, a.Name)
			out.Evidence[a.Name+".old"], out.Evidence[a.Name+".new"] = a.Old, a.New
		}
		out.Title = "Changed since the baseline: " + what + ": " + strings.Join(names, ", ")
	}
	for name, v := range f.Attributes {
		if _, changed := out.Evidence[name+".new"]; !changed {
			out.Evidence[name] = v
		}
	}
	out.Remediation = "Find out who did that; when it was right, accept it: mobileops integrity accept " + c.ID()
	return out
}
