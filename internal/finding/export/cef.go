package export

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
)

// Limits of the header fields, in bytes, from the CEF dictionary.
const (
	cefVersionMax = 31
	cefClassMax   = 1023
	cefNameMax    = 512
	cefTextMax    = 1023 // msg, filePath
	cefCustomMax  = 4000 // cs1 to cs6
)

// CEF writes one line for each record: CEF:0 with signature source/rule, the
// title as name and the severity as 1, 3, 5, 8 or 10. There is no syslog
// header: the forwarder adds it. Subjects that are absolute paths are
// filePath, others are cs2, each at most as long as the CEF dictionary allows;
// externalId is the whole fingerprint, by which the record can be found.
func CEF(w io.Writer, m Meta, records Records) error {
	out := &errWriter{w: w}
	buf := bufio.NewWriter(out)
	var line []byte
	for r := range records {
		if out.err != nil {
			break
		}
		line = appendCEF(line[:0], m, r)
		_, _ = buf.Write(append(line, '\n')) // errWriter and Flush keep the error
	}
	return buf.Flush()
}

// cefSeverity maps to the bands of the specification: 0-3 low, 4-6 medium,
// 7-8 high, 9-10 very high.
func cefSeverity(s finding.Severity) string {
	switch s {
	case finding.Critical:
		return "10"
	case finding.High:
		return "8"
	case finding.Medium:
		return "5"
	case finding.Low:
		return "3"
	}
	return "1"
}

func appendCEF(b []byte, m Meta, r *finding.Record) []byte {
	title := r.Title
	if title == "" {
		title = r.Rule
	}
	b = append(b, "CEF:0|mobileops|mobileops|"...)
	for _, h := range []string{clip(Visible(m.Version), cefVersionMax), clip(ruleID(r), cefClassMax), clip(Visible(title), cefNameMax), cefSeverity(r.Severity)} {
		b = append(b, cefHeader(h)...)
		b = append(b, '|')
	}
	first := true
	ext := func(key, value string) {
		if value == "" {
			return
		}
		if !first {
			b = append(b, ' ')
		}
		first = false
		b = append(b, key...)
		b = append(b, '=')
		b = append(b, cefValue(value)...)
	}
	custom := func(n, label, value string) {
		if value != "" {
			ext("cs"+n, clip(value, cefCustomMax))
			ext("cs"+n+"Label", label)
		}
	}
	ext("externalId", r.Fingerprint.String())
	ext("cat", clip(Visible(r.Source), cefTextMax))
	ext("rt", millis(r.LastSeen))
	ext("start", millis(r.FirstSeen))
	ext("end", millis(r.LastSeen))
	ext("cnt", strconv.FormatUint(r.TimesSeen, 10))
	ext("dvchost", clip(Visible(m.Host), 100))
	if strings.HasPrefix(r.Subject, "/") {
		ext("filePath", clip(Visible(r.Subject), cefTextMax))
	}
	ext("msg", clip(trimmedJoin("; ", Visible(r.Title), Visible(r.Remediation)), cefTextMax))
	custom("1", "state", trimmedJoin("; ", r.State.String(), decision(r)))
	custom("2", "subject", Visible(r.Subject))
	custom("3", "evidence", strings.Join(evidence(r), "; "))
	custom("4", "tags", strings.Join(visibleAll(r.Tags), " "))
	custom("5", "references", strings.Join(visibleAll(r.References), " "))
	custom("6", "id", r.ID())
	return b
}

// millis formats a time as CEF takes it, in milliseconds since 1970.
func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// cefHeader escapes a header field: backslash and pipe. The text is visible
// already and has no line breaks.
func cefHeader(s string) string { return escapeCEF(s, '|') }

// cefValue escapes the value of an extension: backslash and equals sign.
func cefValue(s string) string { return escapeCEF(s, '=') }

func escapeCEF(s string, special byte) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] == '\\' || s[i] == special {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
