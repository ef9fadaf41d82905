package format

import (
	"fmt"
	"strings"
)

// namedLayouts are the layouts that formats call by a name. The conversions are
// described in docs/formats/log-format.md.
var namedLayouts = map[string]string{
	"bsd":       "%b %e %H:%M:%S",            // RFC 3164
	"bsd0":      "%b %d %H:%M:%S",            // the same with a zero before the day
	"bsd-frac":  "%b %e %H:%M:%S.%f",         // with a fraction
	"bsd-year":  "%b %e %Y %H:%M:%S",         // with the year, as routers do
	"rfc3339":   "%Y-%m-%dT%H:%M:%S%.f%:z",   // RFC 3339, RFC 5424
	"iso":       "%Y-%m-%dT%H:%M:%S%.f%z",    // offset without a colon
	"isolocal":  "%Y-%m-%dT%H:%M:%S%.f",      // without a zone
	"isocomma":  "%Y-%m-%dT%H:%M:%S%,f%:z",   // dmesg --time-format iso
	"sql":       "%Y-%m-%d %H:%M:%S%.f",      // with a blank
	"sqlzone":   "%Y-%m-%d %H:%M:%S%.f%:z",   // the same with an offset
	"sqlspace":  "%Y-%m-%d %H:%M:%S%.f %z",   // the same with an offset apart
	"log4j":     "%Y-%m-%d %H:%M:%S,%3f",     // Hadoop, Python
	"slash":     "%Y/%m/%d %H:%M:%S%.f",      // nginx, Go
	"clf":       "%d/%b/%Y:%H:%M:%S %z",      // web access logs
	"ctime":     "%a %b %e %H:%M:%S %Y",      // asctime(3)
	"apache":    "%a %b %d %H:%M:%S%.f %Y",   // Apache error log
	"http":      "%a, %d %b %Y %H:%M:%S GMT", // RFC 9110
	"compact":   "%y%m%d %H%M%S",             // HDFS
	"klog":      "%m%d %H:%M:%S.%6f",         // Kubernetes
	"epoch":     "%s%.f",                     // seconds since 1970
	"epoch-ms":  "%L",                        // milliseconds since 1970
	"epoch-us":  "%U",                        // microseconds since 1970
	"epoch-ns":  "%N",                        // nanoseconds since 1970
	"uptime":    "%5u.%f",                    // dmesg
	"uptime-us": "%u",                        // /dev/kmsg
}

type timeOp uint8

const (
	opText      timeOp = iota // literal text
	opYear                    // %Y four digits
	opYear2                   // %y two digits, 1970 to 2069
	opMonth                   // %m
	opMonthName               // %b
	opDay                     // %d two digits
	opDayBlank                // %e a blank before one digit
	opDayPlain                // %-d no padding
	opWeekday                 // %a
	opHour                    // %H
	opHourBlank               // %k a blank before one digit
	opMinute                  // %M
	opSecond                  // %S
	opFraction                // %f 1 to 9 digits, %3f exactly three
	opOptional                // %.f %,f a separator and 1 to 9 digits, or nothing
	opZone                    // %z
	opZoneColon               // %:z
	opZoneName                // %Z
	opEpoch                   // %s
	opEpochUnit               // %L %U %N
	opUptime                  // %5u seconds, blank-padded
	opUptimeUS                // %u microseconds
)

type timeStep struct {
	op   timeOp
	n    int  // digits
	char byte // of opOptional
	text string
}

// layout is one way of writing a time, made from a description.
type layout struct {
	name  string
	steps []timeStep
	// What the layout tells, and what must be checked at the end.
	year, date, zone, uptime, weekday bool
}

func (l *layout) Name() string { return l.name }

// newLayout compiles a name of namedLayouts, or a description such as
// "%Y-%m-%d %H:%M:%S".
func newLayout(text string) (*layout, error) {
	l := &layout{name: text}
	desc, ok := namedLayouts[text]
	if !ok {
		desc = text
		if !strings.Contains(text, "%") {
			return nil, fmt.Errorf("no time layout is called %q (names and conversions: docs/formats/log-format.md)", text)
		}
	}
	var has [opUptimeUS + 1]bool
	add := func(s timeStep) error {
		if s.op != opText && has[s.op] {
			return fmt.Errorf("time layout %q says the same twice", text)
		}
		has[s.op] = true
		l.steps = append(l.steps, s)
		return nil
	}
	for len(desc) > 0 {
		i := strings.IndexByte(desc, '%')
		if i != 0 {
			if i < 0 {
				i = len(desc)
			}
			l.steps = append(l.steps, timeStep{op: opText, text: desc[:i]})
			desc = desc[i:]
			continue
		}
		s, n, err := conversion(desc)
		if err != nil {
			return nil, fmt.Errorf("time layout %q: %w", text, err)
		}
		if err := add(s); err != nil {
			return nil, err
		}
		desc = desc[n:]
	}
	l.uptime = has[opUptime] || has[opUptimeUS]
	epoch := has[opEpoch] || has[opEpochUnit]
	l.year = has[opYear] || has[opYear2] || epoch
	last := l.steps[len(l.steps)-1].text // "…Z", "… GMT": a zone that never changes
	l.zone = has[opZone] || has[opZoneColon] || has[opZoneName] || epoch ||
		strings.HasSuffix(last, "Z") || strings.HasSuffix(last, " GMT") || strings.HasSuffix(last, " UTC")
	l.weekday = has[opWeekday]
	l.date = (has[opMonth] || has[opMonthName]) && (has[opDay] || has[opDayBlank] || has[opDayPlain])
	if !l.uptime && !epoch && !(l.date && (has[opHour] || has[opHourBlank]) && has[opMinute]) {
		return nil, fmt.Errorf("time layout %q has no date or no time of day", text)
	}
	if (l.uptime || epoch) && (l.date || has[opHour]) {
		return nil, fmt.Errorf("time layout %q counts and has a date", text)
	}
	if l.weekday && !l.year {
		return nil, fmt.Errorf("time layout %q has a day of the week and no year", text)
	}
	return l, nil
}

// conversion reads the conversion at the beginning of desc.
func conversion(desc string) (s timeStep, n int, err error) {
	simple := map[byte]timeOp{'Y': opYear, 'y': opYear2, 'm': opMonth, 'b': opMonthName, 'd': opDay, 'e': opDayBlank,
		'a': opWeekday, 'H': opHour, 'k': opHourBlank, 'M': opMinute, 'S': opSecond, 'f': opFraction, 'z': opZone, 'Z': opZoneName,
		's': opEpoch, 'u': opUptimeUS}
	if len(desc) >= 2 {
		if op, ok := simple[desc[1]]; ok {
			return timeStep{op: op}, 2, nil
		}
		if i := strings.IndexByte("LUN", desc[1]); i >= 0 {
			return timeStep{op: opEpochUnit, n: 3 * (i + 1)}, 2, nil
		}
		if desc[1] == '%' {
			return timeStep{op: opText, text: "%"}, 2, nil
		}
	}
	if len(desc) >= 3 {
		switch two := desc[1:3]; {
		case two == "-d":
			return timeStep{op: opDayPlain}, 3, nil
		case two == ":z":
			return timeStep{op: opZoneColon}, 3, nil
		case two == ".f" || two == ",f":
			return timeStep{op: opOptional, char: two[0]}, 3, nil
		case two[0] >= '1' && two[0] <= '9' && two[1] == 'f':
			return timeStep{op: opFraction, n: int(two[0] - '0')}, 3, nil
		case two[0] >= '1' && two[0] <= '9' && two[1] == 'u':
			return timeStep{op: opUptime, n: int(two[0] - '0')}, 3, nil
		}
	}
	return s, 0, fmt.Errorf("%.3q is no conversion", desc)
}

const monthNames = "JanFebMarAprMayJunJulAugSepOctNovDec"
const weekdayNames = "SunMonTueWedThuFriSat"

// threeLetters returns the index of the name at the beginning of b, or -1.
func threeLetters(names string, b []byte) int {
	if len(b) < 3 {
		return -1
	}
	for i := 0; i < len(names); i += 3 {
		if names[i] == b[0] && names[i+1] == b[1] && names[i+2] == b[2] {
			return i / 3
		}
	}
	return -1
}

// two reads two digits; -1 when they are none.
func two(b []byte, i int) int {
	if i+2 > len(b) {
		return -1
	}
	h, l := b[i]-'0', b[i+1]-'0'
	if h > 9 || l > 9 {
		return -1
	}
	return int(h)*10 + int(l)
}

func digit(c byte) bool { return c-'0' <= 9 }

var pow10 = [...]int{1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000}
