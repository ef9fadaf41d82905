// Package moment reads points in time as people type them in flags such as
// --since and --until: a span before or after now ("90m", "24h", "7d", "1w2d")
// or a date of the local time zone ("2026-05-01", "2026-05-01 14:30", RFC 3339 with its own).
package moment

import (
	"strconv"
	"strings"
	"time"
)

// Past reads a moment before now: a span back from it, or a date. A day stands
// for its first moment, or with end for its last.
func Past(s string, now time.Time, end bool) (time.Time, bool) {
	if d, ok := Span(s); ok {
		return now.Add(-d), true
	}
	return date(s, now, end)
}

// Future reads a moment after now: a span from it, or a date. A day stands for
// its last moment, for all of it counts.
func Future(s string, now time.Time) (time.Time, bool) {
	if d, ok := Span(s); ok {
		return now.Add(d), true
	}
	return date(s, now, true)
}

// date reads a day, or a moment of now's time zone or with its own.
func date(s string, now time.Time, end bool) (time.Time, bool) {
	if day, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		if end {
			day = day.AddDate(0, 0, 1).Add(-1)
		}
		return day, true
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02T15:04:05", time.DateTime} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, true
		}
	}
	t, err := time.Parse(time.RFC3339, s)
	return t, err == nil
}

// Span reads a length of time. The units are w, d, h, m and s, a day having 24
// hours.
func Span(s string) (time.Duration, bool) {
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
