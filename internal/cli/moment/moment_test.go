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
