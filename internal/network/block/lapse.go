package block

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is what a deadline is compared with.
type Clock struct {
	Now    time.Time     // can be set, and jumps
	Boot   string        // which boot of the host this is
	Uptime time.Duration // since then, sleep included; never jumps
}

// ReadClock reads the clocks of the host.
func ReadClock() (Clock, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Clock{}, err
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return Clock{}, os.NewSyscallError("clock_gettime", err)
	}
	return Clock{time.Now().UTC().Round(0), strings.TrimSpace(string(id)), time.Duration(ts.Nano())}, nil
}

// Lapse is when a block ends by itself; the zero Lapse is never.
type Lapse struct {
	TTL   time.Duration `json:"ttl,omitempty"`  // nanoseconds, from when it was set
	Until time.Time     `json:"until,omitzero"` // by the wall clock
	Boot  string        `json:"boot,omitempty"` // the boot in which it was set, or reconciled
	End   time.Duration `json:"ends,omitempty"` // when it lapses, nanoseconds since that boot
}

// lapseAfter is a lapse at ttl from now; never for a ttl of 0.
func lapseAfter(ttl time.Duration, c Clock) Lapse {
	if ttl <= 0 {
		return Lapse{}
	}
	return Lapse{TTL: ttl, Until: c.Now.Add(ttl), Boot: c.Boot, End: c.Uptime + ttl}
}

// Left is how long it still lasts: 0 or less when it is over. In the boot in
// which it was set the clock that cannot be set decides. After another one only
// the wall clock has gone on; one that was set back does not make it longer
// than it was meant to be.
func (l *Lapse) Left(c Clock) (left time.Duration, ends bool) {
	switch {
	case l.TTL <= 0:
		return 0, false
	case l.Boot == c.Boot:
		return l.End - c.Uptime, true
	}
	return min(l.Until.Sub(c.Now), l.TTL), true
}

func (l *Lapse) over(c Clock) bool {
	left, ends := l.Left(c)
	return ends && left <= 0
}

// renew binds what is left after a reboot to the present boot, so that the wall
// clock no longer matters to it.
func (l *Lapse) renew(c Clock) bool {
	left, ends := l.Left(c)
	if !ends || l.Boot == c.Boot {
		return false
	}
	l.Until, l.Boot, l.End = c.Now.Add(left), c.Boot, c.Uptime+left
	return true
}

// longer tells whether it lasts longer than another one.
func (l *Lapse) longer(other *Lapse, c Clock) bool {
	a, ends := l.Left(c)
	if !ends {
		_, ends = other.Left(c)
		return ends
	}
	b, ends := other.Left(c)
	return ends && a > b
}
