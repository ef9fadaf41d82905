// Package grep searches plain files line by line, without any store: what grep
// and ripgrep are used for, over trees of logs with compressed files among
// them.
//
// Directories are searched recursively, in the order of the names' bytes, and
// without regard to ignore files. Symbolic links are followed when they are
// named by the caller only. gzip, xz, zstd and bzip2 files are recognised by
// their first bytes and searched as the text that they hold. A file with a NUL
// among its first 64 KiB is binary: that something matches is reported once,
// and its lines are not (as grep does), unless Options.Text is set.
//
// Lines end at a newline; the last one need not have it. A carriage return
// before it belongs to the line. What has no newline for MaxLine bytes is
// searched in pieces of that size (Report.Cut).
//
// Files are read with pread into one buffer a worker that stays in the cache of
// its core. A large file is divided into parts that are searched side by side:
// a part has the lines that begin in it. What was found is handed over in the
// order of paths and lines all the same, so that two searches of the same files
// print the same; how much may wait for its turn is limited.
package grep

import (
	"context"
	"errors"
	"io"
	"runtime"

	"github.com/mobileops/mobileops/internal/logs/match"
)

// Options say what is searched for, and where.
type Options struct {
	// Paths are files, directories, and "-" for Stdin.
	Paths []string
	Stdin io.Reader

	// Pattern is what a line has to match. Filter is asked instead when it is
	// not nil.
	Pattern *match.Pattern
	Filter  *Filter

	// Recursive descends into directories; otherwise a directory among Paths is
	// unread. Hidden takes names with a dot at the beginning, too.
	Recursive, Hidden bool
	// Text searches binary files as if they were text.
	Text bool

	// Count asks for the number of matching lines of each file alone.
	Count bool
	// Numbers asks for line numbers; they cost a look at every byte.
	Numbers bool
	// Before and After are how many lines around each match are wanted.
	Before, After int
	// Limit ends the search after so many matching lines; 0 is no limit. It is
	// of no effect with Count.
	Limit int64

	// Workers is how many files or parts are searched at once; 0 is one a core.
	Workers int

	// Tests make these smaller: see the constants that they are otherwise.
	partBytes, bufferBytes, maxLine int
}

// Filter decides about lines in a way that is no single pattern.
type Filter struct {
	// Need is what the bytes of every line that passes contain.
	Need match.Need
	// NewEval returns a function that reports whether a line passes. It is
	// called once for each worker, which calls the function with one line after
	// the other, without its newline, and with the path of its file.
	NewEval func() func(path string, line []byte) bool
}

// Hit is a line that was found, or, with Options.Count, a file.
type Hit struct {
	Path string
	// Number is that of the line in its file, from 1, with Options.Numbers.
	Number int64
	// Offset is where the line begins, in bytes of the (uncompressed) text.
	Offset int64
	// Line is the line without its newline.
	Line []byte
	// Context says that the line does not match, but is next to one that does.
	Context bool
	// Gap says that the line before it in the file was not handed over: a group
	// of lines begins.
	Gap bool
	// Binary says that a binary file matches. It has no Line.
	Binary bool
	// Count is how many lines of the file match, with Options.Count. A binary
	// file counts as one.
	Count int64
}

// Unread is what could not be searched, or not to its end.
type Unread struct {
	Path string
	Err  error
}

// Report says what was searched.
type Report struct {
	// Files is how many were searched, FilesMatched how many had a match.
	Files, FilesMatched int64
	// Lines is how many lines matched.
	Lines int64
	// Bytes is how much text was searched.
	Bytes int64
	// Unread are the files and directories whose lines were not all seen, in
	// the order of the search: the result is incomplete when there are any.
	Unread []Unread
	// Limited says that the search ended at Options.Limit: there may be more.
	Limited bool
	// Cut is how many times a line was searched in pieces because it was longer
	// than MaxLine.
	Cut int64
}

// MaxLine is the length in bytes from which on a line is searched in pieces.
const MaxLine = 16 << 20

// Search looks at all lines of the files and calls emit with those that match,
// in the order of paths and lines. A Hit is valid until emit returns. An error
// of emit ends the search and is returned, as is that of ctx; files that cannot
// be read do not end it. When a search ends early, its workers may look at the
// buffers that they have read for a moment longer.
func Search(ctx context.Context, o Options, emit func(*Hit) error) (Report, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.partBytes == 0 {
		o.partBytes, o.bufferBytes, o.maxLine = partBytes, bufferBytes, MaxLine
	}
	if o.Pattern == nil && o.Filter == nil {
		return Report{}, errors.New("nothing to search for")
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &search{Options: o, ctx: work, spare: make(chan *batch, 64)}
	if o.Filter != nil {
		s.prefilter = o.Filter.Need.Pattern()
	}
	// The window is how many parts may be under way or wait for their turn.
	order := make(chan *part, 2*o.Workers)
	todo := make(chan *part, 2*o.Workers)
	go func() {
		defer close(order)
		defer close(todo)
		s.list(func(p *part) bool {
			for _, to := range []chan<- *part{order, todo} {
				select {
				case to <- p:
				case <-work.Done():
					return false
				}
			}
			return true
		})
	}()
	for range o.Workers {
		go func() {
			w := newWorker(s)
			for p := range todo {
				w.search(p)
			}
		}()
	}
	// When this ends early, workers end at the next buffer that they read. They
	// are not waited for: a pipe may keep one for ever.
	c := &collector{s: s, emit: emit}
	err := c.collect(ctx, order)
	return c.report, err
}

// search is one call of Search.
type search struct {
	Options
	ctx       context.Context
	prefilter *match.Pattern
	spare     chan *batch // that have been handed over
}

// waiting is how many batches of a part may wait for their turn, so that all
// that waits stays below about 48 MiB.
func (s *search) waiting() int {
	return min(max(2, (48<<20)/(2*batchBytes*(3*s.Workers+2))), 16)
}
