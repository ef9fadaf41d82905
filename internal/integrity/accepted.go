package integrity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

// acceptedFile is the path of the list of what an acceptance accepted. It stays
// when the baseline is dropped: it is part of the history.
func (e *Engine) acceptedFile(c Entry) string { return e.path(c.ID + ".accepted") }

func encodeAccepted(a *Accepted, rep *Report) ([]byte, baseline.Hash, error) {
	var buf bytes.Buffer
	err := writeReport(&buf, &Report{Verify: rep.Verify, Baseline: rep.Baseline, Tree: rep.Tree, Changes: a.Changes, Drift: a.Drift})
	return buf.Bytes(), blake3.Sum256(buf.Bytes()), err
}

// AcceptedChanges returns what the acceptance that made a baseline accepted, as
// a report of nothing else, after holding it against the digest in its record.
func (e *Engine) AcceptedChanges(id string, digest baseline.Hash) (*Report, error) {
	if !validID(id) {
		return nil, failure.Errorf(failure.Usage, "%q is no id of a baseline", id)
	}
	path := e.acceptedFile(Entry{Header: baseline.Header{ID: id}})
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	if blake3.Sum256(b) != digest {
		return nil, fmt.Errorf("%w: %s is not what the history says", ErrDamagedReport, path)
	}
	return readReport(bytes.NewReader(b))
}

// settle lets the findings of accepted changes go. The baseline is in force by
// then, so a failure here is no reason to take it back: the next check
// resolves them.
func (e *Engine) settle(ctx context.Context, a *Accepted, rep *Report) error {
	var gone, seen []finding.Finding
	left := map[string]bool{} // packages that have other changes
	taken := map[string]bool{}
	for i := range a.Changes {
		c := &a.Changes[i]
		taken[string(c.Path)] = true
		gone = append(gone, c.finding(rep))
		seen = append(seen, c.AsFinding("watch-", rep))
	}
	for i := range a.already {
		taken[string(a.already[i].Path)] = true
	}
	for i := range rep.Changes {
		if c := &rep.Changes[i]; !taken[string(c.Path)] {
			left[c.updateSubject()] = true
		}
	}
	for i := range a.Changes {
		if c := &a.Changes[i]; c.Class == PackageUpdate && c.Package != "" && !left[c.updateSubject()] {
			left[c.updateSubject()] = true // once is enough
			gone = append(gone, c.update(rep))
		}
	}
	drift := map[string][]finding.Finding{} // by aspect
	for i := range a.Drift {
		c := &a.Drift[i]
		drift[c.Fact().Aspect] = append(drift[c.Fact().Aspect], driftFinding(rep, c))
	}
	why := "accepted by " + e.By.Actor.User
	if e.By.Reason != "" {
		why += ": " + e.By.Reason
	}
	err := e.Store.Update(context.WithoutCancel(ctx), func(tx *state.Tx) error {
		now := time.Now()
		one, err := finding.Resolve(tx, Source, scope(rep), gone, why, now)
		other, err2 := finding.Resolve(tx, Source, "watch:"+rep.Baseline.Name, seen, why, now)
		a.Findings.Resolved = one.Resolved + other.Resolved
		for aspect, list := range drift {
			sum, err3 := finding.Resolve(tx, Source, scope(rep)+" "+aspect, list, why, now)
			a.Findings.Resolved += sum.Resolved
			err2 = errors.Join(err2, err3)
		}
		return errors.Join(err, err2)
	})
	if err != nil {
		return failure.Hint(fmt.Errorf("the changes are accepted, but their findings stay open: %w", err), "the next check resolves them")
	}
	return nil
}
