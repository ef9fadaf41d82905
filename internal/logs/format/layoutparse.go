package format

// Parse reads a time at the beginning of b and returns what is written there and how
// many bytes it takes. What is no date (30 February, a wrong day of the week, second
// 60) is not accepted.
func (l *layout) Parse(b []byte) (t Civil, n int, ok bool) {
	day := -1
	i := 0
	for k := range l.steps {
		s := &l.steps[k]
		switch s.op {
		case opText:
			n := len(s.text)
			if len(b)-i < n || b[i] != s.text[0] || n > 1 && string(b[i:i+n]) != s.text {
				return t, 0, false
			}
			i += n
		case opYear:
			h, l := two(b, i), two(b, i+2)
			t.Year = h*100 + l
			if h < 0 || l < 0 || t.Year < firstYear || t.Year > lastYear {
				return t, 0, false
			}
			i += 4
		case opYear2:
			v := two(b, i)
			if v < 0 {
				return t, 0, false
			}
			t.Year = 1900 + v
			if v < 70 {
				t.Year = 2000 + v
			}
			i += 2
		case opMonthName:
			m := threeLetters(monthNames, b[i:])
			if m < 0 {
				return t, 0, false
			}
			t.Month = m + 1
			i += 3
		case opMonth:
			if t.Month = two(b, i); t.Month < 1 || t.Month > 12 {
				return t, 0, false
			}
			i += 2
		case opDay:
			if t.Day = two(b, i); t.Day < 1 {
				return t, 0, false
			}
			i += 2
		case opDayBlank:
			if i+2 <= len(b) && b[i] == ' ' && digit(b[i+1]) {
				t.Day = int(b[i+1] - '0')
			} else if t.Day = two(b, i); t.Day < 10 {
				return t, 0, false
			}
			if t.Day < 1 || t.Day > 31 {
				return t, 0, false
			}
			i += 2
		case opDayPlain:
			if t.Day = two(b, i); t.Day >= 10 {
				i += 2
			} else if i < len(b) && b[i] >= '1' && b[i] <= '9' {
				t.Day = int(b[i] - '0')
				i++
			} else {
				return t, 0, false
			}
		case opWeekday:
			if day = threeLetters(weekdayNames, b[i:]); day < 0 {
				return t, 0, false
			}
			i += 3
		case opHour:
			if t.Hour = two(b, i); t.Hour < 0 || t.Hour > 23 {
				return t, 0, false
			}
			i += 2
		case opHourBlank:
			if i+2 <= len(b) && b[i] == ' ' && digit(b[i+1]) {
				t.Hour = int(b[i+1] - '0')
			} else if t.Hour = two(b, i); t.Hour < 10 || t.Hour > 23 {
				return t, 0, false
			}
			i += 2
		case opMinute:
			if t.Minute = two(b, i); t.Minute < 0 || t.Minute > 59 {
				return t, 0, false
			}
			i += 2
		case opSecond:
			if t.Second = two(b, i); t.Second < 0 || t.Second > 59 {
				return t, 0, false
			}
			i += 2
		case opOptional:
			if i >= len(b) || b[i] != s.char || i+1 >= len(b) || !digit(b[i+1]) {
				break
			}
			i++
			if i = t.fraction(b, i, 0); i < 0 {
				return t, 0, false
			}
		case opFraction:
			if i = t.fraction(b, i, s.n); i < 0 {
				return t, 0, false
			}
		default:
			if i, ok = t.rare(s, b, i); !ok {
				return t, 0, false
			}
		}
	}
	if l.date && !validDate(t.Year, t.Month, t.Day) || l.weekday && weekday(t.Year, t.Month, t.Day) != day {
		return t, 0, false
	}
	if l.zone && t.Zone == ZoneNone {
		t.Zone = ZoneZ
	}
	return t, i, true
}

// fraction reads digits after the point: exactly n, or 1 to 9 when n is 0. It
// returns where they end, or -1.
func (t *Civil) fraction(b []byte, i, n int) int {
	v, j := 0, i
	for j < len(b) && j-i < 10 && digit(b[j]) && (n == 0 || j-i < n) {
		v = v*10 + int(b[j]-'0')
		j++
		if j-i > 9 {
			return -1
		}
	}
	t.Digits = j - i
	if t.Digits == 0 || n > 0 && t.Digits != n {
		return -1
	}
	t.Nano = v * pow10[9-t.Digits]
	return j
}

// rare reads the conversions that few layouts have.
func (t *Civil) rare(s *timeStep, b []byte, i int) (int, bool) {
	switch s.op {
	case opZone, opZoneColon:
		return t.zone(b, i, s.op == opZoneColon)
	case opZoneName:
		if len(b)-i < 3 || len(b)-i > 3 && letter(b[i+3]) {
			return i, false
		}
		switch string(b[i : i+3]) {
		case "UTC":
			t.Zone = ZoneUTC
		case "GMT":
			t.Zone = ZoneGMT
		default:
			return i, false
		}
		return i + 3, true
	}
	// The rest are numbers.
	j := i
	if s.op == opUptime {
		for j < len(b) && b[j] == ' ' && j-i < s.n-1 {
			j++
		}
	}
	from := j
	var v int64
	for j < len(b) && digit(b[j]) {
		if j-from >= 18+s.n/9 {
			return i, false
		}
		v = v*10 + int64(b[j]-'0')
		j++
	}
	if j == from || b[from] == '0' && j-from > 1 {
		return i, false // no number, or one that would be written otherwise
	}
	t.Zone = ZoneZ
	switch s.op {
	case opEpoch:
		if j-from != 9 && j-from != 10 { // since 1973, so that no other number is taken for one
			return i, false
		}
	case opEpochUnit:
		if j-from != 9+s.n && j-from != 10+s.n {
			return i, false
		}
		unit := int64(pow10[s.n])
		t.Digits, t.Nano = s.n, int(v%unit)*pow10[9-s.n]
		v /= unit
	case opUptime:
		if j-i < s.n || from > i && j-i != s.n {
			return i, false // padded to another width
		}
		t.Zone = ZoneUptime
	case opUptimeUS:
		t.Digits, t.Nano = 6, int(v%1e6)*1000
		v /= 1e6
		t.Zone = ZoneUptime
	}
	if v >= endOfTime || v < 0 {
		return i, false
	}
	t.setSeconds(v)
	return j, true
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// zone reads ±hhmm, or Z and ±hh:mm.
func (t *Civil) zone(b []byte, i int, colon bool) (int, bool) {
	if i >= len(b) {
		return i, false
	}
	sign := 1
	switch b[i] {
	case 'Z':
		t.Zone = ZoneZ
		return i + 1, colon
	case '+':
	case '-':
		sign = -1
	default:
		return i, false
	}
	h, j := two(b, i+1), i+3
	t.Zone = ZoneDigits
	if colon {
		if j >= len(b) || b[j] != ':' {
			return i, false
		}
		j++
		t.Zone = ZoneColon
	}
	m := two(b, j)
	if h < 0 || h > 18 || m < 0 || m > 59 {
		return i, false
	}
	t.Offset = sign * (h*3600 + m*60)
	t.Minus = sign < 0 && t.Offset == 0
	return j + 2, true
}
