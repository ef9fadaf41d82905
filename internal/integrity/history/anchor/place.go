package anchor

import (
	"context"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// ErrUnreachable is wrapped by errors about a place that could not be asked.
var ErrUnreachable = failure.New(failure.Incomplete, "the anchor cannot be reached")

// Place is where anchors are kept.
type Place interface {
	// String returns how the place is written in the configuration.
	String() string
	// Read returns the last anchor of a host that is kept there, nil when there
	// is none. An error wraps ErrUnreachable when nothing can be known.
	Read(ctx context.Context, host string) (*Anchor, error)
	// Write keeps an anchor there. Whoever calls it has compared with Read: a
	// place does not know what may follow what.
	Write(ctx context.Context, a Anchor) error
	// Readable tells whether Read can ever return anything.
	Readable() bool
}

// Options say how places are reached.
type Options struct {
	CA        string // path of certificates (PEM) that may vouch for HTTPS servers; "": the system's
	TokenFile string // path of a file with a bearer token for HTTP servers; "": none
	Method    string // of HTTP for writing; "": PUT
	Proxy     func(*http.Request) (*url.URL, error)
	Timeout   time.Duration // of one operation; 0: 10 s
}

func (o *Options) timeout() time.Duration {
	if o.Timeout > 0 {
		return o.Timeout
	}
	return 10 * time.Second
}

// ParsePlace reads a place as it is written in the configuration: file:PATH
// (absolute), an https URL, or syslog:ADDRESS. On a command line, where plain
// is set, an absolute path is a file as well.
func ParsePlace(s string, plain bool, o Options) (Place, error) {
	scheme, rest, _ := strings.Cut(s, ":")
	switch {
	case plain && filepath.IsAbs(s):
		return &File{Path: filepath.Clean(s)}, nil
	case scheme == "file" && filepath.IsAbs(rest) && !strings.HasPrefix(rest, "//"):
		return &File{Path: filepath.Clean(rest)}, nil
	case scheme == "https", scheme == "http":
		return newHTTP(s, o)
	case scheme == "syslog":
		return ParseSyslog(rest, o.timeout())
	}
	return nil, failure.Errorf(failure.Usage, "%q is no place for an anchor: write file:/PATH, an https URL, or syslog:ADDRESS", s)
}

// Given is an anchor that somebody brought along, such as one read from a
// sheet of paper.
type Given struct{ Anchor Anchor }

func (g Given) String() string { return "the given anchor" }

// Readable tells that it can be compared with.
func (g Given) Readable() bool { return true }

// Read returns the anchor, whichever host it is of.
func (g Given) Read(context.Context, string) (*Anchor, error) { return &g.Anchor, nil }

// Write fails: it is no place.
func (g Given) Write(context.Context, Anchor) error {
	return failure.New(failure.Usage, "a given anchor cannot be written")
}
