package logs

import (
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/moment"
)

// whens says what past reads.
const whens = `a span such as 24h or 7d, a date such as 2026-05-01 or "2026-05-01 14:30", a time of today such as 14:30, now, today or yesterday`

// past reads a moment before now as people write it who know journalctl or the
// query language: what moment.Past reads, and also "-1h", "now-1h",
// "1 hour ago", "now", "today", "yesterday", a time of today, and "@" with
// seconds since 1970. A day stands for its first moment, or with end for its
// last.
func past(s string, now time.Time, end bool) (time.Time, bool) {
	if t, ok := moment.Past(s, now, end); ok {
		return t, true
	}
	span := strings.TrimPrefix(strings.TrimPrefix(s, "now"), "-")
	if count, ok := strings.CutSuffix(s, " ago"); ok {
		span = shortUnit(count)
	}
	if d, ok := moment.Span(span); ok && s != "now"+span {
		return now.Add(-d), true
	}
	switch s {
	case "now":
		return now, true
	case "today":
		return moment.Past(now.Format(time.DateOnly), now, end)
	case "yesterday":
		return moment.Past(now.AddDate(0, 0, -1).Format(time.DateOnly), now, end)
	}
	if digits, ok := strings.CutPrefix(s, "@"); ok {
		n, err := strconv.ParseInt(digits, 10, 34) // of years that nanoseconds reach
		return time.Unix(n, 0), err == nil
	}
	for _, layout := range []string{"15:04", time.TimeOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), now.Location()), true
		}
	}
	return time.Time{}, false
}

// shortUnit turns "2 hours" into "2h". What it does not know stays as it is.
func shortUnit(s string) string {
	count, unit, _ := strings.Cut(s, " ")
	switch strings.TrimSuffix(unit, "s") {
	case "second", "sec":
		return count + "s"
	case "minute", "min":
		return count + "m"
	case "hour":
		return count + "h"
	case "day":
		return count + "d"
	case "week":
		return count + "w"
	}
	return s
}
