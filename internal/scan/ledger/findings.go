package ledger

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

// FindingSource is the source of the findings that are made here.
const FindingSource = "scan"

// tellAll is how often all items are reported as findings, the unchanged ones
// too, so that "last seen" is true there within a day. Reporting everything each
// time would cost more than all the rest.
const tellAll = 20 * time.Hour

// decidedHere begins the reason of findings that were waived by a waiver or a
// document. What a person decided about a finding itself is left alone.
const decidedHere = "scan: "

// scopeOf is the scope in which findings of an asset are reported. One that is too
// long is told apart by a digest.
func scopeOf(prefix, asset string) string {
	scope := prefix + asset
	if len(scope) <= finding.MaxScope {
		return scope
	}
	sum := blake3.Sum256([]byte(asset))
	return clip(scope, finding.MaxScope-20) + "…" + hex.EncodeToString(sum[:8])
}

// tell reports what an observation changed.
func (v *visit) tell(list []sight) error {
	s, at := v.s, v.o.At
	all := at.Sub(s.about.Told) >= tellAll
	changed := map[Key]bool{}
	var found, gone []finding.Finding
	for i := range v.changed {
		c := &v.changed[i]
		last, err := c.last()
		if err != nil {
			return err
		}
		f := findingOf(s.asset, c.key, c.Subject, c.Ecosystem, last, at)
		switch changed[c.key] = true; {
		case c.what == WentAway:
			gone = append(gone, f)
		case c.told:
			found = append(found, f)
		}
	}
	if all {
		for i := range list {
			if j := &list[i]; !changed[j.key] {
				found = append(found, findingOf(s.asset, j.key, j.subject, j.ecosystem, &j.Sighting, at))
			}
		}
		s.about.Told = at
	}
	if len(found) > 0 {
		if _, err := finding.ReportPartial(s.tx, FindingSource, scopeOf("", s.asset), found, at); err != nil {
			return err
		}
	}
	if len(gone) > 0 {
		if _, err := finding.Resolve(s.tx, FindingSource, scopeOf("", s.asset), gone, "a scan no longer found it", at); err != nil {
			return err
		}
	}
	for i := range v.changed {
		c := &v.changed[i]
		if c.standing == resolved || c.disposition == undecided && c.was == undecided {
			continue
		}
		if err := s.tellDecision(c.record, v.decisions, at); err != nil {
			return err
		}
	}
	return nil
}

// tellDecision brings the finding of an item in line with what is decided about it.
func (s *shelf) tellDecision(r *record, d *decisions, at time.Time) error {
	i, err := r.item(s)
	if err != nil {
		return err
	}
	if err := d.note(&i); err != nil {
		return err
	}
	f := findingOf(s.asset, r.key, r.Subject, r.Ecosystem, &i.Sighting, at)
	f.Source = FindingSource
	id := f.Fingerprint().String()
	now, err := finding.Get(s.tx, id, at)
	if errors.Is(err, finding.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	ours := strings.HasPrefix(now.Reason, decidedHere)
	if i.State == Open {
		if now.State != finding.Waived || !ours {
			return nil
		}
		_, err := finding.Reopen(s.tx, id, finding.Decision{Who: FindingSource, Reason: "no waiver and no VEX statement covers it any more", At: at})
		return err
	}
	if now.State == finding.Resolved || now.State == finding.Waived && !ours {
		return nil
	}
	// A statement has no end; it holds until its document is removed.
	decision, owner, until := finding.Decision{Who: FindingSource, At: at}, "", time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	switch {
	case i.State == Waived && i.Waiver != nil:
		owner, until = i.Waiver.Owner, i.Waiver.Until
		decision.Reason = decidedHere + "waiver " + i.Waiver.ID + ": " + i.Waiver.Reason
	case i.State == Expected:
		owner = FindingSource
		decision.Reason = decidedHere + "expected: " + i.Expected
	case i.VEX != nil:
		owner = i.VEX.Author
		decision.Reason = decidedHere + "VEX: " + strings.ReplaceAll(i.VEX.Status, "_", " ")
		for _, text := range []string{i.VEX.Justification, i.VEX.Impact} {
			if text != "" {
				decision.Reason += ": " + text
			}
		}
	default:
		return nil
	}
	decision.Reason = clip(decision.Reason, finding.MaxText)
	if now.State == finding.Waived && now.Reason == decision.Reason && now.WaivedUntil.Equal(until) && now.Owner == owner {
		return nil
	}
	_, err = finding.Waive(s.tx, id, decision, owner, until)
	return err
}

// subjectOf is what a finding about an item is about.
func subjectOf(asset string, key Key, subject, ecosystem string, s *Sighting) string {
	text := asset + ": " + subject
	switch {
	case s.Class == Secret: // several of one rule can be in one file
		text += " #" + key.Short()[:6]
	case s.Class == Misconfiguration && s.Resource != "":
		text += ": " + s.Resource
	case ecosystem != "":
		text += " (" + ecosystem + ")"
	}
	return text
}

// ruleOf is the rule of a finding about an item: the id of the vulnerability, the
// rule, the check or the licence.
func ruleOf(s *Sighting) string {
	rule := s.ID
	if s.Class == License {
		rule = "license " + s.ID
	}
	if len(rule) > finding.MaxName {
		sum := blake3.Sum256([]byte(rule))
		rule = clip(rule, finding.MaxName-20) + "…" + hex.EncodeToString(sum[:8])
	}
	return rule
}

// findingOf makes the finding about an item. Its evidence changes only when there
// is news about the item: another installed version that is as vulnerable is none,
// so it stands in the remediation, and EPSS, which is computed anew every day, is
// told in bands. Otherwise everything that somebody acknowledged would be open
// again each morning.
func findingOf(asset string, key Key, subject, ecosystem string, s *Sighting, at time.Time) finding.Finding {
	f := finding.Finding{
		Rule: ruleOf(s), Severity: s.Severity.Finding(), Subject: subjectOf(asset, key, subject, ecosystem, s),
		Evidence: map[string]string{}, Tags: []string{string(s.Class)}, Observed: at,
	}
	evidence := func(name, value string) {
		if value != "" {
			f.Evidence[name] = value
		}
	}
	if s.Severity == Unknown {
		f.Tags = append(f.Tags, "severity-unknown")
	}
	if s.SeveritySource != "" {
		evidence("severity_source", s.SeveritySource)
	}
	if c := s.CVSS; c != nil {
		evidence("cvss", strings.TrimSpace(strconv.FormatFloat(c.Score, 'f', 1, 64)+" "+c.Source))
	}
	evidence("epss", s.EPSS.band())
	if k := s.KEV; k != nil {
		f.Tags = append(f.Tags, "kev")
		text := "known to be exploited since " + k.Added.Format(time.DateOnly)
		if !k.Due.IsZero() {
			text += ", due " + k.Due.Format(time.DateOnly)
		}
		if k.Ransomware {
			text += ", used by ransomware"
		}
		evidence("kev", text)
	}
	if s.URL != "" {
		f.References = append(f.References, s.URL)
	}
	for _, r := range s.References {
		if r != s.URL {
			f.References = append(f.References, r)
		}
	}
	title := s.Title
	if title == "" {
		title = s.Message
	}
	switch s.Class {
	case Vulnerability:
		f.Title = s.ID + " in " + subject
		if title != "" {
			f.Title += ": " + title
		}
		fix := strings.Join(s.Fixed, ", ")
		evidence("fixed", fix)
		evidence("path", shortList(s.Paths, s.MorePaths))
		installed := strings.Join(s.Installed, ", ")
		if fix == "" {
			f.Remediation = fmt.Sprintf("%s %s has no fixed version", s.Package, installed)
			if s.Status != "" {
				f.Remediation += " (" + strings.ReplaceAll(s.Status, "_", " ") + ")"
			}
		} else {
			f.Remediation = fmt.Sprintf("update %s from %s to %s", s.Package, installed, fix)
		}
	case Secret:
		f.Title = "secret in " + subject
		if title != "" {
			f.Title = title + " in " + subject
		}
		evidence("match", s.Match)
		f.Remediation = fmt.Sprintf("line %d: revoke it where it is valid, and take it out", s.StartLine)
	case Misconfiguration:
		f.Title = title
		evidence("message", s.Message)
		evidence("resource", s.Resource)
		f.Remediation = s.Resolution
	case License:
		f.Title = "licence " + s.ID + " of " + subject
		evidence("category", s.Category)
		evidence("message", s.Message)
		f.Remediation = s.Resolution
	}
	return f
}

// shortList writes a few of many.
func shortList(list []string, more int) string {
	const most = 8
	if len(list) > most {
		more += len(list) - most
		list = list[:most]
	}
	text := strings.Join(list, ", ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// band is the probability in steps in which it is news.
func (e *EPSS) band() string {
	switch {
	case e == nil:
		return ""
	case e.Score >= 0.5:
		return "0.5 or more"
	case e.Score >= 0.1:
		return "0.1 to 0.5"
	case e.Score >= 0.01:
		return "0.01 to 0.1"
	}
	return "less than 0.01"
}

// Settle brings items of an asset, and their findings, in line with the waivers and
// documents of now, without a scan. It returns how many it changed. Whoever adds or
// removes one calls it for each asset, in a transaction of its own.
func (l Ledger) Settle(tx *state.Tx, asset string, now time.Time) (int, error) {
	s, err := find(tx, asset)
	if err != nil {
		return 0, err
	}
	if now = storable(now); now.Before(s.about.Latest) {
		now = s.about.Latest
	}
	d, err := loadDecisions(tx, s, now)
	if err != nil {
		return 0, err
	}
	var changed []*record
	var count tally
	err = s.items.ForEach(func(k, v []byte) error {
		h, err := readHeader(k, v)
		if err != nil || h.standing == resolved {
			return err
		}
		if d.none() && h.disposition == undecided {
			count.add(h.class, h.severity, h.standing, h.disposition)
			return nil
		}
		r, err := readRecord(k, v)
		if err != nil {
			return err
		}
		last, err := r.last()
		if err != nil {
			return err
		}
		verdict, err := d.decide(r.Subject, last, true)
		if err != nil {
			return err
		}
		if r.disposition != verdict.disposition || r.decision != verdict.decision {
			r.dispose(verdict, now)
			changed = append(changed, r)
		}
		count.add(r.class, r.severity, r.standing, r.disposition)
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, r := range changed {
		v, err := r.encode()
		if err != nil {
			return 0, err
		}
		if err := s.items.Put(r.key[:], v); err != nil {
			return 0, err
		}
		if err := s.tellDecision(r, d, now); err != nil {
			return 0, err
		}
	}
	s.about.Counts, s.about.Used = count.counts(), d.used
	return len(changed), s.save()
}
