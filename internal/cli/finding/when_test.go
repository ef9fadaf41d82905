package finding

import (
	"testing"
	"time"
)

func TestDates(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	day := func(h, m, s int) time.Time { return time.Date(2026, 5, 31, h, m, s, 0, time.Local) }
	for _, tc := range []struct {
		text         string
		since, until time.Time
	}{
		{"2026-05-31", day(0, 0, 0), day(23, 59, 59)},
		{"2026-05-31 14:05", day(14, 5, 0), day(14, 5, 0)},
		{"2026-05-31T14:05:06", day(14, 5, 6), day(14, 5, 6)},
		{"2026-05-31T14:05:06Z", time.Date(2026, 5, 31, 14, 5, 6, 0, time.UTC), time.Date(2026, 5, 31, 14, 5, 6, 0, time.UTC)},
		{"24h", now.Add(-24 * time.Hour), now.Add(24 * time.Hour)},
	} {
		since, err := parseSince(tc.text, now)
		if err != nil || !since.Equal(tc.since) {
			t.Errorf("--since %s: %v, %v", tc.text, since, err)
		}
		until, err := parseUntil(tc.text, now)
		if err != nil || !until.Equal(tc.until) {
			t.Errorf("--until %s: %v, %v", tc.text, until, err)
		}
	}
	for _, s := range []string{"soon", "2026-13-01", "2026-02-30", "31.05.2026"} {
		if _, err := parseUntil(s, now); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}
