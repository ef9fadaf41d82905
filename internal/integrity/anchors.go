package integrity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/mobileops/mobileops/internal/state"
)

// AnchorState is what is known of a place for anchors.
type AnchorState struct {
	Place   string          `json:"place"`
	Verdict history.Verdict `json:"verdict,omitempty"` // "": there was nothing to compare with
	Counter uint64          `json:"counter,omitempty"` // of the anchor
	Time    time.Time       `json:"time,omitzero"`     // when the anchor was made
	Kept    bool            `json:"kept"`              // the last record is kept there now
	Problem string          `json:"problem,omitempty"` // why it does not fit, or nothing is known
	Warning string          `json:"warning,omitempty"` // the last record could not be kept there, or is not kept well

	kind failure.Kind
}

// Kind is what it means for the exit status: an anchor that does not fit makes
// the history untrustworthy; one that could not be asked proves nothing.
func (a *AnchorState) Kind() failure.Kind {
	switch a.Verdict {
	case history.RolledBack, history.Rewritten, history.Forged:
		return failure.Untrustworthy
	}
	if a.kind != failure.None {
		return a.kind
	}
	if a.Problem != "" {
		return failure.Incomplete
	}
	return failure.None
}

// pushed is what the catalogue notes of a configured place: bucket
// "integrity.anchors", the place → this as JSON.
type pushed struct {
	Counter uint64    `json:"counter"` // of the last anchor that was kept there
	Time    time.Time `json:"time"`
}

var anchorBucket = []byte("integrity.anchors")

func readPushed(tx *state.Tx) (map[string]pushed, error) {
	all := map[string]pushed{}
	b := tx.Bucket(anchorBucket)
	if b == nil {
		return all, nil
	}
	return all, b.ForEach(func(k, v []byte) error {
		var p pushed
		if err := json.Unmarshal(v, &p); err != nil {
			return failure.Errorf(failure.Untrustworthy, "catalogue: anchor %q: %w", k, err)
		}
		all[string(k)] = p
		return nil
	})
}

// anchorWait bounds how long one process waits for another to be done with the
// anchors, each of which has a time limit of its own.
const anchorWait = 30 * time.Second

// anchorLock makes one process at a time read the history and keep anchors of
// it, so that no place ever sees them out of order.
func (e *Engine) anchorLock(ctx context.Context) (*state.Lock, error) {
	if err := e.makeDir(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(anchorWait); ; {
		l, err := e.Store.Lock("anchors", "the anchors of the integrity history")
		var held *state.HeldError
		if !errors.As(err, &held) || time.Now().After(end) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// PushAnchors keeps the end of the history at every configured place. It is
// called after an act, so whatever goes wrong is in the states: the act is done,
// and the next check tries again.
func (e *Engine) PushAnchors(ctx context.Context) ([]AnchorState, error) {
	if len(e.Anchors) == 0 {
		return nil, nil
	}
	t, err := e.trust(ctx, true)
	if err != nil {
		return nil, err
	}
	if len(t.Problems) > 0 {
		return t.Anchors, failure.Hint(fmt.Errorf("%w: %s", history.ErrBroken, t.Problems[0].What), "no anchor was made of it; see what is wrong: mobileops integrity history")
	}
	return t.Anchors, nil
}

// syncAnchors compares the history with every place and, when keep is set,
// keeps the last record where it is not kept yet. The lock of the anchors is
// held.
func (e *Engine) syncAnchors(ctx context.Context, v *history.Verification, before map[string]pushed, keep bool, places []anchor.Place) ([]AnchorState, error) {
	var next *anchor.Anchor
	if keep && v.Head != nil {
		a, err := e.History().Anchor(v)
		if err != nil {
			return nil, err
		}
		next = &a
	}
	states := make([]AnchorState, len(places))
	var all sync.WaitGroup
	for i, p := range places {
		all.Go(func() {
			to := next
			if i >= len(e.Anchors) {
				to = nil // it was named to compare with
			}
			states[i] = e.syncAnchor(ctx, v, before[p.String()], to, p, false)
		})
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return states, e.notePushed(ctx, states[:len(e.Anchors)], before)
}

// syncAnchor compares with one place and keeps next there, unless it is nil or
// what is there speaks against it. again says that somebody asked for it, where
// an anchor was kept before and is gone, or cannot be read back.
func (e *Engine) syncAnchor(ctx context.Context, v *history.Verification, before pushed, next *anchor.Anchor, p anchor.Place, again bool) AnchorState {
	s := AnchorState{Place: p.String()}
	there, err := p.Read(ctx, e.History().Host())
	switch {
	case err != nil:
		s.Problem, s.kind = err.Error(), failure.KindOf(err)
		return s
	case there != nil:
		s.Counter, s.Time = there.Counter, there.Time
		if s.Verdict, s.Problem = v.Judge(there, e.History().Host()); s.Verdict != history.Matches {
			return s
		}
		if there.Counter < before.Counter {
			s.Verdict, s.Problem = history.Rewritten, fmt.Sprintf("it knew record %d, and now only record %d: somebody put it back", before.Counter, there.Counter)
			return s
		}
		s.Kept = v.Head != nil && there.Counter == v.Head.Counter
	case again:
	case p.Readable() && before.Counter > 0:
		// Writing might make a file where something is no longer mounted.
		s.Problem = fmt.Sprintf("the anchor of record %d that was kept there is gone: is it mounted? (keep one again: mobileops integrity anchor push %s)", before.Counter, p)
		return s
	case !p.Readable():
		s.Kept = v.Head != nil && before.Counter == v.Head.Counter
	}
	if next == nil || s.Kept {
		if there == nil && p.Readable() {
			s.Problem = "no anchor of this host is kept there"
		}
		return s
	}
	if err := p.Write(ctx, *next); err != nil {
		s.Warning = "the last record could not be kept there: " + err.Error()
		if there == nil && p.Readable() {
			s.Problem, s.Warning = s.Warning, ""
		}
		return s
	}
	s.Kept, s.Counter, s.Time = true, next.Counter, next.Time
	if p.Readable() {
		s.Verdict = history.Matches
	}
	if f, ok := p.(*anchor.File); ok && f.OnFilesystemOf(e.Store.Dir()) {
		s.Warning = "it lies on the same filesystem as the state directory: what puts one back may put back both"
	}
	return s
}

// notePushed notes what is kept where.
func (e *Engine) notePushed(ctx context.Context, states []AnchorState, before map[string]pushed) error {
	changed := func(s AnchorState) bool {
		return s.Kept && (s.Verdict == history.Matches || s.Verdict == "") && before[s.Place].Counter != s.Counter && s.Counter > 0
	}
	if !slices.ContainsFunc(states, changed) {
		return nil
	}
	return e.Store.Update(ctx, func(tx *state.Tx) error {
		b, err := tx.CreateBucketIfNotExists(anchorBucket)
		if err != nil {
			return err
		}
		for _, s := range states {
			if !changed(s) {
				continue
			}
			v, err := json.Marshal(pushed{s.Counter, s.Time})
			if err != nil {
				return err
			}
			if err := b.Put([]byte(s.Place), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// KeepAnchor keeps the end of the history at a place. When what is there does
// not fit, it refuses, unless force is set: an older state was restored on
// purpose.
func (e *Engine) KeepAnchor(ctx context.Context, p anchor.Place, force bool) (AnchorState, error) {
	lock, err := e.anchorLock(ctx)
	if err != nil {
		return AnchorState{}, err
	}
	defer lock.Release()
	s, v, err := e.known(ctx, false)
	if err != nil {
		return AnchorState{}, err
	}
	if len(v.Problems) == 0 && v.Head != nil {
		v.Problems = s.compare(v)
	}
	next, err := e.History().Anchor(v)
	if err != nil {
		return AnchorState{}, err
	}
	var out AnchorState
	if force {
		out = AnchorState{Place: p.String()}
		if err := p.Write(ctx, next); err != nil {
			return out, err
		}
		out.Kept, out.Counter, out.Time, out.Verdict = true, next.Counter, next.Time, history.Matches
	} else {
		out = e.syncAnchor(ctx, v, s.pushed[p.String()], &next, p, true)
	}
	if !slices.ContainsFunc(e.Anchors, func(o anchor.Place) bool { return o.String() == p.String() }) {
		return out, nil
	}
	return out, e.notePushed(ctx, []AnchorState{out}, s.pushed)
}

// Anchor returns the anchor of the last record, which vouches for what is in
// the catalogue.
func (e *Engine) Anchor(ctx context.Context) (anchor.Anchor, error) {
	s, v, err := e.known(ctx, false)
	if err != nil {
		return anchor.Anchor{}, err
	}
	if len(v.Problems) == 0 && v.Head != nil {
		v.Problems = s.compare(v)
	}
	return e.History().Anchor(v)
}

// CompareAnchors compares the history with anchors and writes nothing.
func (e *Engine) CompareAnchors(ctx context.Context, places ...anchor.Place) (*Trust, error) {
	reader := *e
	reader.Anchors = nil
	return reader.Trust(ctx, places...)
}
