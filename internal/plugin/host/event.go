package host

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/finding"
)

// Types of events.
const (
	TypeFinding = "finding" // a finding changed
	TypeAudit   = "audit"   // an act was recorded
	TypeGap     = "gap"     // events are gone that were not delivered
)

// Event is one thing that happened on the host.
type Event struct {
	ID      string          // unique, and the same when it is delivered again
	Type    string          // TypeFinding, TypeAudit or TypeGap
	Time    time.Time       //
	Change  finding.Event   // of TypeFinding
	Finding *finding.Record // of TypeFinding: as the change left it
	Audit   *audit.Record   // of TypeAudit
	Lost    uint64          // of TypeGap: how many
}

// position is a place in the order of events: behind so many changes of
// findings and so many records of the audit chain.
type position struct{ findings, audit uint64 }

func (p position) String() string {
	b := strconv.AppendUint([]byte("f"), p.findings, 10)
	return string(strconv.AppendUint(append(b, ".a"...), p.audit, 10))
}

func parsePosition(text string) (p position, err error) {
	if len(text) <= 64 {
		if n, err := fmt.Sscanf(text, "f%d.a%d", &p.findings, &p.audit); n == 2 && err == nil && p.String() == text {
			return p, nil
		}
	}
	return position{}, refuse(Invalid, "%s is no cursor", quoted(text))
}

func findingEvent(e *finding.LogEntry) Event {
	id := strconv.AppendUint([]byte("f"), e.Sequence, 10)
	id = append(append(id, '-'), e.Record.ID()...)
	// A state that was put back counts from an earlier number again: the time
	// tells the two changes apart.
	id = strconv.AppendInt(append(id, '-'), e.At.UnixNano(), 36)
	return Event{ID: string(id), Type: TypeFinding, Time: e.At, Change: e.Event, Finding: e.Record}
}

func auditEvent(r *audit.Record) Event {
	return Event{ID: fmt.Sprintf("a%d-%x", r.Sequence, r.Hash[:8]), Type: TypeAudit, Time: r.Time, Audit: r}
}

func gapEvent(after position, lost uint64) Event {
	return Event{ID: fmt.Sprintf("gap-%s-%d", after, lost), Type: TypeGap, Time: time.Now().UTC(), Lost: lost}
}

// MarshalJSON writes the event as docs/plugins.md describes it.
func (e Event) MarshalJSON() ([]byte, error) { return e.appendJSON(nil) }

// appendJSON appends the JSON of the event. It is written by hand, because
// encoding/json would read the finding's JSON once more.
func (e *Event) appendJSON(b []byte) ([]byte, error) {
	b = append(append(b, `{"id":"`...), e.ID...) // letters, digits and hyphens
	b = append(append(b, `","type":"`...), e.Type...)
	b = append(b, `","time":"`...)
	b = append(e.Time.UTC().AppendFormat(b, time.RFC3339Nano), '"')
	switch e.Type {
	case TypeFinding:
		raw, err := recordJSON(e.Finding)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"change":"`...), e.Change.String()...)
		b = append(append(b, `","finding":`...), raw...)
	case TypeAudit:
		raw, err := json.Marshal(auditJSON(e.Audit))
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"audit":`...), raw...)
	case TypeGap:
		b = strconv.AppendUint(append(b, `,"lost":`...), e.Lost, 10)
	}
	return append(b, '}'), nil
}

// auditRecord is the JSON of a record of the audit chain, as mobileops logs
// audit --output json gives it.
type auditRecord struct {
	Sequence  uint64      `json:"sequence"`
	Time      time.Time   `json:"time"`
	Actor     audit.Actor `json:"actor"`
	Command   string      `json:"command"`
	Args      []string    `json:"args"`
	ArgsB64   [][]byte    `json:"args_b64,omitempty"` // the bytes, when one of Args is not valid UTF-8
	Status    int         `json:"status"`
	Result    string      `json:"result,omitempty"`
	ElapsedMS int64       `json:"elapsed_ms"`
	Hash      string      `json:"hash"`
}

func auditJSON(r *audit.Record) auditRecord {
	j := auditRecord{
		Sequence: r.Sequence, Time: r.Time, Actor: r.Actor, Command: r.Command, Args: r.Args,
		Status: r.Status, Result: r.Result, ElapsedMS: r.Elapsed.Milliseconds(), Hash: r.Hash.String(),
	}
	if j.Args == nil {
		j.Args = []string{}
	}
	for _, arg := range r.Args {
		if !utf8.ValidString(arg) {
			for _, exact := range r.Args {
				j.ArgsB64 = append(j.ArgsB64, []byte(exact))
			}
			break
		}
	}
	return j
}
