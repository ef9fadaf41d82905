package segment

// layoutID is the number of a layout in a file: a template names it. Numbers
// are never reused; 0 is none.
type layoutID uint8

// layout is a way of writing a time, of fixed length: Y, M, D, h, m, s and f
// are digits of the year, month, day, hour, minute, second and its fraction; y
// of a year of this century; b the name of a month, w of a day of the week; _ a
// day filled up with a space; e seconds since 1970. Others stand for themselves.
// A zone that follows is not part of it.
var layouts = [...]string{
	1:  "YYYY-MM-DD hh:mm:ss",
	2:  "YYYY-MM-DD hh:mm:ss.fff",
	3:  "YYYY-MM-DD hh:mm:ss,fff",
	4:  "YYYY-MM-DD hh:mm:ss.ffffff",
	5:  "YYYY-MM-DD hh:mm:ss.fffffffff",
	6:  "YYYY-MM-DDThh:mm:ss",
	7:  "YYYY-MM-DDThh:mm:ss.fff",
	8:  "YYYY-MM-DDThh:mm:ss.ffffff",
	9:  "YYYY-MM-DDThh:mm:ss.fffffffff",
	10: "b __ hh:mm:ss",
	11: "w b DD hh:mm:ss YYYY",
	12: "w b DD hh:mm:ss.ffffff YYYY",
	13: "yyMMDD hhmmss",
	14: "DD/b/YYYY:hh:mm:ss",
	15: "YYYY/MM/DD hh:mm:ss",
	16: "eeeeeeeeee.fff",
	17: "eeeeeeeeee.ffffff",
	18: "YYYY-MM-DDThh:mm:ss,fff",
}

const (
	monthNames = "JanFebMarAprMayJunJulAugSepOctNovDec"
	dayNames   = "ThuFriSatSunMonTueWed" // from 1970-01-01 on
)

// moment is a time as it is written, without a zone: nanoseconds since
// 1970-01-01 as if it were UTC.
type moment int64

const second, day = 1_000_000_000, 86400 * 1_000_000_000 // in nanoseconds

// letters of a layout that stand for a name are three bytes of text.
func textLen(l string) int {
	n := len(l)
	for i := range len(l) {
		if l[i] == 'b' || l[i] == 'w' {
			n += 2
		}
	}
	return n
}

// parse reads a time that is written in a layout at the beginning of b. near
// tells the year where the layout has none. What it accepts is what append
// writes for the time, byte for byte.
func (id layoutID) parse(b []byte, near int64) (m moment, n int, ok bool) {
	l := layouts[id]
	var year, month, dayOfMonth, hour, minute, sec, frac, epoch int64
	scale, hasYear, weekday := int64(second), false, int64(-1)
	i := 0
	for k := 0; k < len(l); k++ {
		if i >= len(b) {
			return 0, 0, false
		}
		c := b[i]
		d := int64(c) - '0'
		isDigit := d >= 0 && d <= 9
		switch l[k] {
		case 'Y':
			year, hasYear = year*10+d, true
		case 'y':
			year, hasYear = year*10+d, true
		case 'M':
			month = month*10 + d
		case 'D':
			dayOfMonth = dayOfMonth*10 + d
		case 'h':
			hour = hour*10 + d
		case 'm':
			minute = minute*10 + d
		case 's':
			sec = sec*10 + d
		case 'e':
			epoch = epoch*10 + d
		case 'f':
			scale /= 10
			frac += d * scale
		case '_':
			if l[k-1] != '_' { // the first of two
				if c == ' ' {
					d, isDigit = 0, true
				} else if c == '0' {
					return 0, 0, false
				}
			}
			dayOfMonth = dayOfMonth*10 + d
		case 'b', 'w':
			if i+3 > len(b) {
				return 0, 0, false
			}
			if l[k] == 'b' {
				month = nameIndex(monthNames, b[i:i+3]) + 1
			} else if weekday = nameIndex(dayNames, b[i:i+3]); weekday < 0 {
				return 0, 0, false
			}
			i += 3
			continue
		default:
			if c != l[k] {
				return 0, 0, false
			}
			i++
			continue
		}
		if !isDigit {
			return 0, 0, false
		}
		i++
	}
	if l[0] == 'e' {
		return moment(epoch*second + frac), i, true
	}
	if l[0] == 'y' {
		year += 2000
	}
	if month < 1 || month > 12 || dayOfMonth < 1 || dayOfMonth > 31 || hour > 23 || minute > 59 || sec > 59 || hasYear && (year < 1700 || year > 2250) {
		return 0, 0, false
	}
	clock := (hour*3600+minute*60+sec)*second + frac
	if hasYear {
		days := civilDays(year, month, dayOfMonth)
		if dayOfMonth > 28 && !isDate(days, month, dayOfMonth) || weekday >= 0 && (days%7+7)%7 != weekday {
			return 0, 0, false
		}
		return moment(days*day + clock), i, true
	}
	year, _, _ = civilDate(floorDiv(near, day))
	for y := year - 1; y <= year+1; y++ {
		days := civilDays(y, month, dayOfMonth)
		if dayOfMonth > 28 && !isDate(days, month, dayOfMonth) {
			continue
		}
		if at := moment(days*day + clock); !ok || distance(at, near) < distance(m, near) {
			m, ok = at, true
		}
	}
	return m, i, ok
}

// isDate says whether the days since 1970 are those of a day of a month, and
// not of the month after it.
func isDate(days, month, dayOfMonth int64) bool {
	_, m, d := civilDate(days)
	return m == month && d == dayOfMonth
}

// nameIndex returns which of the names of three letters b is, or less than -1.
func nameIndex(names string, b []byte) int64 {
	for i := 0; i < len(names); i += 3 {
		if names[i] == b[0] && names[i+1] == b[1] && names[i+2] == b[2] {
			return int64(i / 3)
		}
	}
	return -2
}

func distance(m moment, near int64) uint64 {
	if d := int64(m) - near; d >= 0 {
		return uint64(d)
	} else {
		return uint64(-d)
	}
}

// append writes a time in a layout.
func (id layoutID) append(dst []byte, m moment) []byte {
	l := layouts[id]
	days := floorDiv(int64(m), day)
	rest := int64(m) - days*day
	year, month, dayOfMonth := civilDate(days)
	secs, frac := rest/second, rest%second
	epoch := floorDiv(int64(m), second)
	for k := 0; k < len(l); {
		run := k + 1
		for run < len(l) && l[run] == l[k] {
			run++
		}
		width := run - k
		switch l[k] {
		case 'Y':
			dst = appendDigits(dst, year, width)
		case 'y':
			dst = appendDigits(dst, year%100, width)
		case 'M':
			dst = appendDigits(dst, month, width)
		case 'D':
			dst = appendDigits(dst, dayOfMonth, width)
		case '_':
			dst = appendDigits(dst, dayOfMonth, width)
			if dayOfMonth < 10 {
				dst[len(dst)-2] = ' '
			}
		case 'h':
			dst = appendDigits(dst, secs/3600, width)
		case 'm':
			dst = appendDigits(dst, secs/60%60, width)
		case 's':
			dst = appendDigits(dst, secs%60, width)
		case 'e':
			dst = appendDigits(dst, epoch, width)
		case 'f':
			f := frac
			for range 9 - width {
				f /= 10
			}
			dst = appendDigits(dst, f, width)
		case 'b':
			dst = append(dst, monthNames[3*(month-1):3*month]...)
		case 'w':
			w := (days%7 + 7) % 7
			dst = append(dst, dayNames[3*w:3*w+3]...)
		default:
			dst = append(dst, l[k:run]...)
		}
		k = run
	}
	return dst
}

func appendDigits(dst []byte, v int64, width int) []byte {
	at := len(dst)
	for range width {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; i >= at && v > 0; i-- {
		dst[i] = byte('0' + v%10)
		v /= 10
	}
	return dst
}

// stamper finds the time in records of one stream. It remembers where it was
// found last.
type stamper struct {
	id   layoutID
	from int
}

// reach is how far into a record a time is looked for.
const reach = 96

// find returns where the time of a record is written.
func (s *stamper) find(raw []byte, near int64) (at value, id layoutID, m moment) {
	if s.id != 0 && s.from < len(raw) && (s.from == 0 || classes[raw[s.from-1]] == delimiter) {
		if m, n, ok := s.id.parse(raw[s.from:], near); ok {
			return value{s.from, s.from + n}, s.id, m
		}
	}
	for i := 0; i < min(len(raw), reach); i++ {
		c := raw[i]
		if i > 0 && classes[raw[i-1]] != delimiter || !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z') {
			continue
		}
		// Of layouts that begin alike the longest is the right one.
		best, bestLen, bestTime := layoutID(0), 0, moment(0)
		for id := layoutID(1); int(id) < len(layouts); id++ {
			if m, n, ok := id.parse(raw[i:], near); ok && n > bestLen {
				best, bestLen, bestTime = id, n, m
			}
		}
		if best != 0 {
			s.id, s.from = best, i
			return value{i, i + bestLen}, best, bestTime
		}
	}
	return value{}, 0, 0
}

// couldBe says whether text may be part of a time in this layout, from the
// byte at from on, in either case.
func (id layoutID) couldBe(text []byte, from int) bool {
	at := 0
	l := layouts[id]
	for k := range len(l) {
		width := 1
		if l[k] == 'b' || l[k] == 'w' {
			width = 3
		}
		for range width {
			i := at - from
			at++
			if i < 0 {
				continue
			}
			if i >= len(text) {
				return true
			}
			c := text[i]
			first := k == 0 || l[k-1] != l[k] // of a number
			switch l[k] {
			case 'Y', 'y', 'M', 'D', 'h', 'm', 's', 'e', 'f':
				if classes[c] != digit || first && c > maxFirst(l[k]) {
					return false
				}
			case '_':
				if (classes[c] != digit || first && c > '3') && !(first && c == ' ') {
					return false
				}
			case 'b', 'w':
				if c|0x20 < 'a' || c|0x20 > 'z' {
					return false
				}
			default:
				if c != l[k] && c|0x20 != l[k]|0x20 {
					return false
				}
			}
		}
	}
	return true
}

// maxFirst returns the greatest first digit of a number in a time.
func maxFirst(letter byte) byte {
	switch letter {
	case 'M':
		return '1'
	case 'Y', 'h':
		return '2'
	case 'D':
		return '3'
	case 'm', 's':
		return '5'
	}
	return '9'
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// civilDays returns the days from 1970-01-01 to a date of the proleptic
// Gregorian calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
func civilDays(y, m, d int64) int64 {
	if m <= 2 {
		y--
	}
	era := floorDiv(y, 400)
	yoe := y - era*400
	mp := (m + 9) % 12
	doy := (153*mp+2)/5 + d - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

// civilDate is the inverse of civilDays.
func civilDate(days int64) (y, m, d int64) {
	days += 719468
	era := floorDiv(days, 146097)
	doe := days - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d = doy - (153*mp+2)/5 + 1
	if mp < 10 {
		m = mp + 3
	} else {
		m = mp - 9
	}
	y = yoe + era*400
	if m <= 2 {
		y++
	}
	return y, m, d
}
