package format

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// DefaultIndex is one index for each day.
const DefaultIndex = product + "-{yyyy.MM.dd}"

// maxDocumentID is the longest _id that Elasticsearch takes, in bytes.
const maxDocumentID = 512

// bulk writes pairs of lines for _bulk of OpenSearch and Elasticsearch: the
// action create with the id of the event, so that what is sent again is refused
// with 409 instead of being there twice, and the document in the names of ECS.
// The action create is also the only one that data streams take.
type bulk struct {
	common
	before, after string // of the date in the name of the index
	date          string // of yyyy, MM, dd and HH; "": no date
}

func newBulk(c common, opts Options) (*bulk, error) {
	pattern := opts.Index
	if pattern == "" {
		pattern = DefaultIndex
	}
	b := &bulk{common: c}
	before, rest, dated := strings.Cut(pattern, "{")
	b.before = before
	if dated {
		var ended bool
		if b.date, b.after, ended = strings.Cut(rest, "}"); !ended || b.date == "" || strings.ContainsAny(b.after, "{}") {
			return nil, fmt.Errorf("format bulk: the index %q has no date such as {yyyy.MM.dd} between braces", pattern)
		}
		if left := strings.NewReplacer("yyyy", "", "MM", "", "dd", "", "HH", "").Replace(b.date); strings.Trim(left, ".-_") != "" {
			return nil, fmt.Errorf("format bulk: the date {%s} of the index is not made of yyyy, MM, dd, HH, \".\", \"-\" and \"_\"", b.date)
		}
	}
	return b, checkIndex(string(b.index(nil, time.Unix(0, 0))))
}

// checkIndex returns what is wrong with the name of an index.
func checkIndex(name string) error {
	switch {
	case name == "" || len(name) > 255:
		return fmt.Errorf("format bulk: the name of an index has 1 to 255 bytes")
	case strings.ContainsAny(name[:1], "-_+."), strings.ToLower(name) != name, strings.ContainsAny(name, "\\/*?\"<>| ,#:{}"),
		strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r >= 0x7f }):
		return fmt.Errorf("format bulk: %q is no name of an index: lower case, without spaces and \\/*?\"<>|,#:, not beginning with . - _ or +", name)
	}
	return nil
}

// index appends the name of the index for an event of that time.
func (b *bulk) index(dst []byte, t time.Time) []byte {
	dst = append(dst, b.before...)
	t = t.UTC()
	for d := b.date; d != ""; {
		switch {
		case strings.HasPrefix(d, "yyyy"):
			dst, d = appendDigits(dst, t.Year(), 4), d[4:]
		case strings.HasPrefix(d, "MM"):
			dst, d = appendDigits(dst, int(t.Month()), 2), d[2:]
		case strings.HasPrefix(d, "dd"):
			dst, d = appendDigits(dst, t.Day(), 2), d[2:]
		case strings.HasPrefix(d, "HH"):
			dst, d = appendDigits(dst, t.Hour(), 2), d[2:]
		default:
			dst, d = append(dst, d[0]), d[1:]
		}
	}
	return append(dst, b.after...)
}

func (b *bulk) ContentType() string { return "application/x-ndjson" }

func (b *bulk) Append(dst []byte, e *pluginsdk.Event) ([]byte, error) {
	if err := check(e); err != nil {
		return dst, err
	}
	if len(e.ID) > maxDocumentID {
		return dst, fmt.Errorf("the id %.40q... of an event has %d bytes; an index takes %d", e.ID, len(e.ID), maxDocumentID)
	}
	when := e.Time
	if !known(when) {
		when = time.Unix(0, 0)
	}
	out := append(dst, `{"create":{"_index":"`...)
	out = append(b.index(out, when), '"', ',')
	out = text(out, "_id", e.ID)
	out = append(closed(out, '}'), '}', '\n')
	return append(b.ecs(out, e, when), '\n'), nil
}

// ecs appends the document. What ECS has no name for stands below mobileops.
func (b *bulk) ecs(out []byte, e *pluginsdk.Event, when time.Time) []byte {
	out = append(out, '{')
	out = moment(out, "@timestamp", when)
	out = append(out, `"ecs":{"version":"8.11.0"},"observer":{"vendor":"mobileops","product":"mobileops",`...)
	out = append(closed(text(out, "version", b.opts.Version), '}'), ',')
	if b.opts.Host != "" {
		out = append(name(out, "host"), '{')
		out = text(out, "name", b.opts.Host)
		out = append(closed(text(out, "hostname", b.opts.Host), '}'), ',')
	}
	out = append(name(out, "log"), `{"level":"`...)
	out = append(append(out, severity(e).String()...), `"},`...)
	out = append(name(out, "message"), '"')
	out = append(appendMessage(out, e), '"', ',')
	out = b.event(out, e)
	switch {
	case finding(e) != nil:
		out = b.finding(out, e.Finding)
	case act(e) != nil:
		out = b.act(out, e.Audit)
	default:
		out = append(name(out, product), '{')
		if e.Lost > 0 {
			out = count(out, "lost", e.Lost)
		}
		out = append(closed(out, '}'), ',')
	}
	return closed(out, '}')
}

// event appends the object event of ECS.
func (b *bulk) event(out []byte, e *pluginsdk.Event) []byte {
	out = append(name(out, "event"), '{')
	out = text(out, "id", e.ID)
	out = text(out, "module", product)
	out = append(append(append(name(out, "severity"), rating(severity(e))...), ','), `"dataset":"`+product+"."...)
	out = append(appendJSONText(out, e.Type), '"', ',')
	switch {
	case finding(e) != nil:
		f := e.Finding
		out = text(out, "kind", kindOf(e.Change))
		out = append(out, categoryOf(f.Source)...)
		out = text(out, "action", e.Change)
		out = text(out, "provider", f.Source)
		out = text(out, "code", f.Rule)
		out = moment(out, "start", f.FirstSeen)
		out = moment(out, "end", f.LastSeen)
	case act(e) != nil:
		a := e.Audit
		out = append(out, `"kind":"event","category":["process"],"type":["info"],`...)
		out = text(out, "action", a.Command)
		out = text(out, "outcome", outcome(a))
		out = count(out, "sequence", a.Sequence)
		out = text(out, "hash", a.Hash)
		out = number(out, "duration", a.Elapsed.Nanoseconds())
	default:
		out = append(out, `"kind":"event",`...)
	}
	return append(closed(out, '}'), ',')
}

// kindOf says whether a change of a finding is one that people are called for.
func kindOf(change string) string {
	switch change {
	case pluginsdk.ChangeResolved, pluginsdk.ChangeAcknowledged, pluginsdk.ChangeWaived:
		return "event"
	}
	return "alert"
}

// categoryOf is event.category and event.type, of those that ECS allows, for
// findings of a source.
func categoryOf(source string) string {
	switch source {
	case "integrity":
		return `"category":["file"],"type":["change"],`
	case "network":
		return `"category":["network"],"type":["info"],`
	case "compliance":
		return `"category":["configuration"],"type":["info"],`
	case "update", "scan", "plugin/vulnerability-scanner-plugin":
		return `"category":["vulnerability"],"type":["info"],`
	case "threat":
		return `"category":["threat"],"type":["indicator"],`
	}
	return `"category":["host"],"type":["info"],`
}

func (b *bulk) finding(out []byte, f *pluginsdk.Finding) []byte {
	out = append(name(out, "rule"), '{')
	out = text(out, "id", f.Rule)
	out = text(out, "name", title(f))
	out = text(out, "category", f.Source)
	if len(f.References) > 0 {
		out = text(out, "reference", f.References[0])
	}
	out = append(closed(out, '}'), ',')
	if filePath(f.Subject) {
		out = append(closed(text(append(name(out, "file"), '{'), "path", f.Subject), '}'), ',')
	}
	out = list(out, "tags", f.Tags)
	out = append(name(out, product), `{"finding":{`...)
	out = text(out, "id", f.ID)
	out = text(out, "fingerprint", f.Fingerprint)
	out = text(out, "state", string(f.State))
	out = text(out, "severity", min(max(f.Severity, pluginsdk.Info), pluginsdk.Critical).String())
	out = text(out, "subject", f.Subject)
	out = exact(out, "subject_b64", f.Subject)
	if f.TimesSeen > 0 {
		out = count(out, "times_seen", f.TimesSeen)
	}
	out = text(out, "remediation", f.Remediation)
	out = text(out, "owner", f.Owner)
	out = text(out, "reason", f.Reason)
	out = moment(out, "waived_until", f.WaivedUntil)
	out = list(out, "references", f.References)
	out = list(out, "scopes", f.Scopes)
	if len(f.Evidence) > 0 {
		// As texts: a field for each key would fill the mapping of the index, and
		// a key with dots would clash with others.
		out = append(name(out, "evidence"), '[')
		var buf [16]string
		for _, k := range sortedKeys(buf[:0], f.Evidence) {
			out = append(appendJSONText(append(out, '"'), k), ": "...)
			out = append(appendJSONText(out, f.Evidence[k]), '"', ',')
		}
		out = append(closed(out, ']'), ',')
	}
	return append(append(closed(out, '}'), '}'), ',')
}

func (b *bulk) act(out []byte, a *pluginsdk.AuditRecord) []byte {
	out = append(name(out, "user"), `{"id":"`...)
	out = append(strconv.AppendInt(out, int64(a.Actor.UID), 10), '"', ',')
	out = append(closed(text(out, "name", a.Actor.User), '}'), ',')
	if len(a.Args) > 0 {
		out = append(closed(list(append(name(out, "process"), '{'), "args", a.Args), '}'), ',')
	}
	return append(closed(append(appendAct(append(name(out, product), `{"audit":`...), a), ','), '}'), ',')
}

// appendMessage appends what people read of an event, within a string of JSON.
func appendMessage(out []byte, e *pluginsdk.Event) []byte {
	switch {
	case finding(e) != nil:
		f := e.Finding
		out = appendJSONText(out, title(f))
		if f.Subject != "" {
			out = appendJSONText(append(out, ": "...), f.Subject)
		}
	case act(e) != nil:
		a := e.Audit
		if a.Actor.User != "" {
			out = appendJSONText(out, a.Actor.User)
		} else {
			out = strconv.AppendInt(append(out, "uid "...), int64(a.Actor.UID), 10)
		}
		out = appendJSONText(append(out, ": "...), a.Command)
		if a.Result != "" {
			out = appendJSONText(append(out, ": "...), a.Result)
		}
	case e.Type == pluginsdk.TypeGap:
		out = append(strconv.AppendUint(out, e.Lost, 10), " events were lost before they could be delivered"...)
	default:
		out = appendJSONText(append(out, "event of type "...), e.Type)
	}
	return out
}
