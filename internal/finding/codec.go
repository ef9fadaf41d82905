package finding

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// The stored form of a record, byte for byte as docs/formats/finding.md has
// it: a version, then the fields in a fixed order. Strings and lists carry
// their length, so any bytes pass through.

const codecVersion = 1

// DecodeError says where in a stored record the decoder gave up. It is a
// failure.Untrustworthy error: nothing but damage makes such a record.
type DecodeError struct {
	Offset int    // byte within the record
	Reason string // what is wrong there
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("damaged record at byte %d: %s", e.Offset, e.Reason)
}

// appendRecord appends the stored form of r to b. The fingerprint is the key
// of the record and not repeated in it.
func appendRecord(b []byte, r *Record) []byte {
	b = append(b, codecVersion)
	b = appendString(b, r.Source)
	b = appendString(b, r.Rule)
	b = append(b, byte(r.Severity))
	b = appendString(b, r.Title)
	b = appendString(b, r.Subject)
	b = binary.AppendUvarint(b, uint64(len(r.Evidence)))
	if len(r.Evidence) > 0 {
		for _, k := range slices.Sorted(maps.Keys(r.Evidence)) {
			b = appendString(b, k)
			b = appendString(b, r.Evidence[k])
		}
	}
	b = appendString(b, r.Remediation)
	b = appendStrings(b, r.References)
	b = appendStrings(b, r.Tags)
	b = appendTime(b, r.Observed)
	b = appendTime(b, r.FirstSeen)
	b = appendTime(b, r.LastSeen)
	b = binary.AppendUvarint(b, r.TimesSeen)
	b = append(b, byte(r.State))
	b = appendString(b, r.Owner)
	b = appendString(b, r.Reason)
	b = appendTime(b, r.WaivedUntil)
	b = appendStrings(b, r.Scopes)
	b = binary.AppendUvarint(b, uint64(len(r.History)))
	for i := range r.History {
		c := &r.History[i]
		b = appendTime(b, c.At)
		b = appendString(b, c.Who)
		b = append(b, byte(c.From), byte(c.To), byte(c.Severity))
		b = appendString(b, c.Why)
	}
	b = binary.AppendUvarint(b, r.Forgotten)
	return appendBool(b, r.Truncated)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// appendTime appends 0 for the zero time, else 1, seconds since 1970 and
// nanoseconds. The time zone is not kept.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	b = append(b, 1)
	b = binary.AppendVarint(b, t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

// decodeRecord reads the stored form. It keeps no reference to b, which
// belongs to the transaction.
func decodeRecord(key Fingerprint, b []byte) (*Record, error) {
	r := &Record{Fingerprint: key}
	d := decoder{b: b}
	if len(b) > MaxRecord {
		d.fail("%d bytes are more than a record may have", len(b))
	}
	if v := d.byte(); d.err == nil && v != codecVersion {
		d.fail("format %d is not known", v)
	}
	r.Source = d.string()
	r.Rule = d.string()
	r.Severity = d.severity()
	r.Title = d.string()
	r.Subject = d.string()
	if n := d.count(2); n > 0 {
		r.Evidence = make(map[string]string, n)
		for range n {
			k := d.string()
			r.Evidence[k] = d.string()
		}
		if d.err == nil && len(r.Evidence) != n {
			d.fail("two evidence entries have the same key")
		}
	}
	r.Remediation = d.string()
	r.References = d.strings()
	r.Tags = d.strings()
	r.Observed = d.time()
	r.FirstSeen = d.time()
	r.LastSeen = d.time()
	r.TimesSeen = d.uvarint()
	r.State = d.state()
	r.Owner = d.string()
	r.Reason = d.string()
	r.WaivedUntil = d.time()
	r.Scopes = d.strings()
	if n := d.count(6); n > 0 {
		r.History = make([]Change, 0, n)
		for range n {
			c := Change{At: d.time(), Who: d.string(), From: d.state(), To: d.state(), Severity: d.severity()}
			c.Why = d.string()
			r.History = append(r.History, c)
		}
	}
	r.Forgotten = d.uvarint()
	r.Truncated = d.bool()
	if d.err == nil && d.at != len(b) {
		d.fail("%d bytes follow the end", len(b)-d.at)
	}
	if d.err != nil {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "finding %s: %w", key, d.err), "look: mobileops state check")
	}
	return r, nil
}

// decoder reads a record from front to back. After the first failure every
// read returns a zero value and the failure stays.
type decoder struct {
	b   []byte
	at  int
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = &DecodeError{Offset: d.at, Reason: fmt.Sprintf(format, args...)}
	}
}

func (d *decoder) byte() byte {
	if d.err != nil {
		return 0
	}
	if d.at >= len(d.b) {
		d.fail("it ends here")
		return 0
	}
	d.at++
	return d.b[d.at-1]
}

func (d *decoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b[d.at:])
	if n <= 0 {
		d.fail("no number")
		return 0
	}
	d.at += n
	return v
}

// count reads the length of a list whose entries take at least size bytes, so
// that a damaged length cannot ask for more memory than the record has bytes.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if d.err == nil && n > uint64((len(d.b)-d.at)/size) {
		d.fail("%d entries do not fit", n)
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	n := d.count(1)
	d.at += n
	return string(d.b[d.at-n : d.at])
}

func (d *decoder) strings() []string {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.string()
	}
	return list
}

func (d *decoder) bool() bool {
	v := d.byte()
	if v > 1 {
		d.fail("%d is neither 0 nor 1", v)
	}
	return v == 1
}

func (d *decoder) severity() Severity {
	s := Severity(d.byte())
	if !s.valid() {
		d.fail("severity %d is not known", s)
	}
	return s
}

func (d *decoder) state() State {
	s := State(d.byte())
	if !s.valid() {
		d.fail("state %d is not known", s)
	}
	return s
}

// Seconds outside the years 1 to 9999 cannot be written as RFC 3339, and so
// not as JSON.
const minSeconds, maxSeconds = -62135596800, 253402300799

// storable reports whether t can be kept and written as RFC 3339.
func storable(t time.Time) bool { return t.Unix() >= minSeconds && t.Unix() <= maxSeconds }

func (d *decoder) time() time.Time {
	if !d.bool() || d.err != nil {
		return time.Time{}
	}
	sec, n := binary.Varint(d.b[d.at:])
	if n <= 0 || sec < minSeconds || sec > maxSeconds {
		d.fail("no time")
		return time.Time{}
	}
	d.at += n
	nsec := d.uvarint()
	if nsec > math.MaxInt32 || nsec >= uint64(time.Second) {
		d.fail("%d is no part of a second", nsec)
	}
	if d.err != nil {
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}
