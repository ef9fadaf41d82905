package logs

import (
	"testing"
	"time"
)

func TestPast(t *testing.T) {
	zone := time.FixedZone("test", 2*3600)
	now := time.Date(2026, 5, 10, 12, 0, 0, 0, zone)
	for in, want := range map[string]time.Time{
		"90m":                now.Add(-90 * time.Minute),
		"-90m":               now.Add(-90 * time.Minute),
		"now-1h":             now.Add(-time.Hour),
		"1 hour ago":         now.Add(-time.Hour),
		"2 days ago":         now.AddDate(0, 0, -2),
		"3min ago":           {},
		"now":                now,
		"today":              time.Date(2026, 5, 10, 0, 0, 0, 0, zone),
		"yesterday":          time.Date(2026, 5, 9, 0, 0, 0, 0, zone),
		"09:30":              time.Date(2026, 5, 10, 9, 30, 0, 0, zone),
		"09:30:15":           time.Date(2026, 5, 10, 9, 30, 15, 0, zone),
		"@1700000000":        time.Unix(1_700_000_000, 0),
		"2026-05-01":         time.Date(2026, 5, 1, 0, 0, 0, 0, zone),
		"2026-05-01T14:30Z":  {},
		"@99999999999999999": {}, "now1h": {}, "nowadays": {}, "soon": {}, "": {}, "-": {}, " ago": {}, "now-": {}, "25:00": {}, "2 moons ago": {},
	} {
		got, ok := past(in, now, false)
		if ok != !want.IsZero() || ok && !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", in, got, ok, want)
		}
	}
	if got, ok := past("yesterday", now, true); !ok || !got.Equal(time.Date(2026, 5, 9, 23, 59, 59, 999999999, zone)) {
		t.Errorf("the end of yesterday is %v, %v", got, ok)
	}
}
