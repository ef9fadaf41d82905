package finding

import (
	"testing"
	"time"
)

func TestParseSpan(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "12h": 12 * time.Hour, "1w2d": 9 * 24 * time.Hour, "45m": 45 * time.Minute, "1h30m": 90 * time.Minute, "0s": 0, "7s": 7 * time.Second,
	} {
		if got, ok := parseSpan(s); !ok || got != want {
			t.Errorf("%q: %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "d", "90", "9x", "-1d", "1.5d", "9999999d", "999999w", "1d ", "٣d", "1h2"} {
		if got, ok := parseSpan(s); ok {
			t.Errorf("%q: %v", s, got)
		}
	}
}

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
