package schedule

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// timings are some of each kind, with what they become.
var timings = []struct {
	text, crontab, calendar string
	shift                   time.Duration
}{
	{"daily 03:00", "0 3 * * *", "*-*-* 03:00:00", 0},
	{"daily 23:50", "5 0 * * *", "*-*-* 00:05:00", 15 * time.Minute},
	{"weekly sun@03:00", "0 3 * * 0", "Sun *-*-* 03:00:00", 0},
	{"weekly sat@23:59", "1 0 * * 0", "Sun *-*-* 00:01:00", 2 * time.Minute},
	{"weekly wed@12:30", "30 12 * * 3", "Wed *-*-* 12:30:00", 0},
	{"hourly", "0 * * * *", "*-*-* *:00:00", 0},
	{"hourly", "17 * * * *", "*-*-* *:17:00", 17 * time.Minute},
	{"every 15m", "0,15,30,45 * * * *", "*-*-* *:00/15:00", 0},
	{"every 15m", "4,19,34,49 * * * *", "*-*-* *:04/15:00", 4 * time.Minute},
	{"every 4h", "0 0,4,8,12,16,20 * * *", "*-*-* 00/4:00:00", 0},
	{"every 4h", "10 1,5,9,13,17,21 * * *", "*-*-* 01/4:10:00", 70 * time.Minute},
	{"every 1m", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59 * * * *", "*-*-* *:00/1:00", 0},
}

func TestTimingsAsCrontabAndCalendar(t *testing.T) {
	for _, tc := range timings {
		timing, err := ParseTiming(tc.text)
		if err != nil {
			t.Fatal(err)
		}
		if timing.String() != tc.text {
			t.Errorf("%q is written as %q", tc.text, timing)
		}
		timing = timing.Shift(tc.shift)
		if got := timing.Crontab(); got != tc.crontab {
			t.Errorf("%s + %s: crontab %q, want %q", tc.text, tc.shift, got, tc.crontab)
		}
		if got := timing.Calendar(); got != tc.calendar {
			t.Errorf("%s + %s: calendar %q, want %q", tc.text, tc.shift, got, tc.calendar)
		}
	}
}

// matches tells whether a line of a crontab is due at a minute, the slow way.
func matches(crontab string, at time.Time) bool {
	for i, field := range strings.Fields(crontab) {
		value := []int{at.Minute(), at.Hour(), at.Day(), int(at.Month()), int(at.Weekday())}[i]
		if field != "*" && !slices.Contains(strings.Split(field, ","), strconv.Itoa(value)) {
			return false
		}
	}
	return true
}

func TestNextIsWhenTheCrontabIsDue(t *testing.T) {
	start := time.Date(2026, 12, 29, 22, 31, 12, 0, time.UTC) // over the end of a year
	for _, tc := range timings {
		timing, _ := ParseTiming(tc.text)
		timing = timing.Shift(tc.shift)
		at := start
		for range 5 {
			next := timing.Next(at)
			slow := at.Truncate(time.Minute).Add(time.Minute)
			for !matches(tc.crontab, slow) {
				slow = slow.Add(time.Minute)
			}
			if !next.Equal(slow) {
				t.Fatalf("%s + %s: after %s comes %s, want %s", tc.text, tc.shift, at, next, slow)
			}
			at = next
		}
	}
}

func TestNextIsWhatSystemdSays(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("NOT RUN: calendar events were not compared with systemd's: systemd-analyze is not installed (apt-get install systemd; make test does)")
	}
	for _, tc := range timings {
		timing, _ := ParseTiming(tc.text)
		timing = timing.Shift(tc.shift)
		const base = "2026-11-25 02:07:11 UTC"
		cmd := exec.Command(analyze, "calendar", "--iterations=3", "--base-time="+base, timing.Calendar())
		cmd.Env = append(cmd.Environ(), "TZ=UTC", "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("systemd refuses %q: %s", timing.Calendar(), out)
			continue
		}
		at, _ := time.Parse("2006-01-02 15:04:05 MST", base)
		for range 3 {
			at = timing.Next(at)
			if want := at.Format("Mon 2006-01-02 15:04:05 UTC"); !strings.Contains(string(out), want) {
				t.Errorf("%s: %s is not among\n%s", timing.Calendar(), want, out)
			}
		}
	}
}

func TestNextWhereTheClockIsPutForwardAndBack(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	daily, _ := Daily("02:30")
	// On 2026-03-29 there is no 02:30; on 2026-10-25 there are two.
	for _, tc := range []struct{ after, want string }{
		{"2026-03-28T02:30:00+01:00", "2026-03-29T03:30:00+02:00"},
		{"2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"},
		{"2026-10-24T02:30:00+02:00", "2026-10-25T02:30:00+01:00"},
		{"2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"},
	} {
		after, _ := time.Parse(time.RFC3339, tc.after)
		if got := daily.Next(after.In(berlin)).Format(time.RFC3339); got != tc.want {
			t.Errorf("after %s comes %s, want %s", tc.after, got, tc.want)
		}
	}
}

func TestWhatIsNoTiming(t *testing.T) {
	for _, clock := range []string{"", "3", "24:00", "03:60", "3:5", "-1:00", "003:00", "03:00:00", "+3:00", "noon"} {
		if timing, err := Daily(clock); err == nil {
			t.Errorf("%q is %s", clock, timing)
		}
	}
	for _, text := range []string{"", "sun", "@03:00", "su@03:00", "sunny@03:00", "0@03:00"} {
		if timing, err := Weekly(text); err == nil {
			t.Errorf("%q is %s", text, timing)
		}
	}
	for _, text := range []string{"SUN@3:00", "Sunday@03:00"} {
		if timing, err := Weekly(text); err != nil || timing.String() != "weekly sun@03:00" {
			t.Errorf("%q is %s, %v", text, timing, err)
		}
	}
	for _, period := range []time.Duration{0, -time.Hour, time.Second, 7 * time.Minute, 45 * time.Minute, 90 * time.Minute, 5 * time.Hour, 36 * time.Hour, 48 * time.Hour} {
		if timing, err := Every(period); err == nil {
			t.Errorf("every %s is %s", period, timing)
		}
	}
}

// FuzzParseTiming: what is read is written the same, and has a next time.
func FuzzParseTiming(f *testing.F) {
	for _, tc := range timings {
		f.Add(tc.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		timing, err := ParseTiming(text)
		if err != nil {
			return
		}
		again, err := ParseTiming(timing.String())
		if err != nil || again != timing {
			t.Fatalf("%q is %s, and then %s, %v", text, timing, again, err)
		}
		now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		if next := timing.Next(now); !next.After(now) || next.Sub(now) > timing.Period {
			t.Fatalf("%s: next after %s is %s", timing, now, next)
		}
	})
}

func TestJitterIsSpreadAndStays(t *testing.T) {
	seen := map[time.Duration]int{}
	for n := range 3000 {
		id := fmt.Sprintf("%032x", n)
		o := offset(id, "integrity-check", 30*time.Minute)
		if o != offset(id, "integrity-check", 30*time.Minute) {
			t.Fatal("a host moves")
		}
		if o < 0 || o >= 30*time.Minute || o%time.Minute != 0 {
			t.Fatalf("offset %s", o)
		}
		seen[o]++
	}
	for minute := range 30 {
		if n := seen[time.Duration(minute)*time.Minute]; n < 60 || n > 150 { // 100 expected, deviation 10
			t.Errorf("%d of 3000 hosts run at minute %d", n, minute)
		}
	}
	if offset("a", "one", time.Hour) == offset("a", "two", time.Hour) && offset("b", "one", time.Hour) == offset("b", "two", time.Hour) {
		t.Error("all schedules of a host run at once")
	}
	// Part of the format: a host must not move when mobileops is updated.
	if got := offset("0123456789abcdef0123456789abcdef", "integrity-check", 30*time.Minute); got != 23*time.Minute {
		t.Errorf("offset %s", got)
	}
}
