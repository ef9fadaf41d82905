package ledger

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// A stored item is a header of fixed size, what is remembered of it (memory), and
// what a scan last said of it (the Sighting), both as JSON. Most items are the same
// from one scan to the next: then their bytes are compared, and nothing is decoded
// or written. So when a seen item was last seen does not stand in it: that was the
// last time its scanner ran.
//
//	byte   version, 1
//	byte   standing
//	byte   class: index into Classes
//	byte   severity: index into Severities
//	byte   disposition
//	8      which waiver or statement disposed so; zeros: none
//	uint32 big endian: length of the memory
//	       memory, sighting
const headerSize = 5 + 8 + 4

// standing is how an item stands to the scans.
type standing byte

const (
	seen     standing = iota // by the last scan that its scanner ran in
	unseen                   // that scan could not look there
	resolved                 // a scan that could see it did not
)

// disposition is what was decided about an item.
type disposition byte

const (
	undecided disposition = iota
	waived
	notAffected
	fixed
	expected // by the scan that saw it; no decision goes with it
)

func (d disposition) state() State { return []State{Open, Waived, NotAffected, Fixed, Expected}[d] }

// decision names a waiver or a statement: the first bytes of its digest.
type decision [8]byte

// memory is what is remembered of an item.
type memory struct {
	Ecosystem  string    `json:"ecosystem,omitempty"`
	Subject    string    `json:"subject"`
	FirstSeen  time.Time `json:"first_seen"`
	LastSeen   time.Time `json:"last_seen,omitzero"` // of an unseen or resolved one
	FixSince   time.Time `json:"fix_since,omitzero"`
	ResolvedAt time.Time `json:"resolved_at,omitzero"`
	Reopened   int       `json:"reopened,omitempty"`
	ReopenedAt time.Time `json:"reopened_at,omitzero"`
	// Of a resolved one: when it was due by the policy of that day, and whether that
	// was in time.
	ResolvedDue time.Time `json:"resolved_due,omitzero"`
	Outcome     Outcome   `json:"outcome,omitempty"`
	Events      []Event   `json:"events,omitempty"`
}

// record is a stored item.
type record struct {
	key         Key
	standing    standing
	class       Class
	severity    Severity
	disposition disposition
	decision    decision
	memory
	sighting []byte // as stored; valid as long as the transaction

	decoded *Sighting
}

// header is what a record begins with, which can be read without decoding it.
type header struct {
	standing    standing
	class       Class
	severity    Severity
	disposition disposition
	decision    decision
	memory      int // length
}

func what(k []byte) string { return fmt.Sprintf("item %x", k) }

func readHeader(k, v []byte) (h header, err error) {
	if len(k) != len(Key{}) || v == nil {
		return h, damaged(what(k), -1, "that is no key")
	}
	if len(v) < headerSize || len(v) > MaxRecord {
		return h, damaged(what(k), int64(len(v)), "it cannot have that length")
	}
	if v[0] != version {
		return h, damaged(what(k), 0, "format %d is not known", v[0])
	}
	if standing(v[1]) > resolved || int(v[2]) >= len(Classes()) || int(v[3]) >= len(Severities()) || disposition(v[4]) > expected {
		return h, damaged(what(k), 1, "its header is %x", v[1:5])
	}
	h.standing, h.class, h.severity, h.disposition = standing(v[1]), Classes()[v[2]], Severities()[v[3]], disposition(v[4])
	copy(h.decision[:], v[5:])
	n := binary.BigEndian.Uint32(v[13:])
	if int64(n) > int64(len(v)-headerSize) {
		return h, damaged(what(k), 13, "it ends within what is remembered")
	}
	h.memory = int(n)
	return h, nil
}

func readRecord(k, v []byte) (*record, error) {
	h, err := readHeader(k, v)
	if err != nil {
		return nil, err
	}
	r := &record{standing: h.standing, class: h.class, severity: h.severity, disposition: h.disposition, decision: h.decision}
	copy(r.key[:], k)
	if err := decodeJSON(what(k), v[headerSize:headerSize+h.memory], &r.memory); err != nil {
		return nil, err
	}
	r.sighting = v[headerSize+h.memory:]
	switch {
	case r.FirstSeen.IsZero():
		err = damaged(what(k), -1, "it does not say since when it is known")
	case r.standing != seen && r.LastSeen.IsZero():
		err = damaged(what(k), -1, "it does not say when it was last seen")
	case (r.standing == resolved) == r.ResolvedAt.IsZero():
		err = damaged(what(k), -1, "it does not say when it was resolved, or should not")
	case len(r.Events) > MaxEvents:
		err = damaged(what(k), -1, "it has more events than an item may have")
	}
	return r, err
}

// last returns what a scan last said of the item.
func (r *record) last() (*Sighting, error) {
	if r.decoded == nil {
		s := new(Sighting)
		if err := decodeJSON(what(r.key[:]), r.sighting, s); err != nil {
			return nil, err
		}
		if s.Class != r.class || s.Severity != r.severity {
			return nil, damaged(what(r.key[:]), -1, "it says %q and %q, its header %q and %q", s.Class, s.Severity, r.class, r.severity)
		}
		r.decoded = s
	}
	return r.decoded, nil
}

// say replaces what a scan last said.
func (r *record) say(s *Sighting, stored []byte) {
	r.class, r.severity, r.decoded, r.sighting = s.Class, s.Severity, s, stored
}

func (r *record) encode() ([]byte, error) {
	m, err := json.Marshal(&r.memory)
	if err != nil {
		return nil, err
	}
	v := make([]byte, 0, headerSize+len(m)+len(r.sighting))
	v = append(v, version, byte(r.standing), byte(r.class.index()), byte(r.severity.index()), byte(r.disposition))
	v = append(v, r.decision[:]...)
	v = binary.BigEndian.AppendUint32(v, uint32(len(m)))
	v = append(append(v, m...), r.sighting...)
	if len(v) > MaxRecord {
		return nil, failure.Errorf(failure.Failed, "scan ledger: item %s has %d bytes, more than %d", r.key, len(v), MaxRecord)
	}
	return v, nil
}

// event appends to what happened. Of too many, those in the middle go.
func (r *record) event(at time.Time, what Happening, from, to string) {
	if len(r.Events) >= MaxEvents {
		r.Events = slices.Delete(r.Events, MaxEvents/2, len(r.Events)-MaxEvents/2+1)
	}
	r.Events = append(r.Events, Event{At: at, What: what, From: clip(from, MaxName), To: clip(to, MaxName)})
}

// item returns the item that the record is, without what is decided about it.
func (r *record) item(s *shelf) (Item, error) {
	seenAs, err := r.last()
	if err != nil {
		return Item{}, err
	}
	i := Item{
		Asset: s.asset, Key: r.key, Ecosystem: r.Ecosystem, Subject: r.Subject, Sighting: *seenAs,
		State: r.disposition.state(), Unseen: r.standing == unseen,
		FirstSeen: r.FirstSeen, LastSeen: r.LastSeen, FixSince: r.FixSince, ResolvedAt: r.ResolvedAt,
		Reopened: r.Reopened, ReopenedAt: r.ReopenedAt, Events: r.Events,
		ResolvedDue: r.ResolvedDue, Outcome: r.Outcome,
	}
	i.PURL = first(i.PURLs)
	switch r.standing {
	case seen:
		i.LastSeen = s.about.Scanned[r.class.Scanner()]
	case resolved:
		i.State = Resolved
	}
	return i, nil
}
