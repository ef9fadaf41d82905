// Package packed is the form in which events lie in the queue: every field one
// after the other, without names. Reading it is many times cheaper than
// reading JSON, and each destination reads every event.
//
// The form, version 1: a byte 1; id, type, time, change, lost; a byte that
// tells what follows (1 finding, 2 audit record); its fields in the order of
// pluginsdk. Numbers are variable-length integers as in encoding/binary, text
// is a length and bytes, a list is a count and entries, a time is 0 or 1,
// seconds since 1970 and nanoseconds, in UTC.
package packed

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

const version = 1

const (
	hasFinding = 1 << iota
	hasAudit
)

// ErrDamaged says that bytes are no packed event, or one of a newer version.
var ErrDamaged = errors.New("this is no event as the queue keeps them")

// Append appends the packed form of e to b.
func Append(b []byte, e *pluginsdk.Event) []byte {
	b = append(b, version)
	b = text(b, e.ID)
	b = text(b, e.Type)
	b = moment(b, e.Time)
	b = text(b, e.Change)
	b = binary.AppendUvarint(b, e.Lost)
	var has byte
	if e.Finding != nil {
		has |= hasFinding
	}
	if e.Audit != nil {
		has |= hasAudit
	}
	b = append(b, has)
	if e.Finding != nil {
		b = finding(b, e.Finding)
	}
	if e.Audit != nil {
		b = audit(b, e.Audit)
	}
	return b
}

func finding(b []byte, f *pluginsdk.Finding) []byte {
	b = text(b, f.Source)
	b = text(b, f.Rule)
	b = append(b, byte(f.Severity))
	b = text(b, f.Title)
	b = text(b, f.Subject)
	b = binary.AppendUvarint(b, uint64(len(f.Evidence)))
	if len(f.Evidence) == 1 { // the usual case needs no sorted list
		for k, v := range f.Evidence {
			b = text(text(b, k), v)
		}
	} else if len(f.Evidence) > 1 {
		for _, k := range slices.Sorted(maps.Keys(f.Evidence)) {
			b = text(text(b, k), f.Evidence[k])
		}
	}
	b = text(b, f.Remediation)
	b = texts(b, f.References)
	b = texts(b, f.Tags)
	b = moment(b, f.Observed)
	b = text(b, f.ID)
	b = text(b, f.Fingerprint)
	b = text(b, string(f.State))
	b = moment(b, f.FirstSeen)
	b = moment(b, f.LastSeen)
	b = binary.AppendUvarint(b, f.TimesSeen)
	b = text(b, f.Owner)
	b = text(b, f.Reason)
	b = moment(b, f.WaivedUntil)
	b = texts(b, f.Scopes)
	b = binary.AppendUvarint(b, uint64(len(f.History)))
	for i := range f.History {
		c := &f.History[i]
		b = moment(b, c.At)
		b = text(b, c.Who)
		b = text(b, string(c.From))
		b = text(b, string(c.To))
		b = append(b, byte(c.Severity))
		b = text(b, c.Why)
	}
	b = binary.AppendUvarint(b, f.Forgotten)
	if f.Truncated {
		return append(b, 1)
	}
	return append(b, 0)
}

func audit(b []byte, a *pluginsdk.AuditRecord) []byte {
	b = binary.AppendUvarint(b, a.Sequence)
	b = text(b, a.Hash)
	b = moment(b, a.Time)
	b = binary.AppendVarint(b, int64(a.Actor.UID))
	b = text(b, a.Actor.User)
	b = binary.AppendVarint(b, a.Actor.LoginUID)
	b = text(b, a.Actor.TTY)
	b = text(b, a.Actor.Remote)
	b = text(b, a.Command)
	b = texts(b, a.Args)
	b = binary.AppendVarint(b, int64(a.Status))
	b = text(b, a.Result)
	return binary.AppendVarint(b, int64(a.Elapsed))
}

func text(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func texts(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = text(b, s)
	}
	return b
}

func moment(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	b = binary.AppendVarint(append(b, 1), t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

// Slot is room for one event, used again and again: what Read returns is valid
// until the next Read into the same slot, except for its strings.
type Slot struct {
	event   pluginsdk.Event
	finding pluginsdk.Finding
	audit   pluginsdk.AuditRecord
}

// Read reads a packed event. It keeps no reference to b.
func (s *Slot) Read(b []byte) (*pluginsdk.Event, error) {
	if len(b) == 0 || b[0] != version {
		return nil, ErrDamaged
	}
	d := decoder{s: string(b[1:])}
	e := &s.event
	*e = pluginsdk.Event{ID: d.text(), Type: d.text(), Time: d.moment(), Change: d.text(), Lost: d.number()}
	has := d.byte()
	if has&hasFinding != 0 {
		d.finding(&s.finding)
		e.Finding = &s.finding
	}
	if has&hasAudit != 0 {
		d.audit(&s.audit)
		e.Audit = &s.audit
	}
	if d.bad || len(d.s) > 0 || has > hasFinding|hasAudit {
		return nil, ErrDamaged
	}
	return e, nil
}

// decoder takes fields from the front of s. After the first failure every
// field is empty.
type decoder struct {
	s   string
	bad bool
}

func (d *decoder) finding(f *pluginsdk.Finding) {
	evidence, references, tags, scopes, history := f.Evidence, f.References[:0], f.Tags[:0], f.Scopes[:0], f.History[:0]
	clear(evidence)
	*f = pluginsdk.Finding{Source: d.text(), Rule: d.text(), Severity: d.severity(), Title: d.text(), Subject: d.text()}
	if n := d.count(2); n > 0 {
		if evidence == nil {
			evidence = make(map[string]string, n)
		}
		for range n {
			k := d.text()
			evidence[k] = d.text()
		}
		d.bad = d.bad || len(evidence) != n
	}
	if len(evidence) > 0 {
		f.Evidence = evidence
	}
	f.Remediation = d.text()
	f.References = d.texts(references)
	f.Tags = d.texts(tags)
	f.Observed = d.moment()
	f.ID = d.text()
	f.Fingerprint = d.text()
	f.State = pluginsdk.State(d.text())
	f.FirstSeen = d.moment()
	f.LastSeen = d.moment()
	f.TimesSeen = d.number()
	f.Owner = d.text()
	f.Reason = d.text()
	f.WaivedUntil = d.moment()
	f.Scopes = d.texts(scopes)
	for range d.count(6) {
		history = append(history, pluginsdk.StateChange{
			At: d.moment(), Who: d.text(), From: pluginsdk.State(d.text()), To: pluginsdk.State(d.text()), Severity: d.severity(), Why: d.text(),
		})
	}
	if len(history) > 0 {
		f.History = history
	}
	f.Forgotten = d.number()
	f.Truncated = d.byte() == 1
}

func (d *decoder) audit(a *pluginsdk.AuditRecord) {
	args := a.Args[:0]
	*a = pluginsdk.AuditRecord{
		Sequence: d.number(), Hash: d.text(), Time: d.moment(),
		Actor:   pluginsdk.Actor{UID: int(d.signed()), User: d.text(), LoginUID: d.signed(), TTY: d.text(), Remote: d.text()},
		Command: d.text(), Args: d.texts(args), Status: int(d.signed()), Result: d.text(), Elapsed: time.Duration(d.signed()),
	}
}

func (d *decoder) fail() { d.bad, d.s = true, "" }

func (d *decoder) byte() byte {
	if d.s == "" {
		d.fail()
		return 0
	}
	c := d.s[0]
	d.s = d.s[1:]
	return c
}

func (d *decoder) number() uint64 {
	var v uint64
	for i := range min(len(d.s), binary.MaxVarintLen64) {
		c := d.s[i]
		if c < 0x80 {
			if i == binary.MaxVarintLen64-1 && c > 1 {
				break
			}
			d.s = d.s[i+1:]
			return v | uint64(c)<<(7*i)
		}
		v |= uint64(c&0x7f) << (7 * i)
	}
	d.fail()
	return 0
}

func (d *decoder) signed() int64 {
	u := d.number()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads the length of a list whose entries take at least size bytes, so
// that a damaged one asks for no more memory than there are bytes.
func (d *decoder) count(size int) int {
	n := d.number()
	if n > uint64(len(d.s)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) text() string {
	n := d.count(1)
	t := d.s[:n]
	d.s = d.s[n:]
	return t
}

func (d *decoder) texts(list []string) []string {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	for range n {
		list = append(list, d.text())
	}
	return list
}

func (d *decoder) severity() pluginsdk.Severity {
	s := pluginsdk.Severity(d.byte())
	if s > pluginsdk.Critical {
		d.fail()
	}
	return s
}

// Seconds outside the years 1 to 9999 cannot be written as RFC 3339.
const minSeconds, maxSeconds = -62135596800, 253402300799

func (d *decoder) moment() time.Time {
	if d.byte() == 0 {
		return time.Time{}
	}
	sec, nsec := d.signed(), d.number()
	if sec < minSeconds || sec > maxSeconds || nsec > math.MaxInt32 || nsec >= uint64(time.Second) {
		d.fail()
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}
