// Package format knows how logs are written: how the bytes of a file are cut
// into records, where the time of a record is, and which fields it has.
//
// A format is a file of formats/ (or of an operator's directory) in the form of
// docs/formats/log-format.md, with its test cases beside it. The code here
// runs them: patterns that are compiled into steps (pattern.go), layouts of
// times (layout.go), and readers of JSON, logfmt, audit and container logs.
//
// Cutting and understanding are apart. A Reader cuts bytes into records and
// gives each a time when it is collected; nothing is ever dropped, and the
// lines of all records together are the lines of the file. Fill finds the
// fields of a record when a search asks for them; what it cannot read is
// message as a whole.
//
// Sources: RFC 3164, RFC 5424, rsyslog's RSYSLOG_FileFormat, kernel's
// Documentation/ABI/testing/dev-kmsg, utmp(5), the audit record format of
// linux-audit/audit-documentation, docker's json-file driver, the container
// runtime interface of Kubernetes, and the manuals of the programs named.
package format

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/mobileops/mobileops/internal/logs/event"
)

//go:embed formats/*.yaml
var builtinFiles embed.FS

// plainName is the format of what no other describes.
const plainName = "plain"

// Set holds formats by their names. It is not changed after it was made, so any
// number of goroutines may use it.
type Set struct {
	formats   map[string]*Format
	catalogue map[string]*catalogue // of well-known messages
}

// Format is one way of writing a log. It holds no state: any number of readers
// and of callers of Fill may use it at once.
type Format struct {
	name        string
	description string
	kind        kind
	rank        int // of two formats that fit alike, the higher one is taken
	paths       []string
	patterns    []*pattern
	join        joinRule
	severities  map[string]event.Severity
	keys        map[string]role
	require     []string
	times       []*layout // of values in JSON and logfmt
	zone        string
	messages    []*catalogue
	program     string // when the record names none
	unit        string
}

// kind is the engine that runs a format.
type kind uint8

const (
	kindLines kind = iota
	kindJSON
	kindLogfmt
	kindAudit
	kindDocker
	kindCRI
	kindKmsg
	kindUtmp
)

var kindNames = map[string]kind{
	"lines": kindLines, "json": kindJSON, "logfmt": kindLogfmt, "audit": kindAudit,
	"docker": kindDocker, "cri": kindCRI, "kmsg": kindKmsg, "utmp": kindUtmp,
}

var builtin = sync.OnceValues(func() (*Set, error) {
	sub, err := fs.Sub(builtinFiles, "formats")
	if err != nil {
		return nil, err
	}
	s := &Set{formats: map[string]*Format{}, catalogue: map[string]*catalogue{}}
	if err := s.load(sub); err != nil {
		return nil, fmt.Errorf("built-in formats: %w", err)
	}
	return s, nil
})

// Builtin returns the formats that come with the program. They are read at the
// first call.
func Builtin() (*Set, error) { return builtin() }

// With returns the formats of s and those of the files *.yaml of a directory,
// which replace the ones of the same name. Files that end in .cases.yaml are
// test cases and are not read. An error names the file and what to correct.
func (s *Set) With(fsys fs.FS) (*Set, error) {
	n := &Set{formats: maps.Clone(s.formats), catalogue: maps.Clone(s.catalogue)}
	if err := n.load(fsys); err != nil {
		return nil, err
	}
	return n, nil
}

// Lookup returns the format of a name.
func (s *Set) Lookup(name string) (*Format, bool) {
	f, ok := s.formats[name]
	return f, ok
}

// Names returns the names of all formats in order.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.formats)) }

// Name returns the name of the format, such as "syslog".
func (f *Format) Name() string { return f.name }

// Description returns a sentence about what is written so.
func (f *Format) Description() string { return f.description }

// lineEnd returns where the first line of b ends.
func lineEnd(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i
	}
	return len(b)
}
