package format

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// Members of an object of JSON are appended with a comma behind each, which
// closed turns into the end. Names are constants of ours and need no escapes.

func name(b []byte, key string) []byte {
	b = append(b, '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

// text appends a member, unless it is empty.
func text(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return append(appendJSON(name(b, key), value), ',')
}

func number(b []byte, key string, n int64) []byte {
	return append(strconv.AppendInt(name(b, key), n, 10), ',')
}

func count(b []byte, key string, n uint64) []byte {
	return append(strconv.AppendUint(name(b, key), n, 10), ',')
}

// moment appends a time to the nanosecond, unless there is none.
func moment(b []byte, key string, t time.Time) []byte {
	if !known(t) {
		return b
	}
	b = append(name(b, key), '"')
	return append(appendStamp(b, t, 9, "Z"), '"', ',')
}

// list appends an array of texts, unless it is empty.
func list(b []byte, key string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(name(b, key), '[')
	for _, v := range values {
		b = append(appendJSON(b, v), ',')
	}
	return append(closed(b, ']'), ',')
}

// exact appends the bytes of value in base64, when JSON cannot hold them.
func exact(b []byte, key, value string) []byte {
	if utf8.ValidString(value) {
		return b
	}
	return append(appendBase64(name(b, key), value), ',')
}

// appendBase64 appends a string of JSON. It copies through a buffer of its own,
// since a conversion of s to bytes would allocate.
func appendBase64(b []byte, s string) []byte {
	b = append(b, '"')
	var chunk [768]byte
	for len(s) > 0 {
		n := copy(chunk[:], s)
		b = base64.StdEncoding.AppendEncode(b, chunk[:n])
		s = s[n:]
	}
	return append(b, '"')
}

// closed ends an object or array.
func closed(b []byte, end byte) []byte {
	if last := len(b) - 1; b[last] == ',' {
		b[last] = end
		return b
	}
	return append(b, end)
}

// document writes an event as one object, mobileops.event/v1: the event as the
// host gives it to plugins, with the name of the host and the version. A
// program that reads events of mobileops reads this, too.
type document struct{ common }

func (d *document) ContentType() string { return "application/json" }

func (d *document) Append(dst []byte, e *pluginsdk.Event) ([]byte, error) {
	if err := check(e); err != nil {
		return dst, err
	}
	return d.object(dst, e, true), nil
}

// object appends the event. The history of a finding can be long and is left
// out where an event is to be small.
func (c *common) object(b []byte, e *pluginsdk.Event, history bool) []byte {
	b = append(b, `{"schema":"mobileops.event/v1",`...)
	b = text(b, "id", e.ID)
	b = text(b, "type", e.Type)
	b = moment(b, "time", e.Time)
	b = text(b, "host", c.opts.Host)
	b = text(b, "product", product)
	b = text(b, "version", c.opts.Version)
	b = text(b, "change", e.Change)
	if f := finding(e); f != nil {
		b = append(appendFinding(name(b, "finding"), f, history), ',')
	}
	if a := act(e); a != nil {
		b = append(appendAct(name(b, "audit"), a), ',')
	}
	if e.Lost > 0 {
		b = count(b, "lost", e.Lost)
	}
	return closed(b, '}')
}

// appendFinding appends a finding as "mobileops finding list --output json" has
// it.
func appendFinding(b []byte, f *pluginsdk.Finding, history bool) []byte {
	b = append(b, '{')
	b = text(b, "id", f.ID)
	b = text(b, "fingerprint", f.Fingerprint)
	b = text(b, "state", string(f.State))
	b = append(appendJSON(name(b, "source"), f.Source), ',')
	b = append(appendJSON(name(b, "rule"), f.Rule), ',')
	b = text(b, "severity", min(max(f.Severity, pluginsdk.Info), pluginsdk.Critical).String())
	b = append(appendJSON(name(b, "title"), f.Title), ',')
	b = append(appendJSON(name(b, "subject"), f.Subject), ',')
	b = exact(b, "subject_b64", f.Subject)
	if len(f.Evidence) > 0 {
		b = appendEvidence(b, f.Evidence)
	}
	b = text(b, "remediation", f.Remediation)
	b = list(b, "references", f.References)
	b = list(b, "tags", f.Tags)
	b = moment(b, "observed", f.Observed)
	b = moment(b, "first_seen", f.FirstSeen)
	b = moment(b, "last_seen", f.LastSeen)
	if f.TimesSeen > 0 {
		b = count(b, "times_seen", f.TimesSeen)
	}
	b = text(b, "owner", f.Owner)
	b = text(b, "reason", f.Reason)
	b = moment(b, "waived_until", f.WaivedUntil)
	b = list(b, "scopes", f.Scopes)
	if history && len(f.History) > 0 {
		b = appendHistory(name(b, "history"), f.History)
		if f.Forgotten > 0 {
			b = count(b, "history_forgotten", f.Forgotten)
		}
	}
	if f.Truncated {
		b = append(b, `"truncated":true,`...)
	}
	return closed(b, '}')
}

func appendEvidence(b []byte, m map[string]string) []byte {
	var buf [16]string
	keys := sortedKeys(buf[:0], m)
	b = append(name(b, "evidence"), '{')
	whole := true
	for _, k := range keys {
		b = append(append(appendJSON(b, k), ':'), "\""...)
		b = append(appendJSONText(b, m[k]), '"', ',')
		whole = whole && utf8.ValidString(m[k])
	}
	b = append(closed(b, '}'), ',')
	if whole {
		return b
	}
	b = append(name(b, "evidence_b64"), '{')
	for _, k := range keys {
		if !utf8.ValidString(m[k]) {
			b = append(appendBase64(append(appendJSON(b, k), ':'), m[k]), ',')
		}
	}
	return append(closed(b, '}'), ',')
}

func appendHistory(b []byte, history []pluginsdk.StateChange) []byte {
	b = append(b, '[')
	for i := range history {
		c := &history[i]
		b = append(b, '{')
		b = moment(b, "at", c.At)
		b = text(b, "who", c.Who)
		b = text(b, "from", string(c.From))
		b = text(b, "to", string(c.To))
		b = text(b, "severity", min(max(c.Severity, pluginsdk.Info), pluginsdk.Critical).String())
		b = text(b, "why", c.Why)
		b = append(closed(b, '}'), ',')
	}
	return append(closed(b, ']'), ',')
}

// appendAct appends an audit record as "mobileops logs audit --output json" has
// it.
func appendAct(b []byte, a *pluginsdk.AuditRecord) []byte {
	b = append(b, '{')
	b = count(b, "sequence", a.Sequence)
	b = moment(b, "time", a.Time)
	b = append(name(b, "actor"), '{')
	b = number(b, "uid", int64(a.Actor.UID))
	b = text(b, "user", a.Actor.User)
	b = number(b, "login_uid", a.Actor.LoginUID)
	b = text(b, "tty", a.Actor.TTY)
	b = text(b, "remote", a.Actor.Remote)
	b = append(closed(b, '}'), ',')
	b = append(appendJSON(name(b, "command"), a.Command), ',')
	b = list(b, "args", a.Args)
	whole := true
	for _, arg := range a.Args {
		whole = whole && utf8.ValidString(arg)
	}
	if !whole {
		b = append(name(b, "args_b64"), '[')
		for _, arg := range a.Args {
			b = append(appendBase64(b, arg), ',')
		}
		b = append(closed(b, ']'), ',')
	}
	b = number(b, "status", int64(a.Status))
	b = text(b, "result", a.Result)
	b = number(b, "elapsed_ms", a.Elapsed.Milliseconds())
	b = text(b, "hash", a.Hash)
	return closed(b, '}')
}
