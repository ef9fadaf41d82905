package host

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// Limits of findings.
const (
	maxList      = 1000      // findings in an answer
	listBytes    = 512 << 10 // of an answer
	maxReport    = 1000      // findings in one call
	maxParts     = 200_000   // findings in all parts of one complete set
	maxOpenSets  = 8         // scopes whose complete set is under way
	maxNew       = 200_000   // findings of one session that were not known before
	futureLeeway = 24 * time.Hour
)

// mayRead reports whether the plugin may read findings of a source.
func (p *Permissions) mayRead(source string) bool {
	return p.ReadFindings && (len(p.FindingsFrom) == 0 || slices.Contains(p.FindingsFrom, source))
}

// list answers findings.list.
func (s *session) list(params []byte) (any, error) {
	var p struct {
		Source      string `json:"source"`
		State       string `json:"state"`
		MinSeverity string `json:"min_severity"`
		Limit       int    `json:"limit"`
		After       string `json:"after"`
	}
	if err := decode(params, &p); err != nil {
		return nil, err
	}
	perms := &s.opts.Permissions
	if !perms.ReadFindings {
		return nil, refuse(Denied, "the permissions of this plugin do not have findings: [read]")
	}
	var filter finding.Filter
	// What a plugin has reported itself is no news to it, whatever it may read.
	switch {
	case p.Source == "" && len(perms.FindingsFrom) > 0:
		filter.Sources = append(slices.Clone(perms.FindingsFrom), s.opts.source())
	case p.Source == "":
	case !perms.mayRead(p.Source) && p.Source != s.opts.source():
		return nil, refuse(Denied, "findings of %s are not among findings_from", quoted(p.Source))
	default:
		filter.Sources = []string{p.Source}
	}
	if p.State != "" && p.State != "all" {
		st, err := finding.ParseState(p.State)
		if err != nil {
			return nil, refuse(Invalid, "unknown state %s", quoted(p.State))
		}
		filter.States = []finding.State{st}
	}
	if p.MinSeverity != "" {
		var err error
		if filter.MinSeverity, err = finding.ParseSeverity(p.MinSeverity); err != nil {
			return nil, refuse(Invalid, "unknown severity %s", quoted(p.MinSeverity))
		}
	}
	if p.Limit <= 0 || p.Limit > maxList {
		p.Limit = maxList
	}
	var after finding.Fingerprint
	if p.After != "" {
		if err := after.UnmarshalText([]byte(p.After)); err != nil {
			return nil, refuse(Invalid, "after %s is not what an answer gave as next", quoted(p.After))
		}
	}
	result := struct {
		Findings []json.RawMessage `json:"findings"`
		Next     string            `json:"next"`
	}{Findings: []json.RawMessage{}}
	for first := true; first || result.Next != "" && len(result.Findings) == 0; first = false {
		var page []*finding.Record
		var more bool
		var next finding.Fingerprint
		if err := s.opts.Store.View(s.ctx, func(tx *state.Tx) (err error) {
			page, next, more, err = finding.Page(tx, filter, after, p.Limit, listBytes/2, time.Now())
			return err
		}); err != nil {
			return nil, err
		}
		room := listBytes
		for _, r := range page {
			raw, err := recordJSON(r)
			if err != nil {
				return nil, err
			}
			if room -= len(raw); room < 0 && len(result.Findings) > 0 {
				next, more = after, true
				break
			}
			result.Findings = append(result.Findings, raw)
			after = r.Fingerprint
		}
		if result.Next = ""; more {
			after, result.Next = next, next.String()
		}
	}
	return result, nil
}

// maxRecordJSON is what a finding may take in a line, which has others and an
// envelope besides.
const maxRecordJSON = listBytes - 4<<10

// recordJSON returns the JSON of a record. One that is too large for a line
// loses what is least needed, and says that it is truncated.
func recordJSON(r *finding.Record) ([]byte, error) {
	raw, err := r.MarshalJSON()
	for _, less := range []func(*finding.Record){
		func(r *finding.Record) { r.Scopes = r.Scopes[:min(len(r.Scopes), 16)] },
		func(r *finding.Record) {
			if n := len(r.History); n > 1 {
				r.History, r.Forgotten = r.History[n-1:], r.Forgotten+uint64(n-1)
			}
		},
		func(r *finding.Record) { r.References = r.References[:min(len(r.References), 4)] },
		func(r *finding.Record) { r.References, r.Tags, r.Scopes = nil, nil, nil },
		func(r *finding.Record) { r.Evidence = nil },
		func(r *finding.Record) { r.History, r.Remediation = nil, "" },
	} {
		if err != nil || len(raw) <= maxRecordJSON {
			break
		}
		c := *r
		c.Truncated = true
		less(&c)
		r = &c
		raw, err = r.MarshalJSON()
	}
	return raw, err
}

// reports is what a session remembers of what it was handed.
type reports struct {
	turn chan struct{} // held while a report is read and stored: parts have an order
	seen map[string][]finding.Fingerprint
	new  int
}

func (r *reports) init() {
	r.turn, r.seen = make(chan struct{}, 1), map[string][]finding.Fingerprint{}
}

// report answers findings.report. Parts of a complete set are stored as they
// come, as of a partial scan; the last one resolves what none of them had.
func (s *session) report(params []byte) (any, error) {
	if !s.opts.Permissions.ReportFindings {
		return nil, refuse(Denied, "the permissions of this plugin do not have findings: [report]")
	}
	// One at a time from here on: what is read of a line takes many times its size.
	select {
	case s.reports.turn <- struct{}{}:
		defer func() { <-s.reports.turn }()
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
	var p struct {
		Scope    string            `json:"scope"`
		Part     bool              `json:"part"`
		Complete bool              `json:"complete"`
		Findings []json.RawMessage `json:"findings"`
	}
	if err := decode(params, &p); err != nil {
		return nil, err
	}
	switch {
	case len(p.Findings) > maxReport:
		return nil, refuse(TooLarge, "%d findings in one call, of at most %d", len(p.Findings), maxReport)
	case len(p.Scope) > finding.MaxScope || hasHidden(p.Scope):
		return nil, refuse(Invalid, "a scope is a line of at most %d bytes", finding.MaxScope)
	case p.Part && p.Complete:
		return nil, refuse(Invalid, "a part is not complete; the last one has complete alone")
	}
	now := time.Now()
	found := make([]finding.Finding, len(p.Findings))
	for i, raw := range p.Findings {
		f, err := s.reported(raw, now)
		if err != nil {
			return nil, refuse(Invalid, "finding %d: %s", i, clean(err.Error(), 200))
		}
		found[i] = f
	}
	return s.store(p.Scope, found, p.Part, p.Complete, now)
}

func (s *session) store(scope string, found []finding.Finding, part, complete bool, now time.Time) (sum finding.Summary, err error) {
	r := &s.reports
	seen, open := r.seen[scope]
	switch {
	case r.new >= maxNew:
		return sum, refuse(TooLarge, "this session has reported %d findings that were not known before", r.new)
	case part && !open && len(r.seen) == maxOpenSets:
		return sum, refuse(TooLarge, "sets of %d scopes are under way", maxOpenSets)
	case (part || open) && len(seen)+len(found) > maxParts:
		return sum, refuse(TooLarge, "a set has at most %d findings", maxParts)
	}
	source := s.opts.source()
	keys := finding.Fingerprints(source, found)
	// What was handed over is stored, even if the plugin goes meanwhile.
	ctx := context.WithoutCancel(s.ctx)
	err = s.opts.Store.Update(ctx, func(tx *state.Tx) (err error) {
		if complete && !open {
			sum, err = finding.Report(tx, source, scope, found, now)
			return err
		}
		if sum, err = finding.ReportPartial(tx, source, scope, found, now); err != nil || !complete {
			return err
		}
		last, err := finding.Finish(tx, source, scope, slices.Concat(seen, keys), now)
		sum.Resolved += last.Resolved
		return err
	})
	if err != nil {
		return finding.Summary{}, err
	}
	r.new += sum.New
	switch {
	case part:
		r.seen[scope] = append(seen, keys...)
	case complete:
		delete(r.seen, scope)
	}
	return sum, nil
}

// reported reads one finding of a plugin. A subject and evidence are bytes,
// which is what they are about; all other text is made to show as it is.
func (s *session) reported(raw []byte, now time.Time) (f finding.Finding, err error) {
	if err := json.Unmarshal(raw, &f); err != nil {
		return f, err
	}
	if f.Rule == "" || len(f.Rule) > finding.MaxName || hasHidden(f.Rule) {
		return f, refuse(Invalid, "a rule is a line of 1 to %d bytes", finding.MaxName)
	}
	f.Source = s.opts.source()
	f.Title = clean(f.Title, finding.MaxTitle)
	f.Remediation = clean(f.Remediation, finding.MaxRemediation)
	for i, text := range f.References {
		f.References[i] = clean(text, finding.MaxReference)
	}
	for i, text := range f.Tags {
		f.Tags[i] = clean(text, finding.MaxTag)
	}
	for key := range f.Evidence {
		if hasHidden(key) {
			return f, refuse(Invalid, "%s is no key of evidence", quoted(key))
		}
	}
	if f.Observed.After(now.Add(futureLeeway)) {
		f.Observed = now
	}
	return f, nil
}
