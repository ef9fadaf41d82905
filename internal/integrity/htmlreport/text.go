package htmlreport

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/finding/export"
)

// Longest texts on a page, in bytes before anything is spelled out. A path on
// Linux has at most 4,096.
const (
	longestPath  = 1024
	longestValue = 400
)

// visible spells out what a reader could not see or would be misled by, and
// cuts a long text with a note of how much is missing.
func visible(s string, longest int) string {
	cut := ""
	if len(s) > longest {
		end := longest
		for end > longest-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		cut = fmt.Sprintf(" … and %s more bytes", count(int64(len(s)-end)))
		s = s[:end]
	}
	return export.Visible(s) + cut
}

// count writes a number with separated thousands.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural writes a number and the word for what is counted.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(int64(n)) + " " + many
}

// size writes a number of bytes with a decimal unit.
func size(n int64) string {
	v, unit := float64(n), ""
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if v < 999.5 {
			break
		}
		v, unit = v/1000, u
	}
	if unit == "" {
		return count(n) + " bytes"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + unit
}

// lasted writes how long something took.
func lasted(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f seconds", d.Seconds())
	}
	return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
}

// moment is a time for people and for programs.
type moment struct{ Text, ISO string }

func at(t time.Time) moment {
	if t.IsZero() {
		return moment{"never", ""}
	}
	return moment{t.UTC().Format("2 January 2006, 15:04:05 UTC"), t.UTC().Format(time.RFC3339)}
}
