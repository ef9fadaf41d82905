package integrity

import (
	"context"
	"slices"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// DriftRefusal is a change of a fact that was not accepted.
type DriftRefusal struct {
	Change facts.Change
	Reason string
}

// ChooseDrift returns the changes of facts that were asked for: all, unless
// there is another choice, or those with the ids in Drift.
func (o *AcceptOptions) ChooseDrift(list []facts.Change) ([]facts.Change, error) {
	if o.everything() {
		return slices.DeleteFunc(slices.Clone(list), func(c facts.Change) bool { return !o.bears(c.Severity) }), nil
	}
	var chosen []facts.Change
	for _, id := range o.Drift {
		at := slices.IndexFunc(list, func(c facts.Change) bool { return c.ID() == id })
		if at < 0 {
			return nil, failure.Hint(failure.Errorf(failure.Usage, "the report has no change of %s", id), "what is accepted is what was reported: mobileops integrity check, then accept")
		}
		chosen = append(chosen, list[at])
	}
	return chosen, nil
}

// examineDrift asks the host once more about the facts that were chosen.
func (a *Accepted) examineDrift(ctx context.Context, e *Engine, old *facts.Snapshot, chosen []facts.Change) error {
	if len(chosen) == 0 {
		return nil
	}
	if old == nil {
		return failure.Errorf(failure.NotReady, "baseline %q has no facts to accept anything into", a.Entry.Name)
	}
	var aspects []string
	for i := range chosen {
		if aspect := chosen[i].Fact().Aspect; !slices.Contains(aspects, aspect) {
			aspects = append(aspects, aspect)
		}
	}
	now, err := e.Facts(ctx, aspects)
	if err != nil {
		return err
	}
	for i := range chosen {
		c := &chosen[i]
		is, was := now.Find(c.ID()), old.Find(c.ID())
		moved := c.Old != nil && c.New != nil && c.Old.ID() != c.New.ID()
		switch {
		case c.New == nil && was == nil || c.New != nil && was != nil && was.Same(c.New):
			a.Already++
		case c.New == nil && is != nil:
			a.RefusedDrift = append(a.RefusedDrift, DriftRefusal{*c, "it was reported as gone, and is there again"})
		case c.New != nil && is == nil && !c.New.Passing():
			a.RefusedDrift = append(a.RefusedDrift, DriftRefusal{*c, "it is not there any more"})
		case c.New != nil && is != nil && !is.Same(c.New):
			a.RefusedDrift = append(a.RefusedDrift, DriftRefusal{*c, "it has changed again since it was reported"})
		case moved && now.Find(c.Old.ID()) != nil:
			a.RefusedDrift = append(a.RefusedDrift, DriftRefusal{*c, "what it replaced is there again: " + c.Old.ID()})
		default:
			a.Drift = append(a.Drift, *c)
		}
	}
	return nil
}

// carryFacts gives a new baseline the facts of the former one, with the changes
// that were accepted.
func (e *Engine) carryFacts(c *Entry, old *facts.Snapshot, accepted []facts.Change) error {
	if old == nil {
		return nil
	}
	return e.saveFacts(c, facts.Apply(old, accepted))
}
