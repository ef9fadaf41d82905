package update

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/zeebo/blake3"
)

// FindingSource is the source of findings about installations, and the rules are
// what they are about.
const (
	FindingSource = "update"

	RuleTree     = "tree-changed"          // a file of a package is not as it was delivered
	RuleBlob     = "blob-damaged"          // content in the store is not what its name says
	RuleReplaced = "installation-replaced" // the installation is no link to its store
)

// Verified is what Verify found.
type Verified struct {
	store.Verification
	// Replaced says that the installation is not the link that switches it: what
	// is used is not what was verified. It is store.ErrReplaced.
	Replaced error
	Findings finding.Summary
}

// Kind says how it ended: what is lower in the table of package failure decides.
func (v *Verified) Kind() failure.Kind {
	k := failure.KindOf(v.Replaced)
	for i := range v.Differences {
		switch d := &v.Differences[i]; {
		case d.Kind == store.Unread:
			k = failure.Worse(k, failure.Incomplete)
		case d.Kind == store.BlobFlip:
			k = failure.Worse(k, failure.Untrustworthy)
		case d.Serious():
			k = failure.Worse(k, failure.No)
		}
	}
	return k
}

// Verify reads generations and all content of the store, and says what is not as
// it was put there. Findings follow: those about the content, and those about the
// installation when the current generation is among them. Others can be pruned,
// so nothing is kept about them. A difference without a generation has a path in
// the store.
func (e *Engine) Verify(ctx context.Context, numbers []int, progress *filehash.Counters) (*Verified, error) {
	v := &Verified{Replaced: e.store.Linked()}
	if v.Replaced != nil && !errors.Is(v.Replaced, store.ErrReplaced) && !errors.Is(v.Replaced, fs.ErrNotExist) {
		return nil, v.Replaced
	}
	current, err := e.store.Current()
	if err != nil {
		return nil, err
	}
	var sound []int
	var torn []store.Difference
	for _, n := range numbers {
		g, err := e.store.Generation(n)
		if err == nil {
			err = e.store.Entries(g.Number, func(*store.Entry) error { return nil })
		}
		switch {
		case err == nil:
			sound = append(sound, n)
		case errors.Is(err, store.ErrDamaged), errors.Is(err, fs.ErrNotExist):
			torn = append(torn, store.Difference{Path: filepath.Join("generations", fmt.Sprint(n)), Kind: store.BlobFlip, What: err.Error()})
		default:
			return nil, err
		}
	}
	found, err := e.store.Verify(ctx, sound, progress)
	if err != nil {
		return nil, err
	}
	v.Verification = *found
	v.Generations = numbers
	v.Differences = append(torn, v.Differences...)
	err = e.o.State.Update(ctx, func(tx *state.Tx) error {
		return e.report(tx, v, current, slices.Contains(numbers, current), slices.Contains(sound, current))
	})
	return v, err
}

// report brings the findings up to date. What could not be read may still be so:
// then nothing is resolved.
func (e *Engine) report(tx *state.Tx, v *Verified, current int, looked, sound bool) error {
	now := e.now()
	content, tree := []finding.Finding{}, []finding.Finding{}
	contentReport, treeReport := finding.Report, finding.Report
	if !sound {
		treeReport = finding.ReportPartial
	}
	for i := range v.Differences {
		d := &v.Differences[i]
		switch {
		case d.Kind == store.Unread && d.Generation == 0:
			contentReport = finding.ReportPartial
		case d.Kind == store.Unread && d.Generation == current:
			treeReport = finding.ReportPartial
		case d.Kind == store.BlobFlip && filepath.Dir(d.Path) != "generations":
			content = append(content, e.finding(d, RuleBlob, "Content in the store of updates is damaged", now))
		case d.Kind == store.BlobFlip && d.Path == filepath.Join("generations", fmt.Sprint(current)):
			tree = append(tree, e.finding(d, RuleBlob, "The description of the current generation is damaged", now))
		case d.Serious() && d.Generation == current:
			tree = append(tree, e.finding(d, RuleTree, "A file of a package is not as it was delivered", now))
		}
	}
	if v.Replaced != nil {
		tree = append(tree, finding.Finding{
			Source: FindingSource, Rule: RuleReplaced, Severity: finding.High, Subject: e.o.Target, Observed: now,
			Title:       "The installation is no longer a link to its store",
			Remediation: "Move away what is there and apply a package: mobileops update apply PKG",
			Tags:        []string{"update"},
		})
	}
	sum, err := contentReport(tx, FindingSource, scope("store", e.o.Dir), content, now)
	if err != nil {
		return err
	}
	if looked {
		more, err := treeReport(tx, FindingSource, scope("tree", e.o.Target), tree, now)
		if err != nil {
			return err
		}
		sum.New += more.New
		sum.Seen += more.Seen
		sum.Reopened += more.Reopened
		sum.Resolved += more.Resolved
	}
	v.Findings = sum
	return nil
}

// scope names what was looked at; a path may be longer than a scope.
func scope(kind, path string) string {
	name := kind + ":" + path
	if len(name) <= finding.MaxScope {
		return name
	}
	sum := blake3.Sum256([]byte(path))
	return kind + ":" + hex.EncodeToString(sum[:16])
}

func (e *Engine) finding(d *store.Difference, rule, title string, now time.Time) finding.Finding {
	f := finding.Finding{
		Source: FindingSource, Rule: rule, Severity: finding.High, Subject: filepath.Join(e.o.Dir, d.Path), Title: title, Observed: now,
		Evidence:    map[string]string{"change": d.Kind},
		Remediation: "Apply the package again, which brings its files anew: mobileops update apply PKG; then mobileops update verify",
		Tags:        []string{"update", "file-integrity"},
	}
	if filepath.Dir(d.Path) == "generations" {
		f.Remediation = "Go to a generation that is whole, then apply the package again: mobileops update list, mobileops rollback --to N"
	}
	if d.Generation > 0 {
		f.Subject = filepath.Join(e.o.Target, d.Path)
		f.Evidence["generation"] = fmt.Sprint(d.Generation)
	}
	if d.What != "" {
		f.Evidence["what"] = d.What
	}
	return f
}
