package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// maxVersion is what fits into the trusted comment of a signature.
const maxVersion = 64

// semver is a version of semver.org 2.0.0 without what follows its +, which
// takes no part in the order.
type semver struct {
	core [3]string // digits without leading zeros
	pre  []string  // identifiers of a pre-release; nil of a release
}

var errVersion = errors.New("is not a version such as 1.4.0 or 2.0.0-rc.1 (semver.org)")

func parseVersion(s string) (v semver, err error) {
	if len(s) > maxVersion {
		return v, fmt.Errorf("is longer than %d characters", maxVersion)
	}
	s, build, hasBuild := strings.Cut(s, "+")
	core, pre, hasPre := strings.Cut(s, "-")
	parts := strings.Split(core, ".")
	if len(parts) != 3 || hasBuild && !identifiers(build, false) || hasPre && !identifiers(pre, true) {
		return v, errVersion
	}
	for i, p := range parts {
		if !isNumber(p) {
			return v, errVersion
		}
		v.core[i] = p
	}
	if hasPre {
		v.pre = strings.Split(pre, ".")
	}
	return v, nil
}

// identifiers tells whether s is identifiers with dots between. Numbers of a
// pre-release have no leading zeros, or two of them could be equal and differ.
func identifiers(s string, strict bool) bool {
	for id := range strings.SplitSeq(s, ".") {
		if id == "" || strict && isDigits(id) && !isNumber(id) {
			return false
		}
		for i := range len(id) {
			if c := id[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-') {
				return false
			}
		}
	}
	return true
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
func isNumber(s string) bool { return isDigits(s) && (s == "0" || s[0] != '0') }

// Compare orders versions as semver.org 2.0.0 does in its clause 11: -1, 0 or
// 1. What follows a + does not count. What is no version comes before all that
// are, and equals others of its kind.
func Compare(a, b string) int {
	va, errA := parseVersion(a)
	vb, errB := parseVersion(b)
	switch {
	case errA != nil && errB != nil:
		return 0
	case errA != nil:
		return -1
	case errB != nil:
		return 1
	}
	return va.compare(vb)
}

func (v semver) compare(w semver) int {
	for i := range v.core {
		if c := compareNumbers(v.core[i], w.core[i]); c != 0 {
			return c
		}
	}
	if len(v.pre) == 0 || len(w.pre) == 0 {
		return cmp.Compare(min(len(w.pre), 1), min(len(v.pre), 1)) // a release comes after
	}
	for i := range min(len(v.pre), len(w.pre)) {
		a, b := v.pre[i], w.pre[i]
		c := 0
		switch numA, numB := isDigits(a), isDigits(b); {
		case numA && numB:
			c = compareNumbers(a, b)
		case numA:
			c = -1
		case numB:
			c = 1
		default:
			c = strings.Compare(a, b)
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(v.pre), len(w.pre))
}

// compareNumbers compares digits of any length without leading zeros.
func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// CheckProduct returns an error of kind failure.NotReady when this version of
// mobileops is older than MinVersion. A build of a developer, whose version is
// no version of semver.org or one that the Go toolchain made up from a commit,
// is as new as the release that it comes before.
func (m *Manifest) CheckProduct(version string) error {
	if m.MinVersion == "" {
		return nil
	}
	least, err := parseVersion(m.MinVersion)
	if err != nil {
		return failure.Errorf(failure.Untrustworthy, "min_version: %s %w", quote(m.MinVersion), err)
	}
	have, err := parseVersion(strings.TrimPrefix(version, "v"))
	if err != nil || have.core == [3]string{"0", "0", "0"} {
		return nil // "devel", or of a repository without a tag
	}
	if isDevelopment(version, have) {
		have.pre, least.pre = nil, nil
	}
	if have.compare(least) >= 0 {
		return nil
	}
	return failure.Hint(failure.Errorf(failure.NotReady, "%s %s needs mobileops %s or newer; this is %s", m.Name, m.Version, m.MinVersion, version),
		"update mobileops, or install an older version of the plugin")
}

// isDevelopment tells whether Go made up a version: 1.2.4-0.20260101120000-0123456789ab
// comes between two releases (https://go.dev/ref/mod#pseudo-versions), and
// +dirty says that files were changed.
func isDevelopment(version string, v semver) bool {
	if strings.HasSuffix(version, "+dirty") {
		return true
	}
	if len(v.pre) == 0 {
		return false
	}
	when, commit, ok := strings.Cut(v.pre[len(v.pre)-1], "-")
	return ok && len(when) == 14 && isDigits(when) && len(commit) == 12
}
