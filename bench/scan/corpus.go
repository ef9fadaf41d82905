package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

// prepared makes the parts of the corpus in a directory.
var prepared = map[string]func(dir string) error{"sources": sources, "system": system, "database": database, "images": func(dir string) error {
	return images(filepath.Join(dir, "..", "..", "sources", "tree"), dir)
}}

// modules of the module cache that go into the source tree: what Trivy and its
// neighbours are made of is in the cache of whoever built this.
var modules = []string{
	"github.com/aquasecurity/trivy@*", "github.com/aquasecurity/trivy-checks@*", "github.com/open-policy-agent/opa@*",
	"k8s.io/api@*", "k8s.io/client-go@*", "k8s.io/apimachinery@*", "helm.sh/helm/v*", "google.golang.org/genproto*",
	"github.com/hashicorp/go-getter@*", "github.com/moby/buildkit@*", "golang.org/x/*@*",
}

// sources copies the sources of Go and of modules, at most 500 MB.
func sources(to string) error {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return err
	}
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return err
	}
	from := []string{filepath.Join(string(bytes.TrimSpace(root)), "src")}
	for _, m := range modules {
		list, err := filepath.Glob(filepath.Join(string(bytes.TrimSpace(cache)), m))
		if err != nil {
			return err
		}
		from = append(from, list...)
	}
	var bytes, files int64
	for _, dir := range from {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if bytes += info.Size(); bytes > 500e6 {
				return errFull
			}
			files++
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return put(filepath.Join(to, filepath.Base(dir), name), content)
		})
		if errors.Is(err, errFull) {
			break
		}
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "%d files, %d MB of sources\n", files, bytes/1e6)
	// Some that are found, so that there is something to tell.
	for i := range 20 {
		key := "AKI" + "A" + letters(rand.New(rand.NewPCG(uint64(i), 1)), "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)
		if err := put(filepath.Join(to, "deploy", fmt.Sprintf("stage-%d.env", i)), []byte("AWS_ACCESS_KEY_ID="+key+"\n")); err != nil {
			return err
		}
	}
	return nil
}

var errFull = errors.New("enough")

func put(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

func letters(r *rand.Rand, alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

const (
	packages = 2000
	small    = "abcdefghijklmnopqrstuvwxyz"
)

// name is that of the i-th source package of Debian.
func name(i int) string {
	r := rand.New(rand.NewPCG(uint64(i), 2))
	return letters(r, small, 4+r.IntN(8)) + fmt.Sprint(i)
}

// system is a Debian with 2,000 packages of 1,200 sources, 16 files each.
func system(to string) error {
	var status strings.Builder
	for i := range packages {
		r := rand.New(rand.NewPCG(uint64(i), 3))
		source := i % 1200
		pkg := name(source)
		if i >= 1200 {
			pkg += "-data"
		}
		fmt.Fprintf(&status, "Package: %s\nStatus: install ok installed\nPriority: optional\nSection: libs\nInstalled-Size: %d\nMaintainer: Somebody <s@example.com>\nArchitecture: amd64\nSource: %s\nVersion: %d.%d-%d+deb12u1\nDepends: libc6 (>= 2.36), %s (>= 1.0)\nDescription: %s\n %s\n\n",
			pkg, r.IntN(10000), name(source), r.IntN(5), r.IntN(20), r.IntN(9), name((source+1)%1200), letters(r, small+" ", 60), letters(r, small+" ", 300))
		var list, sums strings.Builder
		for f := range 16 {
			path := fmt.Sprintf("usr/lib/%s/%s.so", pkg, letters(r, small, 8))
			if f == 0 {
				path = "usr/share/doc/" + pkg + "/copyright"
			}
			content := []byte(letters(r, small+"\n ", 200+r.IntN(2000)))
			if f == 0 {
				content = []byte("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 2026 Somebody\nLicense: GPL-2+\n")
			}
			if err := put(filepath.Join(to, path), content); err != nil {
				return err
			}
			fmt.Fprintf(&list, "/%s\n", path)
			fmt.Fprintf(&sums, "%s  %s\n", letters(r, "0123456789abcdef", 32), path)
		}
		for ext, content := range map[string]string{"list": list.String(), "md5sums": sums.String()} {
			if err := put(filepath.Join(to, "var/lib/dpkg/info", pkg+"."+ext), []byte(content)); err != nil {
				return err
			}
		}
	}
	return errors.Join(
		put(filepath.Join(to, "var/lib/dpkg/status"), []byte(status.String())),
		put(filepath.Join(to, "etc/debian_version"), []byte("12.11\n")),
		put(filepath.Join(to, "etc/os-release"), []byte("ID=debian\nVERSION_ID=\"12\"\nNAME=\"Debian GNU/Linux\"\n")),
	)
}

// database is of the size and shape of the one that Trivy publishes: 250,000
// vulnerabilities, and advisories of four releases of Debian, of which those of the
// system are some.
func database(to string) error {
	now := time.Now().UTC()
	metadata := fmt.Sprintf(`{"Version":2,"NextUpdate":%q,"UpdatedAt":%q,"DownloadedAt":%q}`,
		now.Add(24*time.Hour).Format(time.RFC3339), now.Format(time.RFC3339), now.Format(time.RFC3339))
	if err := put(filepath.Join(to, "db", "metadata.json"), []byte(metadata)); err != nil {
		return err
	}
	db, err := bbolt.Open(filepath.Join(to, "db", "trivy.db"), 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true})
	if err != nil {
		return err
	}
	defer db.Close()
	const vulnerabilities, sources, batch = 250_000, 12_000, 25_000
	id := func(i int) string { return fmt.Sprintf("CVE-%d-%05d", 2016+i/25_000, i%25_000) }
	for from := 0; from < vulnerabilities; from += batch {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("vulnerability"))
			if err != nil {
				return err
			}
			b.FillPercent = 0.9
			for i := from; i < from+batch; i++ {
				if err := b.Put([]byte(id(i)), vulnerability(i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, release := range []string{"10", "11", "12", "13"} {
		err := db.Update(func(tx *bbolt.Tx) error {
			bucket := "debian " + release
			where, err := tx.CreateBucketIfNotExists([]byte("data-source"))
			if err == nil {
				err = where.Put([]byte(bucket), []byte(`{"ID":"debian","Name":"Debian Security Tracker","URL":"https://salsa.debian.org/security-tracker-team/security-tracker"}`))
			}
			if err != nil {
				return err
			}
			b, err := tx.CreateBucketIfNotExists([]byte(bucket))
			if err != nil {
				return err
			}
			for s := range sources {
				p, err := b.CreateBucketIfNotExists([]byte(name(s)))
				if err != nil {
					return err
				}
				r := rand.New(rand.NewPCG(uint64(s), 4))
				for range 4 + r.IntN(16) {
					content := fmt.Sprintf(`{"FixedVersion":"%d.%d-%d"}`, r.IntN(4), r.IntN(10), r.IntN(9))
					if r.IntN(12) == 0 {
						content = `{"Status":2}`
					}
					if err := p.Put([]byte(id(r.IntN(vulnerabilities))), []byte(content)); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	info, err := os.Stat(db.Path())
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "a database of %d MB\n", info.Size()/1e6)
	return nil
}

func vulnerability(i int) []byte {
	r := rand.New(rand.NewPCG(uint64(i), 5))
	severity := 1 + r.IntN(4)
	v := map[string]any{
		"Title":          letters(r, small+" ", 60),
		"Description":    letters(r, small+"    ", 300+r.IntN(600)),
		"Severity":       []string{"", "LOW", "MEDIUM", "HIGH", "CRITICAL"}[severity],
		"CweIDs":         []string{fmt.Sprintf("CWE-%d", r.IntN(900))},
		"VendorSeverity": map[string]int{"nvd": severity, "redhat": severity},
		"CVSS":           map[string]any{"nvd": map[string]any{"V3Vector": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "V3Score": float64(20+r.IntN(79)) / 10}},
		"References":     []string{"https://example.com/" + letters(r, small, 40), "https://example.org/" + letters(r, small, 50), "https://example.net/" + letters(r, small, 30)},
		"PublishedDate":  "2024-01-02T03:04:05Z", "LastModifiedDate": "2025-01-02T03:04:05Z",
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
