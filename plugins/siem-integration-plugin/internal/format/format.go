// Package format writes events as the systems read them that collect events:
// RFC 5424 syslog, CEF, LEEF, Splunk HEC, the bulk interface of OpenSearch and
// Elasticsearch, OTLP, and plain JSON.
//
// Text in an event is chosen by whoever could name a file on the host. No byte
// of it may begin a record, end one, or pass for a field that we did not write:
//
//   - The formats of lines (rfc5424, cef, leef) have no raw byte below space,
//     no DEL, no invalid UTF-8 and no character that does not show, such as
//     bidi marks and line separators. These stand as the escapes of a C string
//     (\n, \x1b, \u202e, \xff for a byte that is no UTF-8) and a backslash is
//     doubled, so that nothing is lost; the escapes of the format itself come
//     on top. It is the text that "mobileops finding list --output cef" has.
//   - The formats of JSON have the same characters as \uNNNN. Bytes that are no
//     UTF-8 are U+FFFD there, and stand in base64 beside it (subject_b64).
//
// An Encoder appends exactly one record for one event. It never fails for what
// is in a text; what is longer than a format allows is cut between two
// characters. Encoders can be used by several goroutines at once, and do not
// allocate when dst has room, except for evidence with more than 16 keys.
//
// Sources: RFC 5424, RFC 5425, RFC 5426; Micro Focus "Implementing ArcSight
// Common Event Format", version 25; IBM "Log Event Extended Format (LEEF)",
// version 2; Splunk "Format events for HTTP Event Collector"; Elastic Common
// Schema 8.11; OpenTelemetry protocol 1.5 and its data model of logs.
package format

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// product is the vendor, the product and the APP-NAME.
const product = "mobileops"

// DefaultEnterprise is the private enterprise number in the name of the
// structured data, mobileops@32473. IANA keeps 32473 for examples (RFC 5612):
// an organisation that has a number of its own sets Options.Enterprise.
const DefaultEnterprise = 32473

// Limits of the size of one message of syslog, in bytes. RFC 5424 wants
// receivers to take 2048; rsyslog and syslog-ng take 8 KiB and more unless told
// otherwise.
const (
	MinMessage     = 2048
	DefaultMessage = 8192
)

// Options say what the formats need beside the event. The zero value of each
// is its default.
type Options struct {
	Host       string // whose events they are; "": unknown
	Version    string // of mobileops; "": unknown
	Facility   string // rfc5424: kern to local7, as in syslog.conf(5); "": local0
	Enterprise uint32 // rfc5424: private enterprise number; 0: DefaultEnterprise
	MaxMessage int    // rfc5424, and cef and leef with Header: bytes; 0: DefaultMessage; at least MinMessage
	Header     bool   // cef, leef: an RFC 5424 header in front, for receivers of syslog
	Index      string // bulk: name with a date in braces, in UTC; "": mobileops-{yyyy.MM.dd}. hec: index, "": that of the token
	Source     string // hec; "": mobileops
	Sourcetype string // hec; "": mobileops:finding, mobileops:audit or mobileops:gap
}

// Encoder writes events in one format.
type Encoder interface {
	// Append appends one record to dst, without what separates records on the
	// wire (RFC 6587 framing, a newline), except for bulk, whose two lines both
	// end in a newline. An event that lacks its finding or audit record is an
	// error, and dst is returned as it was.
	Append(dst []byte, e *pluginsdk.Event) ([]byte, error)
	// ContentType is the media type of a body that holds such records.
	ContentType() string
}

// Names returns the names of the formats, as New takes them.
func Names() []string { return []string{"rfc5424", "cef", "leef", "hec", "bulk", "otlp", "json"} }

// New returns the encoder of a format. The error says what is wrong with the
// name or the options.
func New(name string, opts Options) (Encoder, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("unknown format %q (one of %s)", name, strings.Join(Names(), ", "))
	}
	c, err := newCommon(opts)
	if err != nil {
		return nil, fmt.Errorf("format %s: %w", name, err)
	}
	switch name {
	case "rfc5424":
		return &syslog{c}, nil
	case "cef":
		return &cef{c}, nil
	case "leef":
		return &leef{c}, nil
	case "hec":
		return newHEC(c, opts), nil
	case "bulk":
		return newBulk(c, opts)
	case "otlp":
		return &otlp{c}, nil
	}
	return &document{c}, nil
}

// common is what the encoders know beside the event, made ready for them.
type common struct {
	opts     Options
	host     string // HOSTNAME of syslog
	facility int
	sdName   string
}

func newCommon(opts Options) (common, error) {
	c := common{opts: opts}
	if opts.Facility == "" {
		opts.Facility = "local0"
	}
	c.facility = slices.Index(facilities(), opts.Facility)
	if c.facility < 0 {
		return c, fmt.Errorf("unknown facility %q (one of %s)", opts.Facility, strings.Join(facilities(), ", "))
	}
	if opts.Enterprise == 0 {
		opts.Enterprise = DefaultEnterprise
	}
	c.sdName = fmt.Sprintf("%s@%d", product, opts.Enterprise)
	if opts.MaxMessage == 0 {
		c.opts.MaxMessage = DefaultMessage
	} else if opts.MaxMessage < MinMessage {
		return c, fmt.Errorf("messages of at most %d bytes are too short for all that must be in one: at least %d", opts.MaxMessage, MinMessage)
	}
	c.host = string(appendWord(nil, opts.Host, maxHostname, '-'))
	return c, nil
}

// facilities are the names of the facilities of RFC 5424, by their numbers.
func facilities() []string {
	return []string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
		"audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}
}
