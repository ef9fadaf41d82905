package format

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// goLayouts are the layouts of package time that write the same.
var goLayouts = map[string]string{
	"bsd": "Jan _2 15:04:05", "bsd0": "Jan 02 15:04:05", "bsd-frac": "Jan _2 15:04:05.000", "bsd-year": "Jan _2 2006 15:04:05",
	"rfc3339": "2006-01-02T15:04:05.999999999Z07:00", "isocomma": "2006-01-02T15:04:05,000000Z07:00", "iso": "2006-01-02T15:04:05.999999-0700", "isolocal": "2006-01-02T15:04:05.999999",
	"sql": "2006-01-02 15:04:05", "sqlzone": "2006-01-02 15:04:05Z07:00", "sqlspace": "2006-01-02 15:04:05 -0700",
	"log4j": "2006-01-02 15:04:05,000", "slash": "2006/01/02 15:04:05", "clf": "02/Jan/2006:15:04:05 -0700",
	"ctime": "Mon Jan _2 15:04:05 2006", "apache": "Mon Jan 02 15:04:05.000000 2006", "http": "Mon, 02 Jan 2006 15:04:05 GMT",
	"compact": "060102 150405", "klog": "0102 15:04:05.000000",
}

func mustLayout(t testing.TB, text string) *layout {
	t.Helper()
	l, err := newLayout(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestLayoutsAgainstTime writes thousands of random times with package time,
// reads them and writes them again.
func TestLayoutsAgainstTime(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, name := range slices.Sorted(maps.Keys(namedLayouts)) {
		goLayout, ok := goLayouts[name]
		if !ok {
			if !strings.HasPrefix(name, "epoch") && !strings.HasPrefix(name, "uptime") {
				t.Errorf("%s is not tested", name)
			}
			continue
		}
		l := mustLayout(t, name)
		for range 3000 {
			zone := time.FixedZone("", (rnd.IntN(29)-14)*3600+rnd.IntN(4)*900)
			if !l.zone || name == "http" {
				zone = time.UTC
			}
			at := time.Unix(rnd.Int64N(3e9), rnd.Int64N(1e9)).In(zone)
			if rnd.IntN(4) == 0 {
				at = at.Truncate(time.Second)
			}
			text := at.Format(goLayout)
			c, n, ok := l.Parse([]byte(text + " rest"))
			if !ok || n != len(text) {
				t.Fatalf("%s does not read %q (%d bytes)", name, text, n)
			}
			if again := string(l.Append(nil, c)); again != text {
				t.Fatalf("%s reads %q and writes %q", name, text, again)
			}
			if !l.year {
				continue
			}
			want, err := time.Parse(goLayout, text)
			if err != nil {
				t.Fatal(err)
			}
			if c.Unix() != want.UnixNano() && !(name == "compact" && want.Year() < 1970) {
				t.Fatalf("%s reads %q as %d, not %d", name, text, c.Unix(), want.UnixNano())
			}
		}
	}
}

func TestLayoutsRefuse(t *testing.T) {
	for name, texts := range map[string][]string{
		"bsd":      {"Feb 30 00:00:00", "Nov 02 05:55:12", "Nov  0 00:00:00", "Nov 31 00:00:00", "nov  2 00:00:00", "Nov  2 24:00:00", "Nov  2 00:60:00", "Nov  2 00:00:60", "Nov  2 0:00:00", "Nov  2", ""},
		"rfc3339":  {"2026-02-29T00:00:00Z", "2026-01-01t00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00+0100", "2026-01-01T00:00:00+19:00", "2026-01-01T00:00:00.1234567890Z", "0026-01-01T00:00:00Z", "1800-01-01T00:00:00Z", "2026-1-01T00:00:00Z"},
		"ctime":    {"Mon Nov 22 05:55:12 2026", "Sun Nov  2 05:55:12 2026"},
		"log4j":    {"2026-01-01 00:00:00,12", "2026-01-01 00:00:00.123", "2026-01-01 00:00:00,1234567890"},
		"epoch":    {"123", "01764481363", "17644813631", "-1764481363", "1764481363.1234567890"},
		"epoch-ms": {"1764481363", "17644813631234"},
		"epoch-ns": {"9999999999999999999"},
		"uptime":   {"0.000000", "[    0.0", "    .5", "1.5"},
	} {
		l := mustLayout(t, name)
		for _, text := range texts {
			if c, n, ok := l.Parse([]byte(text)); ok && n == len(text) {
				t.Errorf("%s takes %q for %+v", name, text, c)
			}
		}
	}
}

func TestLayoutDescriptions(t *testing.T) {
	for _, text := range []string{"%Y", "%H:%M", "%Y-%m-%d", "nothing", "%Q %Y-%m-%d %H:%M", "%Y-%m-%d %H:%M %Y", "%s %Y-%m-%d %H:%M", "%a %b %e %H:%M:%S", "%", "%3"} {
		if _, err := newLayout(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	for text, sample := range map[string]string{
		"%-d.%m.%Y %H:%M": "2.11.2026 05:55", "%Y-%m-%d %k:%M:%S": "2026-11-22  5:55:12", "%Y%m%dT%H%M%SZ": "20261122T055512Z",
		"%d%% %b %Y %H:%M:%S %Z": "02% Nov 2026 05:55:12 UTC", "epoch": "1764481363.25", "epoch-ms": "1764481363123", "epoch-us": "1764481363123456",
		"epoch-ns": "1764481363123456789", "uptime": "   12.345678", "uptime-us": "5140900",
	} {
		l := mustLayout(t, text)
		c, n, ok := l.Parse([]byte(sample))
		if !ok || n != len(sample) || string(l.Append(nil, c)) != sample {
			t.Errorf("%s: %q is read as %+v (%v, %d bytes) and written as %q", text, sample, c, ok, n, l.Append(nil, c))
		}
	}
}

// FuzzLayout holds that what a layout reads it writes again, byte by byte.
func FuzzLayout(f *testing.F) {
	names := slices.Sorted(maps.Keys(namedLayouts))
	var all []*layout
	for _, name := range append(names, "%-d.%m.%Y %k:%M", "%y%m%d %H%M %Z", "%Y-%m-%d %H:%M:%S%,f %:z") {
		l, err := newLayout(name)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, l)
	}
	for i, name := range names {
		if g, ok := goLayouts[name]; ok {
			f.Add(uint8(i), []byte(time.Date(2026, 11, 2, 5, 55, 12, 123456789, time.UTC).Format(g)))
		}
		f.Add(uint8(i), []byte("1764481363.123"))
		f.Add(uint8(i), []byte("   12.345678"))
	}
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		l := all[int(which)%len(all)]
		c, n, ok := l.Parse(text)
		if !ok {
			return
		}
		if again := l.Append(nil, c); string(again) != string(text[:n]) {
			t.Fatalf("%s reads %q and writes %q", l.name, text[:n], again)
		}
		if c.Month != 0 && !validDate(c.Year, c.Month, c.Day) || c.Nano < 0 || c.Nano > 999999999 {
			t.Fatalf("%s reads %q as %+v", l.name, text[:n], c)
		}
		if _, m, ok := l.Parse(text[:n]); !ok || m != n {
			t.Fatalf("%s reads %q only when more follows", l.name, text[:n])
		}
	})
}

func TestDays(t *testing.T) {
	for d := days(1895, 1, 1); d < days(2205, 1, 1); d++ {
		y, m, day := date(d)
		want := time.Unix(d*86400, 0).UTC()
		if y != want.Year() || m != int(want.Month()) || day != want.Day() || days(y, m, day) != d || weekday(y, m, day) != int(want.Weekday()) || !validDate(y, m, day) {
			t.Fatalf("day %d is %d-%d-%d, not %s", d, y, m, day, want.Format(time.DateOnly))
		}
	}
}

// Append writes what Parse read: Append(nil, Parse(x)) is x again for every x that
// Parse accepts wholly.
func (l *layout) Append(dst []byte, t Civil) []byte {
	for k := range l.steps {
		s := &l.steps[k]
		switch s.op {
		case opText:
			dst = append(dst, s.text...)
		case opYear:
			dst = appendTwo(appendTwo(dst, t.Year/100), t.Year%100)
		case opYear2:
			dst = appendTwo(dst, t.Year%100)
		case opMonthName:
			dst = append(dst, monthNames[t.Month*3-3:t.Month*3]...)
		case opMonth:
			dst = appendTwo(dst, t.Month)
		case opDay:
			dst = appendTwo(dst, t.Day)
		case opDayBlank:
			dst = appendBlank(dst, t.Day)
		case opHourBlank:
			dst = appendBlank(dst, t.Hour)
		case opDayPlain:
			dst = strconv.AppendInt(dst, int64(t.Day), 10)
		case opWeekday:
			w := weekday(t.Year, t.Month, t.Day) * 3
			dst = append(dst, weekdayNames[w:w+3]...)
		case opHour:
			dst = appendTwo(dst, t.Hour)
		case opMinute:
			dst = appendTwo(dst, t.Minute)
		case opSecond:
			dst = appendTwo(dst, t.Second)
		case opOptional:
			if t.Digits > 0 {
				dst = appendFraction(append(dst, s.char), t)
			}
		case opFraction:
			dst = appendFraction(dst, t)
		case opZone, opZoneColon, opZoneName:
			dst = appendZone(dst, t)
		case opEpoch:
			dst = strconv.AppendInt(dst, t.Seconds(), 10)
		case opEpochUnit:
			dst = strconv.AppendInt(dst, t.Seconds()*int64(pow10[s.n])+int64(t.Nano/pow10[9-s.n]), 10)
		case opUptime:
			n := len(dst)
			dst = strconv.AppendInt(dst, t.Seconds(), 10)
			for len(dst)-n < s.n {
				dst = append(dst, 0)
				copy(dst[n+1:], dst[n:])
				dst[n] = ' '
			}
		case opUptimeUS:
			dst = strconv.AppendInt(dst, t.Seconds()*1e6+int64(t.Nano/1000), 10)
		}
	}
	return dst
}

func appendTwo(dst []byte, v int) []byte { return append(dst, byte('0'+v/10%10), byte('0'+v%10)) }

// appendBlank writes two places, the first of them blank for one digit.
func appendBlank(dst []byte, v int) []byte {
	if v < 10 {
		return append(dst, ' ', byte('0'+v))
	}
	return appendTwo(dst, v)
}

// appendFraction writes the digits of the fraction without the point.
func appendFraction(dst []byte, t Civil) []byte {
	for d := range t.Digits {
		dst = append(dst, byte('0'+t.Nano/pow10[8-d]%10))
	}
	return dst
}

func appendZone(dst []byte, t Civil) []byte {
	switch t.Zone {
	case ZoneZ:
		return append(dst, 'Z')
	case ZoneUTC:
		return append(dst, "UTC"...)
	case ZoneGMT:
		return append(dst, "GMT"...)
	case ZoneColon, ZoneDigits:
		o, sign := t.Offset, byte('+')
		if o < 0 || t.Minus {
			o, sign = -o, '-'
		}
		dst = appendTwo(append(dst, sign), o/3600)
		if t.Zone == ZoneColon {
			dst = append(dst, ':')
		}
		return appendTwo(dst, o/60%60)
	}
	return dst
}
