package format

import (
	"bytes"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// grouped reports whether records are made of lines that stand apart in the
// file: the records of one audit event, the parts of a line of a container
// between those of its other stream.
func (f *Format) grouped() bool {
	return f.kind == kindAudit || f.kind == kindDocker || f.kind == kindCRI
}

// lines is a record in the making.
type lines struct {
	key      string
	from, to int // of its first line, and the end of its last one, in the data
	apart    []span
	at       int64 // time of its first line, in seconds as written
	complete bool
	waits    bool // complete, but the next line may still belong to it
}

// grouper joins lines that need not be neighbours. It holds nothing between
// two calls: records are given when none is pending, and read again otherwise.
type grouper struct {
	open []lines
}

// member says what a line is for the record that it belongs to.
type member struct {
	key      string // "": a record of its own
	at       int64  // time as written, in seconds; 0: not known
	complete bool   // nothing of its record follows
	waits    bool   // nothing but neighbours follow
}

// next implements Reader.Next.
func (g *grouper) next(r *Reader, dst []event.Record, data []byte, final bool) ([]event.Record, int) {
	g.open = g.open[:0]
	pos := 0
	for count := 0; ; count++ {
		if pos == len(data) && final {
			return g.give(r, dst, data), pos
		}
		e, m := nextLine(data[pos:], final)
		if m == 0 {
			if pos > 0 && len(data) > MaxRecord {
				return g.give(r, dst, data), pos
			}
			return dst, 0
		}
		if e == m && m == MaxRecord && pos+m < len(data) { // a line that is too long
			if pos > 0 {
				return g.give(r, dst, data), pos
			}
			r.cut = true
			return append(dst, r.record(data[:e:e])), m
		}
		line := data[pos : pos+e]
		mem := r.f.memberOf(line)
		// What is complete is given before this line, unless the line belongs to it.
		if pos > 0 && (count == maxJoined || pos+e > MaxRecord || !g.belongs(mem) && g.settled(mem.at)) {
			return g.give(r, dst, data), pos
		}
		g.add(mem, pos, pos+e)
		pos += m
		if !mem.waits && mem.complete && g.settled(0) {
			return g.give(r, dst, data), pos
		}
	}
}

// settleAfter is how many seconds later than its beginning nothing more is
// expected of an audit event; ausearch(8) has the same.
const settleAfter = 2

// settled reports whether nothing is pending at a line of the time at.
func (g *grouper) settled(at int64) bool {
	for i := range g.open {
		if l := &g.open[i]; !l.complete && (at == 0 || l.at == 0 || at < l.at+settleAfter) {
			return false
		}
	}
	return true
}

func (g *grouper) find(key string) *lines {
	if key == "" {
		return nil
	}
	for i := len(g.open) - 1; i >= 0; i-- {
		if l := &g.open[i]; l.key == key && (!l.complete || l.waits) {
			return l
		}
	}
	return nil
}

func (g *grouper) belongs(m member) bool { return g.find(m.key) != nil }

func (g *grouper) add(m member, from, to int) {
	l := g.find(m.key)
	if l == nil {
		g.open = append(g.open, lines{key: m.key, from: from, to: to, at: m.at, complete: m.complete, waits: m.waits})
		return
	}
	if l.apart != nil || from != l.to+1 {
		if l.apart == nil {
			l.apart = append(l.apart, span{int32(l.from), int32(l.to)})
		}
		l.apart = append(l.apart, span{int32(from), int32(to)})
	}
	l.to = to
	l.complete, l.waits = l.complete || m.complete, l.waits || m.waits
}

// give appends all records in the order of their first lines.
func (g *grouper) give(r *Reader, dst []event.Record, data []byte) []event.Record {
	for i := range g.open {
		l := &g.open[i]
		raw := data[l.from:l.to:l.to]
		if l.apart != nil {
			raw = nil
			for k, s := range l.apart {
				if k > 0 {
					raw = append(raw, '\n')
				}
				raw = append(raw, data[s.start:s.end]...)
			}
		}
		dst = append(dst, r.record(raw))
	}
	g.open = g.open[:0]
	return dst
}

// memberOf looks at a line of a grouped format.
func (f *Format) memberOf(line []byte) member {
	switch f.kind {
	case kindAudit:
		return auditMember(line)
	case kindDocker:
		return dockerMember(line)
	}
	return criMember(line)
}

// dockerMember: the text of a part lacks the newline at its end.
func dockerMember(line []byte) member {
	var stream, log []byte
	o := openObject(line)
	for {
		key, val, ok := o.next()
		if !ok {
			break
		}
		switch string(key) {
		case "log":
			log = val
		case "stream":
			stream = text(val)
		}
	}
	if !o.closed() || len(log) < 2 || log[0] != '"' {
		return member{complete: true}
	}
	if len(stream) == 0 {
		return member{complete: true}
	}
	return member{key: known.get(stream), complete: bytes.HasSuffix(log, []byte(`\n"`)) && !bytes.HasSuffix(log, []byte(`\\n"`)) || len(log) == 2}
}

// criMember: the third word of a line is P when the text goes on, F otherwise;
// tags behind it are set apart by colons.
func criMember(line []byte) member {
	i := bytes.IndexByte(line, ' ')
	if i < 0 {
		return member{complete: true}
	}
	rest := line[i+1:]
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok || len(rest) == 0 || string(stream) != "stdout" && string(stream) != "stderr" {
		return member{complete: true}
	}
	if len(rest) > 1 && rest[1] != ' ' && rest[1] != ':' {
		return member{complete: true}
	}
	switch rest[0] {
	case 'P':
		return member{key: known.get(stream)}
	case 'F':
		return member{key: known.get(stream), complete: true}
	}
	return member{complete: true}
}
