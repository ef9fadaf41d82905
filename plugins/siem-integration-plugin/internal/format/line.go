package format

import (
	"strconv"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// line is a record of text that is being written. Its methods append, and note
// in cut when something did not fit.
type line struct {
	b   []byte
	g   *grammar
	end int // b does not grow beyond it by text
	cut bool
}

// text appends at most limit bytes of s.
func (l *line) text(s string, limit int) {
	var whole bool
	l.b, whole = appendText(l.b, s, min(limit, l.end-len(l.b)), l.g)
	l.cut = l.cut || !whole
}

func (l *line) raw(s string) { l.b = append(l.b, s...) }

// The longest texts, in bytes, of lists that are joined to one value.
const (
	maxValue = 4000 // cs1 to cs6 of CEF, and the same elsewhere
	maxText  = 1023 // other texts of CEF
)

// evidence appends "key: value; key: value", in the order of the keys.
func (l *line) evidence(m map[string]string, limit int) {
	end := min(l.end, len(l.b)+limit)
	var buf [16]string
	for i, k := range sortedKeys(buf[:0], m) {
		if i > 0 {
			l.text("; ", end-len(l.b))
		}
		l.text(k, end-len(l.b))
		l.text(": ", end-len(l.b))
		l.text(m[k], end-len(l.b))
	}
}

// joined appends the texts of list with a space between two.
func (l *line) joined(list []string, limit int) {
	end := min(l.end, len(l.b)+limit)
	for i, s := range list {
		if i > 0 {
			l.text(" ", end-len(l.b))
		}
		l.text(s, end-len(l.b))
	}
}

// decision appends the state of a finding and what was decided about it, in
// the words of "mobileops finding list --output cef".
func (l *line) decision(f *pluginsdk.Finding, limit int) {
	end := min(l.end, len(l.b)+limit)
	l.text(string(f.State), end-len(l.b))
	switch f.State {
	case pluginsdk.Waived:
		l.text("; waived by ", end-len(l.b))
		l.text(f.Owner, end-len(l.b))
		if known(f.WaivedUntil) && end-len(l.b) >= len(" until 2026-01-01") {
			l.raw(" until ")
			l.b = appendStamp(l.b, f.WaivedUntil, 0, "")
			l.b = l.b[:len(l.b)-len("T00:00:00")]
		}
		l.text(": ", end-len(l.b))
		l.text(f.Reason, end-len(l.b))
	case pluginsdk.Acknowledged:
		l.text("; acknowledged: ", end-len(l.b))
		l.text(f.Reason, end-len(l.b))
	}
}

// summary appends what people read of an event.
func (l *line) summary(e *pluginsdk.Event, limit int) {
	end := min(l.end, len(l.b)+limit)
	switch {
	case finding(e) != nil:
		f := e.Finding
		l.text(title(f), end-len(l.b))
		if f.Subject != "" {
			l.text(": ", end-len(l.b))
			l.text(f.Subject, end-len(l.b))
		}
	case act(e) != nil:
		a := e.Audit
		if a.Actor.User != "" {
			l.text(a.Actor.User, end-len(l.b))
		} else {
			l.text("uid ", end-len(l.b))
			l.number(int64(a.Actor.UID))
		}
		l.text(": ", end-len(l.b))
		l.text(a.Command, end-len(l.b))
		if a.Result != "" {
			l.text(": ", end-len(l.b))
			l.text(a.Result, end-len(l.b))
		}
	case e.Type == pluginsdk.TypeGap:
		l.b = strconv.AppendUint(l.b, e.Lost, 10)
		l.raw(" events were lost before they could be delivered")
	default:
		l.text("event of type ", end-len(l.b))
		l.text(e.Type, end-len(l.b))
	}
}

func (l *line) number(n int64) { l.b = strconv.AppendInt(l.b, n, 10) }

func (l *line) stamp(t time.Time, digits int, zone string) { l.b = appendStamp(l.b, t, digits, zone) }
