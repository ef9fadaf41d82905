//go:build goexperiment.jsonv2

package build

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy-db/pkg/types"
	"github.com/aquasecurity/trivy/pkg/detector/library"
	"github.com/aquasecurity/trivy/pkg/detector/ospkg/debian"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/mobileops/mobileops/internal/scan/vulndb/source"
	"github.com/mobileops/mobileops/internal/state"
	bolt "go.etcd.io/bbolt"
)

// tree writes files beneath a directory, and returns the path of one of them or "".
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// osvDocument is a document of OSV about one package.
func osvDocument(id, alias, ecosystem, name, events, versions, more string) string {
	return fmt.Sprintf(`{"id":%q,"modified":"2026-05-01T10:00:00Z","published":"2024-01-01T00:00:00Z","aliases":[%q],"summary":"about %s","details":"details of %s","affected":[{"package":{"ecosystem":%q,"name":%q},"ranges":[{"type":"ECOSYSTEM","events":%s}],"versions":%s}]%s}`,
		id, alias, name, name, ecosystem, name, events, versions, more)
}

func sources(t *testing.T) []protocol.Source {
	t.Helper()
	const high = `,"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]`
	osv := tree(t, map[string]string{
		"npm/GHSA-1.json":      osvDocument("GHSA-1", "CVE-2021-23337", "npm", "lodash", `[{"introduced":"0"},{"fixed":"4.17.21"}]`, `[]`, `,"database_specific":{"severity":"MODERATE","cwe_ids":["CWE-77"]}`),
		"pypi/PYSEC-1.json":    osvDocument("PYSEC-2023-1", "CVE-2023-30861", "PyPI", "Flask_X", `[{"introduced":"0"},{"fixed":"2.2.5"},{"introduced":"2.3.0"},{"fixed":"2.3.2"}]`, `["0.1","2.2.4","3.0.0"]`, high),
		"go/GHSA-2.json":       osvDocument("GHSA-2", "CVE-2024-9999", "Go", "github.com/Some/module", `[{"introduced":"0"},{"last_affected":"1.4.0"}]`, `[]`, ""),
		"maven/GHSA-3.json":    osvDocument("GHSA-3", "CVE-2021-44228", "Maven", "org.apache.logging.log4j:log4j-core", `[{"fixed":"2.15.0"},{"introduced":"2.13.0"},{"introduced":"2.0.0"},{"fixed":"2.12.2"}]`, `[]`, ""),
		"crates/RUSTSEC.json":  osvDocument("RUSTSEC-2024-1", "CVE-2024-8888", "crates.io", "tokio", `[{"introduced":"0.0.0-0"},{"fixed":"1.8.4"}]`, `[]`, ""),
		"rubygems/GHSA-4.json": osvDocument("GHSA-4", "CVE-2024-7777", "RubyGems", "rack", `[{"introduced":"0"},{"fixed":"2.2.8"}]`, `[]`, ""),
		"mal/MAL-1.json":       osvDocument("MAL-2024-1", "x", "npm", "evil", `[{"introduced":"0"}]`, `[]`, ""),
		"bad/cut.json":         `{"id":"GHSA-9","modified":`,
		"bad/withdrawn.json":   osvDocument("GHSA-8", "CVE-2024-6666", "npm", "lodash", `[{"introduced":"0"}]`, `[]`, `,"withdrawn":"2025-01-01T00:00:00Z"`),
		"bad/rejected.json":    strings.Replace(osvDocument("GHSA-7", "CVE-2024-5555", "npm", "lodash", `[{"introduced":"0"}]`, `[]`, ""), "details of lodash", "Rejected reason: a mistake", 1),
		"debian/DSA.json":      osvDocument("DSA-5532-1", "CVE-2023-5363", "Debian:12", "openssl", `[{"introduced":"0"},{"fixed":"3.0.11-1~deb12u2"}]`, `[]`, ""),
	})
	govuln := tree(t, map[string]string{"ID/GO-2024-2687.json": `{"id":"GO-2024-2687","modified":"2026-05-02T10:00:00Z","aliases":["CVE-2023-45288"],"details":"flood","affected":[{"package":{"name":"stdlib","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.21.9"},{"introduced":"1.22.0-0"},{"fixed":"1.22.2"}]}]},{"package":{"name":"golang.org/x/net","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"0.23.0"}]}]}],"database_specific":{"url":"https://pkg.go.dev/vuln/GO-2024-2687"}}`})
	tracker := filepath.Join(tree(t, map[string]string{"tracker.json": `{"openssl":{"CVE-2023-5363":{"description":"keys","releases":{"bookworm":{"status":"resolved","fixed_version":"3.0.11-1~deb12u1","urgency":"low"},"bullseye":{"status":"resolved","fixed_version":"0","urgency":"low"}}},
		"CVE-2024-0001":{"description":"open","releases":{"bookworm":{"status":"open","urgency":"not yet assigned","nodsa":"Minor","nodsa_reason":"ignored"}}}}}`}), "tracker.json")
	old := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	if err := os.Chtimes(tracker, old, old); err != nil {
		t.Fatal(err)
	}
	node := tree(t, map[string]string{"vuln/npm/77.json": `{"id":77,"updated_at":"2018-02-01T00:00:00.000Z","title":"Denial of Service","module_name":"hawk","cves":[],"vulnerable_versions":"< 3.1.3 || >= 4.0.0 <4.1.1","patched_versions":">=3.1.3 < 4.0.0 || >=4.1.1","cvss_score":5.3}`})
	return []protocol.Source{{Format: protocol.OSV, Path: osv}, {Format: protocol.GoVulndb, Path: govuln}, {Format: protocol.DebianTracker, Path: tracker}, {Format: protocol.NodeAdvisory, Path: node}}
}

func built(t *testing.T, list []protocol.Source) (string, *protocol.BuildReport) {
	t.Helper()
	out := t.TempDir()
	report, err := Build(t.Context(), &protocol.Build{Sources: list, Output: out, Temp: t.TempDir()}, func(protocol.Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	return out, report
}

// TestBuild has Trivy's own detectors look into a database that was built.
func TestBuild(t *testing.T) {
	list := sources(t)
	out, report := built(t, list)
	if report.Skipped["withdrawn"] != 1 || report.Skipped["rejected"] != 1 || report.Skipped["malformed"] != 1 || len(report.Problems) != 1 || report.Problems[0].Path != "bad/cut.json" ||
		!strings.Contains(report.Problems[0].Detail, "byte ") || len(report.Sources) != 4 || report.Ecosystems["debian 12"] != 2 || report.Ecosystems["npm"] != 3 || report.Ecosystems["go"] != 3 {
		t.Errorf("%+v", report)
	}
	// The store takes it, and counts the same.
	dir := t.TempDir()
	store := vulndb.New(vulndb.Options{Dir: filepath.Join(dir, "vulndb"), State: state.New(dir, state.Options{})})
	res, err := store.Adopt(t.Context(), out, "built", vulndb.Terms{})
	if err != nil || res.Advisories != report.Advisories || res.Vulnerabilities != report.Vulnerabilities || !reflect.DeepEqual(res.Ecosystems, report.Ecosystems) ||
		!res.UpdatedAt.Equal(time.Date(2026, 5, 2, 10, 0, 0, 0, time.UTC)) {
		t.Fatalf("%+v, %v", res, err)
	}
	lease, err := store.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	if err := db.Init(lease.Dir, db.WithBoltOptions(&bolt.Options{ReadOnly: true})); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	t.Run("languages", languages)
	t.Run("debian", system)
	t.Run("details", details)
}

func languages(t *testing.T) {
	for _, tc := range []struct {
		kind          ftypes.LangType
		name, version string
		want          string // "ID fixed-versions", several separated by ";"
	}{
		{ftypes.Npm, "lodash", "4.17.20", "CVE-2021-23337 4.17.21"}, {ftypes.Npm, "lodash", "4.17.21", ""}, {ftypes.Npm, "evil", "1.0.0", "MAL-2024-1 "},
		{ftypes.Npm, "hawk", "4.0.1", "NSWG-ECO-77 >=3.1.3 < 4.0.0, >=4.1.1"}, {ftypes.Npm, "hawk", "3.1.3", ""},
		{ftypes.Pip, "flask-x", "2.2.4", "CVE-2023-30861 2.2.5, 2.3.2"}, {ftypes.Pip, "Flask_X", "2.3.1", "CVE-2023-30861 2.2.5, 2.3.2"}, {ftypes.Pip, "flask-x", "2.2.5", ""}, {ftypes.Pip, "flask-x", "3.0.0", "CVE-2023-30861 2.2.5, 2.3.2"},
		{ftypes.GoModule, "github.com/Some/module", "v1.4.0", "CVE-2024-9999 "}, {ftypes.GoModule, "github.com/Some/module", "v1.4.1", ""},
		{ftypes.GoBinary, "stdlib", "1.22.1", "CVE-2023-45288 1.21.9, 1.22.2"}, {ftypes.GoBinary, "stdlib", "1.21.9", ""}, {ftypes.GoBinary, "golang.org/x/net", "v0.22.0", "CVE-2023-45288 0.23.0"},
		{ftypes.Jar, "org.apache.logging.log4j:log4j-core", "2.14.1", "CVE-2021-44228 2.12.2, 2.15.0"}, {ftypes.Jar, "org.apache.logging.log4j:log4j-core", "2.12.2", ""}, {ftypes.Jar, "org.apache.logging.log4j:log4j-core", "1.2", ""},
		{ftypes.Cargo, "tokio", "1.8.3", "CVE-2024-8888 1.8.4"}, {ftypes.Bundler, "rack", "2.2.7", "CVE-2024-7777 2.2.8"},
	} {
		driver, ok := library.NewDriver(tc.kind)
		if !ok {
			t.Fatal(tc.kind)
		}
		found, err := driver.DetectVulnerabilities("", tc.name, tc.version)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range found {
			got = append(got, v.VulnerabilityID+" "+v.FixedVersion)
			if v.DataSource == nil || v.DataSource.Name == "" {
				t.Errorf("%s: nobody says so", v.VulnerabilityID)
			}
		}
		slices.Sort(got)
		if strings.Join(got, ";") != tc.want {
			t.Errorf("%s %s %s: %q, want %q", tc.kind, tc.name, tc.version, got, tc.want)
		}
	}
}

func system(t *testing.T) {
	for version, want := range map[string]string{
		"3.0.11-1~deb12u1": "CVE-2023-5363 3.0.11-1~deb12u2 unknown [DSA-5532-1] LOW;CVE-2024-0001  will_not_fix [] ",
		"3.0.11-1~deb12u2": "CVE-2024-0001  will_not_fix [] ",
	} {
		pkg := ftypes.Package{ID: "libssl3", Name: "libssl3", Version: version, SrcName: "openssl", SrcVersion: version}
		found, err := debian.NewScanner().Detect(t.Context(), "12.5", nil, []ftypes.Package{pkg})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range found {
			got = append(got, fmt.Sprintf("%s %s %s %v %s", v.VulnerabilityID, v.FixedVersion, types.Statuses[v.Status], v.VendorIDs, v.Severity))
		}
		slices.Sort(got)
		if strings.Join(got, ";") != want {
			t.Errorf("%s: %q", version, got)
		}
	}
	if found, err := debian.NewScanner().Detect(t.Context(), "11", nil, []ftypes.Package{{Name: "openssl", Version: "1", SrcName: "openssl", SrcVersion: "1"}}); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
}

func details(t *testing.T) {
	for id, want := range map[string]string{"CVE-2021-23337": "MEDIUM", "CVE-2023-30861": "CRITICAL", "CVE-2024-9999": "UNKNOWN", "NSWG-ECO-77": "MEDIUM"} {
		v, err := db.Config{}.GetVulnerability(id)
		if err != nil || v.Severity != want || v.LastModifiedDate == nil {
			t.Errorf("%s: %+v, %v", id, v, err)
		}
	}
	if v, err := (db.Config{}).GetVulnerability("CVE-2024-5555"); err == nil {
		t.Errorf("what was rejected is there: %+v", v)
	}
}

// everything is all that is in a database, for comparison.
func everything(t *testing.T, dir string) map[string]string {
	t.Helper()
	conn, err := bolt.Open(filepath.Join(dir, "trivy.db"), 0o400, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	all := map[string]string{}
	var walk func(prefix string, b *bolt.Bucket) error
	walk = func(prefix string, b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return walk(prefix+"/"+string(k), b.Bucket(k))
			}
			all[prefix+"/"+string(k)] = string(v)
			return nil
		})
	}
	if err := conn.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error { return walk(string(name), b) })
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTheSameTwice(t *testing.T) {
	list := sources(t)
	a, _ := built(t, list)
	b, _ := built(t, list)
	if x, y := everything(t, a), everything(t, b); len(x) < 20 || !reflect.DeepEqual(x, y) {
		t.Errorf("%d and %d entries differ", len(x), len(y))
	}
	x, err := os.ReadFile(filepath.Join(a, "metadata.json"))
	if err != nil {
		t.Fatal(err)
	}
	if y, _ := os.ReadFile(filepath.Join(b, "metadata.json")); string(x) != string(y) {
		t.Errorf("%s, %s", x, y)
	}
	var m map[string]any
	if err := json.Unmarshal(x, &m); err != nil || m["UpdatedAt"] != "2026-05-02T10:00:00Z" || m["Version"] != 2.0 {
		t.Errorf("%v, %v", m, err)
	}
}

// TestVulnList reads what Trivy's own readers read, also when a document of it is damaged.
func TestVulnList(t *testing.T) {
	const alpine = `{"name":"openssl","secfixes":{"3.1.4-r1":["CVE-2023-5678"]},"apkurl":"x","archs":["x86_64"],"urlprefix":"https://dl-cdn.alpinelinux.org/alpine","reponame":"main","distroversion":"v3.19"}`
	files := map[string]string{
		"vuln-list/alpine/3.19/main/openssl.json":                              alpine,
		"vuln-list/alpine/3.19/main/cut.json":                                  alpine[:50],
		"ghsa/advisories/github-reviewed/2024/01/GHSA-1/GHSA-1.json":           osvDocument("GHSA-1", "CVE-2021-23337", "npm", "lodash", `[{"introduced":"0"},{"fixed":"4.17.21"}]`, `[]`, ""),
		"vuln-list-debian/tracker/distributions.json":                          `{"bookworm":{"major-version":"12","support":"security"}}`,
		"vuln-list-debian/tracker/source/bookworm/main/o/openssl.json":         `{"Package":["openssl"],"Version":["3.0.11-1"]}`,
		"vuln-list-debian/tracker/updates-source/bookworm/main/o/openssl.json": `{"Package":["openssl"],"Version":["3.0.11-1~deb12u2"]}`,
		"vuln-list-debian/tracker/CVE/CVE-2023-5363.json":                      `{"Header":{"Original":"CVE-2023-5363 (keys)","Line":1,"ID":"CVE-2023-5363","Description":"(keys)"},"Annotations":[{"Original":"","Line":2,"Type":"package","Release":"","Package":"openssl","Kind":"fixed","Version":"3.0.12-1","Description":"","Severity":"","Bugs":null},{"Type":"package","Release":"bookworm","Package":"openssl","Kind":"fixed","Version":"3.0.11-1~deb12u2"}]}`,
		"vuln-list-debian/tracker/DSA/DSA-5532-1.json":                         `{"Header":{"ID":"DSA-5532-1","Description":"openssl"},"Annotations":[{"Type":"xref","Bugs":["CVE-2023-5363"]},{"Type":"package","Release":"bookworm","Package":"openssl","Kind":"fixed","Version":"3.0.11-1~deb12u2"}]}`,
		"vuln-list-debian/tracker/DLA/DLA-1.json":                              `{"Header":{"ID":"DLA-1"},"Annotations":[]}`,
	}
	dir := tree(t, files)
	for _, path := range []string{dir, filepath.Join(dir, "vuln-list")} {
		out, report := built(t, []protocol.Source{{Format: protocol.VulnList, Path: path}})
		all := everything(t, out)
		if all["alpine 3.19/openssl/CVE-2023-5678"] == "" || len(report.Problems) != 1 || report.Problems[0].Path != "vuln-list/alpine/3.19/main/cut.json" {
			t.Errorf("%+v, %v", report, all)
		}
		if path == dir && (!strings.Contains(all["debian 12/openssl/CVE-2023-5363"], "3.0.11-1~deb12u2") || !strings.Contains(all["npm::GitHub Security Advisory npm/lodash/CVE-2021-23337"], "4.17.21") || len(report.Sources) != 2) {
			t.Errorf("%+v, %v", report, all)
		}
	}
}

// TestNothing builds from what is no source. Nothing may be left of it.
func TestNothing(t *testing.T) {
	empty := t.TempDir()
	for name, tc := range map[string]struct {
		list []protocol.Source
		kind failure.Kind
	}{
		"none":                {nil, failure.Usage},
		"missing":             {[]protocol.Source{{Format: protocol.OSV, Path: filepath.Join(empty, "none")}}, failure.NotReady},
		"empty":               {[]protocol.Source{{Format: protocol.OSV, Path: empty}}, failure.Untrustworthy},
		"no list":             {[]protocol.Source{{Format: protocol.VulnList, Path: empty}}, failure.NotReady},
		"all broken":          {[]protocol.Source{{Format: protocol.OSV, Path: tree(t, map[string]string{"a.json": "{"})}}, failure.Untrustworthy},
		"one broken":          {append(sources(t), protocol.Source{Format: protocol.DebianTracker, Path: filepath.Join(tree(t, map[string]string{"a.json": "{"}), "a.json")}), failure.Untrustworthy},
		"a list that is none": {[]protocol.Source{{Format: protocol.VulnList, Path: tree(t, map[string]string{"vuln-list-debian/tracker/distributions.json": `{"bookworm":7}`})}}, failure.Untrustworthy},
		"rejected only":       {[]protocol.Source{{Format: protocol.OSV, Path: tree(t, map[string]string{"a.json": strings.Replace(osvDocument("GHSA-7", "CVE-2024-5555", "npm", "lodash", `[{"introduced":"0"}]`, `[]`, ""), "details of lodash", "Rejected reason: a mistake", 1)})}}, failure.Untrustworthy},
	} {
		t.Run(name, func(t *testing.T) {
			out, temp := t.TempDir(), t.TempDir()
			_, err := Build(t.Context(), &protocol.Build{Sources: tc.list, Output: out, Temp: temp}, func(protocol.Progress) {})
			if err == nil || failure.KindOf(err) != tc.kind {
				t.Errorf("%v", err)
			}
			for _, dir := range []string{out, temp} {
				if left, _ := os.ReadDir(dir); len(left) != 0 {
					t.Errorf("left: %v", left)
				}
			}
		})
	}
}

func TestConstraints(t *testing.T) {
	ev := func(s string) (list []source.Event) { // "i0 f1 l2"
		for _, f := range strings.Fields(s) {
			switch f[0] {
			case 'i':
				list = append(list, source.Event{Introduced: f[1:]})
			case 'f':
				list = append(list, source.Event{Fixed: f[1:]})
			case 'l':
				list = append(list, source.Event{LastAffected: f[1:]})
			}
		}
		return list
	}
	for _, tc := range []struct {
		ecosystem, events, until string
		versions                 []string
		vulnerable, patched      string
	}{
		{"npm", "i0 f1.2.3", "", nil, "<1.2.3", "1.2.3"},
		{"npm", "i1.0.0 l1.2.3", "", nil, ">=1.0.0, <=1.2.3", ""},
		{"npm", "i0", "", nil, ">=0", ""},
		{"npm", "i0", "<=2.0.0", nil, ">=0, <=2.0.0", ""},
		{"npm", "f2.0.0 i1.0.0", "", nil, ">=1.0.0, <2.0.0", "2.0.0"},
		{"npm", "f2.0.0", "", nil, "", "" /* never introduced */},
		{"pip", "i1.0 f1.5 i2.0 f2.1", "", []string{"1.2", "2.0.1", "9.9"}, ">=1.0, <1.5|>=2.0, <2.1|=9.9", "1.5|2.1"},
		{"npm", "", "", []string{"1.0.0", "1.0.0", "2.0.0"}, "=1.0.0|=2.0.0", ""},
		{"go", "i1.22.0-0 f1.22.2 i0 f1.21.9", "", nil, "<1.21.9|>=1.22.0-0, <1.22.2", "1.21.9|1.22.2"},
	} {
		p := &source.Affected{Ecosystem: tc.ecosystem, Versions: tc.versions}
		if tc.events != "" {
			p.Ranges = []source.Range{{Events: ev(tc.events), Until: tc.until}}
		}
		v, f := constraints(p)
		if strings.Join(v, "|") != tc.vulnerable || strings.Join(f, "|") != tc.patched {
			t.Errorf("%s %s: %q, %q", tc.ecosystem, tc.events, v, f)
		}
	}
}

func TestMerge(t *testing.T) {
	a := types.Advisory{FixedVersion: "1.0-2", VendorIDs: []string{"DSA-2"}}
	merge(&a, &types.Advisory{FixedVersion: "1.0-10", VendorIDs: []string{"DSA-1"}, Status: types.StatusWillNotFix}, true)
	if a.FixedVersion != "1.0-10" || !slices.Equal(a.VendorIDs, []string{"DSA-1", "DSA-2"}) || a.Status != types.StatusUnknown {
		t.Errorf("%+v", a)
	}
	b := types.Advisory{OSes: []string{"linux"}, VulnerableVersions: []string{"<2"}}
	merge(&b, &types.Advisory{VulnerableVersions: []string{"<1", "<2"}}, false)
	if b.OSes != nil || !slices.Equal(b.VulnerableVersions, []string{"<1", "<2"}) {
		t.Errorf("%+v", b)
	}
}
