//go:build goexperiment.jsonv2

package trivy

import (
	"bytes"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	tdb "github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy/pkg/detector/library"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// bucketOf returns the name of the bucket in which a database has the advisories of
// a system, as Trivy's detector of its family asks for it. Source: trivy-db,
// pkg/vulnsrc/bucket.
func bucketOf(family, version string) string {
	parts := strings.Split(version, ".")
	first := func(n int) string { return strings.Join(parts[:min(n, len(parts))], ".") }
	switch ftypes.OSType(family) {
	case ftypes.Debian:
		return "debian " + first(1)
	case ftypes.Ubuntu:
		return "ubuntu " + strings.TrimSuffix(version, "-ESM")
	case ftypes.Alpine:
		return "alpine " + first(2)
	case ftypes.Rocky:
		return "rocky " + first(1)
	case ftypes.Alma:
		return "alma " + first(1)
	case ftypes.Oracle:
		return "Oracle Linux " + first(1)
	case ftypes.RedHat, ftypes.CentOS:
		return "Red Hat"
	case ftypes.Amazon: // "2 (Karoo)"; those of before are called by their month
		name, _, _ := strings.Cut(version, " ")
		if name, _, _ = strings.Cut(name, "."); !slices.Contains([]string{"2", "2022", "2023"}, name) {
			name = "1"
		}
		return "amazon linux " + name
	case ftypes.Azure:
		return "Azure Linux " + first(2)
	case ftypes.CBLMariner:
		return "CBL-Mariner " + first(2)
	case ftypes.Photon:
		return "Photon OS " + version
	case ftypes.SLES:
		return "SUSE Linux Enterprise " + version
	case ftypes.SLEMicro:
		return "SUSE Linux Enterprise Micro " + version
	case ftypes.OpenSUSELeap:
		return "openSUSE Leap " + version
	case ftypes.OpenSUSETumbleweed:
		return "openSUSE Tumbleweed"
	}
	return family // wolfi, chainguard; CoreOS, of which Trivy looks nothing up; whatever comes next
}

// checkKnown reports a system, and packages of a language, of which the database has
// no advisory at all. That none of them is vulnerable would say nothing then.
func (j *job) checkKnown(report *protocol.Report, results types.Results) {
	if !j.wants.vulnerabilities {
		return
	}
	if report.OS != nil && report.OS.Name != "" {
		if bucket := bucketOf(report.OS.Family, report.OS.Name); !known(bucket, "-", " ") {
			j.found.add(protocol.Unknown, "", "the database has no advisories of "+bucket+", so nothing is known of the packages of this system")
		}
	}
	asked := map[string]bool{}
	for i := range results {
		r := &results[i]
		if r.Class != types.ClassLangPkg || len(r.Packages) == 0 {
			continue
		}
		driver, ok := library.NewDriver(r.Type)
		if !ok || asked[driver.Type()] {
			continue // Trivy itself says what it has no advisories for
		}
		asked[driver.Type()] = true
		if !known(driver.Type(), "::") {
			// Without a path: nobody can tell what of the kind was there before.
			j.found.add(protocol.Unknown, "", "the database has no advisories of "+driver.Type()+", so nothing is known of the packages of "+r.Target)
		}
	}
}

// known tells whether the database has a bucket of that name, or one whose name goes
// on with one of the given ends.
func known(name string, ends ...string) (found bool) {
	err := (tdb.Config{}).Connection().View(func(tx *bolt.Tx) error {
		c := tx.Cursor()
		for k, _ := c.Seek([]byte(name)); k != nil && bytes.HasPrefix(k, []byte(name)) && !found; k, _ = c.Next() {
			rest := string(k[len(name):])
			found = rest == "" || slices.ContainsFunc(ends, func(e string) bool { return strings.HasPrefix(rest, e) })
		}
		return nil
	})
	return found || err != nil
}
