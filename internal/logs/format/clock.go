package format

import (
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// clock gives times to the records of one file.
//
// A year that is not written follows from the order of records: the first one
// is taken to be no later than the last change of the file, later ones no
// earlier than the one before. Relays and threads write out of order, so a
// step back of less than disorder is no new year.
type clock struct {
	zone    zoneRange
	mod     int64     // last change of the file, in nanoseconds; 0: not known
	now     time.Time // at opening
	opened  time.Time // the same by the clock of the process, to know how much later it is
	boot    int64     // start of the machine, 0: not known
	last    int64     // time of the latest record that has one of its own
	seen    bool      // there was such a record
	prevUse int       // year of last on the wall
}

const (
	disorder = 7 * 24 * 3600
	// ahead is how far a record may be later than the change of its file, in
	// seconds: zones that are not written differ by up to 25 hours.
	ahead = 25 * 3600
	// foldSlack is how much earlier than the record before a time may be, in
	// seconds, before it is taken for that of the second hour of the same name.
	foldSlack = 10
)

func (c *clock) init(o ReaderOptions, zone string) {
	loc := o.Zone
	if zone != "" {
		if z, err := time.LoadLocation(zone); err == nil {
			loc = z
		}
	}
	if loc == nil {
		loc = time.UTC
	}
	c.zone = zoneRange{loc: loc}
	c.opened = time.Now()
	if c.now = o.Now; c.now.IsZero() {
		c.now = c.opened
	}
	if !o.Boot.IsZero() {
		c.boot = o.Boot.UnixNano()
	}
	c.setMod(o.ModTime)
}

func (c *clock) setMod(t time.Time) {
	if !t.IsZero() {
		c.mod = t.UnixNano()
	}
}

// present returns the seconds since 1970 of now.
func (c *clock) present() int64 { return c.now.Add(time.Since(c.opened)).Unix() }

// without returns the time of a record that has none of its own.
func (c *clock) without() (int64, event.Clock) {
	switch {
	case c.seen:
		return c.last, event.ClockPrevious
	case c.mod != 0:
		return c.mod, event.ClockFile
	}
	return c.now.UnixNano(), event.ClockNone
}

// resolve turns what is written into a time.
func (c *clock) resolve(l *layout, t Civil) (int64, event.Clock) {
	how := event.ClockExact
	var unix int64
	switch {
	case l.uptime:
		if c.boot == 0 {
			return c.without()
		}
		return c.took(c.boot+t.Unix(), event.ClockBoot)
	case l.year && l.zone:
		return c.took(t.Unix(), how)
	case l.year:
		unix = c.wall(t)
		how = event.ClockZone
	default:
		unix = c.year(l, t)
		how = event.ClockYear
	}
	return c.took(unix*1e9+int64(t.Nano), how)
}

func (c *clock) took(ns int64, how event.Clock) (int64, event.Clock) {
	c.last, c.seen = ns, true
	return ns, how
}

// wall converts a time without a zone.
func (c *clock) wall(t Civil) int64 {
	first, second := c.zone.unix(t.Seconds())
	if first != second && c.seen && first < floorSeconds(c.last)-foldSlack {
		return second
	}
	return first
}

// in converts a time in a year.
func (c *clock) in(year int, l *layout, t Civil) int64 {
	t.Year = year
	if l.zone {
		return t.Seconds() - int64(t.Offset)
	}
	return c.wall(t)
}

// year infers the year of t.
func (c *clock) year(l *layout, t Civil) int64 {
	last := floorSeconds(c.last)
	if c.seen && c.prevUse != 0 && validDate(c.prevUse, t.Month, t.Day) {
		if u := c.in(c.prevUse, l, t); u-last < disorder && last-u < disorder {
			return u // nearly always
		}
	}
	limit := c.present() + ahead
	if m := floorSeconds(c.mod) + ahead; c.mod != 0 && (!c.seen || m > limit) {
		limit = m
	}
	from := limit
	if c.seen {
		from = last
	}
	y := time.Unix(from, 0).In(c.zone.loc).Year()
	best, found := int64(0), 0
	// From the latest year that is possible down to the earliest. 29 February
	// can be eight years away.
	for _, year := range candidates(y) {
		if !validDate(year, t.Month, t.Day) {
			continue
		}
		u := c.in(year, l, t)
		near := c.seen && u-last < disorder && last-u < disorder
		switch {
		case near:
			c.prevUse = year
			return u
		case u > limit:
		case found == 0, c.seen && u >= last && (best < last || u < best), u > best && best < last:
			best, found = u, year
		}
	}
	if found == 0 { // the file claims to be older than its records
		best, found = c.in(y, l, t), y
	}
	c.prevUse = found
	return best
}

func candidates(y int) [18]int {
	var out [18]int
	for i := range out {
		out[i] = y + 8 - i
	}
	return out
}

// floorSeconds turns nanoseconds into seconds.
func floorSeconds(ns int64) int64 {
	s := ns / 1e9
	if ns%1e9 < 0 {
		s--
	}
	return s
}
