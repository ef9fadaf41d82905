package pluginsdk

import (
	"encoding/json"
	"time"
	"unicode/utf8"
)

// The types of events.
const (
	TypeFinding = "finding" // a finding changed; Change and Finding are set
	TypeAudit   = "audit"   // an act was recorded; Audit is set
	TypeGap     = "gap"     // events were forgotten before they were delivered; Lost is set
)

// What happened to a finding.
const (
	ChangeOpened       = "opened"
	ChangeReopened     = "reopened"
	ChangeResolved     = "resolved"
	ChangeChanged      = "changed" // its severity, title or evidence
	ChangeAcknowledged = "acknowledged"
	ChangeWaived       = "waived"
)

// Event is one thing that happened on the host. The ID is unique and stays
// the same when the event is delivered again, so a receiver can tell.
type Event struct {
	ID      string
	Type    string // TypeFinding, TypeAudit, TypeGap; skip others, newer hosts have more
	Time    time.Time
	Change  string       // of a finding: one of the changes above
	Finding *Finding     // as it was after the change
	Audit   *AuditRecord //
	Lost    uint64       // how many events a gap stands for
}

// AuditRecord is one act, as in mobileops logs audit --output json.
type AuditRecord struct {
	Sequence uint64        // from 1, without holes
	Hash     string        // 64 hexadecimal digits: BLAKE3 of this record and the hash before it
	Time     time.Time     //
	Actor    Actor         // who
	Command  string        // "integrity baseline"
	Args     []string      // bytes, with secrets redacted
	Status   int           // exit status
	Result   string        // one line: what came of it
	Elapsed  time.Duration // in milliseconds on the wire
}

// Actor is who did it.
type Actor struct {
	UID      int    `json:"uid"`
	User     string `json:"user,omitempty"`
	LoginUID int64  `json:"login_uid"` // -1: none
	TTY      string `json:"tty,omitempty"`
	Remote   string `json:"remote,omitempty"` // the address of an SSH client, or an API identity
}

// Batch is what is delivered at once: events in their order, and the cursor
// that stands behind the last of them.
type Batch struct {
	Events []Event
	Cursor string
}

// auditWire is the JSON form of an AuditRecord.
type auditWire struct {
	Sequence  uint64    `json:"sequence"`
	Time      time.Time `json:"time"`
	Actor     Actor     `json:"actor"`
	Command   string    `json:"command"`
	Args      []string  `json:"args"`
	ArgsB64   [][]byte  `json:"args_b64,omitempty"` // the bytes, when one of Args is not valid UTF-8
	Status    int       `json:"status"`
	Result    string    `json:"result,omitempty"`
	ElapsedMS int64     `json:"elapsed_ms"`
	Hash      string    `json:"hash,omitempty"`
}

func (a *AuditRecord) wire() *auditWire {
	w := &auditWire{
		Sequence: a.Sequence, Hash: a.Hash, Time: a.Time, Actor: a.Actor, Command: a.Command, Args: a.Args,
		Status: a.Status, Result: a.Result, ElapsedMS: a.Elapsed.Milliseconds(),
	}
	for _, arg := range a.Args {
		if utf8.ValidString(arg) {
			continue
		}
		w.ArgsB64 = make([][]byte, len(a.Args))
		for i, exact := range a.Args {
			w.ArgsB64[i] = []byte(exact)
		}
		break
	}
	return w
}

func (w *auditWire) record() *AuditRecord {
	a := &AuditRecord{
		Sequence: w.Sequence, Hash: w.Hash, Time: w.Time, Actor: w.Actor, Command: w.Command, Args: w.Args,
		Status: w.Status, Result: w.Result, Elapsed: time.Duration(w.ElapsedMS) * time.Millisecond,
	}
	if len(w.ArgsB64) > 0 {
		a.Args = make([]string, len(w.ArgsB64))
		for i, exact := range w.ArgsB64 {
			a.Args[i] = string(exact)
		}
	}
	return a
}

// MarshalJSON writes the record with elapsed_ms, and args_b64 where needed.
func (a AuditRecord) MarshalJSON() ([]byte, error) { return json.Marshal(a.wire()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (a *AuditRecord) UnmarshalJSON(b []byte) error {
	var w auditWire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*a = *w.record()
	return nil
}

// eventWire is the JSON form of an Event.
type eventWire struct {
	ID      string       `json:"id,omitempty"`
	Type    string       `json:"type"`
	Time    time.Time    `json:"time,omitzero"`
	Change  string       `json:"change,omitempty"`
	Finding *findingWire `json:"finding,omitempty"`
	Audit   *auditWire   `json:"audit,omitempty"`
	Lost    uint64       `json:"lost,omitempty"`
}

func (w *eventWire) event() Event {
	e := Event{ID: w.ID, Type: w.Type, Time: w.Time, Change: w.Change, Lost: w.Lost}
	if w.Finding != nil {
		f := w.Finding.finding()
		e.Finding = &f
	}
	if w.Audit != nil {
		e.Audit = w.Audit.record()
	}
	return e
}

// MarshalJSON writes the event as the host does.
func (e Event) MarshalJSON() ([]byte, error) {
	type plain struct { // as eventWire; its findings marshal themselves
		ID      string       `json:"id,omitempty"`
		Type    string       `json:"type"`
		Time    time.Time    `json:"time,omitzero"`
		Change  string       `json:"change,omitempty"`
		Finding *Finding     `json:"finding,omitempty"`
		Audit   *AuditRecord `json:"audit,omitempty"`
		Lost    uint64       `json:"lost,omitempty"`
	}
	return json.Marshal(plain(e))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *Event) UnmarshalJSON(b []byte) error {
	var w eventWire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*e = w.event()
	return nil
}

// batchWire is the JSON form of a Batch, which Subscribe decodes without the
// detour over UnmarshalJSON, since that reads the same bytes twice.
type batchWire struct {
	Events []eventWire `json:"events"`
	Cursor string      `json:"cursor"`
}

func (w *batchWire) batch() Batch {
	b := Batch{Events: make([]Event, len(w.Events)), Cursor: w.Cursor}
	for i := range w.Events {
		b.Events[i] = w.Events[i].event()
	}
	return b
}

// UnmarshalJSON reads the params of events.
func (b *Batch) UnmarshalJSON(data []byte) error {
	var w batchWire
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	*b = w.batch()
	return nil
}

// MarshalJSON writes the params of events.
func (b Batch) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Events []Event `json:"events"`
		Cursor string  `json:"cursor"`
	}{b.Events, b.Cursor})
}
