package format

import (
	"strconv"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// Limits of LEEF, in bytes. QRadar cuts a payload at 4096 unless told
// otherwise; the values are far from it in all but hostile events.
const (
	leefIDMax   = 1023
	leefTextMax = 1024
)

// leef writes LEEF 2.0 with a tab between attributes, which no value has: a
// tab in a text is written as \t. LEEF knows no escapes. In the header, where a
// pipe would end a field, it is written as \x7c.
type leef struct{ common }

func (f *leef) ContentType() string { return "text/plain; charset=utf-8" }

func (f *leef) Append(dst []byte, e *pluginsdk.Event) ([]byte, error) {
	if err := check(e); err != nil {
		return dst, err
	}
	l := f.begin(dst, e)
	l.raw("LEEF:2.0|" + product + "|" + product + "|")
	l.g = &leefHeader
	l.text(f.opts.Version, cefVersionMax)
	l.raw("|")
	l.class(e, leefIDMax)
	l.raw("|x09|")
	l.g = &plainText
	a := attributes{line: l, first: true}
	if known(e.Time) {
		a.time("devTime", e.Time)
		a.text("devTimeFormat", "yyyy-MM-dd'T'HH:mm:ss.SSSZ", leefTextMax)
	}
	a.text("sev", rating(severity(e)), leefTextMax)
	a.text("eventId", e.ID, leefTextMax)
	a.text("host", f.opts.Host, leefTextMax)
	switch {
	case finding(e) != nil:
		a.finding(e)
	case act(e) != nil:
		a.act(e.Audit)
	default:
		a.text("cat", e.Type, leefTextMax)
	}
	if a.key("msg") {
		a.summary(e, leefTextMax)
	}
	return a.b, nil
}

// attributes writes the key-value pairs of LEEF.
type attributes struct {
	line
	first bool
}

// key begins an attribute, when there is room for it.
func (a *attributes) key(name string) bool {
	if len(a.b)+len(name)+64 > a.end {
		a.cut = true
		return false
	}
	if !a.first {
		a.b = append(a.b, '\t')
	}
	a.first = false
	a.b = append(append(a.b, name...), '=')
	return true
}

func (a *attributes) text(name, value string, limit int) {
	if value != "" && a.key(name) {
		a.line.text(value, limit)
	}
}

// time appends a time in the form that devTimeFormat names, which is one of
// java.text.SimpleDateFormat.
func (a *attributes) time(name string, t time.Time) {
	if known(t) && a.key(name) {
		a.stamp(t, 3, "+0000")
	}
}

func (a *attributes) int(name string, n int64) {
	if a.key(name) {
		a.number(n)
	}
}

func (a *attributes) finding(e *pluginsdk.Event) {
	f := e.Finding
	a.text("cat", f.Source, leefTextMax)
	a.text("rule", f.Rule, leefTextMax)
	a.text("change", e.Change, leefTextMax)
	a.text("severity", severity(e).String(), leefTextMax)
	a.text("fingerprint", f.Fingerprint, leefTextMax)
	a.text("id", f.ID, leefTextMax)
	if f.State != "" && a.key("state") {
		a.decision(f, leefTextMax)
	}
	a.text("subject", f.Subject, maxSubject)
	if filePath(f.Subject) {
		a.text("filePath", f.Subject, leefTextMax)
	}
	a.time("firstSeen", f.FirstSeen)
	a.time("lastSeen", f.LastSeen)
	if f.TimesSeen > 0 && a.key("timesSeen") {
		a.b = strconv.AppendUint(a.b, f.TimesSeen, 10)
	}
	a.text("remediation", f.Remediation, leefTextMax)
	if len(f.Evidence) > 0 && a.key("evidence") {
		a.evidence(f.Evidence, maxValue)
	}
	if len(f.Tags) > 0 && a.key("tags") {
		a.joined(f.Tags, leefTextMax)
	}
	if len(f.References) > 0 && a.key("references") {
		a.joined(f.References, leefTextMax)
	}
}

func (a *attributes) act(r *pluginsdk.AuditRecord) {
	a.text("cat", pluginsdk.TypeAudit, leefTextMax)
	a.text("usrName", r.Actor.User, leefTextMax)
	a.int("uid", int64(r.Actor.UID))
	if r.Actor.LoginUID >= 0 {
		a.int("loginUid", r.Actor.LoginUID)
	}
	a.text("tty", r.Actor.TTY, leefTextMax)
	a.text("remote", r.Actor.Remote, leefTextMax)
	a.text("command", r.Command, leefTextMax)
	if len(r.Args) > 0 && a.key("args") {
		a.joined(r.Args, maxValue)
	}
	a.int("status", int64(r.Status))
	a.text("outcome", outcome(r), leefTextMax)
	a.text("result", r.Result, leefTextMax)
	a.int("elapsedMs", r.Elapsed.Milliseconds())
	if a.key("sequence") {
		a.b = strconv.AppendUint(a.b, r.Sequence, 10)
	}
	a.text("hash", r.Hash, leefTextMax)
}
