package rawtar

import (
	"testing"
	"time"
)

// TestBroken: the judge of other tests sees what it is there for.
func TestBroken(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, tc := range []struct {
		name, link string
		symlink    bool
		at         time.Time
		broken     bool
	}{
		{"a/b", "", false, now, false},
		{"a/l", "../b/c", true, now, false},
		{"", "", false, now, true},
		{"/a", "", false, now, true},
		{"a/../b", "", false, now, true},
		{"../a", "", false, now, true},
		{"..", "", false, now, true},
		{"a\\b", "", false, now, true},
		{"a\xff", "", false, now, true},
		{"l", "/etc", true, now, true},
		{"a/l", "../../etc", true, now, true},
		{"a/l", "..", true, now, false},
		{"l", "..", true, now, true},
		{"a/l", "b/../c", true, now, true},
		{"a", "b", false, now, true},
		{"a", "", false, time.Unix(-1, 0), true},
		{"a", "", false, time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), true},
	} {
		if err := Broken(tc.name, tc.link, tc.symlink, tc.at); (err != nil) != tc.broken {
			t.Errorf("%q to %q at %v: %v", tc.name, tc.link, tc.at, err)
		}
	}
}
