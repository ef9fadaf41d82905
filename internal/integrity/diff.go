package integrity

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// Difference is how one baseline differs from another.
type Difference struct {
	Old, New Entry
	Summary  Summary
	Changes  []Change       // as in a report
	Problems []Problem      // what one of them could not read
	Drift    []facts.Change // of the facts that both have beside files
	// Beyond counts entries that only one of both policies covers: whether they
	// changed, nobody can tell.
	Beyond int64
}

// Kind is what it means for the exit status.
func (d *Difference) Kind() failure.Kind {
	k := failure.None
	if len(d.Changes)+len(d.Drift) > 0 {
		k = failure.No
	}
	if len(d.Problems) > 0 {
		k = failure.Worse(k, failure.Incomplete)
	}
	return k
}

// Resolve returns the baseline that a reference stands for: as Find, and also
// NAME@COUNTER, by the record of the history that made it the current one.
func (e *Engine) Resolve(ctx context.Context, ref string) (Entry, error) {
	name, number, _ := strings.Cut(ref, "@")
	if n, err := strconv.ParseUint(number, 10, 64); err == nil && len(number) < 8 {
		chain, err := e.History().Chain(ctx)
		if err != nil {
			return Entry{}, err
		}
		// A number that is one of a record is no beginning of an id.
		if r, err := chain.Record(n); err == nil {
			if r.Name != name || r.ID == "" || r.Kind == history.Removal {
				return Entry{}, failure.Hint(fmt.Errorf("%w named %q in record %d of the history", ErrNoBaseline, name, n),
					"see mobileops integrity history")
			}
			c, err := e.Find(ctx, name+"@"+r.ID)
			if err == nil {
				return c, nil
			}
			return Entry{}, failure.Hint(failure.Errorf(failure.NotReady, "baseline %s of record %d is no longer kept", ref, n),
				"more are kept with integrity.retained; those that there are: mobileops integrity baseline list")
		}
	}
	return e.Find(ctx, ref)
}

// Diff compares two baselines without touching the tree. Attributes are
// compared as the policy of the newer one, which is the second, says.
func (e *Engine) Diff(ctx context.Context, from, to Entry) (*Difference, error) {
	older, err := e.Open(from)
	if err != nil {
		return nil, err
	}
	defer older.Close()
	newer, err := e.Open(to)
	if err != nil {
		return nil, err
	}
	defer newer.Close()
	return e.diff(ctx, from, to, older, newer)
}

func (e *Engine) diff(ctx context.Context, from, to Entry, older, newer *baseline.Reader) (*Difference, error) {
	was, err := policy.Parse(from.PolicyName, older.Policy)
	if err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "the policy in baseline %q: %w", from.Name, err)
	}
	pol, err := policy.Parse(to.PolicyName, newer.Policy)
	if err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "the policy in baseline %q: %w", to.Name, err)
	}
	d := &differ{
		comparison: comparison{
			cur: older.Cursor(), matcher: pol.Compile(), blind: map[string]bool{}, now: time.Now(),
			reads:  &reads{at: make([]uint32, from.Entries)},
			report: &Report{Baseline: from, Tree: to.Tree},
		},
		was: was.Compile(), growing: map[string]bool{},
	}
	for _, dir := range from.Unread {
		d.blind[string(dir)] = false
	}
	for _, dir := range to.Unread {
		d.unknown = append(d.unknown, dir)
		d.report.Problems = append(d.report.Problems, Problem{Path: dir, Kind: Unreadable, Dir: true,
			Reason: "what was in it is not in the newer baseline, which could not read it", Before: true})
	}
	err = newer.All(func(rec *baseline.Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return d.add(rec)
	})
	if err == nil {
		err = d.finish()
	}
	if err != nil {
		return nil, interrupted(err, "nothing was compared")
	}
	out := d.difference(from, to)
	return out, e.diffFacts(out)
}

// diffFacts compares the facts of both, in the aspects that both looked at.
func (e *Engine) diffFacts(d *Difference) error {
	was, err := e.loadFacts(d.Old)
	if err != nil || was == nil {
		return err
	}
	now, err := e.loadFacts(d.New)
	if err != nil || now == nil {
		return err
	}
	changes, gaps := facts.Diff(was, now)
	d.Drift = beyondFiles(changes, d.Changes)
	for _, g := range gaps {
		if !g.Both { // what neither could ask, neither tells about
			d.Problems = append(d.Problems, Problem{Path: []byte(g.Source.ID()), Kind: Unreadable, Before: true,
				Reason: "one of the baselines could not ask it when it was taken"})
		}
	}
	return nil
}

// differ joins two baselines: the newer one plays the part of the walk.
type differ struct {
	comparison
	was     *policy.Matcher // of the older one
	growing map[string]bool // paths whose growth is no news
	beyond  int64
}

// add hands over one record of the newer baseline as if it had been walked.
func (d *differ) add(rec *baseline.Record) error {
	rule := d.rule(rec)
	if rule == nil {
		return nil // its own policy does not cover it: nothing of it counts
	}
	if rule.Growing {
		d.growing[string(rec.Path())] = true
	}
	return d.batch(&filehash.Batch{Dir: rec.Dir, Entries: []filehash.Entry{{
		Name: rec.Name, Info: rec.Info, Content: rec.Content, Sum: rec.Sum, Target: rec.Target, Xattrs: rec.Xattrs, Tag: rule,
	}}})
}

// difference drops what the two baselines cannot tell, and counts again.
func (d *differ) difference(from, to Entry) *Difference {
	out := &Difference{Old: from, New: to, Problems: d.report.Problems, Summary: d.report.Summary}
	out.Summary.Added, out.Summary.Removed, out.Summary.Changed, out.Summary.Moved = 0, 0, 0, 0
	older := comparison{matcher: d.was}
	for _, c := range d.report.Changes {
		rec := recordAt(c.Path)
		switch c.Kind {
		case Added:
			if older.rule(&rec) == nil {
				d.beyond++
				continue
			}
			out.Summary.Added++
		case Removed:
			if d.rule(&rec) == nil {
				d.beyond++
				continue
			}
			out.Summary.Removed++
		case Moved:
			out.Summary.Moved++
		case Changed:
			if c.Attributes = d.withoutGrowth(&c); len(c.Attributes) == 0 {
				continue
			}
			out.Summary.Changed++
		}
		out.Changes = append(out.Changes, c)
	}
	out.Beyond = d.beyond
	slices.SortStableFunc(out.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), bytes.Compare(a.Path, b.Path))
	})
	return out
}

// withoutGrowth drops the content of a file that only grew: a baseline keeps
// no digest of the beginning of a file.
func (d *differ) withoutGrowth(c *Change) []Attribute {
	shrank := slices.ContainsFunc(c.Attributes, func(a Attribute) bool { return a.Name == "size" })
	if !d.growing[string(c.Path)] || shrank {
		return c.Attributes
	}
	return slices.DeleteFunc(c.Attributes, func(a Attribute) bool { return a.Name == "content" })
}

// recordAt is a record of a path, to ask a policy about it.
func recordAt(path []byte) baseline.Record {
	dir, name := splitPath(path)
	return baseline.Record{Dir: dir, Name: name}
}
