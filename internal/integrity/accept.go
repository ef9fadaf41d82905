package integrity

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// AcceptOptions say which reported changes become part of the baseline.
type AcceptOptions struct {
	Name   string // of the baseline, whose current one is replaced
	Report string // id of the report that has the changes, or Latest

	All      bool     // every change; so it is without any choice below
	Paths    [][]byte // those at these paths, and below them
	Exactly  bool     // Paths stand for themselves alone
	Packages []string // those of these packages, by name
	Drift    []string // those of these facts, by id: "network:listen/tcp/0.0.0.0:22"
	Classes  []Class  // of all that, only those of these classes, which facts have none of
	// Worst leaves out what is more severe; the zero value leaves out nothing.
	Worst *finding.Severity

	KeepContent KeepContent
}

// Accepted is what Accept did.
type Accepted struct {
	Entry        Entry // the new baseline; the former one when nothing was accepted
	Report       ReportEntry
	Changes      []Change       // accepted
	Refused      []Refusal      // no longer as they were reported
	Drift        []facts.Change // accepted
	RefusedDrift []DriftRefusal
	Already      int // accepted before
	already      []Change
	Left         int // changes of the report that nobody asked to accept
	Elapsed      time.Duration
	Findings     finding.Summary
}

// Refusal is a change that was not accepted, because what is there now is not
// what was reported.
type Refusal struct {
	Change     Change
	Reason     string
	Attributes []Attribute // in which it differs from the report
}

// Kind is what the result means for the exit status.
func (a *Accepted) Kind() failure.Kind {
	switch {
	case len(a.Refused)+len(a.RefusedDrift) > 0:
		return failure.No
	case a.none():
		return failure.Busy // it is in force already
	}
	return failure.None
}

// none tells whether nothing was accepted.
func (a *Accepted) none() bool { return len(a.Changes)+len(a.Drift) == 0 }

// Accept makes changes part of the baseline: a new one is written that has them,
// becomes the current one of its name and is recorded in the history. What is
// accepted is what the report says. Each entry is read again before, and one
// that is no longer as it was reported is refused. An error with a result means
// that the changes are accepted, and their findings could not be resolved.
func (e *Engine) Accept(ctx context.Context, o AcceptOptions) (*Accepted, error) {
	if err := history.CheckReason(e.By.Reason, e.By.Ticket); err != nil {
		return nil, err
	}
	started := time.Now()
	lock, err := e.lock(ctx, o.Name, "integrity accept")
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	ref, err := e.reportFor(ctx, &o)
	if err != nil {
		return nil, err
	}
	rep, entry, err := e.LoadReport(ctx, o.Name, ref)
	if err != nil {
		return nil, err
	}
	b, err := e.OpenCurrent(ctx, o.Name)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if err := e.belongs(ctx, b.Entry, &entry); err != nil {
		return nil, err
	}
	a := &Accepted{Entry: b.Entry, Report: entry}
	chosen, err := o.Choose(rep.Changes)
	if err != nil {
		return nil, err
	}
	drift, err := o.ChooseDrift(rep.Drift)
	if err != nil {
		return nil, err
	}
	a.Left = len(rep.Changes) - len(chosen) + len(rep.Drift) - len(drift)
	old, err := e.loadFacts(b.Entry)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(a.examine(ctx, b, chosen), a.examineDrift(ctx, e, old, drift)); err != nil {
		return nil, interrupted(err, "nothing was accepted")
	}
	if !a.none() {
		if err := e.acceptInto(ctx, b, a, rep, old, o.KeepContent); err != nil {
			return nil, interrupted(err, "nothing was accepted")
		}
		err = e.settle(ctx, a, rep)
	}
	a.Elapsed = time.Since(started)
	return a, err
}

// reportFor is the report that is meant: for facts alone the newest that looked
// at what they are about, which a check of files need not have done.
func (e *Engine) reportFor(ctx context.Context, o *AcceptOptions) (string, error) {
	ref := cmp.Or(o.Report, Latest)
	if ref != Latest || o.All || len(o.Drift) == 0 || len(o.Paths)+len(o.Packages)+len(o.Classes) > 0 {
		return ref, nil
	}
	list, err := e.Reports(ctx, o.Name)
	if err != nil || len(list) == 0 {
		return ref, err
	}
	var aspects []string
	for _, id := range o.Drift {
		aspect, _, _ := strings.Cut(id, ":")
		aspects = append(aspects, aspect)
	}
	return latestOf(list, aspects...).ID, nil
}

// belongs tells whether a report is about a baseline or one it was made of.
func (e *Engine) belongs(ctx context.Context, c Entry, r *ReportEntry) error {
	hint := "make a new report: mobileops integrity check --name " + c.Name
	if r.Tree != c.Tree {
		return failure.Hint(failure.Errorf(failure.Usage, "report %s is about the tree %s, and the baseline of %s", r.ID, r.Tree, c.Tree), hint)
	}
	list, err := e.List(ctx)
	if err != nil {
		return err
	}
	for id := c.ID; id != ""; {
		if id == r.BaselineID {
			return nil
		}
		at := slices.IndexFunc(list, func(o Entry) bool { return o.ID == id })
		if at < 0 {
			break
		}
		id = list[at].Parent
	}
	return failure.Hint(failure.Errorf(failure.Usage, "report %s is about %s@%s, and another baseline was taken since", r.ID, c.Name, r.BaselineID), hint)
}

// Choose returns the changes that were asked for. A choice that stands for
// none is a mistake, of kind Usage.
func (o *AcceptOptions) Choose(list []Change) ([]Change, error) {
	all := o.everything() || len(o.Classes) > 0 && len(o.Paths)+len(o.Packages)+len(o.Drift) == 0
	var chosen []Change
	hits := make(map[string]bool)
	for i := range list {
		c := &list[i]
		wanted := all
		for _, p := range o.Paths {
			if o.at(c.Path, p) || c.From != nil && o.at(c.From, p) {
				hits["/"+string(p)] = true
				wanted = true
			}
		}
		for _, name := range o.Packages {
			if n, _, _ := strings.Cut(c.Package, " "); n == name && name != "" {
				hits[name] = true
				wanted = true
			}
		}
		if wanted && (len(o.Classes) == 0 || slices.Contains(o.Classes, c.Class)) && o.bears(c.Severity) {
			chosen = append(chosen, *c)
		}
	}
	for _, p := range o.Paths {
		if !hits["/"+string(p)] {
			return nil, failure.Hint(failure.Errorf(failure.Usage, "the report has no change at %s", p), "what is accepted is what was reported: mobileops integrity check, then accept")
		}
	}
	for _, name := range o.Packages {
		if !hits[name] {
			return nil, failure.Hint(failure.Errorf(failure.Usage, "the report has no change of a package %q", name), "see mobileops integrity report")
		}
	}
	return chosen, nil
}

// bears tells whether something of that severity may be accepted.
func (o *AcceptOptions) bears(s finding.Severity) bool { return o.Worst == nil || s <= *o.Worst }

// everything tells whether there is no choice.
func (o *AcceptOptions) everything() bool {
	return o.All && len(o.Classes) == 0 || len(o.Paths)+len(o.Packages)+len(o.Drift)+len(o.Classes) == 0
}

// at tells whether a change at path is meant by p.
func (o *AcceptOptions) at(path, p []byte) bool {
	if len(p) > 1 {
		p = bytes.TrimRight(p, "/")
	}
	return bytes.Equal(path, p) || !o.Exactly && within(path, p)
}

// examine looks at each chosen entry once more, and sorts them into what can be
// accepted, what is refused, and what is part of the baseline already.
func (a *Accepted) examine(ctx context.Context, b *Opened, chosen []Change) error {
	var paths [][]byte
	seen := map[string]int{}
	want := func(p []byte) {
		if _, twice := seen[string(p)]; !twice {
			seen[string(p)] = len(paths)
			paths = append(paths, p)
		}
	}
	for i := range chosen {
		want(chosen[i].Path)
		if chosen[i].From != nil {
			want(chosen[i].From)
		}
	}
	slices.SortFunc(paths, func(x, y []byte) int {
		dx, nx := splitPath(x)
		dy, ny := splitPath(y)
		return filehash.CompareKeys(dx, nx, dy, ny)
	})
	for i, p := range paths {
		seen[string(p)] = i
	}
	spots, err := b.Spots(ctx, paths)
	if err != nil {
		return err
	}
	cur := b.Reader.Cursor()
	defer cur.Close()
	for i := range chosen {
		c := &chosen[i]
		spot := &spots[seen[string(c.Path)]]
		reason, attrs, err := b.differs(c, spot, cur)
		if err != nil {
			return err
		}
		if reason == "" && c.From != nil && spots[seen[string(c.From)]].Exists {
			reason = "there is a file again at " + string(c.From)
		}
		switch {
		case reason == already:
			a.Already++
			a.already = append(a.already, *c)
		case reason != "":
			a.Refused = append(a.Refused, Refusal{*c, reason, attrs})
		default:
			a.Changes = append(a.Changes, *c)
			if spot.Change != nil {
				// Equal in everything that the policy compares; the inode
				// and what else was seen just now saves the next check from
				// reading it.
				a.Changes[len(a.Changes)-1].Now = spot.Change.Now
			}
		}
	}
	return nil
}

// already is the reason of differs for a change that the baseline has.
const already = "already"

// differs tells why a change is not to be accepted: what there is at its path
// is not what was reported. It is empty when it is.
func (o *Opened) differs(c *Change, spot *Spot, cur *baseline.Cursor) (string, []Attribute, error) {
	if spot.Problem != nil {
		return "it cannot be read now: " + spot.Problem.Reason, nil, nil
	}
	rule := o.Rule(c.Path)
	if rule == nil {
		return "the policy does not cover it", nil, nil
	}
	dir, name := splitPath(c.Path)
	rec, _, err := cur.Find(dir, name)
	if err != nil {
		return "", nil, err
	}
	switch {
	case c.Now == nil && spot.Exists:
		return "it was reported as removed, and is there again", nil, nil
	case c.Now == nil && rec == nil:
		return already, nil, nil
	case c.Now == nil:
		return "", nil, nil
	case !spot.Exists:
		return "it is not there any more", nil, nil
	case c.Now.Content == filehash.Unreadable || c.Now.Content == filehash.Unstable:
		return "its content could not be read when it was reported", nil, nil
	case spot.Change == nil: // as in the baseline
		if compare(c.Now, entryOf(rec), rule) == nil {
			return already, nil, nil
		}
		return "it is as in the baseline again", nil, nil
	}
	if attrs := compare(c.Now, entryOf(spot.Change.Now), rule); attrs != nil {
		return "it has changed again since it was reported", attrs, nil
	}
	if c.Now.Content != spot.Change.Now.Content {
		// What nobody read is compared with nothing, and must not pass for equal.
		return "its content could not be compared with the report", nil, nil
	}
	return "", nil, nil
}

// entryOf is a record as a walk would find it.
func entryOf(r *baseline.Record) *filehash.Entry {
	return &filehash.Entry{Name: r.Name, Info: r.Info, Content: r.Content, Sum: r.Sum, Target: r.Target, Xattrs: r.Xattrs}
}

// acceptInto writes the new baseline.
func (e *Engine) acceptInto(ctx context.Context, b *Opened, a *Accepted, rep *Report, known *facts.Snapshot, keep KeepContent) error {
	old := b.Entry
	c := old
	c.ID, c.Parent, c.Finished = newID(), old.ID, seconds(time.Now())
	c.Imported, c.Current = false, false
	w, err := baseline.Create(durable.Temp(e.path(c.Name+baseline.Ext)), e.file(c))
	if err != nil {
		return err
	}
	defer w.Abort()
	oldReads := e.loadReads(old)
	now := &reads{changed: true}
	at := uint32(time.Now().Unix())
	err = b.Reader.Rewrite(w, edits(a.Changes), func(from, n int) {
		if from < 0 {
			now.at = append(now.at, at)
		} else {
			now.at = append(now.at, oldReads.at[from:from+n]...)
		}
	})
	if err != nil {
		return fmt.Errorf("write baseline: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.announce(ctx, c); err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			e.drop(c)
		}
	}()
	if c.Root, err = w.Commit(&c.Header, b.Reader.Policy); err != nil {
		return err
	}
	if st, err := os.Stat(e.file(c)); err == nil {
		c.FileBytes = st.Size()
	}
	if err := e.saveReads(c, now); err != nil {
		return err
	}
	if err := e.carryContents(ctx, old, c, b.Tree, a.Changes, keep); err != nil {
		return err
	}
	if err := e.carryOwners(ctx, old, &c, b.Tree, rep.Changes, slices.Concat(a.Changes, a.already)); err != nil {
		return err
	}
	if err := e.carryFacts(&c, known, a.Drift); err != nil {
		return err
	}
	list, digest, err := encodeAccepted(a, rep)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(e.acceptedFile(c), list, 0o600); err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	act := Act{Kind: history.Acceptance, Report: rep.ID, Accepted: len(a.Changes) + len(a.Drift), AcceptedDigest: digest}
	if err := e.catalogue(ctx, &c, act); err != nil {
		return err
	}
	done = true
	a.Entry = c
	return nil
}

// edits turns changes into edits of a baseline, in its order.
func edits(list []Change) []baseline.Edit {
	var out []baseline.Edit
	for i := range list {
		c := &list[i]
		dir, name := splitPath(c.Path)
		out = append(out, baseline.Edit{Dir: dir, Name: name, Record: c.Now})
		if c.From != nil {
			dir, name := splitPath(c.From)
			out = append(out, baseline.Edit{Dir: dir, Name: name})
		}
	}
	slices.SortStableFunc(out, func(x, y baseline.Edit) int {
		return filehash.CompareKeys(x.Dir, x.Name, y.Dir, y.Name)
	})
	// Where something was moved away and something else moved in, what is
	// there now counts.
	kept := out[:0]
	for _, ed := range out {
		if n := len(kept); n > 0 && filehash.CompareKeys(kept[n-1].Dir, kept[n-1].Name, ed.Dir, ed.Name) == 0 {
			if ed.Record != nil {
				kept[n-1] = ed
			}
			continue
		}
		kept = append(kept, ed)
	}
	return kept
}
