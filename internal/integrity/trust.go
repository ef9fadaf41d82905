package integrity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/mobileops/mobileops/internal/state"
)

// Trust says whether the baselines themselves are what somebody once made
// them: what the history, its signatures and the anchors prove.
type Trust struct {
	Records  uint64            `json:"records"`           // of the history
	Last     time.Time         `json:"last,omitzero"`     // when the last one was written
	Key      string            `json:"key,omitempty"`     // that is in force, in minisign's base64
	Adopted  int               `json:"adopted,omitempty"` // baselines with which the history began just now
	Unsigned []uint64          `json:"unsigned"`          // records that nobody vouches for yet
	Problems []history.Problem `json:"problems"`
	Warnings []string          `json:"warnings"`
	Anchors  []AnchorState     `json:"anchors"`
}

// Kind is what it means for the exit status. A record that must be signed
// elsewhere and is not makes everything untrustworthy: with a baseline that
// nobody vouches for, an intruder would hide.
func (t *Trust) Kind() failure.Kind {
	if t == nil {
		return failure.None
	}
	k := failure.None
	if len(t.Problems) > 0 || len(t.Unsigned) > 0 {
		k = failure.Untrustworthy
	}
	for i := range t.Anchors {
		k = failure.Worse(k, t.Anchors[i].Kind())
	}
	return k
}

// Anchored tells whether there is an anchor that could be compared with.
func (t *Trust) Anchored() bool {
	return slices.ContainsFunc(t.Anchors, func(a AnchorState) bool { return a.Verdict != "" })
}

// Trust verifies the history and compares it with the catalogue, with the files
// that are there, and with the configured anchors and some more. Anchors that
// are behind are brought up to date. A history that never was begins with the
// baselines that are there. The error says that something could not be read.
func (e *Engine) Trust(ctx context.Context, more ...anchor.Place) (*Trust, error) {
	return e.trust(ctx, false, more...)
}

// trust is Trust, quick as in history.Log.VerifyChain.
func (e *Engine) trust(ctx context.Context, quick bool, more ...anchor.Place) (*Trust, error) {
	places := slices.Concat(e.Anchors, more)
	if len(places) > 0 {
		lock, err := e.anchorLock(ctx)
		if err != nil {
			return nil, err
		}
		defer lock.Release()
	}
	s, v, err := e.known(ctx, quick)
	if err != nil {
		return nil, err
	}
	t := &Trust{Problems: v.Problems, Warnings: v.Warnings, Unsigned: v.Unsigned, Records: v.Records, Key: v.Key, Adopted: s.adopted}
	if v.Head != nil {
		t.Last = v.Head.Time
		if len(v.Problems) == 0 {
			t.Problems = s.compare(v)
		}
	}
	if len(places) > 0 {
		t.Anchors, err = e.syncAnchors(ctx, v, s.pushed, len(t.Problems) == 0, places)
	}
	return t, err
}

// standing is what state.db and the directory know of baselines, as they stood
// in one transaction.
type standing struct {
	chain   *history.Chain
	entries []Entry
	pending map[string]bool
	files   []baselineFile
	pushed  map[string]pushed
	adopted int
}

// baselineFile is a baseline's file that lies in the directory.
type baselineFile struct {
	id       string
	modified time.Time
}

// known reads what there is, and verifies the history. When there are
// baselines and never was a history, it begins it.
func (e *Engine) known(ctx context.Context, quick bool) (*standing, *history.Verification, error) {
	s, v, err := e.stands(ctx, quick)
	if err != nil || s.chain.Len() > 0 || len(v.Problems) > 0 || len(s.entries) == 0 {
		return s, v, err
	}
	n, err := e.beginHistory(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, v, err = e.stands(ctx, quick)
	if err == nil {
		s.adopted = n
	}
	return s, v, err
}

// beginHistory adopts the baselines that are there, and says how many.
func (e *Engine) beginHistory(ctx context.Context) (n int, err error) {
	pen, err := e.History().Pen(ctx)
	if err != nil {
		return 0, err
	}
	err = e.Store.Update(ctx, func(tx *state.Tx) error {
		list, err := entries(tx)
		n = len(list)
		if err != nil {
			return err
		}
		return e.adopt(tx, pen)
	})
	return n, err
}

func (e *Engine) stands(ctx context.Context, quick bool) (*standing, *history.Verification, error) {
	s := new(standing)
	// The directory first: what is in it and neither announced nor catalogued
	// afterwards is unknown.
	var err error
	if s.files, err = e.baselineFiles(); err != nil {
		return nil, nil, err
	}
	err = e.Store.View(ctx, func(tx *state.Tx) (err error) {
		s.chain, s.pending = history.Read(tx), map[string]bool{}
		if b := tx.Bucket(pendingBucket); b != nil {
			if err := b.ForEach(func(id, _ []byte) error { s.pending[string(id)] = true; return nil }); err != nil {
				return err
			}
		}
		if s.pushed, err = readPushed(tx); err != nil {
			return err
		}
		s.entries, err = entries(tx)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	v, err := e.History().VerifyChain(s.chain, quick)
	return s, v, err
}

// baselineFiles lists the files of baselines.
func (e *Engine) baselineFiles() ([]baselineFile, error) {
	list, err := os.ReadDir(e.path(""))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, failure.Hint(failure.Wrap(failure.NotAllowed, err), "run as root, or choose another place with --state-dir")
	}
	var files []baselineFile
	for _, d := range list {
		id, ok := strings.CutSuffix(d.Name(), baseline.Ext)
		if !ok || !validID(id) {
			continue
		}
		if st, err := d.Info(); err == nil {
			files = append(files, baselineFile{id, st.ModTime()})
		}
	}
	return files, failure.Wrap(failure.Failed, err)
}

// compare compares the catalogue and the directory with the history.
func (s *standing) compare(v *history.Verification) []history.Problem {
	var out []history.Problem
	problem := func(counter uint64, next, format string, args ...any) {
		out = append(out, history.Problem{Counter: counter, What: fmt.Sprintf(format, args...), Next: next})
	}
	known, current := map[string]bool{}, map[string]bool{}
	for _, c := range s.entries {
		known[c.ID] = true
		ref := c.Name + "@" + c.ID[:min(8, len(c.ID))]
		r := v.Known(c.ID)
		switch {
		case r == nil:
			problem(0, findWho+c.Name, "baseline %s is in the catalogue, and the history does not know it", ref)
		case r.Name != c.Name || r.Root != c.Root || r.PolicyDigest != c.PolicyDigest || r.FactsDigest != c.Facts || r.OwnersDigest != c.Owners:
			problem(r.Counter, findWho+c.Name, "baseline %s is not the one of record %d: its entry in the catalogue was altered", ref, r.Counter)
		}
		if c.Current {
			current[c.Name] = true
			if want := v.Current(c.Name); want != nil && want.ID != c.ID {
				problem(want.Counter, findWho+c.Name, "the current baseline %q is %s, and by record %d it is %s@%.8s: another one was put in its place", c.Name, ref, want.Counter, want.Name, want.ID)
			}
		}
	}
	names := v.Names()
	slices.Sort(names)
	for _, name := range names {
		if want := v.Current(name); want.Host != v.Head.Host {
			problem(want.Counter, "take one of this host: mobileops integrity baseline --name "+name,
				"baseline %q was taken on another host, %s, before the state directory came here", name, want.HostName)
		}
		if want := v.Current(name); !current[name] {
			problem(want.Counter, findWho+name, "baseline %s@%.8s of record %d is gone from the catalogue, and no record says who removed it", name, want.ID, want.Counter)
		}
	}
	slices.SortFunc(s.files, func(a, b baselineFile) int { return cmp.Compare(a.id, b.id) })
	for _, f := range s.files {
		if !known[f.id] && !s.pending[f.id] && f.modified.After(v.Head.Time) {
			problem(v.Head.Counter, "when an older state.db was restored on purpose, import that file (mobileops integrity baseline import) or take a new baseline",
				"state.db does not know the baseline in %s%s, which is newer than its last record: was state.db replaced by an older one?", f.id, baseline.Ext)
		}
	}
	return out
}

// historyScope is under which name findings about the history are kept.
const historyScope = "history"

// explain adds to an error about a baseline's file what is wrong with the
// history, which may be why.
func (t *Trust) explain(err error) error {
	for _, p := range t.Problems {
		err = failure.Wrap(failure.Untrustworthy, errors.Join(err, errors.New(p.What)))
	}
	return err
}

// store brings the findings about the history up to date, and counts them in
// the report.
func (t *Trust) store(tx *state.Tx, r *Report) error {
	if t == nil {
		return nil
	}
	at := r.Started
	report := finding.Report
	var found []finding.Finding
	add := func(rule, subject, title, next string, severity finding.Severity) {
		found = append(found, finding.Finding{
			Source: Source, Rule: rule, Severity: severity, Subject: subject, Observed: at,
			Title: title, Remediation: next, Tags: []string{"file-integrity", "tampering"},
		})
	}
	for _, p := range t.Problems {
		next := p.Next
		if next == "" {
			next = "See the history, and compare it with an anchor: mobileops integrity history"
		}
		add("history-broken", fmt.Sprintf("record %d: %s", p.Counter, p.What), "The history of the baselines cannot be trusted: "+p.What, next, finding.Critical)
	}
	if len(t.Unsigned) > 0 {
		add("history-unsigned", "history", fmt.Sprintf("%d records of baselines are not signed", len(t.Unsigned)), "Sign them where the key is: mobileops integrity baseline sign --export-unsigned FILE", finding.High)
	}
	for _, a := range t.Anchors {
		switch a.Kind() {
		case failure.Untrustworthy:
			add("anchor-mismatch", a.Place, "The history of the baselines does not fit to the anchor: "+a.Problem, "Trust nothing in the state directory until you know who put it back or rewrote it", finding.Critical)
		case failure.Incomplete:
			report = finding.ReportPartial
		}
	}
	sum, err := report(tx, Source, historyScope, found, at)
	r.Findings.New += sum.New
	r.Findings.Seen += sum.Seen
	r.Findings.Reopened += sum.Reopened
	r.Findings.Resolved += sum.Resolved
	return err
}

// Past returns the history and what verifying it, and comparing it with the
// catalogue, found. It changes nothing.
func (e *Engine) Past(ctx context.Context) (*history.Chain, *history.Verification, error) {
	s, v, err := e.stands(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	if len(v.Problems) == 0 && v.Head != nil {
		v.Problems = s.compare(v)
	}
	return s.chain, v, nil
}
