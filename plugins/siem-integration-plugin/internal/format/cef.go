package format

import (
	"strconv"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// Limits of CEF, in bytes, from its dictionary.
const (
	cefVersionMax = 31
	cefClassMax   = 1023
	cefNameMax    = 512
	cefHostMax    = 100
	cefActMax     = 63
	cefIDMax      = 40 // externalId
)

// cef writes CEF:0. A finding has the fields that "mobileops finding list
// --output cef" gives it, so that both can be told together: externalId is the
// fingerprint, cs1 to cs6 are state, subject, evidence, tags, references and
// id. The event adds act, what happened, and flexString1, its own id.
type cef struct{ common }

func (c *cef) ContentType() string { return "text/plain; charset=utf-8" }

func (c *cef) Append(dst []byte, e *pluginsdk.Event) ([]byte, error) {
	if err := check(e); err != nil {
		return dst, err
	}
	l := c.begin(dst, e)
	l.raw("CEF:0|" + product + "|" + product + "|")
	l.g = &cefHeader
	l.text(c.opts.Version, cefVersionMax)
	l.raw("|")
	l.class(e, cefClassMax)
	l.raw("|")
	switch {
	case finding(e) != nil:
		l.text(title(e.Finding), cefNameMax)
	case act(e) != nil:
		l.text(e.Audit.Command, cefNameMax)
	default:
		l.summary(e, cefNameMax)
	}
	l.raw("|")
	l.raw(rating(severity(e)))
	l.raw("|")
	l.g = &cefValue
	x := extension{line: l, first: true}
	if known(e.Time) {
		x.millis("rt", e.Time)
	}
	x.text("dvchost", c.opts.Host, cefHostMax)
	switch {
	case finding(e) != nil:
		x.finding(e)
	case act(e) != nil:
		x.act(e.Audit)
	default:
		x.text("cat", e.Type, maxText)
		if x.key("msg") {
			x.summary(e, maxText)
		}
	}
	x.custom("flexString1", "eventId", e.ID, maxText)
	return x.b, nil
}

// begin starts a record of CEF or LEEF, with the header of syslog when that is
// wanted.
func (c *common) begin(dst []byte, e *pluginsdk.Event) line {
	const unlimited = 1 << 30
	l := line{b: dst, end: len(dst) + unlimited}
	if c.opts.Header {
		l.end = len(dst) + c.opts.MaxMessage
		l.b = append(c.header(dst, e), " - "...)
	}
	return l
}

// class appends what kind of event it is, across all sources.
func (l *line) class(e *pluginsdk.Event, limit int) {
	end := len(l.b) + limit
	switch {
	case finding(e) != nil:
		l.text(e.Finding.Source, end-len(l.b))
		l.text("/", end-len(l.b))
		l.text(e.Finding.Rule, end-len(l.b))
	case act(e) != nil:
		l.text("audit/", end-len(l.b))
		l.text(e.Audit.Command, end-len(l.b))
	default:
		l.text(e.Type, limit)
	}
}

// extension writes the key-value pairs of CEF.
type extension struct {
	line
	first bool
}

// key begins a pair, when there is room for it.
func (x *extension) key(name string) bool {
	if len(x.b)+len(name)+64 > x.end {
		x.cut = true
		return false
	}
	if !x.first {
		x.b = append(x.b, ' ')
	}
	x.first = false
	x.b = append(append(x.b, name...), '=')
	return true
}

func (x *extension) text(name, value string, limit int) {
	if value != "" && x.key(name) {
		x.line.text(value, limit)
	}
}

func (x *extension) millis(name string, t time.Time) {
	if known(t) && x.key(name) {
		x.b = appendMillis(x.b, t)
	}
}

// label ends a custom field, whose name says nothing.
func (x *extension) label(name, label string) {
	x.b = append(append(append(append(x.b, ' '), name...), "Label="...), label...)
}

func (x *extension) custom(name, label, value string, limit int) {
	if value != "" && x.key(name) {
		x.line.text(value, min(limit, x.end-len(x.b)-len(name)-len(label)-len(" Label=")))
		x.label(name, label)
	}
}

func (x *extension) customInt(name, label string, n int64) {
	if x.key(name) {
		x.number(n)
		x.label(name, label)
	}
}

// room is what a custom field may have of the record, with its label.
func (x *extension) room() int { return min(maxValue, x.end-len(x.b)-40) }

func (x *extension) finding(e *pluginsdk.Event) {
	f := e.Finding
	x.text("externalId", f.Fingerprint, cefIDMax)
	x.text("cat", f.Source, maxText)
	x.text("act", e.Change, cefActMax)
	x.millis("start", f.FirstSeen)
	x.millis("end", f.LastSeen)
	if f.TimesSeen > 0 && x.key("cnt") {
		x.b = strconv.AppendUint(x.b, f.TimesSeen, 10)
	}
	if filePath(f.Subject) {
		x.text("filePath", f.Subject, maxText)
	}
	if (f.Title != "" || f.Remediation != "") && x.key("msg") {
		end := len(x.b) + maxText
		x.line.text(f.Title, end-len(x.b))
		if f.Title != "" && f.Remediation != "" {
			x.line.text("; ", end-len(x.b))
		}
		x.line.text(f.Remediation, end-len(x.b))
	}
	if f.State != "" && x.key("cs1") {
		x.decision(f, x.room())
		x.label("cs1", "state")
	}
	x.custom("cs6", "id", f.ID, maxWord)
	x.custom("cs2", "subject", f.Subject, maxValue)
	if len(f.Evidence) > 0 && x.key("cs3") {
		x.evidence(f.Evidence, x.room())
		x.label("cs3", "evidence")
	}
	if len(f.Tags) > 0 && x.key("cs4") {
		x.joined(f.Tags, x.room())
		x.label("cs4", "tags")
	}
	if len(f.References) > 0 && x.key("cs5") {
		x.joined(f.References, x.room())
		x.label("cs5", "references")
	}
}

func (x *extension) act(a *pluginsdk.AuditRecord) {
	if x.key("externalId") {
		x.b = strconv.AppendUint(x.b, a.Sequence, 10)
	}
	x.text("cat", pluginsdk.TypeAudit, maxText)
	x.text("act", a.Command, cefActMax)
	x.text("outcome", outcome(a), cefActMax)
	if x.key("suid") {
		x.number(int64(a.Actor.UID))
	}
	x.text("suser", a.Actor.User, maxText)
	x.text("msg", a.Result, maxText)
	x.customInt("cn1", "status", int64(a.Status))
	x.customInt("cn2", "elapsedMs", a.Elapsed.Milliseconds())
	if a.Actor.LoginUID >= 0 {
		x.customInt("cn3", "loginUid", a.Actor.LoginUID)
	}
	x.custom("cs1", "hash", a.Hash, maxWord)
	if len(a.Args) > 0 && x.key("cs2") {
		x.joined(a.Args, x.room())
		x.label("cs2", "args")
	}
	x.custom("cs3", "tty", a.Actor.TTY, maxWord)
	x.custom("cs4", "remote", a.Actor.Remote, maxText)
}
