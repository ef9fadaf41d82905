// Package logs finds records in what was collected.
//
// A search is a query (package query), a range of time and some sources. Its
// plan is cut into units: a block of a segment, or the records of one stream
// that are still in the write-ahead log. Units are dispatched in the order of
// their first record; workers ask each which records can match (package
// segment), look at those again where that is needed, and hand back hits.
// Hits are merged by time: one is given out as soon as no unit that is still
// to come can have an older one. So results begin to appear at once, a limit
// ends the work early, and memory is bounded by the units in flight and by
// what overlaps in time.
//
// What is given out are events, not lines: whoever reads them (a terminal, a
// rule, a report) asks an event for its fields, which are found at that moment.
// A query with a pipeline gives a table instead where its stages make one; each
// worker then has a run of its own, and the runs are merged.
package logs

import (
	"context"
	"io"
	"strings"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/query"
	"github.com/mobileops/mobileops/internal/logs/segment"
)

// Options say what is looked for.
type Options struct {
	Query *query.Query
	// Since and Until bound the time of matches, in nanoseconds since
	// 1970-01-01 UTC; Until is exclusive.
	Since, Until int64
	// Before and After are how many records of the same source are given with
	// each match, as of grep -B and -A.
	Before, After int
	// Limit ends the search after so many matches; 0: none.
	Limit int
	// CountOnly says that nobody looks at the matches: only Report.Matches counts.
	CountOnly bool
	// Parse says that every match will be asked for its fields.
	Parse bool
	// Workers look through units at the same time; 0: as many as there are processors.
	Workers int
	// Fill returns what finds the fields of events of a format.
	Fill func(format string) func(*event.Event)
}

// Match is a record that was found, or one beside it.
type Match struct {
	*event.Event
	// Binary says that a binary file matches, which is all that is known: the
	// record says so, too.
	Binary bool
	// Context says that it is no match, but near one.
	Context bool
	// Apart says that records were left out between the one before and this one.
	Apart bool
}

// Problem is something that could not be searched.
type Problem struct {
	Name string // of the segment and its source
	Err  error
}

func (p *Problem) Error() string {
	return p.Name + ": " + strings.TrimPrefix(p.Err.Error(), p.Name+": ") // some say it themselves
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Report says what a search did.
type Report struct {
	Matches  int64
	Table    *query.Table // what the pipeline of the query made; nil without one
	Units    int          // blocks that were looked through
	Skipped  int          // blocks outside the range of time
	Problems []Problem    // what could not be searched: the result is partial
	Limited  bool         // Limit ended it
}

// Segment is a segment that can be opened.
type Segment struct {
	Name             string
	Origin           event.Origin
	MinTime, MaxTime int64  // nanoseconds since 1970-01-01 UTC, inclusive
	Order            uint64 // in which segments of a source were written
	Open             func(ctx context.Context) (Data, error)
}

// Data is an opened segment.
type Data interface {
	segment.Data
	io.Closer
}

// Loose are records that are in no segment yet.
type Loose struct {
	Origin  event.Origin
	Records []event.Record
}

// Corpus is what is searched.
type Corpus struct {
	Segments []Segment
	Loose    []Loose
}
