// Package vulndbtest makes small vulnerability databases for tests: real ones,
// of Trivy's schema 2, without Trivy.
//
// A database is one bbolt file, trivy.db, and metadata.json beside it. Advisories
// lie in buckets BUCKET/PACKAGE/ID, such as "debian 12"/"openssl"/"CVE-2024-0001"
// or "npm::GitHub Security Advisory npm"/"lodash"/"CVE-2024-0002"; what a
// vulnerability is lies in "vulnerability"/ID, and where a bucket comes from in
// "data-source"/BUCKET.
package vulndbtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// TB is what is needed of a testing.TB.
type TB interface {
	Helper()
	Fatal(args ...any)
}

// Advisory is one vulnerability of one package. Bucket, Package and ID are needed.
type Advisory struct {
	Bucket  string // "debian 12", "alpine 3.20", "npm::GitHub Security Advisory npm", "pip::…", "go::…"
	Package string // the source package of a distribution; of a language, the name as Trivy normalizes it
	ID      string // "CVE-2024-0001"

	Fixed     string   // of a distribution: the version that fixes it; "": none does yet
	Affected  []string // of a language: ranges such as "<4.17.21" or ">=1.0, <1.2"
	Patched   []string // of a language: the versions that fix it
	Aliases   []string // "DSA-5532-1", "GHSA-…"
	Severity  string   // "LOW" to "CRITICAL"; "": unknown
	Source    string   // who says so, as Trivy calls it; "": "debian" for "debian 12", "ghsa" for languages
	Status    int      // of Trivy's list, such as 5 for "will not fix"; 0: unknown
	Title     string
	CVSS      float64 // version 3.1, 0 for none
	Published time.Time
}

// Write makes trivy.db and metadata.json in dir, which is made when it is
// missing, as if they had been built an hour ago.
func Write(t TB, dir string, list ...Advisory) {
	t.Helper()
	WriteAt(t, dir, time.Now().Add(-time.Hour), list...)
}

// WriteAt is Write with the time at which the database says it was built.
func WriteAt(t TB, dir string, updated time.Time, list ...Advisory) {
	t.Helper()
	if err := write(dir, updated, list); err != nil {
		t.Fatal(err)
	}
}

// Archive returns a database packed as Trivy publishes it: db.tar.gz.
func Archive(t TB, updated time.Time, list ...Advisory) []byte {
	t.Helper()
	dir, err := os.MkdirTemp("", "vulndbtest-*")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := write(dir, updated, list); err != nil {
		t.Fatal(err)
	}
	data, err := pack(dir, "trivy.db", "metadata.json")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Sample are three advisories of Debian 12, npm and Go.
func Sample() []Advisory {
	return []Advisory{
		{Bucket: "debian 12", Package: "openssl", ID: "CVE-2024-0001", Fixed: "3.0.15-1~deb12u1", Severity: "HIGH", Title: "openssl: something overflows", CVSS: 7.5},
		{Bucket: "npm::GitHub Security Advisory npm", Package: "lodash", ID: "CVE-2024-0002", Affected: []string{"<4.17.21"}, Patched: []string{"4.17.21"}, Severity: "CRITICAL", Title: "lodash: prototypes are polluted"},
		{Bucket: "go::The Go Vulnerability Database", Package: "golang.org/x/net", ID: "CVE-2024-0003", Affected: []string{"<0.23.0"}, Patched: []string{"0.23.0"}, Source: "govulndb", Title: "x/net: no end of headers"},
	}
}

type dataSource struct{ ID, Name, URL string }

type advisory struct {
	VendorIDs          []string `json:",omitempty"`
	Severity           int      `json:",omitempty"`
	FixedVersion       string   `json:",omitempty"`
	VulnerableVersions []string `json:",omitempty"`
	PatchedVersions    []string `json:",omitempty"`
	Status             int      `json:",omitempty"`
}

type cvss struct {
	V3Vector string
	V3Score  float64
}

type vulnerability struct {
	Title          string          `json:",omitempty"`
	Severity       string          `json:",omitempty"`
	VendorSeverity map[string]int  `json:",omitempty"`
	CVSS           map[string]cvss `json:",omitempty"`
	PublishedDate  *time.Time      `json:",omitempty"`
}

func write(dir string, updated time.Time, list []Advisory) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, "trivy.db")
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, a := range list {
			if err := a.put(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	updated = updated.UTC().Truncate(time.Second)
	meta, err := json.Marshal(map[string]any{
		"Version": 2, "UpdatedAt": updated, "NextUpdate": updated.Add(24 * time.Hour), "DownloadedAt": time.Time{},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "metadata.json"), append(meta, '\n'), 0o600)
}

func (a Advisory) put(tx *bolt.Tx) error {
	severity := map[string]int{"LOW": 1, "MEDIUM": 2, "HIGH": 3, "CRITICAL": 4}[a.Severity]
	_, language, isLanguage := strings.Cut(a.Bucket, "::")
	source := dataSource{ID: a.Source, Name: language, URL: "https://advisories.example/"}
	if !isLanguage {
		system, _, _ := strings.Cut(a.Bucket, " ")
		source.Name = system
		if source.ID == "" {
			source.ID = system
		}
	} else if source.ID == "" {
		source.ID = "ghsa"
	}
	v := vulnerability{Title: a.Title, Severity: a.Severity}
	if severity > 0 {
		v.VendorSeverity = map[string]int{source.ID: severity}
	} else {
		v.Severity = "UNKNOWN"
	}
	if a.CVSS > 0 {
		v.CVSS = map[string]cvss{"nvd": {V3Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H", V3Score: a.CVSS}}
	}
	if !a.Published.IsZero() {
		v.PublishedDate = &a.Published
	}
	for _, one := range []struct {
		value any
		key   string
		path  []string
	}{
		{advisory{a.Aliases, 0, a.Fixed, a.Affected, a.Patched, a.Status}, a.ID, []string{a.Bucket, a.Package}},
		{v, a.ID, []string{"vulnerability"}},
		{source, a.Bucket, []string{"data-source"}},
	} {
		data, err := json.Marshal(one.value)
		if err != nil {
			return err
		}
		b, err := tx.CreateBucketIfNotExists([]byte(one.path[0]))
		for _, name := range one.path[1:] {
			if err == nil {
				b, err = b.CreateBucketIfNotExists([]byte(name))
			}
		}
		if err != nil {
			return err
		}
		if err := b.Put([]byte(one.key), data); err != nil {
			return err
		}
	}
	return nil
}

// pack makes a tar archive, packed with gzip, of files in dir.
func pack(dir string, names ...string) ([]byte, error) {
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	tw := tar.NewWriter(zw)
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(1700000000, 0), Format: tar.FormatGNU}); err != nil {
			return nil, err
		}
		if _, err := tw.Write(data); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
