package deliver

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// The types of destinations.
const (
	TypeSyslogTLS = "syslog-tls"
	TypeSyslogTCP = "syslog-tcp"
	TypeHEC       = "hec"
	TypeBulk      = "bulk"
	TypeOTLP      = "otlp"
	TypeWebhook   = "webhook"
)

// Config is the configuration of one destination, as plugin.yaml describes it.
type Config struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Address string `json:"address"` // syslog: host:port
	URL     string `json:"url"`     // the others

	Format     string `json:"format"`   // syslog: rfc5424, cef, leef
	Facility   string `json:"facility"` // syslog
	MaxMessage Size   `json:"max_message"`
	Confirm    string `json:"confirm"` // syslog: kernel, close

	Index       string   `json:"index"`      // bulk, hec
	Sourcetype  string   `json:"sourcetype"` // hec
	Acknowledge *bool    `json:"acknowledge"`
	AckTimeout  Duration `json:"ack_timeout"`
	User        string   `json:"user"` // basic authentication

	CAFile     string `json:"ca_file"`
	ServerName string `json:"server_name"`

	Types       []string `json:"types"`
	MinSeverity string   `json:"min_severity"`
	Sources     []string `json:"sources"`

	Window      int      `json:"window"` // syslog, hec: events that may be unconfirmed
	BatchEvents int      `json:"batch_events"`
	BatchBytes  Size     `json:"batch_bytes"`
	Timeout     Duration `json:"timeout"` // of a request
	RetryMin    Duration `json:"retry_min"`
	RetryMax    Duration `json:"retry_max"`
	DeadLetters Size     `json:"dead_letters"` // bytes of the file
}

var nameForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9]+([-_][a-z0-9]+)*$`) })

// Check fills in what was left out and says what is wrong, with the path of
// the option.
func (c *Config) Check(path string) error {
	bad := func(option, text string, args ...any) error {
		return fmt.Errorf("%s.%s: %s", path, option, fmt.Sprintf(text, args...))
	}
	if !nameForm().MatchString(c.Name) || len(c.Name) > 48 {
		return bad("name", "%q is no name: lower-case letters, digits and dashes, at most 48", c.Name)
	}
	switch c.Type {
	case TypeSyslogTLS, TypeSyslogTCP:
		if _, port, err := net.SplitHostPort(c.Address); err != nil || port == "" {
			return bad("address", "%q is not HOST:PORT", c.Address)
		}
		if c.URL != "" {
			return bad("url", "%s has an address instead", c.Type)
		}
		if c.Format = or(c.Format, "rfc5424"); !slices.Contains([]string{"rfc5424", "cef", "leef"}, c.Format) {
			return bad("format", "%q is none of rfc5424, cef, leef", c.Format)
		}
		if c.Confirm = or(c.Confirm, "kernel"); c.Confirm != "kernel" && c.Confirm != "close" {
			return bad("confirm", "%q is none of kernel, close", c.Confirm)
		}
	case TypeHEC, TypeBulk, TypeOTLP, TypeWebhook:
		u, err := url.Parse(c.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
			return bad("url", "%q is no URL that begins with https://HOST or http://HOST; user and password have options of their own", c.URL)
		}
		if c.Address != "" || c.Format != "" {
			return bad("type", "%s has a url, and neither address nor format", c.Type)
		}
	default:
		return bad("type", "%q is none of syslog-tls, syslog-tcp, hec, bulk, otlp, webhook", c.Type)
	}
	if _, err := newFilter(*c); err != nil {
		return bad("min_severity", "%v", err)
	}
	for _, t := range c.Types {
		if t != pluginsdk.TypeFinding && t != pluginsdk.TypeAudit {
			return bad("types", "%q is none of finding, audit", t)
		}
	}
	c.BatchEvents = or(c.BatchEvents, 2000)
	c.BatchBytes = or(c.BatchBytes, 4<<20)
	if c.Window < 0 || c.Window > 100_000 {
		return bad("window", "%d is not between 1 and 100000", c.Window)
	}
	switch c.Type {
	case TypeSyslogTLS, TypeSyslogTCP: // two batches make a window, so that one is written while one is confirmed
		c.Window = or(c.Window, 1000)
		c.BatchEvents = min(c.BatchEvents, max(1, c.Window/2))
		c.BatchBytes = min(c.BatchBytes, windowBytes/2)
	case TypeHEC:
		c.Window = or(c.Window, 8000)
		c.BatchEvents = min(c.BatchEvents, c.Window)
	}
	c.Timeout = or(c.Timeout, Duration(time.Minute))
	c.AckTimeout = or(c.AckTimeout, Duration(time.Minute))
	c.RetryMin = or(c.RetryMin, Duration(time.Second))
	c.RetryMax = or(c.RetryMax, Duration(time.Minute))
	c.DeadLetters = or(c.DeadLetters, 64<<20)
	if c.Acknowledge == nil {
		yes := true
		c.Acknowledge = &yes
	}
	if c.BatchEvents < 1 || c.BatchEvents > 20_000 {
		return bad("batch_events", "%d is not between 1 and 20000", c.BatchEvents)
	}
	if c.RetryMin > c.RetryMax {
		return bad("retry_min", "it is longer than retry_max")
	}
	return nil
}

// encoder is the format that the type of destination wants.
func (c *Config) encoder() string {
	switch c.Type {
	case TypeSyslogTLS, TypeSyslogTCP:
		return c.Format
	case TypeWebhook:
		return "json"
	}
	return c.Type
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Duration is a time.Duration that is written "10s", or as nanoseconds.
type Duration time.Duration

// UnmarshalJSON reads both ways.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) != nil {
		return json.Unmarshal(b, (*int64)(d))
	}
	v, err := time.ParseDuration(text)
	*d = Duration(v)
	return err
}

// Size is a number of bytes that is written "64MiB", or as a number.
type Size int64

// UnmarshalJSON reads both ways.
func (s *Size) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) != nil {
		return json.Unmarshal(b, (*int64)(s))
	}
	digits := strings.TrimRight(text, "KMGTiB ")
	shift, ok := map[string]int{"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40, "K": 10, "M": 20, "G": 30, "T": 40}[strings.TrimSpace(text[len(digits):])]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 0 || n > 1<<62>>shift {
		return fmt.Errorf("%q is no size such as 64MiB", text)
	}
	*s = Size(n << shift)
	return nil
}
