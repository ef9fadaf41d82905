package finding

import (
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
)

// parseSince reads --since.
func parseSince(s string, now time.Time) (time.Time, error) {
	if t, ok := moment.Past(s, now, false); ok {
		return t, nil
	}
	return time.Time{}, app.UsageError("bad value %q for --since: a span such as 24h or 7d, or a date such as 2026-05-01", s)
}

// parseUntil reads --until. What is decided is kept in seconds.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if t, ok := moment.Future(s, now); ok {
		return t.Truncate(time.Second), nil
	}
	return time.Time{}, app.UsageError("bad value %q for --until: a span such as 90d, or a date such as 2026-05-01", s)
}
