package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/state"
)

// memo is a ledger in a store of its own.
type memo struct {
	*testing.T
	l     Ledger
	store *state.Store
}

func newMemo(t *testing.T) *memo {
	t.Helper()
	return &memo{t, Ledger{Policy: defaultPolicy()}, state.New(t.TempDir(), state.Options{})}
}

func (m *memo) update(fn func(tx *state.Tx) error) {
	m.Helper()
	if err := m.store.Update(context.Background(), fn); err != nil {
		m.Fatal(err)
	}
}

// fails runs fn in a transaction and returns its error.
func (m *memo) fails(fn func(tx *state.Tx) error) error {
	return m.store.Update(context.Background(), fn)
}

func (m *memo) view(fn func(tx *state.Tx) error) {
	m.Helper()
	if err := m.store.View(context.Background(), fn); err != nil {
		m.Fatal(err)
	}
}

// scan observes a complete scan of all classes that are in items, or of
// vulnerabilities.
func (m *memo) scan(at time.Time, items ...Sighting) *Changes {
	m.Helper()
	return m.observe(Observation{Asset: host, At: at, Scanners: protocol.Scanners(), Complete: true, Items: items})
}

func (m *memo) observe(o Observation) (c *Changes) {
	m.Helper()
	m.update(func(tx *state.Tx) (err error) { c, err = m.l.Observe(tx, o); return err })
	return c
}

func (m *memo) list(f Filter, now time.Time) (list []Item) {
	m.Helper()
	m.view(func(tx *state.Tx) (err error) { list, err = m.l.List(tx, f, now); return err })
	return list
}

// one returns the only item with an id.
func (m *memo) one(id string, now time.Time) Item {
	m.Helper()
	list := m.list(Filter{ID: id}, now)
	if len(list) != 1 {
		m.Fatalf("%d items of %s", len(list), id)
	}
	return list[0]
}

func (m *memo) findings(now time.Time) map[string]*finding.Record {
	m.Helper()
	out := map[string]*finding.Record{}
	m.view(func(tx *state.Tx) error {
		list, err := finding.List(tx, finding.Filter{Sources: []string{FindingSource}}, now)
		for _, r := range list {
			out[r.Rule+" "+r.Subject] = r
		}
		return err
	})
	return out
}

func vuln(id, pkg, version, fix string, s Severity) Sighting {
	v := Sighting{Class: Vulnerability, ID: id, Type: "debian", Package: pkg, Installed: []string{version}, Severity: s, PURL: "pkg:deb/debian/" + pkg + "@" + version + "?arch=amd64"}
	if fix != "" {
		v.Fixed = []string{fix}
	}
	return v
}

// brief says what an observation changed in a few words.
func brief(c *Changes) string {
	ids := func(list []Item) string {
		var out []string
		for _, i := range list {
			out = append(out, i.ID)
		}
		slices.Sort(out)
		return strings.Join(out, ",")
	}
	return fmt.Sprintf("new[%s] reopened[%s] resolved[%s] fixable[%s] still %d unseen %d", ids(c.New), ids(c.Reopened), ids(c.Resolved), ids(c.Fixable), c.Still, c.Unseen)
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

func TestTheLifeOfAnItem(t *testing.T) {
	m := newMemo(t)
	a, b := vuln("CVE-2026-1", "openssl", "3.0.1", "", High), vuln("CVE-2026-2", "zlib1g", "1.2", "1.3", Medium)
	at := func(days int) time.Time { return noon.Add(time.Duration(days) * day) }
	c := m.scan(at(0), a, b)
	expect(t, "first", brief(c), "new[CVE-2026-1,CVE-2026-2] reopened[] resolved[] fixable[] still 0 unseen 0")
	expect(t, "counts", c.Counts.Total(), 2)
	expect(t, "again", brief(m.scan(at(1), a, b)), "new[] reopened[] resolved[] fixable[] still 2 unseen 0")

	// A newer version that is as vulnerable, a fix, another severity, an exploit.
	a.Installed, a.PURL, a.Fixed, a.Severity = []string{"3.0.2"}, "pkg:deb/debian/openssl@3.0.2?arch=amd64", []string{"3.0.3"}, Critical
	a.KEV = &KEV{Added: at(2).Truncate(day), Due: at(9).Truncate(day)}
	expect(t, "fix", brief(m.scan(at(2), a, b)), "new[] reopened[] resolved[] fixable[CVE-2026-1] still 2 unseen 0")
	i := m.one("CVE-2026-1", at(2))
	if !i.FirstSeen.Equal(at(0)) || !i.FixSince.Equal(at(2)) || !i.LastSeen.Equal(at(2)) || i.State != Open || i.Installed[0] != "3.0.2" {
		t.Errorf("%+v", i)
	}
	var what []string
	for _, e := range i.Events {
		what = append(what, fmt.Sprintf("%s %s>%s", e.What, e.From, e.To))
	}
	expect(t, "events", what, "[severity HIGH>CRITICAL fix-available >3.0.3 kev-listed >2026-03-03 installed 3.0.1>3.0.2]")

	expect(t, "gone", brief(m.scan(at(3), b)), "new[] reopened[] resolved[CVE-2026-1] fixable[] still 1 unseen 0")
	i = m.one("CVE-2026-1", at(3))
	if i.State != Resolved || !i.ResolvedAt.Equal(at(3)) || !i.LastSeen.Equal(at(2)) || i.Outcome != InTime {
		t.Errorf("%+v", i)
	}
	if r := m.findings(at(3))["CVE-2026-1 host:web1: openssl (debian)"]; r == nil || r.State != finding.Resolved || r.Severity != finding.Critical {
		t.Errorf("%+v", r)
	}
	expect(t, "still gone", brief(m.scan(at(4), b)), "new[] reopened[] resolved[] fixable[] still 1 unseen 0")
	expect(t, "back", brief(m.scan(at(5), a, b)), "new[] reopened[CVE-2026-1] resolved[] fixable[] still 1 unseen 0")
	i = m.one("CVE-2026-1", at(5))
	if i.State != Open || i.Reopened != 1 || !i.ReopenedAt.Equal(at(5)) || !i.FirstSeen.Equal(at(0)) || !i.FixSince.Equal(at(2)) || !i.ResolvedAt.IsZero() || i.Outcome != "" {
		t.Errorf("%+v", i)
	}
	if r := m.findings(at(5))["CVE-2026-1 host:web1: openssl (debian)"]; r == nil || r.State != finding.Open || len(r.History) != 2 {
		t.Errorf("%+v", r)
	}
	m.update(func(tx *state.Tx) error { return m.l.Forget(tx, host.ID, at(6)) })
	for rule, r := range m.findings(at(6)) {
		if r.State != finding.Resolved {
			t.Errorf("after the asset was forgotten %s is %s", rule, r.State)
		}
	}
	if err := m.fails(func(tx *state.Tx) error { return m.l.Forget(tx, host.ID, at(6)) }); !errors.Is(err, ErrNoAsset) {
		t.Error(err)
	}
}

// TestADebianPointRelease is bookworm 12.5 becoming 12.6: new versions of
// everything, a kernel with another name, and the same vulnerabilities.
func TestADebianPointRelease(t *testing.T) {
	type pkg struct{ name, before, after string }
	packages := []pkg{
		{"libssl3", "3.0.11-1~deb12u2", "3.0.13-1~deb12u1"}, {"openssl", "3.0.11-1~deb12u2", "3.0.13-1~deb12u1"},
		{"libc6", "2.36-9+deb12u4", "2.36-9+deb12u7"}, {"libc-bin", "2.36-9+deb12u4", "2.36-9+deb12u7"},
		{"libsystemd0", "252.22-1~deb12u1", "252.26-1~deb12u2"}, {"systemd", "252.22-1~deb12u1", "252.26-1~deb12u2"},
		{"perl-base", "5.36.0-7+deb12u1", "5.36.0-7+deb12u1"}, {"linux-libc-dev", "6.1.76-1", "6.1.90-1"},
	}
	kernel := func(abi, version string) []pkg {
		var out []pkg
		for _, n := range []string{"linux-image-%s-amd64", "linux-headers-%s-amd64", "linux-headers-%s-common"} {
			out = append(out, pkg{fmt.Sprintf(n, abi), version, version})
		}
		return append(out, pkg{"linux-image-amd64", version, version}, pkg{"linux-kbuild-6.1", version, version})
	}
	scan := func(pick func(pkg) string, kernels ...[]pkg) (list []Sighting) {
		n := 0
		add := func(p pkg, version string) {
			for k := range 40 {
				list = append(list, vuln(fmt.Sprintf("CVE-2024-%d", 1000+100*n+k), p.name, version, "", Medium))
			}
			n++
		}
		for _, p := range packages {
			add(p, pick(p))
		}
		base := n
		for _, k := range kernels {
			n = base
			for _, p := range k {
				add(p, p.before)
			}
		}
		return list
	}
	m := newMemo(t)
	old, next := kernel("6.1.0-18", "6.1.76-1"), kernel("6.1.0-21", "6.1.90-1")
	first := m.scan(noon, scan(func(p pkg) string { return p.before }, old)...)
	acked := first.New[0]
	m.update(func(tx *state.Tx) error {
		f := findingOf(host.ID, acked.Key, acked.Subject, acked.Ecosystem, &acked.Sighting, noon)
		f.Source = FindingSource
		_, err := finding.Ack(tx, f.Fingerprint().String(), finding.Decision{Who: "alice", Reason: "we wait for Debian", At: noon})
		return err
	})
	// Both kernels are installed after the upgrade, and the old one goes later.
	for n, kernels := range [][][]pkg{{old, next}, {next}} {
		c := m.scan(noon.Add(time.Duration(n+1)*day), scan(func(p pkg) string { return p.after }, kernels...)...)
		if len(c.New)+len(c.Resolved)+len(c.Reopened) > 0 || c.Still != len(first.New) {
			t.Fatalf("scan %d: %s", n+2, brief(c))
		}
	}
	now := noon.Add(3 * day)
	if i := m.one("CVE-2024-1000", now); !slices.Equal(i.Installed, []string{"3.0.13-1~deb12u1"}) || !i.FirstSeen.Equal(noon) {
		t.Errorf("%+v", i)
	}
	open, acknowledged := 0, 0
	for _, r := range m.findings(now) {
		switch r.State {
		case finding.Open:
			open++
		case finding.Acknowledged:
			acknowledged++
			if !strings.Contains(r.Remediation, "deb12") {
				t.Errorf("%q", r.Remediation)
			}
		}
	}
	if acknowledged != 1 || open != len(first.New)-1 {
		t.Errorf("%d findings open, %d acknowledged, of %d", open, acknowledged, len(first.New))
	}
	m.view(func(tx *state.Tx) error {
		_, last, err := finding.LogRange(tx)
		if want := uint64(len(first.New) + 1); last != want {
			t.Errorf("%d events were told, not %d", last, want)
		}
		return err
	})
}

func TestStableNames(t *testing.T) {
	for name, want := range map[string]string{
		"linux-image-6.1.0-28-amd64": "linux-image-amd64", "linux-image-6.1.0-28-686-pae": "linux-image-686-pae",
		"linux-image-6.12.9+bpo-amd64": "linux-image-amd64", "linux-image-6.12.9+bpo-686": "linux-image-686",
		"linux-image-6.1.0-0.deb11.28-amd64": "linux-image-amd64", "linux-headers-6.1.0-28-common": "linux-headers-common",
		"linux-modules-extra-5.15.0-91-generic": "linux-modules-extra-generic", "linux-aws-headers-5.15.0-1051": "linux-aws-headers",
		"linux-compiler-gcc-12-x86": "linux-compiler-gcc-12-x86", "linux-libc-dev": "linux-libc-dev", "linux-kbuild-6.1": "linux-kbuild",
		"openssl": "openssl", "python3.11": "python3.11", "libssl1.1": "libssl1.1", "": "", "linux-": "linux-",
	} {
		expect(t, name, stableName(name), want)
	}
}

func TestWhatCouldNotBeSeenIsNotResolved(t *testing.T) {
	secret := func(path string) Sighting {
		return Sighting{Class: Secret, ID: "private-key", Paths: []string{path}, Match: "-----BEGIN ****", Severity: High}
	}
	npm := func(paths ...string) Sighting {
		return Sighting{Class: Vulnerability, ID: "CVE-2026-7", Type: "npm", Package: "lodash", Installed: []string{"4.0"}, Paths: paths, Severity: High}
	}
	os := vuln("CVE-2026-1", "openssl", "3", "", High)
	all := []Sighting{secret("srv/a/key.pem"), secret("srv/b/key.pem"), npm("srv/a/package-lock.json", "srv/b/package-lock.json"), os}
	vulns := protocol.Scanners()[:1]
	for _, c := range []struct {
		name  string
		o     Observation
		want  string
		paths string // of lodash afterwards; "": it is gone
	}{
		{"nothing seen, complete", Observation{Complete: true}, "resolved 4 unseen 0", ""},
		{"another scanner", Observation{Complete: true, Scanners: vulns}, "resolved 2 unseen 0", ""},
		{"failed somewhere", Observation{}, "resolved 0 unseen 4", "srv/a/package-lock.json srv/b/package-lock.json"},
		{"failed elsewhere", Observation{Unseen: Unseen{Paths: []string{"home/x/pom.xml"}}}, "resolved 4 unseen 0", ""},
		{"failed in a directory", Observation{Unseen: Unseen{Paths: []string{"/srv/a"}}}, "resolved 2 unseen 2", "srv/a/package-lock.json"},
		{"failed at the file", Observation{Unseen: Unseen{Paths: []string{"./srv/b/key.pem"}}}, "resolved 3 unseen 1", ""},
		{"failed at packages", Observation{Unseen: Unseen{Paths: []string{"var/lib/dpkg"}}}, "resolved 3 unseen 1", ""},
		{"an unknown system", Observation{Unseen: UnseenOf(nil, nil, []protocol.Problem{{Kind: protocol.Unknown, Detail: "debian 99"}})}, "resolved 0 unseen 4", "srv/a/package-lock.json srv/b/package-lock.json"},
		{"left out by directory", Observation{Complete: true, Unseen: Unseen{SkipDirs: []string{"**/b"}}}, "resolved 2 unseen 2", "srv/b/package-lock.json"},
		{"left out by file", Observation{Complete: true, Unseen: Unseen{SkipFiles: []string{"**/*.pem"}}}, "resolved 2 unseen 2", ""},
		{"left out everything", Observation{Complete: true, Unseen: Unseen{SkipDirs: []string{"var", "srv"}}}, "resolved 0 unseen 4", "srv/a/package-lock.json srv/b/package-lock.json"},
		{"left out by a pattern that is not clean", Observation{Complete: true, Unseen: Unseen{SkipDirs: []string{"srv//a/../b/", "././srv/a", "/var"}}}, "resolved 0 unseen 4", "srv/a/package-lock.json srv/b/package-lock.json"},
		{"left out by file, which it lies in", Observation{Complete: true, Unseen: Unseen{SkipFiles: []string{"srv/a"}}}, "resolved 2 unseen 2", "srv/a/package-lock.json"},
		{"a pattern that is none", Observation{Complete: true, Unseen: Unseen{SkipDirs: []string{"["}}}, "resolved 0 unseen 4", "srv/a/package-lock.json srv/b/package-lock.json"},
		{"lodash in one place", Observation{Complete: true, Items: []Sighting{npm("srv/a/package-lock.json")}}, "resolved 3 unseen 0", "srv/a/package-lock.json"},
		{"lodash in one place, the other failed", Observation{Items: []Sighting{npm("srv/a/package-lock.json")}, Unseen: Unseen{Paths: []string{"srv/b/package-lock.json"}}}, "resolved 3 unseen 0", "srv/a/package-lock.json srv/b/package-lock.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemo(t)
			m.scan(noon, all...)
			if c.o.Scanners == nil {
				c.o.Scanners = protocol.Scanners()
			}
			c.o.Asset, c.o.At = host, noon.Add(day)
			got := m.observe(c.o)
			expect(t, "changes", fmt.Sprintf("resolved %d unseen %d", len(got.Resolved), got.Unseen), c.want)
			lodash := m.one("CVE-2026-7", noon.Add(day))
			if (lodash.State == Resolved) != (c.paths == "") || c.paths != "" && strings.Join(lodash.Paths, " ") != c.paths {
				t.Errorf("lodash is %s in %v", lodash.State, lodash.Paths)
			}
			// What is unseen was last seen by the first scan, and a complete scan clears it up.
			for _, i := range m.list(Filter{States: []State{Open}}, noon.Add(day)) {
				if i.Unseen != i.LastSeen.Equal(noon) && i.Class != Secret || i.Unseen && c.name == "another scanner" {
					t.Errorf("%s: unseen %v, last seen %s", i.ID, i.Unseen, i.LastSeen)
				}
			}
			m.scan(noon.Add(2 * day))
			if left := m.list(Filter{States: []State{Open}}, noon.Add(2*day)); len(left) != 0 {
				t.Errorf("%d are left after a complete scan", len(left))
			}
			open := 0
			for _, r := range m.findings(noon.Add(2 * day)) {
				if r.State != finding.Resolved {
					open++
				}
			}
			expect(t, "findings left", open, 0)
		})
	}
}

func TestASecretSurvivesTheMovingOfLines(t *testing.T) {
	m := newMemo(t)
	s := func(line int, match string) Sighting {
		return Sighting{Class: Secret, ID: "aws-access-key-id", Paths: []string{"app/config.env"}, Match: match, StartLine: line, EndLine: line, Severity: Critical}
	}
	m.scan(noon, s(3, "KEY=****"), s(9, "KEY=****"), s(4, "OTHER=****"))
	c := m.scan(noon.Add(time.Hour), s(13, "KEY=****"), s(6, "KEY=****"), s(14, "OTHER=****"))
	expect(t, "moved", brief(c), "new[] reopened[] resolved[] fixable[] still 3 unseen 0")
	c = m.scan(noon.Add(2*time.Hour), s(13, "KEY=****"))
	expect(t, "one of them removed", brief(c), "new[] reopened[] resolved[aws-access-key-id,aws-access-key-id] fixable[] still 1 unseen 0")
	if n := len(m.findings(noon.Add(2 * time.Hour))); n != 3 {
		t.Errorf("%d findings", n)
	}
}

func TestSightingsAreJoined(t *testing.T) {
	m := newMemo(t)
	a := vuln("CVE-1", "foo", "1.0", "", Low)
	b := vuln("CVE-1", "foo", "2.0", "2.1", High)
	a.Paths, b.Paths = []string{"usr/bin/a"}, []string{"./usr/bin/b", "/usr/bin/a"}
	b.CVSS, a.EPSS = &CVSS{Score: 7, Source: "nvd"}, &EPSS{Score: 0.5}
	other := a
	other.Type = "npm"
	another := other
	another.Type, another.Paths = "yarn", []string{"yarn.lock"}
	c := m.scan(noon, a, b, other, another)
	if len(c.New) != 2 {
		t.Fatalf("%d", len(c.New))
	}
	i := m.list(Filter{ID: "CVE-1"}, noon)[0]
	got, _ := json.Marshal(i)
	for _, want := range []string{
		`"installed":["1.0","2.0"]`, `"fixed":["2.1"]`, `"paths":["usr/bin/a","usr/bin/b"]`, `"severity":"HIGH"`, `"score":7`, `"score":0.5`,
		`"first_seen":"2026-03-01T12:00:00Z"`, `"ecosystem":"debian"`, `"purl":"pkg:deb/debian/foo@1.0?arch=amd64"`, `"why":"EPSS 0.50; CVSS 7.0 (nvd)"`, `"state":"open"`,
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
	var back Item
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(back)
	expect(t, "JSON", string(again), string(got))
}

func TestWhatScansAreFedIsBounded(t *testing.T) {
	m := newMemo(t)
	long := strings.Repeat("ä\xff\x00", 50_000)
	s := vuln(long, long, long, long, Severity(long))
	s.Title, s.Match, s.Resource, s.URL = long, long, long, long
	for i := range 1000 {
		s.Paths = append(s.Paths, fmt.Sprint(i, long[:9000]))
		s.Aliases = append(s.Aliases, fmt.Sprint(i, long))
		s.References = append(s.References, fmt.Sprint(i, long))
	}
	s.CVSS, s.EPSS, s.KEV = &CVSS{Score: 11}, &EPSS{Score: -1}, &KEV{}
	for _, class := range Classes() {
		s.Class = class
		m.scan(noon.Add(time.Hour), s)
		i := m.list(Filter{Classes: []Class{class}, States: []State{Open}}, noon)
		if len(i) != 1 || i[0].Severity != Unknown || i[0].CVSS != nil || i[0].EPSS != nil || len(i[0].Paths) != MaxPaths || i[0].MorePaths != 1000-MaxPaths {
			t.Fatalf("%d of class %s", len(i), class)
		}
		if b, err := json.Marshal(i[0]); err != nil || len(b) > MaxRecord {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	}
	for _, bad := range []Observation{
		{}, {Asset: host}, {Asset: host, At: noon}, {Asset: Asset{ID: "a\nb"}, At: noon, Scanners: protocol.Scanners()},
		{Asset: host, At: noon, Scanners: protocol.Scanners(), Items: []Sighting{{}}},
		{Asset: host, At: noon, Scanners: protocol.Scanners(), Items: []Sighting{{Class: Secret}}},
		{Asset: host, At: noon, Scanners: protocol.Scanners()[:1], Items: []Sighting{{Class: Secret, ID: "x"}}},
		{Asset: host, At: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC), Scanners: protocol.Scanners()},
	} {
		if err := m.fails(func(tx *state.Tx) error { _, err := m.l.Observe(tx, bad); return err }); err == nil {
			t.Errorf("%+v was stored", bad)
		}
	}
	expect(t, "escaped", NewAsset(protocol.Filesystem, "fs", "/srv/\x1b[31m\xff").ID, `fs:/srv/\x1b[31m\xff`)
}

func TestAClockThatWasAhead(t *testing.T) {
	m := newMemo(t)
	a, b := vuln("CVE-1", "a", "1", "2", High), vuln("CVE-2", "b", "1", "", High)
	ahead := noon.Add(7 * day)
	m.scan(noon, b)
	m.scan(ahead, a)
	c := m.scan(noon.Add(day), a, b)
	expect(t, "changes", brief(c), "new[] reopened[CVE-2] resolved[] fixable[] still 1 unseen 0")
	i := m.one("CVE-1", noon.Add(day))
	if !i.FirstSeen.Equal(noon.Add(day)) || !i.FixSince.Equal(noon.Add(day)) {
		t.Errorf("%+v", i)
	}
	m.view(func(tx *state.Tx) error {
		runs, err := scansOf(tx, host.ID)
		if len(runs) != 2 || !runs[1].At.Equal(noon.Add(day)) {
			t.Errorf("%+v", runs)
		}
		return err
	})
}

// TestScansThatOverlap are two of one asset, of which the one that began later is
// done earlier.
func TestScansThatOverlap(t *testing.T) {
	m := newMemo(t)
	a, b := vuln("CVE-1", "a", "1", "2", High), vuln("CVE-2", "b", "1", "", High)
	m.scan(noon.Add(time.Hour), a)
	c := m.scan(noon, a, b)
	expect(t, "changes", brief(c), "new[CVE-2] reopened[] resolved[] fixable[] still 1 unseen 0")
	if i := m.one("CVE-1", noon); !i.FirstSeen.Equal(noon.Add(time.Hour)) || !c.At.Equal(noon.Add(time.Hour)) {
		t.Errorf("%+v", i)
	}
	m.view(func(tx *state.Tx) error {
		runs, err := scansOf(tx, host.ID)
		if len(runs) != 1 || runs[0].New != 2 || runs[0].Joined != 1 {
			t.Errorf("%+v", runs)
		}
		return err
	})
}

// scansOf returns the summaries of the scans of an asset that are kept, the oldest
// first.
func scansOf(tx *state.Tx, asset string) ([]Scan, error) {
	s, err := find(tx, asset)
	if err != nil {
		return nil, err
	}
	list, err := s.scans()
	slices.SortFunc(list, func(a, b Scan) int { return a.At.Compare(b.At) })
	return list, err
}

// defaultPolicy is that of the security standards: critical and high within thirty
// days of the fix.
func defaultPolicy() Policy {
	return Policy{Basis: FromFix, Critical: 30 * day, High: 30 * day, Medium: 90 * day, KEV: true, Soon: 7 * day}
}
