package query

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// quantity reads a number, a size or a length of time. Sizes are as in
// coreutils: K and KiB are 1024, KB is 1000. Lengths of time count in seconds,
// so that a field that says 1500ms compares with 1.5s and with 1.5.
func quantity(s string) (float64, bool) {
	if n, ok := number(s); ok {
		return n, true
	}
	if n, ok := size(s); ok {
		return n, true
	}
	d, ok := span(s)
	return d.Seconds(), ok
}

// number reads a decimal number. Unlike strconv it knows no names of numbers,
// no hexadecimal digits and no underscores: those are texts.
func number(s string) (float64, bool) {
	if s == "" || len(s) > 64 {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, false
		}
	}
	if s[0] == 'e' || s[0] == 'E' {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil
}

// size reads a number with one of the units K, M, G, T, P, each also with B or
// iB after it, or B alone.
func size(s string) (float64, bool) {
	i := strings.IndexAny(s, "KMGTPB")
	if i < 1 {
		return 0, false
	}
	n, ok := number(s[:i])
	if !ok {
		return 0, false
	}
	if s[i:] == "B" {
		return n, true
	}
	power := float64(1 + strings.IndexByte("KMGTP", s[i]))
	switch s[i+1:] {
	case "", "iB":
		return n * math.Pow(1024, power), power > 0
	case "B":
		return n * math.Pow(1000, power), power > 0
	}
	return 0, false
}

// spanUnit is the unit that a text begins with.
func spanUnit(s string) (time.Duration, int) {
	for _, u := range [...]struct {
		name string
		unit time.Duration
	}{
		{"ns", time.Nanosecond}, {"us", time.Microsecond}, {"µs", time.Microsecond}, {"ms", time.Millisecond},
		{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}, {"w", 7 * 24 * time.Hour},
	} {
		if strings.HasPrefix(s, u.name) {
			return u.unit, len(u.name)
		}
	}
	return 0, 0
}

// span reads a length of time such as 1h30m, 1.5s or 2w; a day has 24 hours.
func span(s string) (time.Duration, bool) {
	rest, total := s, 0.0
	for rest != "" {
		n := strings.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if n < 1 {
			return 0, false
		}
		count, ok := number(rest[:n])
		unit, length := spanUnit(rest[n:])
		if !ok || length == 0 {
			return 0, false
		}
		total += count * float64(unit)
		rest = rest[n+length:]
	}
	if s == "" || total >= math.MaxInt64 {
		return 0, false
	}
	return time.Duration(math.Round(total)), true
}

// stretch is what a time that somebody wrote stands for: a day, a minute, a
// second or an instant. last is outside of it.
type stretch struct{ first, last int64 }

// earliest and latest are the years whose nanoseconds fit.
const earliest, latest = 1678, 2261

func stretchOf(t time.Time, length func(time.Time) time.Time) (stretch, bool) {
	if t.Year() < earliest || t.Year() > latest {
		return stretch{}, false
	}
	return stretch{t.UnixNano(), length(t).UnixNano()}, true
}

func instant(t time.Time) time.Time { return t.Add(1) }
func second(t time.Time) time.Time  { return t.Add(time.Second) }
func minute(t time.Time) time.Time  { return t.Add(time.Minute) }
func day(t time.Time) time.Time     { return t.AddDate(0, 0, 1) }
func month(t time.Time) time.Time   { return t.AddDate(0, 1, 0) }

// moment reads a point in time: a date with or without a time of day, in the
// given zone or with its own; a time of day of today; today, yesterday, now;
// a span before now (24h, -24h, now-24h); seconds since 1970 (@1700000000).
func moment(s string, now time.Time, zone *time.Location) (stretch, bool) {
	now = now.In(zone)
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, zone)
	switch s {
	case "now":
		return stretchOf(now, instant)
	case "today":
		return stretchOf(today, day)
	case "yesterday":
		return stretchOf(today.AddDate(0, 0, -1), day)
	}
	back := strings.TrimPrefix(strings.TrimPrefix(s, "now"), "-")
	if d, ok := span(back); ok && s != "now"+back {
		return stretchOf(now.Add(-d), instant)
	}
	if digits, ok := strings.CutPrefix(s, "@"); ok {
		n, err := strconv.ParseInt(digits, 10, 34)
		if err != nil {
			return stretch{}, false
		}
		return stretchOf(time.Unix(n, 0).In(zone), second)
	}
	for _, f := range [...]struct {
		layout string
		length func(time.Time) time.Time
	}{
		{"2006-01", month}, {time.DateOnly, day},
		{"2006-01-02T15:04", minute}, {"2006-01-02 15:04", minute},
		{"2006-01-02T15:04:05", second}, {time.DateTime, second},
		{"2006-01-02T15:04Z07:00", minute}, {time.RFC3339, second}, {"2006-01-02 15:04:05Z07:00", second},
	} {
		t, err := time.ParseInLocation(f.layout, s, zone)
		if err != nil {
			continue
		}
		if t.Nanosecond() != 0 {
			return stretchOf(t, instant) // a fraction of a second was written
		}
		return stretchOf(t, f.length)
	}
	for _, f := range [...]struct {
		layout string
		length func(time.Time) time.Time
	}{{"15:04", minute}, {time.TimeOnly, second}} {
		if t, err := time.Parse(f.layout, s); err == nil {
			return stretchOf(time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone), f.length)
		}
	}
	return stretch{}, false
}

// bucket returns the beginning of the time bucket of a given length that
// nanoseconds t are in. Buckets of whole days begin at midnight of the zone,
// weeks on Monday.
func bucket(t int64, length time.Duration, zone *time.Location) int64 {
	const oneDay = 24 * time.Hour
	if zone == time.UTC && length%oneDay != 0 {
		return t - floorMod(t, int64(length))
	}
	local := time.Unix(0, t).In(zone)
	if length%oneDay == 0 {
		days := int64(length / oneDay)
		civil := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC).Unix() / int64(oneDay/time.Second)
		back := floorMod(civil+3, days) // 1970-01-01 was a Thursday
		return time.Date(local.Year(), local.Month(), local.Day()-int(back), 0, 0, 0, 0, zone).UnixNano()
	}
	_, offset := local.Zone()
	shift := int64(offset) * int64(time.Second)
	return t - floorMod(t+shift, int64(length))
}

func floorMod(a, b int64) int64 {
	m := a % b
	if m < 0 {
		m += b
	}
	return m
}
