// Package facts holds what a host is beside its files: what listens, what the
// firewall lets through, which containers exist and with which rights, which
// programs run with the rights of another user.
//
// A Fact is one such thing under a stable key, with attributes as text. A
// Snapshot is all facts that were collected at one time, together with the
// sources that were asked: what could not be read is written down as such, so
// that "there is none" and "nobody knows" are never taken for one another.
// Diff compares two snapshots and reports what both know; Apply takes over into
// an old snapshot exactly the changes that somebody accepted.
//
// Collectors are packages below this one: netstate asks the kernel, containers
// asks the runtimes, privileged looks at programs. Each knows what in its
// answers comes and goes by itself (counters, handles, process ids, learned
// routes) and leaves that out: a fact that changes without anybody's doing
// makes people stop reading.
//
// Invariants: facts of a snapshot are sorted by their id and no id comes twice;
// all text is valid UTF-8; an attribute that is missing is not known, one that
// is known to be nothing is "none" or "no"; two encodings of one snapshot are
// equal byte for byte. The file format is described in docs/formats/facts.md.
package facts

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/finding"
)

// The aspects that facts belong to. Files is the aspect that has none: files
// are compared by package integrity itself.
const (
	Files      = "files"
	Network    = "network"
	Containers = "containers"
	Binaries   = "binaries"
)

// Aspects returns all aspects of a host, files first.
func Aspects() []string { return []string{Files, Network, Containers, Binaries} }

// Fact is one thing that is so.
type Fact struct {
	Aspect     string            `json:"aspect"` // "network"
	Kind       string            `json:"kind"`   // "listen"
	Key        string            `json:"key"`    // unique within aspect and kind, and stable: "tcp/0.0.0.0:22"
	Source     string            `json:"source"` // the name of the source that told it: "sockets"
	Attributes map[string]string `json:"attributes,omitempty"`
	// Severity is how much it means that this fact has come or gone. What a
	// change of its attributes means, Diff weighs one by one.
	Severity finding.Severity `json:"severity"`
}

// ID is the fact as an operator types it: "network:listen/tcp/0.0.0.0:22".
func (f *Fact) ID() string { return f.Aspect + ":" + f.Kind + "/" + f.Key }

// State says what a source gave.
type State string

// The states of a source.
const (
	OK      State = "ok"      // all that it has to tell
	Absent  State = "absent"  // it is not on this host, so there is nothing to tell
	Partial State = "partial" // some of it; attributes that it did not tell are missing
	Denied  State = "denied"  // it is for other users to read
	Failed  State = "failed"  // it is there and gave no usable answer
)

// known tells whether facts of a source in that state are all there are.
func (s State) known() bool { return s == OK || s == Absent }

// Source is something that was asked for facts.
type Source struct {
	Aspect string `json:"aspect"`
	Name   string `json:"name"` // "nftables", "docker"
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"` // where it is and what it said, for a person
}

// ID is the source as it is shown: "network:nftables".
func (s *Source) ID() string { return s.Aspect + ":" + s.Name }

// Snapshot is what was so at one time.
type Snapshot struct {
	Taken   time.Time `json:"taken"`
	Aspects []string  `json:"aspects"` // those that were looked at, sorted
	Sources []Source  `json:"sources"` // sorted by id
	Facts   []Fact    `json:"facts"`   // sorted by id
}

// New makes a snapshot of what collectors told. When one id was told twice, the
// attributes are joined, and values that differ stand beside one another.
func New(taken time.Time, aspects []string, sources []Source, list []Fact) *Snapshot {
	s := &Snapshot{Taken: taken.UTC().Truncate(time.Second), Aspects: slices.Compact(slices.Sorted(slices.Values(aspects)))}
	s.Sources = slices.Clone(sources)
	slices.SortStableFunc(s.Sources, func(a, b Source) int { return strings.Compare(a.ID(), b.ID()) })
	s.Sources = slices.CompactFunc(s.Sources, func(a, b Source) bool { return a.ID() == b.ID() })
	s.Facts = sorted(list)
	return s
}

func sorted(list []Fact) []Fact {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Fact) int { return strings.Compare(a.ID(), b.ID()) })
	out := list[:0]
	for _, f := range list {
		if n := len(out); n > 0 && out[n-1].ID() == f.ID() {
			out[n-1] = join(out[n-1], f)
			continue
		}
		out = append(out, f)
	}
	return out
}

// separator stands between the values of an attribute that has several.
const separator = ", "

// Join writes several values of one attribute, sorted and each once. No value
// at all is "none".
func Join(values []string) string {
	values = slices.Compact(slices.Sorted(slices.Values(values)))
	if len(values) == 0 {
		return None
	}
	return strings.Join(values, separator)
}

// None is the value of an attribute that is known to have none.
const None = "none"

// YesNo is the value of an attribute that is so or is not.
func YesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func join(a, b Fact) Fact {
	merged := make(map[string]string, len(a.Attributes))
	for name, v := range a.Attributes {
		other, known := b.Attributes[name]
		switch {
		case !known: // what one of the two does not know, both together do not know
			continue
		case other != v:
			v = Join(append(strings.Split(v, separator), strings.Split(other, separator)...))
		}
		merged[name] = v
	}
	a.Attributes = merged
	a.Severity = max(a.Severity, b.Severity)
	return a
}

// Source returns what is known of a source of that aspect and name; its State
// is empty when it was not asked.
func (s *Snapshot) Source(aspect, name string) Source {
	for _, src := range s.Sources {
		if src.Aspect == aspect && src.Name == name {
			return src
		}
	}
	return Source{Aspect: aspect, Name: name}
}

// Has tells whether an aspect was looked at.
func (s *Snapshot) Has(aspect string) bool { return slices.Contains(s.Aspects, aspect) }

// Narrow returns the part of a snapshot that is of the given aspects.
func (s *Snapshot) Narrow(aspects []string) *Snapshot {
	other := func(aspect string) bool { return !slices.Contains(aspects, aspect) }
	return &Snapshot{
		Taken:   s.Taken,
		Aspects: slices.DeleteFunc(slices.Clone(s.Aspects), other),
		Sources: slices.DeleteFunc(slices.Clone(s.Sources), func(src Source) bool { return other(src.Aspect) }),
		Facts:   slices.DeleteFunc(slices.Clone(s.Facts), func(f Fact) bool { return other(f.Aspect) }),
	}
}

// Find returns the fact with that id, or nil.
func (s *Snapshot) Find(id string) *Fact {
	if i, ok := slices.BinarySearchFunc(s.Facts, id, func(f Fact, id string) int { return strings.Compare(f.ID(), id) }); ok {
		return &s.Facts[i]
	}
	return nil
}

// Text makes bytes of the system, such as a path, into the text of a fact:
// bytes that are not UTF-8 become \xNN and a backslash becomes two, so nothing
// is lost and no two of them become the same.
func Text[T ~string | ~[]byte](raw T) string {
	s := string(raw)
	if utf8.ValidString(s) && !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\\':
			b.WriteString(`\\`)
		default:
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}
