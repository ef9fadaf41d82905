package source

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

const ghsa = `{"schema_version":"1.4.0","id":"GHSA-35jh-r3h4-6jhm","modified":"2026-05-01T10:00:00Z","published":"2021-05-06T16:05:51Z","aliases":["CVE-2021-23337"],"summary":"Command Injection in lodash","details":"d",
"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:H/UI:N/S:U/C:H/I:H/A:H"}],"affected":[
{"package":{"ecosystem":"npm","name":"lodash"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"4.17.21"}]}]},
{"package":{"ecosystem":"RubyGems","name":"lodash-rails"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}],"database_specific":{"last_known_affected_version_range":"< 4.17.21"}},
{"package":{"ecosystem":"Linux","name":"Kernel"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]}],
"references":[{"type":"WEB","url":"https://example.org/a"}],"database_specific":{"severity":"HIGH","cwe_ids":["CWE-77","CWE-94"]}}`

const godoc = `{"id":"GO-2024-2687","modified":"2026-05-02T10:00:00Z","published":"2024-04-03T00:00:00Z","aliases":["CVE-2023-45288","GHSA-4v7x-pqxf-cx7m"],"details":"HTTP/2 CONTINUATION flood","affected":[
{"package":{"name":"stdlib","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.21.9"},{"introduced":"1.22.0-0"},{"fixed":"1.22.2"}]}],"ecosystem_specific":{"imports":[{"path":"net/http","goos":["linux"]}]}},
{"package":{"name":"toolchain","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]},
{"package":{"name":"golang.org/x/net","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"0.23.0"}]}]}],"database_specific":{"url":"https://pkg.go.dev/vuln/GO-2024-2687"}}`

const dsa = `{"id":"DSA-5532-1","modified":"2026-04-01T00:00:00Z","aliases":[],"upstream":["CVE-2023-5363"],"details":"openssl","affected":[
{"package":{"ecosystem":"Debian:12","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"3.0.11-1~deb12u2"}]}],"ecosystem_specific":{"urgency":"not yet assigned"}},
{"package":{"ecosystem":"Alpine:v3.19","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"3.1.4-r0"}]}]},
{"package":{"ecosystem":"Ubuntu:22.04:LTS","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]},
{"package":{"ecosystem":"Ubuntu:Pro:18.04:LTS","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]},
{"package":{"ecosystem":"Debian:11","name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"0"}]}]}]}`

const tracker = `{"openssl":{"CVE-2023-5363":{"description":"A bug","releases":{
 "bookworm":{"status":"resolved","fixed_version":"3.0.11-1~deb12u2","urgency":"not yet assigned","repositories":{"bookworm":"3.0.11-1~deb12u2"}},
 "bullseye":{"status":"resolved","fixed_version":"0","urgency":"unimportant"},"sid":{"status":"open","urgency":"low"},"woody":{"status":"open","urgency":"low"}}},
 "CVE-2024-1":{"description":"x","releases":{"bookworm":{"status":"open","urgency":"low**","nodsa":"Minor issue","nodsa_reason":"ignored"},"trixie":{"status":"open","urgency":"high","nodsa":"m","nodsa_reason":"postponed"},"buster":{"status":"open","urgency":"end-of-life"},"bullseye":{"status":"undetermined","urgency":"low"}}},
 "CVE-2024-2":{"description":"** REJECTED ** never","releases":{"bookworm":{"status":"open","urgency":"low"}}},"TEMP-1-2":{"releases":{"bookworm":{"status":"open","urgency":"low"}}},
 "CVE-2024-3":{"description":7,"releases":{}}},
"curl":[]}`

const node = `{"id":77,"created_at":"2018-01-01T00:00:00.000Z","updated_at":"2018-02-01T00:00:00.000Z","title":"Denial of Service","module_name":"Hawk","cves":[],"vulnerable_versions":"< 3.1.3  || >= 4.0.0 <4.1.1","patched_versions":">=3.1.3 < 4.0.0 || >=4.1.1 || <0.0.0","overview":"o","references":"https://example.org/1\nhttps://example.org/2","cvss_vector":"CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H","cvss_score":"7.5 (High)"}`

// written writes files beneath a directory.
func written(t testing.TB, files map[string]string) string {
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

func zipped(t testing.TB, dir string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "all.zip")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, f protocol.SourceFormat, path string) (list []*Advisory, sum *Summary) {
	t.Helper()
	sum, err := Read(t.Context(), protocol.Source{Format: f, Path: path}, func(a *Advisory) error { list = append(list, a); return nil }, func(int, string) {})
	if err != nil {
		t.Fatal(err)
	}
	return list, sum
}

func TestOSV(t *testing.T) {
	files := map[string]string{
		"a/GHSA-35jh-r3h4-6jhm.json": ghsa, "b/DSA-5532-1.json": dsa, "c/gone.json": strings.Replace(ghsa, `"published"`, `"withdrawn":"2025-01-01T00:00:00Z","published"`, 1),
		"c/cut.json": ghsa[:200], "c/kind.json": strings.Replace(ghsa, `"aliases":["CVE-2021-23337"]`, `"aliases":7`, 1), "c/undated.json": `{"id":"X-1"}`, "c/latin.json": "{\"id\":\"\xe9\"}",
		"c/two.json": ghsa + ghsa, "README.md": "x", "index/modules.json": "[]", "c/future.json": strings.Replace(strings.Replace(ghsa, "GHSA-35jh-r3h4-6jhm", "GHSA-x", 1), "2026-05-01", "2126-05-01", 1),
	}
	dir := written(t, files)
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "z.json")); err != nil {
		t.Fatal(err)
	}
	list, sum := read(t, protocol.OSV, dir)
	if sum.Documents != 3 || len(list) != 3 || sum.Skipped["withdrawn"] != 1 || sum.Skipped["malformed"] != 5 || len(sum.Problems) != 5 || sum.Skipped["not a file"] != 1 || sum.Skipped["ecosystem Linux"] != 2 ||
		sum.Skipped["ecosystem Ubuntu"] != 1 {
		t.Errorf("%+v", sum)
	}
	if want := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC); !sum.Newest.Equal(want) {
		t.Errorf("the newest is %v", sum.Newest)
	}
	for _, p := range sum.Problems {
		if p.Path == "" || !strings.HasPrefix(p.Detail, "byte ") {
			t.Errorf("%+v", p)
		}
	}
	a := list[0]
	want := &Advisory{
		IDs: []string{"CVE-2021-23337"}, Aliases: []string{"GHSA-35jh-r3h4-6jhm"}, Publisher: publisherOf("GHSA-x"), Title: "Command Injection in lodash", Description: "d", Severity: High,
		CVSS: []CVSS{{Version: "3", Vector: "CVSS:3.1/AV:N/AC:L/PR:H/UI:N/S:U/C:H/I:H/A:H"}}, CWE: []string{"CWE-77", "CWE-94"}, References: []string{"https://example.org/a"},
		Published: time.Date(2021, 5, 6, 16, 5, 51, 0, time.UTC), Modified: time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC),
		Affected: []Affected{
			{Ecosystem: "npm", Package: "lodash", Ranges: []Range{{Events: []Event{{Introduced: "0"}, {Fixed: "4.17.21"}}}}},
			{Ecosystem: "rubygems", Package: "lodash-rails", Ranges: []Range{{Events: []Event{{Introduced: "0"}}, Until: "<4.17.21"}}},
		},
	}
	if !reflect.DeepEqual(a, want) {
		t.Errorf("%+v\nwant %+v", a, want)
	}
	if got, want := list[1].Affected, []Affected{
		{Ecosystem: "debian", Release: "12", Package: "openssl", Fixed: "3.0.11-1~deb12u2"},
		{Ecosystem: "alpine", Release: "3.19", Package: "openssl", Fixed: "3.1.4-r0"},
		{Ecosystem: "ubuntu", Release: "22.04", Package: "openssl", Status: Unfixed},
	}; !reflect.DeepEqual(got, want) || list[1].IDs[0] != "CVE-2023-5363" || list[1].Aliases[0] != "DSA-5532-1" {
		t.Errorf("%+v", list[1])
	}
	// A ZIP archive says the same.
	again, zsum := read(t, protocol.OSV, zipped(t, written(t, files)))
	if !reflect.DeepEqual(again, list) || zsum.Documents != 3 || len(zsum.Problems) != 5 {
		t.Errorf("%+v", zsum)
	}
}

func TestGo(t *testing.T) {
	list, sum := read(t, protocol.GoVulndb, written(t, map[string]string{"ID/GO-2024-2687.json": godoc, "ID/x.json": ghsa, "index/db.json": "{}"}))
	if len(list) != 1 || len(sum.Problems) != 1 || sum.Skipped["the go command itself"] != 1 {
		t.Fatalf("%+v", sum)
	}
	if a := list[0]; a.IDs[0] != "CVE-2023-45288" || !reflect.DeepEqual(a.Aliases, []string{"GO-2024-2687", "GHSA-4v7x-pqxf-cx7m"}) || len(a.Affected) != 2 || a.Affected[0].OSes[0] != "linux" ||
		len(a.Affected[0].Ranges[0].Events) != 4 || a.References[0] != "https://pkg.go.dev/vuln/GO-2024-2687" {
		t.Errorf("%+v", a)
	}
}

func TestTracker(t *testing.T) {
	path := filepath.Join(written(t, map[string]string{"tracker.json": tracker}), "tracker.json")
	list, sum := read(t, protocol.DebianTracker, path)
	if len(list) != 2 || sum.Documents != 2 || len(sum.Problems) != 2 || sum.Skipped["rejected"] != 1 || sum.Skipped["not named yet"] != 1 || sum.Skipped["undetermined"] != 1 || sum.Skipped["release woody"] != 1 || sum.Newest.IsZero() {
		t.Fatalf("%d %+v", len(list), sum)
	}
	if got, want := list[0].Affected, []Affected{{Ecosystem: "debian", Release: "12", Package: "openssl", Fixed: "3.0.11-1~deb12u2"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got, want := list[1].Affected, []Affected{
		{Ecosystem: "debian", Release: "12", Package: "openssl", Status: WillNotFix, Severity: Low},
		{Ecosystem: "debian", Release: "10", Package: "openssl", Status: EndOfLife},
		{Ecosystem: "debian", Release: "13", Package: "openssl", Status: FixDeferred, Severity: High},
	}; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	_, _ = zw.Write([]byte(tracker))
	_ = zw.Close()
	packed := filepath.Join(written(t, map[string]string{"tracker.json.gz": z.String()}), "tracker.json.gz")
	if again, _ := read(t, protocol.DebianTracker, packed); !reflect.DeepEqual(again, list) {
		t.Error("packed it says something else")
	}
	for _, text := range []string{"", "[]", "{}", tracker[:300], tracker + "{}", "{\"a\":{}}"} {
		path := filepath.Join(written(t, map[string]string{"x.json": text}), "x.json")
		_, err := Read(t.Context(), protocol.Source{Format: protocol.DebianTracker, Path: path}, func(*Advisory) error { return nil }, func(int, string) {})
		if failure.KindOf(err) != failure.Untrustworthy || !strings.Contains(err.Error(), path) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

func TestNode(t *testing.T) {
	list, sum := read(t, protocol.NodeAdvisory, written(t, map[string]string{
		"vuln/npm/77.json": node, "vuln/npm/78.json": strings.Replace(node, `"cves":[]`, `"cves":["CVE-2017-1"]`, 1), "vuln/npm/79.json": strings.Replace(node, `"Hawk"`, `""`, 1),
		"vuln/core/1.json": `{"cve":["CVE-2017-2"],"vulnerable":"8.x","overview":"x"}`, "vuln/npm/80.json": `{"id":"no"`, "vuln/npm/81.json": strings.Replace(node, `"id":77`, `"id":"x"`, 1),
	}))
	if len(list) != 2 || sum.Skipped["Node.js itself"] != 2 || len(sum.Problems) != 2 {
		t.Fatalf("%d %+v", len(list), sum)
	}
	a := list[0]
	if a.IDs[0] != "NSWG-ECO-77" || list[1].IDs[0] != "CVE-2017-1" || !reflect.DeepEqual(a.Affected[0].Constraints, []string{"< 3.1.3", ">= 4.0.0 <4.1.1"}) ||
		!reflect.DeepEqual(a.Affected[0].Patched, []string{">=3.1.3 < 4.0.0", ">=4.1.1"}) || len(a.References) != 2 || a.CVSS[0].Score != 7.5 || a.Modified.Month() != 2 {
		t.Errorf("%+v", a)
	}
}

func TestNoSource(t *testing.T) {
	for path, kind := range map[string]failure.Kind{"/nonexistent": failure.NotReady, "/dev/null": failure.Usage} {
		for _, f := range []protocol.SourceFormat{protocol.OSV, protocol.DebianTracker} {
			if _, err := Read(t.Context(), protocol.Source{Format: f, Path: path}, nil, nil); failure.KindOf(err) != kind {
				t.Errorf("%s %s: %v", f, path, err)
			}
		}
	}
	if _, err := Read(t.Context(), protocol.Source{Format: "xml", Path: "."}, nil, nil); failure.KindOf(err) != failure.Usage {
		t.Error(err)
	}
	bad := filepath.Join(written(t, map[string]string{"x.zip": "PK no"}), "x.zip")
	if _, err := Read(t.Context(), protocol.Source{Format: protocol.OSV, Path: bad}, nil, nil); failure.KindOf(err) != failure.Untrustworthy {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for f, path := range map[protocol.SourceFormat]string{protocol.OSV: written(t, map[string]string{"a.json": ghsa}), protocol.DebianTracker: filepath.Join(written(t, map[string]string{"t.json": tracker}), "t.json")} {
		if _, err := Read(ctx, protocol.Source{Format: f, Path: path}, func(*Advisory) error { return nil }, func(int, string) {}); failure.KindOf(err) != failure.Interrupted {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// TestManyProblems lists some of them and counts all.
func TestManyProblems(t *testing.T) {
	files := map[string]string{}
	for i := range maxProblems + 50 {
		files[fmt.Sprintf("%04d.json", i)] = "{"
	}
	_, sum := read(t, protocol.OSV, written(t, files))
	if len(sum.Problems) != maxProblems || sum.Skipped["malformed"] != maxProblems+50 {
		t.Errorf("%d, %v", len(sum.Problems), sum.Skipped)
	}
}

func FuzzOSV(f *testing.F) {
	f.Add([]byte(ghsa))
	f.Add([]byte(godoc))
	f.Add([]byte(dsa))
	f.Fuzz(func(t *testing.T, data []byte) {
		sum := &Summary{Skipped: map[string]int{}}
		a, err := parseOSV(data, sum)
		if err == nil && (len(a.IDs) == 0 || a.Modified.IsZero() && !bytes.Contains(data, []byte("0001"))) {
			t.Errorf("%+v", a)
		}
		_, _ = parseGo(data, sum)
	})
}

func FuzzNode(f *testing.F) {
	f.Add([]byte(node))
	f.Add([]byte(`{"id":1,"module_name":"x","vulnerable_versions":null,"cvss_score":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseNode(data, &Summary{Skipped: map[string]int{}})
		if err == nil && (len(a.IDs) == 0 || len(a.Affected) != 1) {
			t.Errorf("%+v", a)
		}
	})
}

func FuzzTracker(f *testing.F) {
	f.Add([]byte(tracker))
	f.Add([]byte(`{"a":{"CVE-1":{"releases":{"bookworm":{"status":"open"}}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &reader{ctx: t.Context(), sum: &Summary{Skipped: map[string]int{}}, fn: func(a *Advisory) error {
			if len(a.Affected) == 0 {
				t.Errorf("%+v", a)
			}
			return nil
		}, progress: func(int, string) {}}
		_ = r.trackerDocument(bytes.NewReader(data))
	})
}
