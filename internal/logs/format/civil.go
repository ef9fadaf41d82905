package format

import "time"

// ZoneKind says how the zone of a time is written.
type ZoneKind uint8

const (
	// ZoneNone is no zone at all: the time is that of the clock on the wall.
	ZoneNone ZoneKind = iota
	// ZoneZ is the letter Z, or that the number counts from 1970 UTC.
	ZoneZ
	// ZoneColon is ±hh:mm.
	ZoneColon
	// ZoneDigits is ±hhmm.
	ZoneDigits
	// ZoneUTC is the word UTC.
	ZoneUTC
	// ZoneGMT is the word GMT.
	ZoneGMT
	// ZoneUptime is none: the time counts from the start of the machine, so the
	// date is that of 1970.
	ZoneUptime
)

// Civil is a time as it is written: date, time of day and zone, and what is
// needed to write it again in the same way.
type Civil struct {
	Year                 int // 0: not written
	Month, Day           int
	Hour, Minute, Second int
	Nano                 int // nanoseconds, 0 to 999,999,999
	Digits               int // digits of the fraction as written, 0 to 9
	Zone                 ZoneKind
	Offset               int  // of the zone, in seconds east of Greenwich
	Minus                bool // an offset of zero is written as -00:00
}

const (
	firstYear = 1900
	lastYear  = 2200
	// endOfTime is the first second after the last year, 2201-01-01.
	endOfTime = 7289654400
)

// Seconds returns the seconds since 1970-01-01 as if the written date and time
// of day were UTC. A time without a year is taken as one of year zero, which
// is a leap year.
func (c Civil) Seconds() int64 {
	return days(c.Year, c.Month, c.Day)*86400 + int64(c.Hour*3600+c.Minute*60+c.Second)
}

// Unix returns the time of c in nanoseconds since 1970-01-01 UTC. It is
// meaningful only with a year and a zone.
func (c Civil) Unix() int64 {
	return (c.Seconds()-int64(c.Offset))*1e9 + int64(c.Nano)
}

// setSeconds is the inverse of Seconds.
func (c *Civil) setSeconds(s int64) {
	d, r := s/86400, int(s%86400)
	if r < 0 {
		d, r = d-1, r+86400
	}
	c.Year, c.Month, c.Day = date(d)
	c.Hour, c.Minute, c.Second = r/3600, r/60%60, r%60
}

// days counts the days from 1970-01-01 to a date of the Gregorian calendar
// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
func days(year, month, day int) int64 {
	if month <= 2 {
		year--
	}
	era := year
	if era < 0 {
		era -= 399
	}
	era /= 400
	yoe := year - era*400
	mp := (month + 9) % 12
	doy := (153*mp+2)/5 + day - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return int64(era)*146097 + int64(doe) - 719468
}

// date is the inverse of days.
func date(d int64) (year, month, day int) {
	d += 719468
	era := d
	if era < 0 {
		era -= 146096
	}
	era /= 146097
	doe := int(d - era*146097)
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day = doy - (153*mp+2)/5 + 1
	month = mp + 3
	if month > 12 {
		month -= 12
	}
	year = yoe + int(era)*400
	if month <= 2 {
		year++
	}
	return year, month, day
}

// leap reports whether a year has a 29th of February. Year 0, which stands for
// an unknown one, has.
func leap(year int) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }

var monthDays = [13]uint8{0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

// validDate reports whether there is such a day.
func validDate(year, month, day int) bool {
	if month < 1 || month > 12 || day < 1 {
		return false
	}
	return day <= int(monthDays[month]) || month == 2 && day == 29 && leap(year)
}

// weekday returns 0 for Sunday to 6 for Saturday.
func weekday(year, month, day int) int {
	w := int((days(year, month, day) + 4) % 7)
	if w < 0 {
		w += 7
	}
	return w
}

// zoneRange knows the offset of a location for a stretch of time, so that most
// conversions need no look into its table.
type zoneRange struct {
	loc        *time.Location
	start, end int64 // seconds UTC for which offset holds
	offset     int64
}

// unix returns the seconds since 1970 UTC of what the clock on the wall shows
// (seconds as if it were UTC). When the hour is there twice, as at the end of
// summer time, both are returned, otherwise the second equals the first.
func (z *zoneRange) unix(wall int64) (first, second int64) {
	const day = 86400
	if u := wall - z.offset; u-day >= z.start && u+day < z.end {
		return u, u
	}
	z.lookup(wall - day)
	before := wall - z.offset
	z.lookup(wall + day)
	after := wall - z.offset
	z.lookup(wall)
	if before == after {
		return before, before
	}
	// One change lies between. Both readings exist when each has the offset
	// that it assumes; in the gap in spring neither does, and the one that
	// keeps the order of times is right enough.
	okBefore := z.valid(before, wall-before)
	okAfter := z.valid(after, wall-after)
	switch {
	case okBefore && okAfter:
		return min(before, after), max(before, after)
	case okAfter:
		return after, after
	}
	return before, before
}

func (z *zoneRange) valid(unix, offset int64) bool {
	_, o := time.Unix(unix, 0).In(z.loc).Zone()
	return int64(o) == offset
}

func (z *zoneRange) lookup(unix int64) {
	t := time.Unix(unix, 0).In(z.loc)
	_, o := t.Zone()
	z.offset = int64(o)
	start, end := t.ZoneBounds()
	z.start, z.end = -1<<62, 1<<62
	if !start.IsZero() {
		z.start = start.Unix()
	}
	if !end.IsZero() {
		z.end = end.Unix()
	}
}
