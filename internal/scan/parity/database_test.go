package parity

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// advisory is one entry of the database: a package of a bucket is concerned by a
// vulnerability. The content is as trivy-db (schema 2) writes it.
type advisory struct{ bucket, name, id, content string }

// sources say where the advisories of a bucket come from.
var sources = map[string][3]string{
	"debian 10":                         {"debian", "Debian Security Tracker", "https://salsa.debian.org/security-tracker-team/security-tracker"},
	"debian 12":                         {"debian", "Debian Security Tracker", "https://salsa.debian.org/security-tracker-team/security-tracker"},
	"ubuntu 24.04":                      {"ubuntu", "Ubuntu CVE Tracker", "https://git.launchpad.net/ubuntu-cve-tracker"},
	"alpine 3.22":                       {"alpine", "Alpine Secdb", "https://secdb.alpinelinux.org/"},
	"rocky 9":                           {"rocky", "Rocky Linux updateinfo", "https://download.rockylinux.org/pub/rocky/"},
	"Red Hat":                           {"redhat", "Red Hat OVAL v2", "https://www.redhat.com/security/data/oval/v2/"},
	"npm::GitHub Security Advisory npm": {"ghsa", "GitHub Security Advisory npm", "https://github.com/advisories?query=type%3Areviewed+ecosystem%3Anpm"},
	"npm::Node.js Ecosystem Security Working Group": {"nodejs-security-wg", "Node.js Ecosystem Security Working Group", "https://github.com/nodejs/security-wg"},
	"go::GitHub Security Advisory Go":               {"ghsa", "GitHub Security Advisory Go", "https://github.com/advisories?query=type%3Areviewed+ecosystem%3Ago"},
	"go::The Go Vulnerability Database":             {"govulndb", "The Go Vulnerability Database", "https://pkg.go.dev/vuln/"},
	"pip::GitHub Security Advisory pip":             {"ghsa", "GitHub Security Advisory pip", "https://github.com/advisories?query=type%3Areviewed+ecosystem%3Apip"},
	"cargo::Open Source Vulnerability":              {"osv", "Open Source Vulnerability", "https://osv.dev"},
	"composer::PHP Security Advisories Database":    {"php-security-advisories", "PHP Security Advisories Database", "https://github.com/FriendsOfPHP/security-advisories"},
	"rubygems::Ruby Advisory Database":              {"ruby-advisory-db", "Ruby Advisory Database", "https://github.com/rubysec/ruby-advisory-db"},
	"maven::GitHub Security Advisory Maven":         {"ghsa", "GitHub Security Advisory Maven", "https://github.com/advisories?query=type%3Areviewed+ecosystem%3Amaven"},
}

// advisories hit the packages of the systems and lock files of this test. Severities
// and statuses are numbers: Debian's status 5 is will_not_fix, 7 end_of_life.
var advisories = []advisory{
	{"debian 12", "openssl", "CVE-2026-0001", `{"FixedVersion":"3.0.20-1~deb12u1","VendorIDs":["DSA-9001-1"]}`},
	{"debian 12", "openssl", "CVE-2026-0002", `{"Status":5,"Severity":1}`},
	{"debian 12", "openssl", "CVE-2026-0003", `{"FixedVersion":"3.0.30-1"}`}, // of which nothing else is known
	{"debian 12", "glibc", "CVE-2026-0004", `{"Status":2}`},                  // of unknown severity
	{"debian 12", "glibc", "CVE-2026-0005", `{"Status":7}`},
	{"debian 12", "glibc", "CVE-2026-0006", `{"FixedVersion":"2.36-9+deb12u1"}`}, // fixed already
	{"debian 12", "tzdata", "DLA-9002-1", `{"FixedVersion":"2099a-0+deb12u1"}`},
	{"debian 12", "zlib", "CVE-2026-0007", `{"FixedVersion":"1:1.3.dfsg-1"}`},
	{"debian 10", "openssl", "CVE-2026-0001", `{"FixedVersion":"1.1.1n-0+deb10u9"}`},
	{"debian 10", "openssl", "CVE-2026-0002", `{"Status":7}`},
	{"ubuntu 24.04", "openssl", "CVE-2026-0001", `{"FixedVersion":"3.0.13-0ubuntu3.9"}`},
	{"ubuntu 24.04", "bash", "CVE-2026-0004", `{"Status":2}`},
	{"alpine 3.22", "openssl", "CVE-2026-0001", `{"FixedVersion":"3.5.9-r0"}`},
	{"alpine 3.22", "busybox", "CVE-2026-0002", `{"FixedVersion":"1.37.0-r99"}`},
	{"alpine 3.22", "musl", "CVE-2026-0004", `{"FixedVersion":"1.2.5-r1"}`}, // fixed already
	{"rocky 9", "parity-tool", "CVE-2026-0001", `{"FixedVersion":"1:2.0-1.el9","Entries":[{"FixedVersion":"1:2.0-1.el9","Arches":["x86_64","noarch"],"VendorIDs":["RLSA-2026:0001"]}]}`},
	{"rocky 9", "parity-lib", "CVE-2026-0004", `{"FixedVersion":"9-1.el9","Entries":[{"FixedVersion":"9-1.el9","Arches":["noarch"]}]}`},
	{"Red Hat", "parity-tool", "RHSA-2026:0001", `{"Entries":[{"FixedVersion":"1:2.0-1.el8","Cves":[{"ID":"CVE-2026-0001","Severity":3},{"ID":"CVE-2026-0005","Severity":1}],"Affected":[0]}]}`},
	{"Red Hat", "parity-lib", "CVE-2026-0002", `{"Entries":[{"Cves":[{"Severity":2}],"Status":5,"Affected":[0]}]}`},
	{"Red Hat", "parity-lib", "CVE-2026-0004", `{"Entries":[{"Cves":[{}],"Status":6,"Affected":[0]}]}`},

	{"npm::GitHub Security Advisory npm", "lodash", "CVE-2026-0001", `{"PatchedVersions":["4.17.21"],"VulnerableVersions":["< 4.17.21"],"VendorIDs":["GHSA-aaaa-bbbb-cccc"]}`},
	{"npm::GitHub Security Advisory npm", "minimist", "CVE-2026-0002", `{"PatchedVersions":["0.2.1","1.2.3"],"VulnerableVersions":["< 0.2.1","\u003e= 1.0.0, < 1.2.3"]}`},
	{"npm::GitHub Security Advisory npm", "@scope/thing", "GHSA-dddd-eeee-ffff", `{"VulnerableVersions":["\u003e= 0"]}`},
	{"npm::Node.js Ecosystem Security Working Group", "lodash", "NSWG-ECO-900", `{"PatchedVersions":["\u003e=4.17.5"],"VulnerableVersions":["<4.17.5"]}`},
	{"npm::GitHub Security Advisory npm", "jquery", "CVE-2026-0004", `{"PatchedVersions":["3.5.0"],"VulnerableVersions":["< 3.5.0"]}`},
	{"go::GitHub Security Advisory Go", "golang.org/x/text", "CVE-2026-0001", `{"PatchedVersions":["0.3.8"],"VulnerableVersions":["< 0.3.8"],"VendorIDs":["GHSA-1111-2222-3333"]}`},
	{"go::GitHub Security Advisory Go", "example.com/parity/lib", "CVE-2026-0002", `{"PatchedVersions":["1.2.0"],"VulnerableVersions":["< 1.2.0"]}`},
	{"go::The Go Vulnerability Database", "stdlib", "CVE-2026-0005", `{"PatchedVersions":["99.0.0"],"VulnerableVersions":["< 99.0.0"]}`},
	{"pip::GitHub Security Advisory pip", "django", "CVE-2026-0001", `{"PatchedVersions":["4.2.99"],"VulnerableVersions":["< 4.2.99"]}`},
	{"pip::GitHub Security Advisory pip", "jinja2", "CVE-2026-0002", `{"PatchedVersions":["3.1.9"],"VulnerableVersions":["< 3.1.9"]}`},
	{"pip::GitHub Security Advisory pip", "urllib3", "CVE-2026-0003", `{"VulnerableVersions":["< 2.0.0a1"]}`},
	{"cargo::Open Source Vulnerability", "time", "CVE-2026-0001", `{"PatchedVersions":["0.2.23"],"VulnerableVersions":["\u003e= 0.1.0, < 0.2.23"],"VendorIDs":["RUSTSEC-2026-0001"]}`},
	{"composer::PHP Security Advisories Database", "guzzlehttp/psr7", "CVE-2026-0002", `{"VulnerableVersions":["\u003e=1.0.0, <1.8.4"]}`},
	{"rubygems::Ruby Advisory Database", "rack", "CVE-2026-0001", `{"PatchedVersions":["~\u003e 2.2.8, \u003e= 2.2.8.1","\u003e= 3.0.9.1"],"UnaffectedVersions":["< 1.0"]}`},
	{"maven::GitHub Security Advisory Maven", "org.example.parity:core", "CVE-2026-0002", `{"PatchedVersions":["2.15.0"],"VulnerableVersions":["\u003e= 2.0, < 2.15.0"]}`},
	{"maven::GitHub Security Advisory Maven", "org.example.parity:hashed", "CVE-2026-0001", `{"PatchedVersions":["9.0"],"VulnerableVersions":["< 9.0"]}`},
}

// vulnerabilities say what is known beside advisories. There is none of CVE-2026-0003.
var vulnerabilities = map[string]string{
	"CVE-2026-0001": `{"Title":"openssl: a buffer that is too small","Description":"A long text\nof two lines with <marks> & \"quotes\".","Severity":"HIGH","CweIDs":["CWE-787"],
		"VendorSeverity":{"nvd":3,"redhat":2,"ghsa":4,"ubuntu":2},"CVSS":{"nvd":{"V3Vector":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H","V3Score":7.5,"V2Score":5,"V2Vector":"AV:N/AC:L/Au:N/C:N/I:N/A:P"},
		"ghsa":{"V40Vector":"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N","V40Score":9.3}},
		"References":["https://example.com/b","https://example.com/a"],"PublishedDate":"2026-01-02T03:04:05Z","LastModifiedDate":"2026-02-03T04:05:06.789Z"}`,
	"CVE-2026-0002":       `{"Title":"critical","Severity":"CRITICAL","VendorSeverity":{"nvd":4},"CVSS":{"nvd":{"V3Vector":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H","V3Score":9.8}},"PublishedDate":"2026-01-02T03:04:05Z"}`,
	"CVE-2026-0004":       `{"Description":"nobody has said how bad it is"}`,
	"CVE-2026-0005":       `{"Title":"low","Severity":"LOW","VendorSeverity":{"nvd":1,"debian":1}}`,
	"CVE-2026-0006":       `{"Severity":"MEDIUM","VendorSeverity":{"nvd":2}}`,
	"CVE-2026-0007":       `{"Severity":"MEDIUM","VendorSeverity":{"debian":2}}`,
	"DLA-9002-1":          `{"Title":"tzdata - security update"}`,
	"NSWG-ECO-900":        `{"Title":"Prototype pollution","Severity":"LOW","VendorSeverity":{"nodejs-security-wg":1}}`,
	"GHSA-dddd-eeee-ffff": `{"Title":"all versions","Severity":"MEDIUM","VendorSeverity":{"ghsa":2}}`,
}

// writeDatabase makes a cache directory as Trivy has it: db/trivy.db with its
// metadata, and java-db/trivy-java.db with one JAR file that is known by its digest.
func writeDatabase(t testing.TB, hashed string) (cache string) {
	t.Helper()
	cache = t.TempDir()
	dir := filepath.Join(cache, "db")
	write(t, dir, "metadata.json", metadata(2))
	db, err := bbolt.Open(filepath.Join(dir, "trivy.db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		put := func(key, value string, path ...string) error {
			b, err := tx.CreateBucketIfNotExists([]byte(path[0]))
			for _, p := range path[1:] {
				if err == nil {
					b, err = b.CreateBucketIfNotExists([]byte(p))
				}
			}
			if err != nil {
				return err
			}
			if !json.Valid([]byte(value)) {
				return fmt.Errorf("%s: not JSON: %s", key, value)
			}
			return b.Put([]byte(key), []byte(value))
		}
		for bucket, s := range sources {
			if err := put(bucket, fmt.Sprintf(`{"ID":%q,"Name":%q,"URL":%q}`, s[0], s[1], s[2]), "data-source"); err != nil {
				return err
			}
		}
		for _, a := range advisories {
			if err := put(a.id, a.content, a.bucket, a.name); err != nil {
				return err
			}
		}
		for id, v := range vulnerabilities {
			if err := put(id, v, "vulnerability"); err != nil {
				return err
			}
		}
		for _, repository := range []string{"rhel-8-for-x86_64-baseos-rpms", "rhel-9-for-x86_64-baseos-rpms"} {
			if err := put(repository, "[0]", "Red Hat CPE", "repository"); err != nil {
				return err
			}
		}
		return put("0", `"cpe:/o:redhat:enterprise_linux:8::baseos"`, "Red Hat CPE", "cpe")
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}

	java := filepath.Join(cache, "java-db")
	write(t, java, "metadata.json", metadata(1))
	tool(t, "sqlite3")
	cmd := exec.Command("sqlite3", filepath.Join(java, "trivy-java.db"))
	cmd.Stdin = strings.NewReader(`
		CREATE TABLE artifacts(id INTEGER PRIMARY KEY, group_id TEXT, artifact_id TEXT);
		CREATE TABLE indices(artifact_id INTEGER, version TEXT, sha1 BLOB, archive_type TEXT, FOREIGN KEY (artifact_id) REFERENCES artifacts(id));
		CREATE UNIQUE INDEX artifacts_idx ON artifacts(artifact_id, group_id);
		CREATE INDEX indices_artifact_idx ON indices(artifact_id);
		CREATE UNIQUE INDEX indices_sha1_idx ON indices(sha1);
		INSERT INTO artifacts VALUES (1, 'org.example.parity', 'hashed');
		INSERT INTO indices VALUES (1, '1.5', X'` + hashed + `', 'jar');`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v: %s", err, out)
	}
	return cache
}

func metadata(version int) string {
	now := time.Now().UTC()
	return fmt.Sprintf(`{"Version":%d,"NextUpdate":%q,"UpdatedAt":%q,"DownloadedAt":%q}`, version,
		now.Add(24*time.Hour).Format(time.RFC3339), now.Format(time.RFC3339), now.Format(time.RFC3339))
}

// write makes a file, and the directories above it.
func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeAll makes files.
func writeAll(t testing.TB, dir string, files map[string]string) string {
	t.Helper()
	for name, content := range files {
		write(t, dir, name, content)
	}
	return dir
}

// tool skips a test that needs a program that is not installed.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("NOT TESTED: %s is not installed (.ci/test-tools installs it)", name)
	}
	return path
}
