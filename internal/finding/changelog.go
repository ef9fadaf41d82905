package finding

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	bolt "go.etcd.io/bbolt"
)

// The log of changes, so that whoever acts on findings reads what is new
// instead of comparing lists. Each change of a record appends an entry, in the
// transaction that makes the change; a sighting that changes nothing appends
// none. The log is bounded: its oldest entries go, and Changes says how many
// are gone.
//
//	finding_log  sequence number of the first entry (8 bytes, big endian) → group of entries
//
// Entries of one transaction are stored in groups, because a value in bbolt
// costs about as much whether it has one entry or thirty. A group carries how
// many bytes the log had taken before it, counted from its very first one, so
// that the size of what is kept is a subtraction.
const (
	logName    = "finding_log"
	logVersion = 1
	logHeader  = 1 + 8 + 2 // version, bytes before, count of entries
	groupSize  = 16 << 10  // a group that has as many bytes takes no further entry
)

// Limits of the log.
const (
	MaxLogEntries = 100_000
	MaxLogBytes   = 64 << 20 // keys and values
	maxLogScopes  = 16       // of the copy of a record in an entry
)

// Event is what happened to a finding.
type Event int

// The events. Their words are those that plugins are told.
const (
	noEvent           Event = iota
	EventOpened             // found for the first time
	EventReopened           // open again, whatever it was before
	EventResolved           // no scope finds it any more
	EventChanged            // found again with another severity, title or evidence
	EventAcknowledged       // somebody works on it
	EventWaived             // accepted until a date
)

var eventWords = [...]string{"", "opened", "reopened", "resolved", "changed", "acknowledged", "waived"}

func (e Event) valid() bool { return e >= EventOpened && e <= EventWaived }

// String returns the event as a lower-case word.
func (e Event) String() string {
	if !e.valid() {
		return fmt.Sprintf("event(%d)", int(e))
	}
	return eventWords[e]
}

// LogEntry is one change of a record.
type LogEntry struct {
	Sequence uint64 // from 1, without gaps
	At       time.Time
	Event    Event
	// Record is the record as the change left it, but for its history, of
	// which it has the latest change alone, and its scopes, of which it has
	// the first few.
	Record *Record
}

// ErrRewound says that the log ends before the entry that a reader has already
// read: the state was put back to an earlier one.
var ErrRewound = failure.New(failure.Untrustworthy, "the log of findings ends before this position")

// changeLog is the log in one writing transaction, which must end with flush.
type changeLog struct {
	b           *bolt.Bucket
	first, next uint64 // sequence numbers; first == next: empty
	start, end  uint64 // bytes before the first entry and after the last one

	group []byte // entries that are not in b yet; nil: none
	count uint16 // how many
}

func openLog(tx *state.Tx) (*changeLog, error) {
	b, err := tx.CreateBucketIfNotExists([]byte(logName))
	if err != nil {
		return nil, err
	}
	b.FillPercent = 0.95 // keys only grow
	l := &changeLog{b: b, first: 1, next: 1}
	c := b.Cursor()
	k, v := c.First()
	if k == nil {
		return l, nil
	}
	first, err := logHead(k, v)
	if err != nil {
		return nil, err
	}
	k, v = c.Last()
	last, err := logHead(k, v)
	if err != nil {
		return nil, err
	}
	l.first, l.start = first.seq, first.before
	l.next, l.end = last.seq+uint64(last.count), last.before+groupBytes(v)
	if l.end < l.start {
		return nil, damagedGroup(last.seq, &DecodeError{1, "it stands before the entries that it follows"})
	}
	return l, nil
}

func sequenceKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func groupBytes(value []byte) uint64 { return uint64(8 + len(value)) }

// append adds an entry about r, whose stored form is stored.
func (l *changeLog) append(r *Record, stored []byte, what Event, at time.Time) error {
	if len(r.History) > 1 || len(r.Scopes) > maxLogScopes {
		stored = appendRecord(nil, logged(r))
	}
	if l.group == nil {
		l.group = make([]byte, logHeader, max(groupSize+groupSize/8, len(stored)+64))
	}
	v := append(l.group, byte(what))
	v = appendTime(v, at.UTC())
	v = append(v, r.Fingerprint[:]...)
	v = binary.AppendUvarint(v, uint64(len(stored)))
	l.group = append(v, stored...)
	if l.count++; len(l.group) < groupSize {
		return nil
	}
	return l.flush()
}

// flush stores the entries that were appended, and lets go of the oldest ones
// that are too many then. Each group is dropped once, so that an append costs
// the same on the average whatever the log holds.
func (l *changeLog) flush() error {
	if l == nil || l.group == nil {
		return nil
	}
	l.group[0] = logVersion
	binary.BigEndian.PutUint64(l.group[1:], l.end)
	binary.BigEndian.PutUint16(l.group[9:], l.count)
	if err := l.b.Put(sequenceKey(l.next), l.group); err != nil {
		return err
	}
	l.next += uint64(l.count)
	l.end += groupBytes(l.group)
	l.group, l.count = nil, 0 // bbolt keeps the value until it commits
	for l.next-l.first > MaxLogEntries || l.end-l.start > MaxLogBytes {
		if err := l.drop(); err != nil {
			return err
		}
	}
	return nil
}

// drop removes the first group. It is never the last one: that is smaller
// than the log may be. Keys are looked up instead of walked over, since a
// cursor walks over every page that this transaction has emptied.
func (l *changeLog) drop() error {
	k := sequenceKey(l.first)
	h, err := logHead(k, l.b.Get(k))
	if err != nil {
		return err
	}
	if err := l.b.Delete(k); err != nil {
		return err
	}
	l.first += uint64(h.count)
	k = sequenceKey(l.first)
	if h, err = logHead(k, l.b.Get(k)); err != nil {
		return err
	}
	l.start = h.before
	return nil
}

// logged returns the copy of r that an entry has. Who follows the log has
// seen the history happen.
func logged(r *Record) *Record {
	c := *r
	if drop := len(c.History) - 1; drop > 0 {
		c.History = c.History[drop:]
		c.Forgotten += uint64(drop)
	}
	c.Scopes = c.Scopes[:min(len(c.Scopes), maxLogScopes)]
	return &c
}

// LogRange returns the sequence numbers of the oldest and the newest entry of
// the log of changes, 0 and 0 when it is empty.
func LogRange(tx *state.Tx) (first, last uint64, err error) {
	b := tx.Bucket([]byte(logName))
	if b == nil {
		return 0, 0, nil
	}
	c := b.Cursor()
	k, v := c.First()
	if k == nil {
		return 0, 0, nil
	}
	h, err := logHead(k, v)
	if err != nil {
		return 0, 0, err
	}
	k, v = c.Last()
	end, err := logHead(k, v)
	if err != nil {
		return 0, 0, err
	}
	return h.seq, end.seq + uint64(end.count) - 1, nil
}

// Changes returns the entries of the log that follow the entry after, oldest
// first: at most limit of them, and no more than fit into maxBytes as stored,
// but one if there is one. lost says how many of those that followed are gone
// because the log is bounded. An after that the log does not reach is
// ErrRewound; an entry that cannot be read is a *DecodeError.
func Changes(tx *state.Tx, after uint64, limit, maxBytes int) (entries []LogEntry, lost uint64, err error) {
	first, last, err := LogRange(tx)
	if err != nil {
		return nil, 0, err
	}
	if after > last {
		return nil, 0, fmt.Errorf("%w: it ends with entry %d, and %d was read", ErrRewound, last, after)
	}
	if after == last {
		return nil, 0, nil
	}
	if after+1 < first {
		lost = first - 1 - after
	}
	next := max(after+1, first)
	entries = make([]LogEntry, 0, min(uint64(max(limit, 0)), last-next+1, 4096))
	c := tx.Bucket([]byte(logName)).Cursor()
	k, v := c.Seek(sequenceKey(next))
	if string(k) != string(sequenceKey(next)) { // next is within a group, which begins before
		if k == nil {
			k, v = c.Last()
		} else {
			k, v = c.Prev()
		}
	}
	for ; k != nil && len(entries) < limit; k, v = c.Next() {
		more, err := readGroup(k, v, next, func(e LogEntry, size int) bool {
			if len(entries) == limit || len(entries) > 0 && size > maxBytes {
				return false
			}
			maxBytes -= size
			entries = append(entries, e)
			next++
			return true
		})
		if err != nil {
			return nil, 0, err
		}
		if !more {
			break
		}
	}
	return entries, lost, nil
}

// head is what a group begins with.
type head struct {
	seq, before uint64
	count       uint16
}

func logHead(k, v []byte) (h head, err error) {
	if len(k) != 8 {
		return h, damagedLog("%x is no sequence number", k)
	}
	h.seq = binary.BigEndian.Uint64(k)
	if len(v) < logHeader {
		return h, damagedGroup(h.seq, &DecodeError{len(v), "it ends here"})
	}
	h.before, h.count = binary.BigEndian.Uint64(v[1:]), binary.BigEndian.Uint16(v[9:])
	switch {
	case v[0] != logVersion:
		err = damagedGroup(h.seq, &DecodeError{0, fmt.Sprintf("format %d is not known", v[0])})
	case h.seq == 0 || h.seq+uint64(h.count) < h.seq:
		err = damagedGroup(h.seq, &DecodeError{0, "no entry has this number"})
	case h.count == 0:
		err = damagedGroup(h.seq, &DecodeError{9, "it has no entries"})
	}
	return h, err
}

// readGroup calls fn with the entries of a group from the sequence number next
// on, which must be in it, and with the bytes that each takes, until fn returns
// false. It keeps no reference to k and v.
func readGroup(k, v []byte, next uint64, fn func(LogEntry, int) bool) (more bool, err error) {
	h, err := logHead(k, v)
	if err != nil {
		return false, err
	}
	if next < h.seq || next-h.seq >= uint64(h.count) {
		return false, damagedGroup(next, &DecodeError{0, "it is missing"})
	}
	d := decoder{b: v, at: logHeader}
	for i := range uint64(h.count) {
		begin := d.at
		e := LogEntry{Sequence: h.seq + i, Event: Event(d.byte())}
		if d.err == nil && !e.Event.valid() {
			d.fail("event %d is not known", int(e.Event))
		}
		e.At = d.time()
		var key Fingerprint
		if d.err == nil && len(v)-d.at < len(key) {
			d.fail("it ends within the fingerprint")
		}
		if d.err == nil {
			d.at += copy(key[:], v[d.at:])
		}
		n := d.count(1)
		if d.err != nil {
			return false, damagedGroup(e.Sequence, d.err)
		}
		d.at += n
		if e.Sequence < next {
			continue
		}
		if e.Record, err = decodeRecord(key, v[d.at-n:d.at]); err != nil {
			return false, damagedGroup(e.Sequence, err)
		}
		if !fn(e, d.at-begin) {
			return false, nil
		}
	}
	if d.at != len(v) {
		return false, damagedGroup(h.seq, &DecodeError{d.at, "something follows the last entry of the group"})
	}
	return true, nil
}

func damagedGroup(seq uint64, err error) error { return damagedLog("entry %d: %w", seq, err) }

func damagedLog(format string, args ...any) error {
	return failure.Hint(failure.Errorf(failure.Untrustworthy, "log of findings: "+format, args...), "look: mobileops state check")
}

// record saves r and, if something happened to it, appends that to the log,
// which must be flushed after the last record.
func (b *buckets) record(r *Record, what Event, at time.Time) error {
	stored, err := b.save(r)
	if err != nil || what == noEvent {
		return err
	}
	if b.log == nil {
		if b.log, err = openLog(b.records.Tx()); err != nil {
			return err
		}
	}
	return b.log.append(r, stored, what, at)
}

// eventOf is what a decision that led to a state is called.
func eventOf(s State) Event {
	switch s {
	case Acknowledged:
		return EventAcknowledged
	case Waived:
		return EventWaived
	case Resolved:
		return EventResolved
	}
	return EventReopened
}

// sameNews reports whether a further report of a finding says what the last
// one did.
func sameNews(before, now *Finding, otherEvidence bool) bool {
	return before.Severity == now.Severity && before.Title == now.Title && !otherEvidence
}
