package journal

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/format"
)

// Format is the name of the format of the records that Entry.Record makes.
const Format = "journal"

// Record returns the entry as the store keeps it: the lines of the export
// format, but with the address lines (__CURSOR and such) after all fields, and
// without the newline at the end. The record is a copy. Fields that cannot be
// read are reported and left out.
func (e *Entry) Record() (event.Record, error) {
	raw, err := e.AppendRecord(nil)
	return event.Record{Time: e.Time(), Clock: event.ClockExact, Raw: raw}, err
}

// Time returns the time of the entry in nanoseconds since 1970-01-01 UTC.
func (e *Entry) Time() int64 { return int64(e.Realtime) * 1000 }

// AppendRecord appends the bytes of Record.
func (e *Entry) AppendRecord(dst []byte) ([]byte, error) {
	err := guard(e.set.files, func() error {
		dst = e.appendFields(dst)
		return nil
	})
	if err != nil {
		e.set.problem(err)
	}
	return e.appendAddress(dst, ExportClassic), err
}

// Text returns the part of a record that words are looked for in: all of it but
// the address lines, without the newline at its end.
func Text(raw []byte) []byte {
	if i := usualAddress(raw); i >= 0 {
		return raw[:i]
	}
	// Values of address lines have no newline, so the last one is right even
	// when a field has bytes that look like an address line.
	if i := bytes.LastIndex(raw, []byte("\n"+addressCursor)); i >= 0 {
		return raw[:i]
	}
	if bytes.HasPrefix(raw, []byte(addressCursor)) {
		return nil
	}
	return raw
}

// minCursor is the length of the shortest cursor.
const minCursor = len("s=;i=0;b=;m=0;t=0;x=0") + 64

// usualAddress returns where the address lines of a record begin, at the newline
// before them, when they are those that AppendRecord writes; otherwise -1. Every
// record of a search passes here.
func usualAddress(raw []byte) int {
	rest := raw
	for _, name := range [...]string{addressMonotonic, addressRealtime} {
		n := len(rest)
		for n > 0 && '0' <= rest[n-1] && rest[n-1] <= '9' {
			n--
		}
		if n < len(name) || string(rest[n-len(name):n]) != name {
			return -1
		}
		rest = rest[:n-len(name)]
	}
	if len(rest) < minCursor {
		return -1
	}
	i := bytes.LastIndexByte(rest[:len(rest)-minCursor], '\n')
	if i < 0 || !bytes.HasPrefix(rest[i+1:], []byte(addressCursor)) || bytes.IndexByte(rest[i+1:], '\n') >= 0 {
		return -1
	}
	return i
}

// AppendRecordExport appends a record as "journalctl -o export" prints the
// entry, without parsing its fields. It reports whether the record has the
// address lines that this takes; without them it appends nothing.
func AppendRecordExport(dst, raw []byte, variant Export) ([]byte, bool) {
	text := Text(raw)
	if len(text) == 0 || len(text) == len(raw) {
		return dst, false
	}
	address := raw[len(text)+1:]
	if variant == ExportClassic {
		dst = append(append(dst, address...), '\n')
	} else {
		cursor, _, _ := bytes.Cut(address[len(addressCursor):], []byte("\n"))
		c, _, err := parseCursor(string(cursor))
		if err != nil || !c.hasSeqnum {
			return dst, false
		}
		dst = strconv.AppendUint(append(append(dst, address...), addressSeqnum...), c.seqnum, 10)
		dst = append(c.seqnumID.append(append(dst, addressSeqnumID...)), '\n')
	}
	return append(append(dst, text...), "\n\n"...), true
}

// Parsed is what Parse finds in a record. The slices are parts of the record.
type Parsed struct {
	Cursor    []byte
	Realtime  uint64 // microseconds since 1970-01-01 UTC
	Monotonic uint64 // microseconds since boot
	Fields    []event.Field
}

// SyntaxError says what is wrong with a record, and where.
type SyntaxError struct {
	Offset int // in bytes
	What   string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("record of a journal: at offset %d: %s", e.Offset, e.What)
}

// Parse reads what Record made. Of a record that is damaged it returns what was
// read before the damage, and a *SyntaxError.
func Parse(raw []byte) (p Parsed, err error) {
	text := Text(raw)
	if err := eachField(text, func(name, value []byte) {
		p.Fields = append(p.Fields, event.Field{Name: string(name), Value: value})
	}); err != nil {
		return p, err
	}
	at := len(text)
	if at < len(raw) && raw[at] == '\n' {
		at++
	}
	for at < len(raw) {
		line := raw[at:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i]
		}
		name, value, _ := bytes.Cut(line, []byte("="))
		var err error
		switch string(name) {
		case "__CURSOR":
			p.Cursor = value
		case "__REALTIME_TIMESTAMP":
			p.Realtime, err = strconv.ParseUint(string(value), 10, 64)
		case "__MONOTONIC_TIMESTAMP":
			p.Monotonic, err = strconv.ParseUint(string(value), 10, 64)
		case "__SEQNUM", "__SEQNUM_ID":
			// Part of the cursor.
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return p, &SyntaxError{Offset: at, What: fmt.Sprintf("address line %.80q cannot be read", line)}
		}
		at += len(line) + 1
	}
	return p, nil
}

// eachField calls fn with every field of a text. The slices are parts of it.
func eachField(text []byte, fn func(name, value []byte)) error {
	for at := 0; at < len(text); {
		line := text[at:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i]
		}
		name, value, plain := bytes.Cut(line, []byte("="))
		if !validName(name) {
			return &SyntaxError{Offset: at, What: fmt.Sprintf("%.80q is not a field", line)}
		}
		at = min(at+len(line)+1, len(text))
		if !plain {
			if len(text)-at < 8 {
				return &SyntaxError{Offset: at, What: "the record ends in the length of a field"}
			}
			n := le.Uint64(text[at:])
			at += 8
			if n > uint64(len(text)-at) {
				return &SyntaxError{Offset: at, What: fmt.Sprintf("field of %d bytes, of which %d are there", n, len(text)-at)}
			}
			value = text[at : at+int(n)]
			at += int(n)
			if at < len(text) && text[at] != '\n' {
				return &SyntaxError{Offset: at, What: "no newline after a field"}
			}
			at++
		}
		fn(name, value)
	}
	return nil
}

// AppendExport appends the record as "journalctl -o export" prints the entry.
func (p *Parsed) AppendExport(dst []byte, variant Export) []byte {
	dst = append(append(dst, addressCursor...), p.Cursor...)
	dst = strconv.AppendUint(append(dst, addressRealtime...), p.Realtime, 10)
	dst = strconv.AppendUint(append(dst, addressMonotonic...), p.Monotonic, 10)
	if c, _, err := parseCursor(string(p.Cursor)); err == nil && variant == ExportSeqnum {
		dst = strconv.AppendUint(append(dst, addressSeqnum...), c.seqnum, 10)
		dst = c.seqnumID.append(append(dst, addressSeqnumID...))
	}
	dst = append(dst, '\n')
	for _, f := range p.Fields {
		dst = append(dst, f.Name...)
		if printable(f.Value) {
			dst = append(dst, '=')
		} else {
			dst = le.AppendUint64(append(dst, '\n'), uint64(len(f.Value)))
		}
		dst = append(append(dst, f.Value...), '\n')
	}
	return append(dst, '\n')
}

// Fill sets what the fields of a record say about an event: it is made for
// event.Event.Fill. Of a damaged record it sets what can be read.
func Fill(e *event.Event) {
	e.Severity, e.Fields, e.Message = event.NoSeverity, e.Fields[:0], nil
	var host, unit, userUnit, ownUnit, identifier, comm, pid, syslogPID, uid, priority []byte
	eachField(Text(e.Raw), func(name, value []byte) {
		e.Fields = append(e.Fields, event.Field{Name: string(name), Value: value})
		var place *[]byte
		switch string(name) {
		case "MESSAGE":
			place = &e.Message
		case "PRIORITY":
			place = &priority
		case "_HOSTNAME":
			place = &host
		case "_SYSTEMD_UNIT":
			place = &unit
		case "_SYSTEMD_USER_UNIT":
			place = &userUnit
		case "UNIT":
			place = &ownUnit
		case "SYSLOG_IDENTIFIER":
			place = &identifier
		case "_COMM":
			place = &comm
		case "_PID":
			place = &pid
		case "SYSLOG_PID":
			place = &syslogPID
		case "_UID":
			place = &uid
		}
		if place != nil && *place == nil { // the first counts
			*place = value
		}
	})
	e.Host = string(host)
	if len(priority) == 1 && '0' <= priority[0] && priority[0] <= '7' {
		e.Severity = event.Severity(priority[0] - '0')
	}
	if e.Host == "" && e.Origin != nil {
		e.Host = e.Origin.Host
	}
	e.Unit = first(unit, userUnit, ownUnit)
	e.Program = first(identifier, comm)
	e.PID, _ = strconv.ParseInt(first(pid, syslogPID), 10, 64)
	e.User = string(uid)
	e.Addrs = format.AppendAddrs(e.Addrs[:0], e.Message)
}

// first returns the first value that there is.
func first(values ...[]byte) string {
	for _, v := range values {
		if len(v) > 0 {
			return string(v)
		}
	}
	return ""
}

// wordByte reports whether c is a letter, a digit or an underscore.
func wordByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
}
