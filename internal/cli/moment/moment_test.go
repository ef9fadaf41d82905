package moment

import (
	"testing"
	"time"
)

func TestPast(t *testing.T) {
	zone := time.FixedZone("test", 2*3600)
	now := time.Date(2026, 5, 10, 12, 0, 0, 0, zone)
	for in, want := range map[string]time.Time{
		"90m":                  now.Add(-90 * time.Minute),
		"1w2d":                 now.AddDate(0, 0, -9),
		"2026-05-01":           time.Date(2026, 5, 1, 0, 0, 0, 0, zone),
		"2026-05-01 14:30":     time.Date(2026, 5, 1, 14, 30, 0, 0, zone),
		"2026-05-01T14:30:05":  time.Date(2026, 5, 1, 14, 30, 5, 0, zone),
		"2026-05-01T14:30:05Z": time.Date(2026, 5, 1, 14, 30, 5, 0, time.UTC),
	} {
		if got, ok := Past(in, now, false); !ok || !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", in, got, ok, want)
		}
	}
	if got, ok := Past("2026-05-01", now, true); !ok || !got.Equal(time.Date(2026, 5, 1, 23, 59, 59, 999999999, zone)) {
		t.Errorf("the end of the day is %v, %v", got, ok)
	}
	for _, in := range []string{"", "soon", "7", "d", "-7d", "7x", "9999999d", "999999w999999w", "2026-13-01", "2026-05-01 25:00"} {
		if got, ok := Past(in, now, false); ok {
			t.Errorf("%q is %v; want an error", in, got)
		}
	}
}

func TestSpan(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "12h": 12 * time.Hour, "1w2d": 9 * 24 * time.Hour, "45m": 45 * time.Minute, "1h30m": 90 * time.Minute, "0s": 0, "7s": 7 * time.Second,
	} {
		if got, ok := Span(s); !ok || got != want {
			t.Errorf("%q: %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "d", "90", "9x", "-1d", "1.5d", "9999999d", "999999w", "1d ", "٣d", "1h2"} {
		if got, ok := Span(s); ok {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestFuture(t *testing.T) {
	now := time.Date(2026, 5, 10, 12, 0, 0, 0, time.FixedZone("test", 2*3600))
	if got, ok := Future("90d", now); !ok || !got.Equal(now.AddDate(0, 0, 90)) {
		t.Errorf("90d is %v, %v", got, ok)
	}
	if got, ok := Future("2026-05-31", now); !ok || got.Format(time.DateTime) != "2026-05-31 23:59:59" {
		t.Errorf("the whole day is %v, %v", got, ok)
	}
}
