package finding

import (
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
)

// parseSpan reads a span of time as people type it: "90d", "12h", "1w2d",
// "45m". The units are w, d, h, m and s, a day having 24 hours.
func parseSpan(s string) (time.Duration, bool) {
	units := map[byte]time.Duration{'w': 7 * 24 * time.Hour, 'd': 24 * time.Hour, 'h': time.Hour, 'm': time.Minute, 's': time.Second}
	var total time.Duration
	for rest := s; rest != ""; {
		n := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if n < 1 || n > 6 {
			return 0, false
		}
		unit, known := units[rest[n]]
		count, err := strconv.Atoi(rest[:n])
		if !known || err != nil || time.Duration(count) > (1<<62)/unit {
			return 0, false
		}
		if total += time.Duration(count) * unit; total < 0 {
			return 0, false
		}
		rest = rest[n+1:]
	}
	return total, s != ""
}

// parseDate reads a day, or a moment of the local time zone or with its own.
// A day is its first moment, or with end its last.
func parseDate(s string, end bool) (time.Time, bool) {
	if day, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		if end {
			day = day.AddDate(0, 0, 1).Add(-time.Second)
		}
		return day, true
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02T15:04:05", time.DateTime} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, true
		}
	}
	t, err := time.Parse(time.RFC3339, s)
	return t, err == nil
}

// parseSince reads a moment before now: a span back from it, or a date.
func parseSince(s string, now time.Time) (time.Time, error) {
	if d, ok := parseSpan(s); ok {
		return now.Add(-d), nil
	}
	if t, ok := parseDate(s, false); ok {
		return t, nil
	}
	return time.Time{}, app.UsageError("bad value %q for --since: a span such as 24h or 7d, or a date such as 2026-05-01", s)
}

// parseUntil reads a moment after now: a span from it, or a date, whose whole
// day counts.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if d, ok := parseSpan(s); ok {
		return now.Add(d), nil
	}
	if t, ok := parseDate(s, true); ok {
		return t, nil
	}
	return time.Time{}, app.UsageError("bad value %q for --until: a span such as 90d, or a date such as 2026-05-01", s)
}
