package format

import (
	"strconv"
	"time"
)

// known reports whether t is a time that RFC 3339 can write. The zero time is
// none.
func known(t time.Time) bool {
	if t.IsZero() {
		return false
	}
	y := t.Year()
	return y >= 1 && y <= 9999
}

// appendStamp appends t in UTC as RFC 3339 with a fraction of the given number
// of digits, of which trailing zeros are kept, and then zone.
func appendStamp(dst []byte, t time.Time, digits int, zone string) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = appendDigits(dst, year, 4)
	dst = appendDigits(append(dst, '-'), int(month), 2)
	dst = appendDigits(append(dst, '-'), day, 2)
	dst = appendDigits(append(dst, 'T'), hour, 2)
	dst = appendDigits(append(dst, ':'), minute, 2)
	dst = appendDigits(append(dst, ':'), second, 2)
	if digits > 0 {
		fraction := t.Nanosecond()
		for range 9 - digits {
			fraction /= 10
		}
		dst = appendDigits(append(dst, '.'), fraction, digits)
	}
	return append(dst, zone...)
}

func appendDigits(dst []byte, n, digits int) []byte {
	for i := 1; i < digits; i++ {
		dst = append(dst, '0')
	}
	dst = append(dst, '0')
	for at := len(dst) - 1; n > 0 && at >= len(dst)-digits; at-- {
		dst[at] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

// appendMillis appends t in milliseconds since 1970.
func appendMillis(dst []byte, t time.Time) []byte { return strconv.AppendInt(dst, t.UnixMilli(), 10) }

// appendSeconds appends t in seconds since 1970 with a fraction of three
// digits.
func appendSeconds(dst []byte, t time.Time) []byte {
	ms := t.UnixMilli()
	if ms < 0 {
		dst = append(dst, '-')
		ms = -ms
	}
	dst = strconv.AppendInt(dst, ms/1000, 10)
	return appendDigits(append(dst, '.'), int(ms%1000), 3)
}
