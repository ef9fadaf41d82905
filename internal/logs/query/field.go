package query

import (
	"slices"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// Names of the fields that every event has a place for.
const (
	fieldTime     = "time"
	fieldHost     = "host"
	fieldSource   = "source"
	fieldUnit     = "unit"
	fieldProgram  = "program"
	fieldPID      = "pid"
	fieldSeverity = "severity"
	fieldUser     = "user"
	fieldAddr     = "addr"
	fieldMessage  = "message"
	fieldFormat   = "format"
	fieldClock    = "clock"
)

// fields are the fields of every event, in the order in which they are shown.
var fields = [...]string{
	fieldTime,     // when it happened
	fieldHost,     // host that wrote it
	fieldSource,   // where it was collected: journal, or a file
	fieldUnit,     // systemd unit, container or other service
	fieldProgram,  // program that wrote it
	fieldPID,      // process id
	fieldSeverity, // emerg, alert, crit, err, warning, notice, info or debug
	fieldUser,     // user that it is about
	fieldAddr,     // network addresses in it
	fieldMessage,  // text for people, without header
	fieldFormat,   // name of its format
	fieldClock,    // how its time was obtained
}

// FieldNames returns the names of the fields that every event has a place for.
func FieldNames() []string { return slices.Clone(fields[:]) }

// known reports whether a name is one of the fields of every event.
func known(name string) bool {
	return slices.Contains(fields[:], name)
}

// given reports whether a field is known without looking into the record.
func given(name string) bool {
	return name == fieldTime || name == fieldSource || name == fieldFormat || name == fieldClock
}

// fromJournal reports whether a name can be nothing but a field of the systemd
// journal (systemd.journal-fields(7)): journalctl's users write _COMM=sshd.
func fromJournal(name string) bool {
	switch name {
	case "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER", "SYSLOG_FACILITY", "SYSLOG_PID":
		return true
	}
	if len(name) < 3 || name[0] != '_' {
		return false
	}
	for i := 1; i < len(name); i++ {
		if c := name[i]; (c < 'A' || c > 'Z') && c != '_' && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// nameLength is how many bytes at the beginning of s can be the name of a
// field: letters, digits, and _ . - @ within.
func nameLength(s string) int {
	n := 0
	for n < len(s) {
		switch c := s[n]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == '@':
		case n > 0 && (c >= '0' && c <= '9' || c == '.' || c == '-'):
		default:
			goto end
		}
		n++
	}
end:
	for n > 0 && (s[n-1] == '.' || s[n-1] == '-') {
		n--
	}
	return n
}

// timeText is how a time is written where a field is a text.
const timeText = "2006-01-02T15:04:05.999999999Z"

// Values appends the values that an event has for a field to dst: several for
// addr and for repeated fields, none when it has none. A name that is not one
// of Fields is that of a field of the event's format; one that is, but has no
// value, is looked up there too. The slices are valid as long as the event.
func Values(ev *event.Event, name string, dst [][]byte) [][]byte {
	before := len(dst)
	one := func(s string) {
		if s != "" {
			dst = append(dst, []byte(s))
		}
	}
	switch name {
	case fieldTime:
		one(ev.When().Format(timeText))
	case fieldSource:
		if ev.Origin != nil {
			one(ev.Origin.Source)
		}
	case fieldFormat:
		if ev.Origin != nil {
			one(ev.Origin.Format)
		}
	case fieldClock:
		one(ev.Clock.String())
	case fieldHost:
		one(ev.Parsed().Host)
	case fieldUnit:
		one(ev.Parsed().Unit)
	case fieldProgram:
		one(ev.Parsed().Program)
	case fieldPID:
		if ev.Parsed().PID != 0 {
			dst = append(dst, strconv.AppendInt(nil, ev.PID, 10))
		}
	case fieldSeverity:
		one(ev.Parsed().Severity.String())
	case fieldUser:
		one(ev.Parsed().User)
	case fieldAddr:
		for _, a := range ev.Parsed().Addrs {
			dst = append(dst, a.AppendTo(nil))
		}
	case fieldMessage:
		if m := ev.Parsed().Message; len(m) > 0 {
			dst = append(dst, m)
		}
	}
	if len(dst) > before {
		return dst
	}
	switch name {
	case fieldSeverity, fieldPID, fieldAddr:
		// What a format leaves there did not read as one.
		return dst
	}
	for _, f := range ev.Parsed().Fields {
		if f.Name == name && len(f.Value) > 0 {
			dst = append(dst, f.Value)
		}
	}
	return dst
}

// severityLevel reads the name of a severity, or syslog's number: 7 for
// emergency down to 0 for debug, so that worse is more.
func severityLevel(s string) (int, bool) {
	switch lower(s) {
	case "emerg", "emergency", "panic", "0":
		return 7, true
	case "alert", "1":
		return 6, true
	case "crit", "critical", "fatal", "2":
		return 5, true
	case "err", "error", "3":
		return 4, true
	case "warning", "warn", "4":
		return 3, true
	case "notice", "5":
		return 2, true
	case "info", "informational", "6":
		return 1, true
	case "debug", "trace", "7":
		return 0, true
	}
	return 0, false
}

// severityNames are those that a suggestion may name.
func severityNames() []string {
	return []string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}
}

// clockNames are the values of clock.
func clockNames() []string {
	var names []string
	for c := event.ClockNone; c <= event.ClockBoot; c++ {
		names = append(names, c.String())
	}
	return names
}

// when reads a time as Values writes it, or as formats leave it in a field.
func when(s string, zone *time.Location) (int64, bool) {
	m, ok := moment(s, time.Time{}, zone)
	return m.first, ok
}
