// Package event is what a log record is to whoever reads one: its time, its
// bytes as they were written, and what its format makes of them.
//
// A Record is what a source hands to the store: time and bytes. An Event is
// what a search hands to its reader: the same record, with the fields that its
// format finds in the bytes. Fields are found when they are asked for, never
// stored: most searches look at the bytes of most records only.
//
// Severities are those of syslog (RFC 5424, section 6.2.1).
package event

import (
	"fmt"
	"net/netip"
	"time"
)

// Clock says how the time of a record was obtained.
type Clock uint8

const (
	// ClockNone is that of a record without any time of its own and nothing to
	// infer one from: Time is that of its collection.
	ClockNone Clock = iota
	// ClockExact is written in the record with date, year and zone.
	ClockExact
	// ClockZone is written in the record without a zone; the zone of its host,
	// or the configured one, was assumed.
	ClockZone
	// ClockYear is written without a year; it was inferred from the time of the
	// file and from the records around it.
	ClockYear
	// ClockPrevious is that of the record before: the record has none.
	ClockPrevious
	// ClockFile is the time at which the file was last changed.
	ClockFile
	// ClockBoot counts from the start of the machine, and the start was known.
	ClockBoot
)

// clockNames are the names of the clocks in output, in their order.
var clockNames = [...]string{"collected", "exact", "zone-assumed", "year-inferred", "previous-record", "file", "since-boot"}

func (c Clock) String() string {
	if int(c) < len(clockNames) {
		return clockNames[c]
	}
	return fmt.Sprintf("clock-%d", uint8(c))
}

// Severity is how bad a record says that it is: 0 (emergency) to 7 (debug), as
// in syslog.
type Severity uint8

// The severities of RFC 5424, section 6.2.1, and that of a record that tells none.
const (
	Emergency Severity = iota
	Alert
	Critical
	Error
	Warning
	Notice
	Info
	Debug
	NoSeverity
)

var severityNames = [...]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug", ""}

func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return ""
}

// Record is one record of a log as a source found it.
type Record struct {
	Time  int64 // nanoseconds since 1970-01-01 UTC
	Clock Clock
	// Raw is the record as it was written, without the newline at its end.
	// A record of several lines (a stack trace, the records of one audit event,
	// an entry of the journal) has newlines within.
	Raw []byte
}

// Origin says where records come from. All records of a stream have the same.
type Origin struct {
	Source string `json:"source"` // name of the source: "journal", or the path of a file
	Format string `json:"format"` // name of its format: "syslog", "json", …
	Host   string `json:"host"`   // host on which it was collected
}

// Field is a named value of an event beyond those that have a place of their
// own. Names are as the format writes them.
type Field struct {
	Name  string
	Value []byte
}

// Event is a record with what its format found in it. The slices belong to
// whoever made the event and are valid until the next one.
type Event struct {
	Record
	Origin *Origin
	// Text is the part of Raw that words are looked for in: all of it, except
	// for the address lines (__CURSOR= and such) of the journal.
	Text []byte

	// What follows is set by Fill, which the first caller of Parsed calls.
	Host     string // that wrote it; that of Origin when the record names none
	Unit     string // systemd unit, container, or other service
	Program  string // name of the program, such as "sshd"
	PID      int64  // 0: not known
	Severity Severity
	User     string
	Addrs    []netip.Addr // network addresses in the record, each once
	Message  []byte       // the text for people, without header
	Fields   []Field

	// Fill sets what is found in Raw. It is nil when that was done.
	Fill func(*Event)
}

// Parsed returns the event with everything set that its format finds in it.
func (e *Event) Parsed() *Event {
	if fill := e.Fill; fill != nil {
		e.Fill = nil
		fill(e)
	}
	return e
}

// When returns the time of the event in UTC.
func (r *Record) When() time.Time { return time.Unix(0, r.Time).UTC() }

// Field returns the value of the first of Fields with a name.
func (e *Event) Field(name string) ([]byte, bool) {
	for _, f := range e.Parsed().Fields {
		if f.Name == name {
			return f.Value, true
		}
	}
	return nil, false
}
