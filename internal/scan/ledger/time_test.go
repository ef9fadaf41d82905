package ledger

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/state"
)

func TestTheOrderOfUrgency(t *testing.T) {
	date := func(d int) time.Time { return noon.Truncate(day).Add(time.Duration(d) * day) }
	item := func(id string, s Severity, cvss, epss float64, k *KEV) Item {
		i := Item{Sighting: Sighting{Class: Vulnerability, ID: id, Severity: s, KEV: k}, Subject: id, State: Open}
		if cvss > 0 {
			i.CVSS = &CVSS{Score: cvss, Source: "nvd"}
		}
		if epss > 0 {
			i.EPSS = &EPSS{Score: epss, Percentile: epss}
		}
		return i
	}
	leak := item("leaked-key", Critical, 0, 0, nil)
	leak.Class = Secret
	resolvedKEV := item("resolved", Critical, 10, 1, &KEV{Added: date(-9), Due: date(-5)})
	resolvedKEV.State = Resolved
	want := []Item{
		item("kev-passed", Low, 2, 0, &KEV{Added: date(-30), Due: date(-1)}),
		item("kev-today", Low, 2, 0.99, &KEV{Added: date(-30), Due: date(0), Ransomware: true}),
		item("kev-later", Critical, 10, 0.99, &KEV{Added: date(-30), Due: date(9)}),
		item("kev-undated", Critical, 10, 0.99, &KEV{Added: date(-30)}),
		item("epss-high", Low, 2, 0.94, nil),
		item("epss-middle", Critical, 10, 0.31, nil),
		item("cvss-high", High, 9.8, 0.0004, nil), // 0.0004 and 0.0005 are both shown as 0.00
		item("cvss-high-medium", Medium, 9.8, 0.0049, nil),
		leak, // stands where 9.0 would
		item("no-epss", High, 8.1, 0, nil),
		item("cvss-low-epss", High, 8.0, 0.0005, nil),
		item("high-without-score", High, 0, 0, nil),
		item("unknown-without-score", Unknown, 0, 0, nil),
		item("medium", Medium, 5, 0, nil),
		resolvedKEV,
	}
	for range 50 {
		got := slices.Clone(want)
		rand.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		Sort(got, noon)
		for i := range got {
			if got[i].ID != want[i].ID {
				t.Fatalf("at %d is %s, not %s", i, got[i].ID, want[i].ID)
			}
		}
		want = got
	}
	why := map[string]string{}
	for _, i := range want {
		why[i.ID] = i.Why
	}
	for id, text := range map[string]string{
		"kev-passed":            "known to be exploited (CISA KEV since 2026-01-30, due 2026-02-28, which has passed); CVSS 2.0 (nvd)",
		"kev-today":             "known to be exploited (CISA KEV since 2026-01-30, due 2026-03-01, used by ransomware); EPSS 0.99 (99th percentile); CVSS 2.0 (nvd)",
		"unknown-without-score": "severity unknown, counted like high",
		"leaked-key":            "severity CRITICAL",
		"epss-middle":           "EPSS 0.31 (31st percentile); CVSS 10.0 (nvd)",
	} {
		expect(t, id, why[id], text)
	}
	for n, w := range map[int]string{1: "1st", 2: "2nd", 3: "3rd", 11: "11th", 12: "12th", 13: "13th", 21: "21st", 92: "92nd", 100: "100th"} {
		expect(t, "ordinal", ordinal(n), w)
	}
}

// TestTheOrderIsTotal compares random items: antisymmetric and transitive.
func TestTheOrderIsTotal(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func() *Item {
		i := &Item{State: States()[r.IntN(5)], Subject: fmt.Sprint(r.IntN(3))}
		i.Class, i.Severity, i.ID = Classes()[r.IntN(4)], Severities()[r.IntN(5)], fmt.Sprint(r.IntN(3))
		if r.IntN(2) == 0 {
			i.CVSS = &CVSS{Score: float64(r.IntN(5)) + 5}
		}
		if r.IntN(2) == 0 {
			i.EPSS = &EPSS{Score: float64(r.IntN(100)) / 2000}
		}
		if r.IntN(3) == 0 {
			i.KEV = &KEV{Added: noon}
			if r.IntN(2) == 0 {
				i.KEV.Due = noon.Add(time.Duration(r.IntN(3)) * day)
			}
		}
		i.Key[0] = byte(r.IntN(256))
		return i
	}
	for range 20_000 {
		a, b, c := random(), random(), random()
		if Compare(a, b) != -Compare(b, a) {
			t.Fatalf("%+v and %+v", a, b)
		}
		if Compare(a, b) <= 0 && Compare(b, c) <= 0 && Compare(a, c) > 0 {
			t.Fatalf("%+v, %+v and %+v", a, b, c)
		}
	}
}

func TestSeverities(t *testing.T) {
	for _, c := range []struct {
		s, floor Severity
		want     bool
	}{
		{Critical, High, true}, {High, High, true}, {Unknown, High, true}, {Medium, High, false}, {Unknown, Critical, false},
		{Unknown, Medium, true}, {Unknown, Low, true}, {Low, Medium, false}, {Medium, Unknown, false}, {Unknown, Unknown, true}, {High, Unknown, true},
	} {
		if got := c.s.AtLeast(c.floor); got != c.want {
			t.Errorf("%s at least %s: %v", c.s, c.floor, got)
		}
	}
	for i, s := range Severities() {
		if s.index() != i || s.Rank() != len(Severities())-i {
			t.Errorf("%s: %d", s, s.index())
		}
	}
	for i, s := range States() {
		expect(t, string(s), s.index(), i)
	}
	for i, c := range Classes() {
		expect(t, string(c), c.index(), i)
	}
	expect(t, "finding", []finding.Severity{Unknown.Finding(), Low.Finding(), Critical.Finding()}, "[high low critical]")
	if _, err := ParseSeverity("horrible"); err == nil {
		t.Error("no error")
	}
}

func TestDeadlines(t *testing.T) {
	m := newMemo(t)
	crit, nofix, low, unknown := vuln("CVE-1", "a", "1", "", Critical), vuln("CVE-2", "b", "1", "", High), vuln("CVE-3", "c", "1", "2", Low), vuln("CVE-4", "d", "1", "2", Unknown)
	kev := vuln("CVE-5", "e", "1", "", Medium)
	kev.KEV = &KEV{Added: noon.Truncate(day), Due: noon.Truncate(day).Add(5 * day)}
	secret := Sighting{Class: Secret, ID: "key", Paths: []string{"a"}, Severity: High}
	m.scan(noon, crit, nofix, low, unknown, kev, secret)
	crit.Fixed = []string{"2"}
	m.scan(noon.Add(10*day), crit, nofix, low, unknown, kev, secret)
	sla := func(now time.Time) (list []Deadline) {
		m.view(func(tx *state.Tx) (err error) { list, err = m.l.SLA(tx, Filter{}, now); return err })
		return list
	}
	show := func(now time.Time) string {
		var out []string
		for _, d := range sla(now) {
			text := d.ID + " " + string(d.DueState)
			if !d.Due.IsZero() {
				text += " " + d.Due.Format(time.DateOnly)
			}
			out = append(out, text)
		}
		return strings.Join(out, ", ")
	}
	expect(t, "by fix", show(noon.Add(10*day)), "CVE-5 overdue 2026-03-06, key due 2026-03-31, CVE-4 due 2026-03-31, CVE-1 due 2026-04-10, CVE-2 no-fix, CVE-3 never")
	expect(t, "within the day of KEV", show(noon.Add(5*day + 11*time.Hour))[:26], "CVE-5 due-soon 2026-03-06,")
	end := noon.Add(40 * day)
	expect(t, "at the moment", show(end), "CVE-5 overdue 2026-03-06, key overdue 2026-03-31, CVE-4 overdue 2026-03-31, CVE-1 due-soon 2026-04-10, CVE-2 no-fix, CVE-3 never")
	if after := show(end.Add(time.Microsecond)); !strings.Contains(after, "CVE-1 overdue 2026-04-10") {
		t.Errorf("after it: %s", after)
	}
	m.l.Policy.Basis, m.l.Policy.KEV = FromFirstSeen, false
	expect(t, "by first seen", show(noon.Add(10*day)), "CVE-1 due 2026-03-31, CVE-2 due 2026-03-31, key due 2026-03-31, CVE-4 due 2026-03-31, CVE-5 due 2026-05-30, CVE-3 never")
	m.l.Policy = defaultPolicy()

	overdue := func(now time.Time) (open []string) {
		m.update(func(tx *state.Tx) error { _, err := m.l.Report(tx, host.ID, now); return err })
		for _, r := range m.findings(now) {
			if r.Rule == OverdueRule && r.State == finding.Open {
				open = append(open, r.Subject)
			}
		}
		return sorted(open)
	}
	expect(t, "overdue", overdue(noon.Add(31*day)), "[CVE-4 host:web1: d (debian) CVE-5 host:web1: e (debian) key host:web1: a #"+m.one("key", noon).Key.Short()[:6]+"]")
	// The unknown one is late, the critical one in time, the secret is waived and late.
	m.waive(Pattern{Item: "key"}, noon.Add(31*day), 90*day)
	m.scan(noon.Add(32*day), crit, nofix, low, kev, secret)
	m.scan(noon.Add(35*day), nofix, low, kev)
	expect(t, "left", overdue(noon.Add(35*day)), "[CVE-5 host:web1: e (debian)]")
	all := Count(sla(noon.Add(35 * day)))
	b, _ := json.Marshal(all[len(all)-1])
	expect(t, "statistics", string(b), `{"in_time":1,"late":1,"under_waiver":1,"overdue":1,"pending":0,"no_fix":1,"waived":0,"not_affected":0,"percent_in_time":33.333333333333336,"mean_days":34,"max_days":35}`)
}

func TestDifferences(t *testing.T) {
	m := newMemo(t)
	a, b, c := vuln("CVE-1", "a", "1", "", High), vuln("CVE-2", "b", "1", "", High), vuln("CVE-3", "c", "1", "", High)
	at := func(n int) time.Time { return noon.Add(time.Duration(n) * day) }
	m.scan(at(0), a, b)
	fix := a
	fix.Fixed = []string{"2"}
	m.scan(at(1), fix, b, c)
	m.scan(at(2), fix, c)
	m.scan(at(3), fix, b, c)
	show := func(from, to time.Time) (out string) {
		m.view(func(tx *state.Tx) error {
			d, err := m.l.Diff(tx, host.ID, from, to)
			if err != nil {
				return err
			}
			out = brief(&Changes{New: d.Appeared, Resolved: d.Gone, Still: d.Same})
			for _, c := range d.Changed {
				out += fmt.Sprintf(" %s:%s", c.ID, c.Happened[0].What)
			}
			return nil
		})
		return strings.NewReplacer(" reopened[] ", " ", " fixable[]", "", " unseen 0", "").Replace(out)
	}
	expect(t, "before everything", show(at(-1), at(0)), "new[CVE-1,CVE-2] resolved[] still 0")
	expect(t, "0 to 1", show(at(0), at(1)), "new[CVE-3] resolved[] still 1 CVE-1:fix-available")
	expect(t, "1 to 2", show(at(1), at(2)), "new[] resolved[CVE-2] still 2")
	expect(t, "2 to 3", show(at(2), at(3)), "new[CVE-2] resolved[] still 2")
	expect(t, "1 to 3", show(at(1), at(3)), "new[] resolved[] still 2 CVE-2:resolved")
	expect(t, "nothing", show(at(3), at(9)), "new[] resolved[] still 3")
}

// TestFirstLook: what a scanner finds that never ran on an asset is no news, and from
// then on it is known. Another clock does not change that.
func TestFirstLook(t *testing.T) {
	m := newMemo(t)
	secret := func(path string) Sighting {
		return Sighting{Class: Secret, ID: "private-key", Paths: []string{path}, Severity: High}
	}
	scan := func(at time.Time, scanners []protocol.Scanner, items ...Sighting) *Changes {
		t.Helper()
		return m.observe(Observation{Asset: host, At: at, Scanners: scanners, Complete: true, Items: items})
	}
	show := func(c *Changes) string {
		return fmt.Sprint(c.FirstLook, " new ", len(c.New), " baseline ", len(c.Baseline), " still ", c.Still)
	}
	diff := func(from, to time.Time) (out string) {
		m.view(func(tx *state.Tx) error {
			d, err := m.l.Diff(tx, host.ID, from, to)
			if err == nil {
				out = fmt.Sprint("new ", len(d.Appeared), " baseline ", len(d.Baseline))
			}
			return err
		})
		return out
	}
	cve := vuln("CVE-1", "a", "1", "", High)
	first, both := []protocol.Scanner{protocol.Vulnerabilities}, []protocol.Scanner{protocol.Vulnerabilities, protocol.Secrets}
	hour := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Hour) }
	expect(t, "first scan", show(scan(hour(0), first, cve)), "[] new 1 baseline 0 still 0")
	expect(t, "with another scanner", show(scan(hour(1), both, cve, secret("a"), secret("b"), vuln("CVE-2", "b", "1", "", High))), "[secret] new 1 baseline 2 still 1")
	expect(t, "difference", diff(hour(0), hour(1)), "new 1 baseline 2")
	expect(t, "again", show(scan(hour(2), both, cve, secret("a"), secret("b"), secret("c"))), "[] new 1 baseline 0 still 3")
	expect(t, "difference to that", diff(hour(1), hour(2)), "new 1 baseline 0")
	expect(t, "difference to all", diff(hour(0), hour(2)), "new 1 baseline 2")
	scan(hour(3), both, cve, secret("b"))
	scan(hour(4), both, cve, secret("a"), secret("b"))
	expect(t, "what went and came back", diff(hour(3), hour(4)), "new 1 baseline 0")
	var sum int
	m.view(func(tx *state.Tx) error {
		list, err := scansOf(tx, host.ID)
		for _, s := range list {
			sum += s.New
		}
		return err
	})
	expect(t, "the trend counts all that came", fmt.Sprint(sum), "5")
}

// TestExpected: what a scan expects is there, counts for nothing, and is open as soon
// as it is not expected any more. A person's decision comes before it.
func TestExpected(t *testing.T) {
	m := newMemo(t)
	m.l.Policy = Policy{High: 30 * day}
	key := Sighting{Class: Secret, ID: "private-key", Paths: []string{"etc/ssh/ssh_host_rsa_key"}, Severity: High, Expected: "where it belongs"}
	at := func(n int) time.Time { return noon.Add(time.Duration(n) * day) }
	stands := func(when time.Time) string {
		t.Helper()
		i := m.one("private-key", when)
		d := m.l.Policy.of(i, when)
		found := ""
		m.view(func(tx *state.Tx) error {
			list, err := finding.List(tx, finding.Filter{Sources: []string{FindingSource}}, when)
			for _, r := range list {
				if r.Rule == "private-key" {
					found = fmt.Sprint(r.State, ": ", r.Reason)
				}
			}
			return err
		})
		return fmt.Sprint(i.State, ", ", d.DueState, ", finding ", found)
	}
	c := m.scan(at(0), key)
	expect(t, "counts", fmt.Sprint(c.Counts.Total(), c.Counts.Excluded), "0 1")
	expect(t, "expected", stands(at(0)), "expected, never, finding waived: scan: expected: where it belongs")
	m.scan(at(1), key)
	expect(t, "still", stands(at(60)), "expected, never, finding waived: scan: expected: where it belongs")
	open := key
	open.Expected = ""
	m.scan(at(61), open)
	expect(t, "not any more", stands(at(61)), "open, overdue, finding open: ")
	m.waive(Pattern{Item: "private-key"}, at(61), 90*day)
	m.scan(at(62), key)
	if got := stands(at(62)); !strings.HasPrefix(got, "waived, waived, finding waived: scan: waiver ") {
		t.Error("waived:", got)
	}
	items, err := Look(Observation{Asset: host, At: at(0), Scanners: protocol.Scanners(), Items: []Sighting{key}})
	if err != nil || items[0].State != Expected {
		t.Errorf("without a memory: %+v, %v", items, err)
	}
}

func TestTrend(t *testing.T) {
	m := newMemo(t)
	var items []Sighting
	for i := range 10 {
		items = append(items, vuln(fmt.Sprintf("CVE-%d", i), "a", "1", "", Severities()[i%5]))
	}
	for d := range 10 { // one less each day
		m.scan(noon.Add(time.Duration(d)*day), items[:10-d]...)
	}
	other := Observation{Asset: Asset{ID: "image:x"}, At: noon.Add(4*day + time.Hour), Scanners: protocol.Scanners()[:1], Complete: true, Items: items[:5]}
	m.observe(other)
	trend := func(asset string, since, now time.Time, step time.Duration) (list []Period) {
		m.view(func(tx *state.Tx) (err error) { list, err = m.l.Trend(tx, asset, since, now, step); return err })
		return list
	}
	show := func(list []Period) (out []string) {
		for _, p := range list {
			out = append(out, fmt.Sprintf("%d+%d-%d", p.Counts.Total(), p.New, p.Resolved))
		}
		return out
	}
	start := noon.Add(-time.Hour)
	expect(t, "one asset", show(trend(host.ID, start, start.Add(10*day), 2*day)), "[9+10-1 7+0-2 5+0-2 3+0-2 1+0-2]")
	expect(t, "all", show(trend("", start, start.Add(10*day), 5*day)), "[11+15-4 6+0-5]")
	expect(t, "later", show(trend(host.ID, noon.Add(20*day), noon.Add(22*day), day)), "[1+0-0 1+0-0]")
	p := trend(host.ID, start, start.Add(10*day), 10*day)
	if p[0].MeanResolve != 5*day || p[0].Scans != 10 || p[0].Counts.Open[Critical] != 1 {
		t.Errorf("%+v", p[0])
	}
	if b, err := json.Marshal(p[0]); err != nil || !strings.Contains(string(b), `"mean_days_to_resolve":5`) {
		t.Errorf("%s %v", b, err)
	}
}

// TestOldScansAreThinned keeps sums while summaries go.
func TestOldScansAreThinned(t *testing.T) {
	m := newMemo(t)
	item := vuln("CVE-1", "a", "1", "", High)
	at, back := noon, 0
	m.update(func(tx *state.Tx) error {
		for i := range 600 { // four a day, then one a day
			if i%2 == 0 {
				back++
			}
			o := Observation{Asset: host, At: at, Scanners: protocol.Scanners()[:1], Complete: true}
			if i%2 == 0 {
				o.Items = []Sighting{item}
			}
			if _, err := m.l.Observe(tx, o); err != nil {
				return err
			}
			if at = at.Add(6 * time.Hour); i > 200 {
				at = at.Add(18 * time.Hour)
			}
		}
		return nil
	})
	m.view(func(tx *state.Tx) error {
		runs, err := scansOf(tx, host.ID)
		if len(runs) < 50 || len(runs) > 200 {
			t.Errorf("%d summaries are left", len(runs))
		}
		sum := Scan{}
		for i := range runs {
			sum.absorb(&runs[i])
		}
		if sum.New+sum.Reopened != back || sum.Resolved != 300 || sum.Joined != 600 {
			t.Errorf("%+v, of %d", sum, back)
		}
		return err
	})
	if i := m.one("CVE-1", at); len(i.Events) > MaxEvents || i.Reopened != back-1 || i.State != Resolved {
		t.Errorf("%d events, reopened %d, %s", len(i.Events), i.Reopened, i.State)
	}
}

// TestAClockThatIsFarBehind: a host that does not know the time yet does not get to
// date anew what is known.
func TestAClockThatIsFarBehind(t *testing.T) {
	m := newMemo(t)
	cve := vuln("CVE-1", "a", "1", "2", High)
	m.scan(noon, cve)
	m.scan(noon.Add(30*day), cve)
	for _, at := range []time.Time{time.Unix(60, 0), noon.Add(22 * day)} {
		err := m.fails(func(tx *state.Tx) error {
			_, err := m.l.Observe(tx, Observation{Asset: host, At: at, Scanners: protocol.Scanners(), Complete: true, Items: []Sighting{cve}})
			return err
		})
		if failure.KindOf(err) != failure.NotReady {
			t.Errorf("at %s: %v", at, err)
		}
	}
	if i := m.one("CVE-1", noon.Add(30*day)); !i.FirstSeen.Equal(noon) || !i.FixSince.Equal(noon) {
		t.Errorf("first seen %s, fixed since %s", i.FirstSeen, i.FixSince)
	}
}

// TestAWaiverThatNothingLookedFor is not called unused.
func TestAWaiverThatNothingLookedFor(t *testing.T) {
	m := newMemo(t)
	m.waive(Pattern{Item: "private-key", Class: Secret}, noon, 90*day)
	m.observe(Observation{Asset: host, At: noon.Add(day), Scanners: []protocol.Scanner{protocol.Vulnerabilities}, Complete: true})
	m.view(func(tx *state.Tx) error {
		list, err := m.l.Waivers(tx, noon.Add(2*day))
		if len(list) != 1 || list[0].Unused {
			t.Errorf("%+v", list)
		}
		return err
	})
}
