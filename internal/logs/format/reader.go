package format

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

const (
	// MaxRecord is the length in bytes to which a record can grow. A longer line
	// is cut into several.
	MaxRecord = 1 << 20
	// maxJoined is how many lines are joined into one record, or wait together
	// for the end of an event.
	maxJoined = 1000
)

// ReaderOptions is what a reader must know about the file that is not in it.
type ReaderOptions struct {
	Host    string         // on which the file was written; neither times nor joining depend on it
	Zone    *time.Location // of times without a zone; nil: UTC
	ModTime time.Time      // last change of the file
	Now     time.Time      // zero: the clock of the machine
	Boot    time.Time      // start of the machine, for times that count from it; zero: not known
	State   []byte         // from an earlier Reader.State, or nil
}

// Reader cuts the bytes of one file into records and gives them times. It keeps
// only what it needs for times; the caller keeps the bytes. It must not be used
// by several goroutines at once.
type Reader struct {
	f     *Format
	clock clock
	cut   bool // in a line that was too long
	caps  captures
	group grouper
}

// NewReader returns a reader for one file. A State that it cannot read, because
// another version wrote it, counts as none.
func (f *Format) NewReader(o ReaderOptions) *Reader {
	r := &Reader{f: f}
	r.clock.init(o, f.zone)
	r.restore(o.State)
	return r
}

// SetModTime says that the file was changed meanwhile, for records without a
// time of their own.
func (r *Reader) SetModTime(t time.Time) { r.clock.setMod(t) }

const stateVersion = 1

// State returns what the reader must know to go on at the position up to which
// records were given: a few bytes.
func (r *Reader) State() []byte {
	var flags byte
	if r.clock.seen {
		flags |= 1
	}
	if r.cut {
		flags |= 2
	}
	b := []byte{stateVersion, flags}
	b = binary.AppendVarint(b, r.clock.last)
	return binary.AppendVarint(b, int64(r.clock.prevUse))
}

func (r *Reader) restore(b []byte) {
	if len(b) < 2 || b[0] != stateVersion || b[1] > 3 {
		return
	}
	last, n := binary.Varint(b[2:])
	if n <= 0 {
		return
	}
	year, m := binary.Varint(b[2+n:])
	if m <= 0 || 2+n+m != len(b) || year != 0 && (year < firstYear-1 || year > lastYear+1) {
		return
	}
	r.clock.seen, r.cut = b[1]&1 != 0, b[1]&2 != 0
	r.clock.last, r.clock.prevUse = last, int(year)
}

// Next takes the first complete records off data and appends them to dst; n is
// how many bytes they take, 0 when more data is needed. final says that no more
// data comes now: the file is idle, was rotated away or has an end. What is
// there is given as it is then.
//
// The records alias data where they can. All of them lie in data[:n], so that
// reading goes on at n with State and neither loses nor doubles any. How data
// is divided over calls makes no difference.
func (r *Reader) Next(dst []event.Record, data []byte, final bool) (recs []event.Record, n int) {
	for n < len(data) {
		var m int
		switch {
		case r.cut:
			dst, m = r.rest(dst, data[n:], final)
		case r.f.kind == kindUtmp && binaryUtmp(data[n:]):
			dst, m = r.utmp(dst, data[n:], final)
		case r.f.grouped():
			dst, m = r.group.next(r, dst, data[n:], final)
		case r.f.join.any():
			dst, m = r.joined(dst, data[n:], final)
		default:
			dst, m = r.line(dst, data[n:], final)
		}
		if m == 0 {
			break
		}
		n += m
	}
	return dst, n
}

// nextLine finds the first line of data: where it ends, and where the next one
// begins. next is 0 when more data is needed to say so. A line that is longer
// than a record ends where the record is full, and next equals end then.
func nextLine(data []byte, final bool) (end, next int) {
	i := bytes.IndexByte(data[:min(len(data), MaxRecord+1)], '\n')
	switch {
	case i >= 0:
		return i, i + 1
	case len(data) > MaxRecord:
		return MaxRecord, MaxRecord
	case final:
		return len(data), len(data)
	}
	return 0, 0
}

// line gives one line as a record.
func (r *Reader) line(dst []event.Record, data []byte, final bool) ([]event.Record, int) {
	end, next := nextLine(data, final)
	if next == 0 {
		return dst, 0
	}
	r.cut = next == MaxRecord && end == next && next < len(data)
	return append(dst, r.record(data[:end:end])), next
}

// rest gives a further part of a line that was too long.
func (r *Reader) rest(dst []event.Record, data []byte, final bool) ([]event.Record, int) {
	end, next := nextLine(data, final)
	if next == 0 {
		return dst, 0
	}
	r.cut = next == MaxRecord && end == next && next < len(data)
	t, how := r.clock.without()
	return append(dst, event.Record{Time: t, Clock: how, Raw: data[:end:end]}), next
}

// record gives raw its time.
func (r *Reader) record(raw []byte) event.Record {
	rec := event.Record{Raw: raw}
	if r.f.timeOf(raw, &r.caps) {
		rec.Time, rec.Clock = r.clock.resolve(r.caps.used, r.caps.time)
	} else {
		rec.Time, rec.Clock = r.clock.without()
	}
	return rec
}

// timeOf finds the time of a record that begins with line.
func (f *Format) timeOf(line []byte, c *captures) bool {
	switch f.kind {
	case kindJSON, kindDocker:
		return f.jsonTime(line, c)
	case kindLogfmt, kindUtmp:
		return f.logfmtTime(line, c)
	}
	for _, p := range f.patterns {
		if p.time < 0 {
			continue
		}
		if _, ok := match(p.before, line, 0, lineEnd(line), c); ok {
			return true
		}
	}
	return false
}

// joinRule says which lines belong to the record before.
type joinRule struct {
	untimed  bool // every line that does not begin with a time
	indented bool // lines that begin with a blank or a tab
	prefixes []string
}

func (j *joinRule) any() bool { return j.untimed || j.indented || j.prefixes != nil }

func (j *joinRule) parse(words []string) error {
	if len(words) > maxWords {
		return fmt.Errorf("more than %d entries", maxWords)
	}
	for _, w := range words {
		switch {
		case w == "untimed":
			j.untimed = true
		case w == "indented":
			j.indented = true
		case strings.HasPrefix(w, "=") && len(w) > 1:
			j.prefixes = append(j.prefixes, w[1:])
		default:
			return fmt.Errorf("%q is neither untimed, indented, nor = and the beginning of a line", w)
		}
	}
	return nil
}

// continues reports whether line belongs to the record before it.
func (r *Reader) continues(line []byte) bool {
	j := &r.f.join
	fits := j.untimed || j.indented && len(line) > 0 && (line[0] == ' ' || line[0] == '\t')
	if !fits {
		for _, p := range j.prefixes {
			if len(line) >= len(p) && string(line[:len(p)]) == p {
				fits = true
				break
			}
		}
	}
	return fits && !r.f.timeOf(line, &r.caps)
}

// joined gives a line with those that continue it.
func (r *Reader) joined(dst []event.Record, data []byte, final bool) ([]event.Record, int) {
	end, next := nextLine(data, final)
	if next == 0 {
		return dst, 0
	}
	if end == next && next == MaxRecord && next < len(data) {
		r.cut = true
		return append(dst, r.record(data[:end:end])), next
	}
	for lines := 1; lines < maxJoined; lines++ {
		if next == len(data) && final {
			break
		}
		e, m := nextLine(data[next:], final)
		if m == 0 {
			if len(data) > MaxRecord+1 {
				break // whatever comes, it no longer fits
			}
			return dst, 0
		}
		if next+e > MaxRecord || !r.continues(data[next:next+e]) {
			break
		}
		end, next = next+e, next+m
	}
	return append(dst, r.record(data[:end:end])), next
}
