package manifest

import (
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

// TestCompare has the order of clause 11 of semver.org, and more.
func TestCompare(t *testing.T) {
	ordered := []string{
		"0.0.0", "0.0.1-0", "0.0.1", "0.9.0", "0.10.0", "1.0.0--", "1.0.0-0", "1.0.0-1", "1.0.0-9", "1.0.0-10",
		"1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0",
		"1.0.1", "1.2.0", "1.10.0", "2.0.0", "10.0.0", "99999999999999999999.0.0", "100000000000000000000.0.0",
	}
	ordered[5], ordered[6], ordered[7], ordered[8], ordered[9] = "1.0.0-0", "1.0.0-1", "1.0.0-9", "1.0.0-10", "1.0.0--"
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := Compare(a, b); got != want {
				t.Errorf("Compare(%s, %s) = %d, want %d", a, b, got, want)
			}
		}
	}
	if Compare("1.0.0+a", "1.0.0+b") != 0 {
		t.Error("what follows + counts")
	}
	if Compare("x", "0.0.0-0") != -1 || Compare("0.0.0-0", "x") != 1 || Compare("x", "y") != 0 {
		t.Error("what is no version does not come first")
	}
}

func TestVersionsThatAreNone(t *testing.T) {
	for _, v := range strings.Fields("1 1.2 1.2.3-0123 1.2.3-0123.0123 1.1.2+.123 +invalid -invalid -invalid+invalid alpha 1.0.0-alpha_beta " +
		"1.0.0-alpha.. 1.0.0-alpha..1 01.1.1 1.01.1 1.1.01 1.2.3.DEV 1.2-SNAPSHOT 1.2.31.2.3----RC-SNAPSHOT.12.09.1--..12+788 " +
		"-1.0.3-gamma+b7718 +justmeta 9.8.7+meta+meta 9.8.7-whatever+meta+meta 1.0.0- 1.0.0+ v1.0.0 1.0.0-é") {
		if _, err := parseVersion(v); err == nil {
			t.Errorf("%s is taken for a version", v)
		}
	}
	for _, v := range strings.Fields("0.0.4 1.1.2-prerelease+meta 1.1.2+meta 1.0.0-alpha-a.b-c-somethinglong+build.1-aef.1-its-okay " +
		"1.2.3----RC-SNAPSHOT.12.9.1--.12 1.0.0+0.build.1-rc.10000aaa-kk-0.1 1.0.0-0A.is.legal 2.0.1-alpha.1227") {
		if _, err := parseVersion(v); err != nil {
			t.Errorf("%s: %v", v, err)
		}
	}
}

func TestCheckProduct(t *testing.T) {
	for _, tc := range []struct {
		least, have string
		want        bool
	}{
		{"", "0.0.1", true},
		{"1.2.0", "1.2.0", true},
		{"1.2.0", "1.3.0", true},
		{"1.2.0", "v1.2.0", true},
		{"1.2.0", "1.1.9", false},
		{"1.2.0", "1.2.0-rc.1", false},
		{"1.2.0-rc.1", "1.2.0-rc.2", true},
		{"1.2.0", "devel", true},
		{"1.2.0", "dev", true},
		{"1.2.0", "", true},
		{"1.2.0", "(devel)", true},
		{"1.2.0", "v0.0.0-20261122154411-c12adfe1ef83", true},
		{"1.2.0", "v0.0.0-20261122154411-c12adfe1ef83+dirty", true},
		{"1.2.0", "v1.2.0-0.20261122154411-c12adfe1ef83", true},
		{"1.2.0", "v1.1.9-0.20261122154411-c12adfe1ef83", false},
		{"1.2.0", "v1.1.9+dirty", false},
		{"1.2.0", "v1.2.0+dirty", true},
	} {
		m := &Manifest{Name: "x", Version: "1.0.0", MinVersion: tc.least}
		err := m.CheckProduct(tc.have)
		if (err == nil) != tc.want {
			t.Errorf("%s with %q: %v", tc.least, tc.have, err)
		}
		if err != nil && failure.KindOf(err) != failure.NotReady {
			t.Errorf("kind of %v", err)
		}
	}
}

func TestLicences(t *testing.T) {
	for _, good := range []string{
		"MIT", "GPL-2.0-or-later", "GPL-2.0+", "MIT OR Apache-2.0", "(MIT)", "(MIT OR ISC) AND BSD-3-Clause",
		"GPL-2.0-only WITH Classpath-exception-2.0", "LicenseRef-Proprietary", "DocumentRef-a:LicenseRef-b", "((MIT) OR (ISC))",
	} {
		if err := checkLicence(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", " ", "()", "MIT OR", "OR MIT", "MIT ISC", "MIT OR OR ISC", "(MIT", "MIT)", "MIT WITH", "MIT WITH AND", "MIT, ISC", "a:b",
		"DocumentRef-a:b", "+", "(MIT) WITH x", strings.Repeat("(", 5000) + "MIT",
	} {
		if err := checkLicence(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestUnits(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "4096": 4096, "4096B": 4096, "1KiB": 1024, "50MB": 50e6, "64 MiB": 64 << 20, "2TiB": 2 << 40, "8388607TiB": 8388607 << 40} {
		got, err := parseSize(s)
		if err != nil || got != want {
			t.Errorf("parseSize(%s) = %d, %v", s, got, err)
		}
		if back, err := parseSize(formatSize(got)); err != nil || back != got {
			t.Errorf("%d as %s: %d, %v", got, formatSize(got), back, err)
		}
	}
	for _, s := range []string{"", "B", "1.5GiB", "-1", "+1", "1e3", "0x10", "01", "1 ", "1  MiB", "8388608TiB", "1mib", "1_000", "9223372036854775808"} {
		if n, err := parseSize(s); err == nil {
			t.Errorf("parseSize(%q) = %d", s, n)
		}
	}
	for s, want := range map[string]string{"0": "0s", "30s": "30s", "90m": "1h30m", "60m": "1h", "7d": "168h", "1d12h": "36h", "1h0m1s": "1h0m1s", "100ms": "100ms", "10m": "10m"} {
		got, err := parseDuration(s)
		if err != nil || formatDuration(got) != want {
			t.Errorf("parseDuration(%s) = %s, %v", s, formatDuration(got), err)
		}
		if back, err := parseDuration(formatDuration(got)); err != nil || back != got {
			t.Errorf("%s: %s, %v", s, back, err)
		}
	}
	for _, s := range []string{"", "d", "1", "-1s", "+1s", ".5s", "1dd", "1d1d", "1d-1s", "1.5d", "1s1d", "40000d", "9999999999h", "36500d2562047h", "1 s"} {
		if d, err := parseDuration(s); err == nil {
			t.Errorf("parseDuration(%q) = %s", s, d)
		}
	}
}

func TestNames(t *testing.T) {
	m := parse(t, small)
	if err := m.CheckAgainst([]string{"update", "plugin"}); err != nil {
		t.Error(err)
	}
	if err := m.CheckAgainst([]string{"update", "small"}); err == nil || !strings.Contains(err.Error(), `"small" is a command of mobileops`) {
		t.Error(err)
	}
	if err := m.CheckPackaged(); err == nil || !strings.Contains(err.Error(), "files: is missing") {
		t.Error(err)
	}
	full := parse(t, string(readFull(t)))
	if err := full.CheckPackaged(); err != nil {
		t.Error(err)
	}
	if err := full.Check(); err != nil {
		t.Error(err)
	}
	if !slices.IsSortedFunc(full.List(), func(a, b Line) int { return 0 }) || len(full.List()) < 20 {
		t.Errorf("%d lines", len(full.List()))
	}
	if err := new(Manifest).Check(); err == nil {
		t.Error("nothing is a manifest")
	}
	if out, err := new(Manifest).Marshal(); err == nil {
		t.Errorf("nothing is written as %s", out)
	}
}
