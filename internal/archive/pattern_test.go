package archive

import (
	"strings"
	"testing"
)

func TestPatterns(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"etc/**", "etc/a", true}, {"etc/**", "etc/a/b/c", true}, {"etc/**", "etc", false}, {"etc/**", "etcetera/a", false},
		{"etc/*", "etc/a", true}, {"etc/*", "etc/a/b", false}, {"*.conf", "a.conf", true}, {"*.conf", "etc/a.conf", false},
		{"**/*.conf", "a.conf", true}, {"**/*.conf", "x/y/a.conf", true}, {"**/*.conf", "x/a.conf/b", false},
		{"a/**/b/**/c", "a/b/c", true}, {"a/**/b/**/c", "a/x/b/y/z/c", true}, {"a/**/b/**/c", "a/x/c", false},
		{"a/**/b", "a/b/x/b", true}, {"**", "x", true}, {"**/**", "x", true}, {"x/**/**", "x/a", true},
		{"etc/[a-c]?", "etc/b1", true}, {"etc/[a-c]?", "etc/d1", false}, {"etc", "etc", true}, {`etc/\*`, "etc/*", true},
	} {
		if err := CheckPattern(tc.pattern, DefaultLimits()); err != nil {
			t.Errorf("%s: %v", tc.pattern, err)
		}
		if got := Match(tc.pattern, tc.name); got != tc.want {
			t.Errorf("%s, %s: %v", tc.pattern, tc.name, got)
		}
	}
	// What backtracking would never end with.
	hostile := strings.TrimSuffix(strings.Repeat("**/a/", 30), "/") + "/b"
	if Match(hostile, strings.Repeat("a/", 60)+"c") {
		t.Error("it ends with another name")
	}
}
