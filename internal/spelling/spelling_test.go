package spelling

import "testing"

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"check", "check", 0},
		{"chekc", "check", 1}, {"chck", "check", 1}, {"verify", "very", 2}, {"abc", "xyz", 3},
	} {
		if got := Distance(tc.a, tc.b); got != tc.want {
			t.Errorf("Distance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}

func TestNearest(t *testing.T) {
	verbs := []string{"baseline", "check", "verify", "binaries"}
	for typed, want := range map[string]string{
		"chekc": "check", "Check": "check", "base": "baseline", "verfiy": "verify",
		"xyzzy": "", "": "", "c": "",
	} {
		if got := Nearest(typed, verbs); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", typed, got, want)
		}
	}
}
