package sla

import (
	"os/exec"
	"testing"
)

func TestVersionsAreOrderedAsByDpkg(t *testing.T) {
	versions := []string{
		"1.0-1", "1.0-1+deb12u1", "1.0-1~deb12u1", "1.0-1+b1", "1.0", "1.0-0", "1:0.1", "0:1.0-1", "1.0-10", "1.0-9", "1.0~rc1-1", "1.0~~", "1.0~",
		"2.36-9+deb12u13", "2.36-9+deb12u9", "1.0a", "1.0+", "1.0.", "001.0-1", "10", "9", "3.0.15-1~deb12u1", "3.0.15-1", "1-2-3", "1-2", "6.1.0-31", "99999999999999999999999", "1.0-1ubuntu0.1", "1.0-1build1",
	}
	_, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skip("NOT RUN: there is no dpkg to compare with")
	}
	for i, a := range versions {
		for _, b := range versions[i:] {
			want := 0
			if exec.Command("dpkg", "--compare-versions", a, "lt", b).Run() == nil {
				want = -1
			} else if exec.Command("dpkg", "--compare-versions", a, "gt", b).Run() == nil {
				want = 1
			}
			if got := CompareVersions(a, b); got != want {
				t.Errorf("%s and %s are %d, not %d", a, b, got, want)
			}
			if got := CompareVersions(b, a); got != -want {
				t.Errorf("%s and %s are %d, not %d", b, a, got, -want)
			}
		}
	}
}
