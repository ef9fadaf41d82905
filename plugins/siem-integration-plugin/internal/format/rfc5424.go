package format

import (
	"strconv"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// Limits of RFC 5424, in characters of ASCII, and what we leave of a message to
// its text.
const (
	maxHostname = 255
	maxMsgID    = 32
	maxWord     = 256 // of ids and the like, in bytes
	roomForText = 512
	maxSubject  = 4096
	bom         = "\xef\xbb\xbf"
	truncated   = ` truncated="1"]`
)

// syslog writes RFC 5424: MSGID is the rule of a finding or the command of an
// act, the structured data has the fields, and MSG, in UTF-8 behind a byte order
// mark (section 6.4), what people read.
type syslog struct{ common }

func (s *syslog) ContentType() string { return "text/plain; charset=utf-8" }

func (s *syslog) Append(dst []byte, e *pluginsdk.Event) ([]byte, error) {
	if err := check(e); err != nil {
		return dst, err
	}
	start := len(dst)
	l := line{b: s.header(dst, e), g: &sdValue, end: start + s.opts.MaxMessage - roomForText}
	l.raw(" [")
	l.raw(s.sdName)
	s.data(&l, e)
	if l.cut {
		l.raw(truncated)
	} else {
		l.raw("]")
	}
	l.raw(" " + bom)
	l.g, l.end = &plainText, start+s.opts.MaxMessage
	l.summary(e, s.opts.MaxMessage)
	return l.b, nil
}

// header appends everything before the structured data.
func (c *common) header(dst []byte, e *pluginsdk.Event) []byte {
	dst = append(dst, '<')
	dst = strconv.AppendInt(dst, int64(c.facility*8+priority(severity(e))), 10)
	dst = append(dst, ">1 "...)
	if known(e.Time) {
		dst = appendStamp(dst, e.Time, 6, "Z")
	} else {
		dst = append(dst, '-')
	}
	dst = append(append(dst, ' '), c.host...)
	dst = append(dst, " "+product+" - "...)
	switch {
	case finding(e) != nil:
		return appendWord(dst, e.Finding.Rule, maxMsgID, '.')
	case act(e) != nil:
		return appendWord(dst, e.Audit.Command, maxMsgID, '.')
	}
	return appendWord(dst, e.Type, maxMsgID, '.')
}

// priority is the severity of RFC 5424: critical 2, error 3, warning 4,
// notice 5, informational 6.
func priority(s pluginsdk.Severity) int { return 6 - int(s) }

// data appends the parameters of the structured data, most important first.
func (s *syslog) data(l *line, e *pluginsdk.Event) {
	l.param("id", e.ID, maxWord)
	l.param("type", e.Type, maxWord)
	if f := finding(e); f != nil {
		l.param("change", e.Change, maxWord)
		l.param("fingerprint", f.Fingerprint, maxWord)
		l.param("source", f.Source, maxWord)
		l.param("rule", f.Rule, maxWord)
		l.param("severity", severity(e).String(), maxWord)
		l.param("state", string(f.State), maxWord)
		l.param("subject", f.Subject, maxSubject)
		l.paramTime("first_seen", f.FirstSeen)
		l.paramTime("last_seen", f.LastSeen)
		if f.TimesSeen > 0 {
			l.paramUint("times_seen", f.TimesSeen)
		}
		l.param("owner", f.Owner, maxWord)
		l.param("reason", f.Reason, maxText)
		l.paramTime("waived_until", f.WaivedUntil)
		l.param("remediation", f.Remediation, maxText)
		if len(f.Evidence) > 0 && l.open("evidence") {
			l.evidence(f.Evidence, maxValue)
			l.raw(`"`)
		}
		if len(f.Tags) > 0 && l.open("tags") {
			l.joined(f.Tags, maxText)
			l.raw(`"`)
		}
		if len(f.References) > 0 && l.open("references") {
			l.joined(f.References, maxText)
			l.raw(`"`)
		}
		return
	}
	if a := act(e); a != nil {
		l.paramUint("sequence", a.Sequence)
		l.param("hash", a.Hash, maxWord)
		l.param("command", a.Command, maxWord)
		l.paramInt("status", int64(a.Status))
		l.paramInt("uid", int64(a.Actor.UID))
		l.param("user", a.Actor.User, maxWord)
		if a.Actor.LoginUID >= 0 {
			l.paramInt("login_uid", a.Actor.LoginUID)
		}
		l.param("tty", a.Actor.TTY, maxWord)
		l.param("remote", a.Actor.Remote, maxWord)
		l.paramInt("elapsed_ms", a.Elapsed.Milliseconds())
		l.param("result", a.Result, maxText)
		if len(a.Args) > 0 && l.open("args") {
			l.joined(a.Args, maxValue)
			l.raw(`"`)
		}
		return
	}
	if e.Lost > 0 {
		l.paramUint("lost", e.Lost)
	}
}

// open begins a parameter, when there is room for its name and anything of its
// value.
func (l *line) open(name string) bool {
	if len(l.b)+len(name)+64 > l.end {
		l.cut = true
		return false
	}
	l.b = append(l.b, ' ')
	l.b = append(l.b, name...)
	l.b = append(l.b, `="`...)
	return true
}

// param appends a parameter, unless it is empty.
func (l *line) param(name, value string, limit int) {
	if value != "" && l.open(name) {
		l.text(value, limit)
		l.b = append(l.b, '"')
	}
}

func (l *line) paramTime(name string, t time.Time) {
	if known(t) && l.open(name) {
		l.stamp(t, 6, `Z"`)
	}
}

func (l *line) paramUint(name string, n uint64) {
	if l.open(name) {
		l.b = append(strconv.AppendUint(l.b, n, 10), '"')
	}
}

func (l *line) paramInt(name string, n int64) {
	if l.open(name) {
		l.b = append(strconv.AppendInt(l.b, n, 10), '"')
	}
}
