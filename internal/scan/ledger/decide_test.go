package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vex"
	"github.com/mobileops/mobileops/internal/state"
)

// sudo is somebody who logged in and became root.
func sudo(name string, login int64) change.Identity {
	return change.Identity{Actor: audit.Actor{UID: 0, User: "root", LoginUID: login}, LoginUser: name}
}

var (
	alice = sudo("alice", 1001)
	bob   = sudo("bob", 1002)
)

func (m *memo) waive(p Pattern, now time.Time, length time.Duration) (w *Waiver) {
	m.Helper()
	m.update(func(tx *state.Tx) (err error) {
		w, err = m.l.Waive(tx, Waiver{Pattern: p, Owner: "carol", Reason: "the module is not loaded", Until: now.Add(length)}, alice, now)
		return err
	})
	return w
}

func (m *memo) settle(now time.Time) {
	m.Helper()
	m.update(func(tx *state.Tx) error { _, err := m.l.Settle(tx, host.ID, now); return err })
}

func (m *memo) waivers(now time.Time) (list []WaiverStatus) {
	m.Helper()
	m.view(func(tx *state.Tx) (err error) { list, err = m.l.Waivers(tx, now); return err })
	return list
}

// states lists ids with their states, and the states of their findings.
func (m *memo) states(now time.Time) string {
	m.Helper()
	findings := map[string]finding.State{}
	for _, r := range m.findings(now) {
		if r.Rule != OverdueRule && r.Rule != ExpiredRule && r.Rule != UnusedRule {
			findings[r.Rule] = r.State
		}
	}
	var out []string
	for _, i := range m.list(Filter{}, now) {
		out = append(out, fmt.Sprintf("%s %s/%s", i.ID, i.State, findings[i.ID]))
	}
	return strings.Join(out, ", ")
}

func TestAWaiverNeedsEverything(t *testing.T) {
	m := newMemo(t)
	good := Waiver{Pattern: Pattern{Item: "CVE-1"}, Owner: "carol", Reason: "because", Until: noon.Add(10 * day)}
	for _, c := range []struct {
		lacks string
		spoil func(w *Waiver)
	}{
		{"owner", func(w *Waiver) { w.Owner = " " }}, {"reason", func(w *Waiver) { w.Reason = "" }}, {"end", func(w *Waiver) { w.Until = time.Time{} }},
		{"in the past", func(w *Waiver) { w.Until = noon }}, {"longer than 366 days", func(w *Waiver) { w.Until = noon.Add(MaxWaiver + time.Second) }},
		{"bytes", func(w *Waiver) { w.Reason = strings.Repeat("x", MaxText+1) }}, {"everything", func(w *Waiver) { w.Item = "*" }},
		{"everything", func(w *Waiver) { w.Item, w.Path = "", "**/*" }}, {"printed", func(w *Waiver) { w.Item = "CVE\n" }},
		{"understood", func(w *Waiver) { w.Path = "[" }}, {"class", func(w *Waiver) { w.Class = "x" }}, {"severity", func(w *Waiver) { w.Severity = "low" }},
	} {
		w := good
		c.spoil(&w)
		if err := m.fails(func(tx *state.Tx) error { _, err := m.l.Waive(tx, w, alice, noon); return err }); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.lacks) {
			t.Errorf("without %s: %v", c.lacks, err)
		}
	}
	m.waive(good.Pattern, noon, day)
	if err := m.fails(func(tx *state.Tx) error { _, err := m.l.Waive(tx, good, alice, noon); return err }); failure.KindOf(err) != failure.Busy {
		t.Error(err)
	}
}

func TestWaivers(t *testing.T) {
	m := newMemo(t)
	secret := Sighting{Class: Secret, ID: "private-key", Paths: []string{"srv/test/fixtures/key.pem"}, Match: "****", Severity: High}
	items := []Sighting{vuln("CVE-1", "openssl", "1", "2", High), vuln("CVE-2", "libfoo", "1", "2", Low), vuln("CVE-3", "libbar", "1", "2", Critical), secret}
	m.scan(noon, items...)
	for _, c := range []struct {
		p    Pattern
		want string // ids that it accepts
	}{
		{Pattern{Item: "cve-1"}, "CVE-1"}, {Pattern{Item: "CVE-*"}, "CVE-1 CVE-2 CVE-3"}, {Pattern{Item: "CVE-*", Severity: High}, "CVE-1 CVE-2"},
		{Pattern{Package: "lib*"}, "CVE-2 CVE-3"}, {Pattern{Package: "lib*", Asset: "image:*"}, ""}, {Pattern{Package: "libfoo", Asset: "host:w*1"}, "CVE-2"},
		{Pattern{Path: "srv/test/**"}, "private-key"}, {Pattern{Path: "srv/*"}, ""}, {Pattern{Item: "private-key", Class: Vulnerability}, ""},
		{Pattern{Item: "CVE-9"}, ""},
	} {
		w := m.waive(c.p, noon, day)
		m.settle(noon)
		var got []string
		for _, i := range m.list(Filter{States: []State{Waived}}, noon) {
			got = append(got, i.ID)
			if i.Waiver == nil || i.Waiver.ID != w.ID || !strings.Contains(i.Why, "waived until 2026-03-02 by carol: the module is not loaded") {
				t.Errorf("%+v: %q", i.Waiver, i.Why)
			}
		}
		// By urgency, all of these are in the order of severity.
		want := strings.Fields(c.want)
		if len(got) != len(want) || strings.Join(sorted(got), " ") != c.want {
			t.Errorf("%s accepts %v, not %v", c.p.String(), got, want)
		}
		waivedFindings := 0
		for _, r := range m.findings(noon) {
			if r.State == finding.Waived && r.Owner == "carol" && r.WaivedUntil.Equal(noon.Add(day)) && strings.HasPrefix(r.Reason, "scan: waiver "+w.ID) {
				waivedFindings++
			}
		}
		if waivedFindings != len(want) {
			t.Errorf("%s: %d findings are waived, not %d", c.p.String(), waivedFindings, len(want))
		}
		m.update(func(tx *state.Tx) error { _, err := m.l.Unwaive(tx, w.ID, "enough", bob, noon); return err })
		m.settle(noon)
	}
	expect(t, "all open again", m.states(noon), "CVE-3 open/open, CVE-1 open/open, private-key open/open, CVE-2 open/open")
	list := m.waivers(noon)
	if len(list) != 10 || list[0].State != Removed || list[0].Removed.By.LoginUser != "bob" || list[0].Why != "enough" {
		t.Errorf("%+v", list)
	}
	if b, err := json.Marshal(list[0]); err != nil || !strings.Contains(string(b), `"state":"removed"`) || !strings.Contains(string(b), `"id":"W-`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestAWaiverEnds(t *testing.T) {
	m := newMemo(t)
	items := []Sighting{vuln("CVE-1", "openssl", "1", "2", High)}
	m.scan(noon, items...)
	m.waive(Pattern{Item: "CVE-1"}, noon, 10*day)
	unused := m.waive(Pattern{Item: "CVE-404"}, noon, 300*day)
	elsewhere := m.waive(Pattern{Item: "CVE-404", Asset: "image:*"}, noon, 300*day)
	m.scan(noon.Add(day), items...)
	expect(t, "waived", m.states(noon.Add(2*day)), "CVE-1 waived/waived")
	if c := m.scan(noon.Add(3*day), items...); c.Counts.Waived != 1 || c.Counts.Total() != 0 {
		t.Errorf("%+v", c.Counts)
	}
	last := noon.Add(10*day - time.Microsecond)
	expect(t, "until its end", m.states(last), "CVE-1 waived/waived")
	expect(t, "at its end", m.states(noon.Add(10*day)), "CVE-1 open/open")
	report := func(now time.Time) {
		m.update(func(tx *state.Tx) error {
			_, err := m.l.ReportWaivers(tx, now)
			if err == nil {
				_, err = m.l.Report(tx, host.ID, now)
			}
			return err
		})
	}
	report(noon.Add(4 * day))
	got := map[string]finding.Severity{}
	for _, r := range m.findings(noon.Add(4 * day)) {
		if r.State == finding.Open {
			got[r.Rule+" "+r.Subject] = r.Severity
		}
	}
	expect(t, "findings", got, map[string]finding.Severity{UnusedRule + " " + unused.ID + ": CVE-404": finding.Low})
	for _, w := range m.waivers(noon.Add(4 * day)) {
		if w.Unused != (w.ID == unused.ID) || (w.Matches == 1) != (w.Item == "CVE-1") || w.ID == elsewhere.ID && w.Unused {
			t.Errorf("%+v", w)
		}
	}
	m.scan(noon.Add(40*day), items...)
	report(noon.Add(40 * day))
	got = map[string]finding.Severity{}
	for _, r := range m.findings(noon.Add(40 * day)) {
		if r.State == finding.Open {
			got[r.Rule] = r.Severity
		}
	}
	expect(t, "findings after its end", got, map[string]finding.Severity{"CVE-1": finding.High, OverdueRule: finding.High, ExpiredRule: finding.Medium, UnusedRule: finding.Low})
}

// TestTwoPeople is a policy that wants approval.
func TestTwoPeople(t *testing.T) {
	m := newMemo(t)
	m.l.Policy.Approval = true
	m.scan(noon, vuln("CVE-1", "a", "1", "", High))
	w := m.waive(Pattern{Item: "CVE-1"}, noon, 10*day)
	m.settle(noon)
	expect(t, "it waits", m.states(noon), "CVE-1 open/open")
	approve := func(by change.Identity, now time.Time) error {
		return m.fails(func(tx *state.Tx) error { _, err := m.l.Approve(tx, w.ID, by, nil, now); return err })
	}
	if err := approve(alice, noon); !errors.Is(err, change.ErrSamePerson) {
		t.Error(err)
	}
	if err := approve(sudo("carol", 1003), noon); !errors.Is(err, change.ErrSamePerson) {
		t.Errorf("the owner: %v", err)
	}
	if err := approve(change.Identity{Actor: audit.Actor{UID: 0, User: "root", LoginUID: -1}}, noon); !errors.Is(err, change.ErrUntold) {
		t.Error(err)
	}
	if err := approve(bob, noon.Add(10*day)); failure.KindOf(err) != failure.Busy {
		t.Errorf("after its end: %v", err)
	}
	if err := approve(bob, noon); err != nil {
		t.Fatal(err)
	}
	m.settle(noon)
	expect(t, "approved", m.states(noon), "CVE-1 waived/waived")
	if err := m.fails(func(tx *state.Tx) error { _, err := m.l.Approve(tx, "W-0", bob, nil, noon); return err }); !errors.Is(err, ErrNoWaiver) {
		t.Error(err)
	}
}

func TestWhatAPersonDecidedAboutAFindingStays(t *testing.T) {
	m := newMemo(t)
	item := vuln("CVE-1", "a", "1", "", High)
	m.scan(noon, item)
	m.update(func(tx *state.Tx) error {
		list, err := finding.List(tx, finding.Filter{}, noon)
		if err == nil {
			_, err = finding.Waive(tx, list[0].ID(), finding.Decision{Who: "dave", Reason: "mine", At: noon}, "dave", noon.Add(100*day))
		}
		return err
	})
	w := m.waive(Pattern{Item: "CVE-1"}, noon, day)
	m.settle(noon)
	m.update(func(tx *state.Tx) error { _, err := m.l.Unwaive(tx, w.ID, "enough", bob, noon); return err })
	m.settle(noon)
	for _, r := range m.findings(noon) {
		if r.State != finding.Waived || r.Owner != "dave" {
			t.Errorf("%+v", r)
		}
	}
}

func statementsFor(statements string) []byte {
	return fmt.Appendf(nil, `{"@context":"https://openvex.dev/ns/v0.2.0","@id":"https://example.com/vex/1","author":"Upstream","timestamp":"2026-02-01T00:00:00Z","version":1,"statements":[%s]}`, statements)
}

func TestStatementsOfOthers(t *testing.T) {
	m := newMemo(t)
	one, two, three := vuln("CVE-1", "openssl", "1", "2", High), vuln("CVE-2", "zlib", "1", "2", High), vuln("CVE-3", "perl", "1", "2", High)
	one.Aliases = []string{"DSA-1-1"}
	m.scan(noon, one, two, three)
	data := statementsFor(`
		{"vulnerability":{"name":"DSA-1-1"},"products":[{"@id":"pkg:deb/debian/openssl"}],"status":"not_affected","justification":"vulnerable_code_not_present"},
		{"vulnerability":{"name":"cve-2"},"products":[{"@id":"urn:mobileops:asset:host:web1","subcomponents":[{"@id":"pkg:deb/debian/zlib@1"}]}],"status":"fixed"},
		{"vulnerability":{"name":"CVE-3"},"products":[{"@id":"pkg:deb/debian/perl@0"}],"status":"not_affected","impact_statement":"no"}`)
	var doc *VEXDocument
	imp := func(data []byte) error {
		return m.fails(func(tx *state.Tx) (err error) { doc, err = m.l.ImportVEX(tx, data, alice, noon); return err })
	}
	if err := imp(data); err != nil {
		t.Fatal(err)
	}
	first := *doc
	m.settle(noon)
	expect(t, "states", m.states(noon), "CVE-3 open/open, CVE-1 not-affected/waived, CVE-2 fixed/waived")
	if i := m.one("CVE-1", noon); i.VEX == nil || i.VEX.Justification != "vulnerable_code_not_present" || i.VEX.Author != "Upstream" || i.Why == "" {
		t.Errorf("%+v", i.VEX)
	}
	if err := imp(data); failure.KindOf(err) != failure.Busy {
		t.Errorf("the same again: %v", err)
	}
	if err := imp([]byte(`{}`)); failure.KindOf(err) != failure.Untrustworthy {
		t.Error(err)
	}
	// An upgrade makes it another package than the statement is about: not here, it has no version.
	one.Installed, one.PURL = []string{"1.1"}, "pkg:deb/debian/openssl@1.1?arch=amd64"
	two.Installed, two.PURL = []string{"1.1"}, "pkg:deb/debian/zlib@1.1?arch=amd64"
	c := m.scan(noon.Add(day), one, two, three)
	expect(t, "changes", brief(c), "new[] reopened[] resolved[] fixable[] still 3 unseen 0")
	expect(t, "after the upgrade", m.states(noon.Add(day)), "CVE-3 open/open, CVE-2 open/open, CVE-1 not-affected/waived")
	// A newer version replaces it.
	newer := strings.Replace(string(data), `"version":1`, `"version":2`, 1)
	newer = strings.Replace(newer, "DSA-1-1", "CVE-9", 1)
	if err := imp([]byte(newer)); err != nil {
		t.Fatal(err)
	}
	m.settle(noon.Add(day))
	expect(t, "replaced", m.states(noon.Add(day)), "CVE-1 open/open, CVE-3 open/open, CVE-2 open/open")
	if err := imp(data); failure.KindOf(err) != failure.Busy {
		t.Errorf("an older version: %v", err)
	}
	m.view(func(tx *state.Tx) error {
		list, err := m.l.ListVEX(tx)
		if len(list) != 1 || list[0].Revision != 2 || list[0].Statements != 3 || list[0].Imported.By.LoginUser != "alice" || list[0].Digest == first.Digest {
			t.Errorf("%+v", list)
		}
		return err
	})
	m.update(func(tx *state.Tx) error { _, err := m.l.RemoveVEX(tx, "https://example.com/vex/1"); return err })
	if err := m.fails(func(tx *state.Tx) error { _, err := m.l.RemoveVEX(tx, first.Digest); return err }); !errors.Is(err, ErrNoDocument) {
		t.Error(err)
	}
	m.view(func(tx *state.Tx) error {
		if n := tx.Bucket([]byte(bucketName)).Bucket([]byte(statementBucket)).Stats().KeyN; n != 0 {
			t.Errorf("%d statements are left", n)
		}
		return nil
	})
}

func TestStatementsOfTimesToComeAreRefused(t *testing.T) {
	m := newMemo(t)
	for at, refused := range map[time.Time]bool{noon: false, noon.Add(23 * time.Hour): false, noon.Add(25 * time.Hour): true, noon.AddDate(7000, 0, 0): true} {
		for _, data := range [][]byte{
			statementsFor(`{"vulnerability":{"name":"CVE-1"},"timestamp":"` + at.Format(time.RFC3339) + `","products":[{"@id":"pkg:deb/debian/openssl"}],"status":"affected"}`),
			bytes.Replace(statementsFor(`{"vulnerability":{"name":"CVE-1"},"products":[{"@id":"pkg:deb/debian/openssl"}],"status":"affected"}`), []byte("2026-02-01T00:00:00Z"), []byte(at.Format(time.RFC3339)), 1),
		} {
			err := m.fails(func(tx *state.Tx) error {
				d, err := m.l.ImportVEX(tx, data, alice, noon)
				if err == nil {
					_, err = m.l.RemoveVEX(tx, d.ID)
				}
				return err
			})
			if (failure.KindOf(err) == failure.Untrustworthy) != refused || (err == nil) == refused {
				t.Errorf("of %s: %v", at, err)
			}
		}
	}
}

func TestExport(t *testing.T) {
	m := newMemo(t)
	open, fix, waive, gone, excluded := vuln("CVE-1", "a", "1", "", High), vuln("CVE-2", "b", "1", "2", High), vuln("CVE-3", "c", "1", "", High), vuln("CVE-4", "d", "1", "2", High), vuln("CVE-5", "e", "1", "", High)
	went := vuln("CVE-6", "f", "1", "", High) // nobody knows a version that is fixed
	m.update(func(tx *state.Tx) error {
		_, err := m.l.ImportVEX(tx, statementsFor(`{"vulnerability":{"name":"CVE-5"},"products":[{"@id":"pkg:deb/debian/e"}],"status":"not_affected","impact_statement":"never called"}`), alice, noon)
		return err
	})
	m.waive(Pattern{Item: "CVE-3"}, noon, 10*day)
	export := func() []byte {
		var b []byte
		m.view(func(tx *state.Tx) (err error) {
			b, err = m.l.ExportVEX(tx, host.ID, "Operations", "mobileops", noon.Add(2*day))
			return err
		})
		return b
	}
	m.observe(Observation{Asset: host, At: noon, Scanners: protocol.Scanners(), Complete: true, Items: []Sighting{open, fix, waive, gone, excluded, went}})
	m.scan(noon.Add(day), open, fix, waive, excluded)
	b := export()
	if string(b) != string(export()) {
		t.Error("the same ledger became another document")
	}
	doc, err := vex.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range doc.Statements {
		got = append(got, fmt.Sprintf("%s %s %s%s %s", s.Vulnerability.Name, s.Status, s.ActionStatement, s.ImpactStatement, s.Products[0].Subcomponents[0].ID))
	}
	expect(t, "statements", strings.Join(got, "\n"), strings.Join([]string{
		"CVE-1 under_investigation  pkg:deb/debian/a@1?arch=amd64",
		"CVE-2 affected update b from 1 to 2 pkg:deb/debian/b@1?arch=amd64",
		"CVE-3 affected accepted until 2026-03-11 on the responsibility of carol: the module is not loaded pkg:deb/debian/c@1?arch=amd64",
		"CVE-4 fixed  pkg:deb/debian/d@2",
		"CVE-5 not_affected never called pkg:deb/debian/e@1?arch=amd64",
	}, "\n"))
	if doc.Statements[0].Products[0].ID != "urn:mobileops:asset:host:web1" || !strings.HasPrefix(doc.ID, vex.IDPrefix) {
		t.Errorf("%+v", doc)
	}
	if err := m.store.View(context.Background(), func(tx *state.Tx) error { _, err := m.l.ExportVEX(tx, "host:none", "x", "", noon); return err }); !errors.Is(err, ErrNoAsset) {
		t.Error(err)
	}
}
