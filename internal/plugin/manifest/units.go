package manifest

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

func parseBool(s string) (bool, error) {
	if s != "true" && s != "false" {
		return false, errors.New("is neither true nor false")
	}
	return s == "true", nil
}

// parseInt reads a whole number in the one form that it has in decimal.
func parseInt(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s {
		return 0, errors.New("is not a whole number")
	}
	return n, nil
}

// unit is a unit of sizes and how many bytes it has.
type unit struct {
	name  string
	bytes int64
}

// units has the longer names first: "MiB" ends with "B", too.
func units() []unit {
	return []unit{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
	}
}

// parseSize reads a number of bytes such as "4096", "50MB" (millions) or
// "64MiB" (powers of two).
func parseSize(s string) (int64, error) {
	for _, u := range units() {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		if u.name != "" {
			digits = strings.TrimSuffix(digits, " ")
		}
		n, err := parseInt(digits)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, errors.New("is not a size, such as 4096, 50MB or 64MiB")
}

// formatSize writes a size so that parseSize gives the same number.
func formatSize(n int64) string {
	best := unit{"", 1}
	for _, u := range units() {
		if u.bytes > best.bytes && n%u.bytes == 0 && n >= u.bytes {
			best = u
		}
	}
	return strconv.FormatInt(n/best.bytes, 10) + best.name
}

// parseDuration reads a duration such as "1h30m", and also days, which come
// first: "7d" or "1d12h". It is not negative.
func parseDuration(s string) (time.Duration, error) {
	wrong := errors.New("is not a duration, such as 30s, 15m, 12h or 7d")
	if s == "0" {
		return 0, nil
	}
	days, rest := time.Duration(0), s
	if digits, after, ok := strings.Cut(s, "d"); ok {
		n, err := parseInt(digits)
		if err != nil || n < 0 || n > 36500 {
			return 0, wrong
		}
		if days = time.Duration(n) * 24 * time.Hour; after == "" {
			return days, nil
		}
		rest = after
	}
	if rest == "" || rest[0] < '0' || rest[0] > '9' { // no sign, no ".5s"
		return 0, wrong
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-days {
		return 0, wrong
	}
	return days + d, nil
}

// formatDuration writes a duration without the parts that are zero: "1h", not
// "1h0m0s".
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
