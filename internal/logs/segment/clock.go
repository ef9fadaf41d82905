package segment

// clock writes times that mostly are of the same day, in the same layout: what
// was written last is kept, and only the digits that count within a day are
// written anew.
type clock struct {
	layout layoutID
	day    int64
	text   []byte
	// Where in text the digits are of hours, minutes, seconds and fractions;
	// fractions is how many of these.
	hour, minute, second, fraction, fractions int
	fixed                                     bool
}

// append appends a time.
func (c *clock) append(dst []byte, id layoutID, m moment) []byte {
	days := floorDiv(int64(m), day)
	if id != c.layout || days != c.day {
		c.prepare(id, days, m)
	}
	if !c.fixed {
		return id.append(dst, m)
	}
	rest := int64(m) - days*day
	secs, frac := rest/second, rest%second
	at := len(dst)
	dst = append(dst, c.text...)
	text := dst[at:]
	two(text[c.hour:], secs/3600)
	two(text[c.minute:], secs/60%60)
	two(text[c.second:], secs%60)
	if c.fractions > 0 {
		for range 9 - c.fractions {
			frac /= 10
		}
		for i := c.fraction + c.fractions - 1; i >= c.fraction; i-- {
			text[i] = byte('0' + frac%10)
			frac /= 10
		}
	}
	return dst
}

func two(text []byte, v int64) { text[0], text[1] = byte('0'+v/10), byte('0'+v%10) }

// prepare writes a time of the day, and notes where its digits are.
func (c *clock) prepare(id layoutID, days int64, m moment) {
	*c = clock{layout: id, day: days, text: id.append(c.text[:0], m), fixed: true}
	at := 0
	l := layouts[id]
	for k := range len(l) {
		first := k == 0 || l[k-1] != l[k]
		switch l[k] {
		case 'h':
			if first {
				c.hour = at
			}
		case 'm':
			if first {
				c.minute = at
			}
		case 's':
			if first {
				c.second = at
			}
		case 'f':
			if first {
				c.fraction = at
			}
			c.fractions++
		case 'e':
			c.fixed = false // it counts days as well
		case 'b', 'w':
			at += 2
		}
		at++
	}
}
