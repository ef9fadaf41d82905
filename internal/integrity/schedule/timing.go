package schedule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// Timing says when something runs, by the wall clock: every Period, at Phase
// after midnight, or after Sunday's midnight when the period is a week. A
// period of less than a day divides a day evenly and one of less than an hour
// an hour, since neither cron nor a calendar event can say anything else.
//
// In text it is "daily 03:00", "weekly sun@03:00", "hourly" or "every 15m".
type Timing struct {
	Period time.Duration
	Phase  time.Duration
}

func (t Timing) check() error {
	even := t.Period == week || t.Period == day ||
		t.Period >= time.Hour && t.Period < day && t.Period%time.Hour == 0 && day%t.Period == 0 ||
		t.Period >= time.Minute && t.Period < time.Hour && t.Period%time.Minute == 0 && time.Hour%t.Period == 0
	if !even || t.Phase < 0 || t.Phase >= t.Period || t.Phase%time.Minute != 0 {
		return failure.Hint(failure.Errorf(failure.Usage, "a schedule cannot run every %s", span(t.Period)),
			"it takes what divides an hour or a day evenly: 5m, 10m, 15m, 20m, 30m, 1h, 2h, 3h, 4h, 6h, 8h, 12h, 1d, 7d")
	}
	return nil
}

// Every returns the timing of a period, beginning at midnight.
func Every(period time.Duration) (Timing, error) {
	t := Timing{Period: period}
	return t, t.check()
}

// Daily reads "03:00".
func Daily(clock string) (Timing, error) {
	phase, ok := clockTime(clock)
	if !ok {
		return Timing{}, failure.Errorf(failure.Usage, "%q is no time of day: write one such as 03:00", clock)
	}
	return Timing{day, phase}, nil
}

// Weekly reads "sun@03:00". The day may be written out.
func Weekly(text string) (Timing, error) {
	name, clock, _ := strings.Cut(strings.ToLower(text), "@")
	phase, ok := clockTime(clock)
	n := slices.IndexFunc(weekdays(), func(d string) bool { return name == d || name == d[:3] })
	if !ok || n < 0 {
		return Timing{}, failure.Errorf(failure.Usage, "%q is no time of the week: write one such as sun@03:00", text)
	}
	return Timing{week, time.Duration(n)*day + phase}, nil
}

// weekdays are the names of the days, Sunday being 0 as in crontab(5).
func weekdays() []string {
	return []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}
}

// clockTime reads "3:00" or "03:00".
func clockTime(s string) (time.Duration, bool) {
	h, m, ok := strings.Cut(s, ":")
	hours, err := strconv.ParseUint(h, 10, 8)
	minutes, err2 := strconv.ParseUint(m, 10, 8)
	if !ok || err != nil || err2 != nil || len(h) > 2 || len(m) != 2 || hours > 23 || minutes > 59 {
		return 0, false
	}
	return time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute, true
}

// ParseTiming reads what String writes.
func ParseTiming(s string) (Timing, error) {
	word, rest, _ := strings.Cut(s, " ")
	switch {
	case word == "daily":
		return Daily(rest)
	case word == "weekly":
		return Weekly(rest)
	case s == "hourly":
		return Every(time.Hour)
	case word == "every":
		if d, err := time.ParseDuration(rest); err == nil {
			return Every(d)
		}
	}
	return Timing{}, failure.Errorf(failure.Usage, "%q is no timing", s)
}

// String writes the timing as at Timing.
func (t Timing) String() string {
	clock := fmt.Sprintf("%02d:%02d", int(t.Phase%day/time.Hour), int(t.Phase%time.Hour/time.Minute))
	switch t.Period {
	case week:
		return "weekly " + weekdays()[t.Phase/day][:3] + "@" + clock
	case day:
		return "daily " + clock
	case time.Hour:
		return "hourly"
	}
	return "every " + span(t.Period)
}

// MarshalText writes the timing as String does.
func (t Timing) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (t *Timing) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTiming(string(b))
	return err
}

// Shift returns the timing moved later.
func (t Timing) Shift(by time.Duration) Timing {
	t.Phase = (t.Phase + by) % t.Period
	return t
}

// Next returns the first moment after a given one at which the timing is due,
// in the moment's time zone. Where the clock is put forward over it, it is the
// moment as far behind the gap as it was to be behind its beginning.
func (t Timing) Next(after time.Time) time.Time {
	y, m, d := after.Date()
	for ahead := range 9 { // a day of next week at the latest
		midnight := time.Date(y, m, d+ahead, 0, 0, 0, 0, after.Location())
		phase, step := t.Phase, t.Period
		if t.Period == week {
			if int(midnight.Weekday()) != int(t.Phase/day) {
				continue
			}
			phase, step = t.Phase%day, day
		}
		for at := phase; at < day; at += step {
			due := time.Date(y, m, d+ahead, 0, int(at/time.Minute), 0, 0, after.Location())
			if due.After(after) {
				return due
			}
		}
	}
	return time.Time{}
}

// Crontab returns the first five fields of a line of a crontab(5).
func (t Timing) Crontab() string {
	minutes, hours, weekday := []int{int(t.Phase % time.Hour / time.Minute)}, []int{int(t.Phase % day / time.Hour)}, "*"
	switch {
	case t.Period == week:
		weekday = strconv.Itoa(int(t.Phase / day))
	case t.Period < time.Hour:
		minutes, hours = series(t.Phase/time.Minute, t.Period/time.Minute, 60), nil
	case t.Period < day:
		hours = series(t.Phase/time.Hour, t.Period/time.Hour, 24)
	}
	if t.Period == time.Hour {
		hours = nil
	}
	return list(minutes) + " " + list(hours) + " * * " + weekday
}

// series are the numbers from first on, step apart, below end.
func series(first, step time.Duration, end int) (all []int) {
	for n := int(first); n < end; n += int(step) {
		all = append(all, n)
	}
	return all
}

// list writes numbers for a crontab; none stand for all.
func list(numbers []int) string {
	if numbers == nil {
		return "*"
	}
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ",")
}

// Calendar returns the timing as a calendar event of systemd.time(7).
func (t Timing) Calendar() string {
	hour, minute := int(t.Phase%day/time.Hour), int(t.Phase%time.Hour/time.Minute)
	switch {
	case t.Period == week:
		name := weekdays()[t.Phase/day][:3]
		return fmt.Sprintf("%s *-*-* %02d:%02d:00", strings.ToUpper(name[:1])+name[1:], hour, minute)
	case t.Period == day:
		return fmt.Sprintf("*-*-* %02d:%02d:00", hour, minute)
	case t.Period == time.Hour:
		return fmt.Sprintf("*-*-* *:%02d:00", minute)
	case t.Period > time.Hour:
		return fmt.Sprintf("*-*-* %02d/%d:%02d:00", hour, t.Period/time.Hour, minute)
	}
	return fmt.Sprintf("*-*-* *:%02d/%d:00", minute, t.Period/time.Minute)
}

// span writes a length of time in whole hours and minutes: "15m", "4h", "1h30m".
func span(d time.Duration) string {
	if d%time.Minute != 0 || d == 0 {
		return d.String()
	}
	text := strings.TrimSuffix(d.String(), "0s")
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
