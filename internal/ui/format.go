package ui

import (
	"fmt"
	"strconv"
	"time"
)

// Bytes writes a number of bytes with three digits and a decimal unit, as
// --io-limit reads it: "0 B", "999 B", "1.50 kB", "64.0 MB", "8.80 GB".
func Bytes(n int64) string {
	if n > -1000 && n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB", "PB", "EB"} {
		v /= 1000
		abs := max(v, -v)
		switch {
		case abs < 9.995:
			return fmt.Sprintf("%.2f %s", v, unit)
		case abs < 99.95:
			return fmt.Sprintf("%.1f %s", v, unit)
		case abs < 999.5 || unit == "EB":
			return fmt.Sprintf("%.0f %s", v, unit)
		}
	}
	return ""
}

// Count writes a number with separated thousands: "198,432".
func Count(n int64) string {
	s := strconv.FormatInt(n, 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Plural writes a number and the word for what is counted: "1 file", "2,000 files".
func Plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(n) + " " + many
}

// Duration writes how long something took, with two parts at most: "350 ms",
// "2.3 s", "42 s", "4m12s", "3h05m", "2d03h".
func Duration(d time.Duration) string {
	if d < 0 {
		return "-" + Duration(-d)
	}
	second := d.Round(time.Second)
	minute := d.Round(time.Minute)
	hour := d.Round(time.Hour)
	switch {
	case d < 999500*time.Microsecond:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case second < time.Minute:
		return fmt.Sprintf("%d s", second/time.Second)
	case second < time.Hour:
		return fmt.Sprintf("%dm%02ds", second/time.Minute, second%time.Minute/time.Second)
	case minute < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", minute/time.Hour, minute%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", hour/(24*time.Hour), hour%(24*time.Hour)/time.Hour)
}

// Ago writes how far a moment lies from now, roughly: "just now",
// "5 minutes ago", "3 days ago", "in 2 hours".
func Ago(t, now time.Time) string {
	d := now.Sub(t)
	shape := "%s ago"
	if d < 0 {
		d, shape = -d, "in %s"
	}
	const day = 24 * time.Hour
	for _, step := range []struct {
		below, unit time.Duration
		one, many   string
	}{
		{2 * time.Minute, time.Second, "second", "seconds"},
		{2 * time.Hour, time.Minute, "minute", "minutes"},
		{2 * day, time.Hour, "hour", "hours"},
		{60 * day, day, "day", "days"},
		{2 * 365 * day, 30 * day, "month", "months"},
		{1<<63 - 1, 365 * day, "year", "years"},
	} {
		if d < step.below {
			if step.unit == time.Second && d < 5*time.Second {
				return "just now"
			}
			return fmt.Sprintf(shape, Plural(int64(d/step.unit), step.one, step.many))
		}
	}
	return ""
}
