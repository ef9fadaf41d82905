package format

import (
	"strconv"
	"unicode/utf8"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// otlp writes requests of OTLP/HTTP with JSON, /v1/logs: Append one with a
// single record, OTLPBatch one with many.
type otlp struct{ common }

func (o *otlp) ContentType() string { return "application/json" }

func (o *otlp) Append(dst []byte, e *pluginsdk.Event) ([]byte, error) {
	if err := check(e); err != nil {
		return dst, err
	}
	return append(o.record(o.head(dst), e), tail...), nil
}

// OTLPBatch appends one request of OTLP/HTTP with JSON that has all events, in
// their order. An error of an option or an event leaves dst as it was.
func OTLPBatch(dst []byte, events []pluginsdk.Event, opts Options) ([]byte, error) {
	c, err := newCommon(opts)
	if err != nil {
		return dst, err
	}
	for i := range events {
		if err := check(&events[i]); err != nil {
			return dst, err
		}
	}
	o := &otlp{c}
	b := o.head(dst)
	for i := range events {
		b = append(o.record(b, &events[i]), ',')
	}
	if len(events) > 0 {
		b = b[:len(b)-1]
	}
	return append(b, tail...), nil
}

// head appends a request up to its first record.
func (o *otlp) head(b []byte) []byte {
	b = append(b, `{"resourceLogs":[{"resource":{"attributes":[`...)
	b = attribute(b, "service.name", product)
	b = attribute(b, "service.version", o.opts.Version)
	b = attribute(b, "host.name", o.opts.Host)
	b = append(closed(b, ']'), `},"scopeLogs":[{"scope":{"name":"mobileops/siem-integration-plugin"},"logRecords":[`...)
	return b
}

const tail = `]}]}]}`

// attribute appends a text, unless it is empty.
func attribute(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(append(b, `{"key":"`...), key...), `","value":{"stringValue":`...)
	return append(appendJSON(b, value), "}},"...)
}

// integer appends a number; 64 bits are a string in the JSON of protobuf.
func integer(b []byte, key string, n int64) []byte {
	b = append(append(append(b, `{"key":"`...), key...), `","value":{"intValue":"`...)
	return append(strconv.AppendInt(b, n, 10), `"}},`...)
}

// octets appends bytes, when a string cannot hold them.
func octets(b []byte, key, value string) []byte {
	if utf8.ValidString(value) {
		return b
	}
	b = append(append(append(b, `{"key":"`...), key...), `","value":{"bytesValue":`...)
	return append(appendBase64(b, value), "}},"...)
}

func texts(b []byte, key string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(append(append(b, `{"key":"`...), key...), `","value":{"arrayValue":{"values":[`...)
	for _, v := range values {
		b = append(appendJSON(append(b, `{"stringValue":`...), v), "},"...)
	}
	return append(closed(b, ']'), "}}},"...)
}

// severityNumber is where OpenTelemetry places the severities of syslog: info
// INFO, notice INFO2, warning WARN, error ERROR, critical ERROR2.
func severityNumber(s pluginsdk.Severity) int64 {
	switch s {
	case pluginsdk.Critical:
		return 18
	case pluginsdk.High:
		return 17
	case pluginsdk.Medium:
		return 13
	case pluginsdk.Low:
		return 10
	}
	return 9
}

func (o *otlp) record(b []byte, e *pluginsdk.Event) []byte {
	b = append(b, '{')
	if known(e.Time) && e.Time.Unix() >= 0 {
		b = append(name(b, "timeUnixNano"), '"')
		b = append(strconv.AppendUint(b, uint64(e.Time.UnixNano()), 10), '"', ',')
		b = append(name(b, "observedTimeUnixNano"), '"')
		b = append(strconv.AppendUint(b, uint64(e.Time.UnixNano()), 10), '"', ',')
	}
	b = number(b, "severityNumber", severityNumber(severity(e)))
	b = text(b, "severityText", severity(e).String())
	b = append(name(b, "body"), `{"stringValue":"`...)
	b = append(appendMessage(b, e), `"},"attributes":[`...)
	b = append(b, `{"key":"event.name","value":{"stringValue":"mobileops.`...)
	b = append(appendJSONText(b, e.Type), `"}},`...)
	b = attribute(b, "mobileops.event.id", e.ID)
	switch {
	case finding(e) != nil:
		b = findingAttributes(b, e)
	case act(e) != nil:
		b = actAttributes(b, e.Audit)
	case e.Lost > 0:
		b = integer(b, "mobileops.lost", int64(min(e.Lost, 1<<62)))
	}
	return closed(append(closed(b, ']'), ','), '}')
}

func findingAttributes(b []byte, e *pluginsdk.Event) []byte {
	f := e.Finding
	b = attribute(b, "mobileops.change", e.Change)
	b = attribute(b, "mobileops.finding.id", f.ID)
	b = attribute(b, "mobileops.finding.fingerprint", f.Fingerprint)
	b = attribute(b, "mobileops.finding.source", f.Source)
	b = attribute(b, "mobileops.finding.rule", f.Rule)
	b = attribute(b, "mobileops.finding.state", string(f.State))
	b = attribute(b, "mobileops.finding.subject", f.Subject)
	b = octets(b, "mobileops.finding.subject.bytes", f.Subject)
	if filePath(f.Subject) {
		b = attribute(b, "file.path", f.Subject)
	}
	b = attribute(b, "mobileops.finding.remediation", f.Remediation)
	b = attribute(b, "mobileops.finding.owner", f.Owner)
	b = attribute(b, "mobileops.finding.reason", f.Reason)
	if f.TimesSeen > 0 {
		b = integer(b, "mobileops.finding.times_seen", int64(min(f.TimesSeen, 1<<62)))
	}
	b = texts(b, "mobileops.finding.tags", f.Tags)
	b = texts(b, "mobileops.finding.references", f.References)
	if len(f.Evidence) == 0 {
		return b
	}
	b = append(b, `{"key":"mobileops.finding.evidence","value":{"kvlistValue":{"values":[`...)
	var buf [16]string
	for _, k := range sortedKeys(buf[:0], f.Evidence) {
		b = append(appendJSON(append(b, `{"key":`...), k), `,"value":{"stringValue":`...)
		b = append(appendJSON(b, f.Evidence[k]), "}},"...)
	}
	return append(closed(b, ']'), "}}},"...)
}

func actAttributes(b []byte, a *pluginsdk.AuditRecord) []byte {
	b = attribute(b, "mobileops.audit.command", a.Command)
	b = texts(b, "mobileops.audit.args", a.Args)
	b = integer(b, "mobileops.audit.status", int64(a.Status))
	b = attribute(b, "mobileops.audit.result", a.Result)
	b = integer(b, "mobileops.audit.sequence", int64(min(a.Sequence, 1<<62)))
	b = attribute(b, "mobileops.audit.hash", a.Hash)
	b = integer(b, "mobileops.audit.elapsed_ms", a.Elapsed.Milliseconds())
	b = integer(b, "mobileops.audit.uid", int64(a.Actor.UID))
	b = integer(b, "mobileops.audit.login_uid", a.Actor.LoginUID)
	b = attribute(b, "user.name", a.Actor.User)
	b = attribute(b, "mobileops.audit.tty", a.Actor.TTY)
	return attribute(b, "mobileops.audit.remote", a.Actor.Remote)
}
