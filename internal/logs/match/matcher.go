package match

import "bytes"

// Matcher looks for a pattern. It is for the use of one goroutine: it keeps the
// states of an automaton, a few megabytes at most, from one text to the
// next.
type Matcher struct {
	p      *Pattern
	dfa    *dfa
	tracer *tracer
	// What the lines that the finder proposed had of the bytes that it passed:
	// where they are most of the text, the automaton is better off alone.
	proposed, passed int
}

// NewMatcher returns a matcher for the use of one goroutine.
func (p *Pattern) NewMatcher() *Matcher { return &Matcher{p: p} }

// Match reports whether any line of text matches. An empty text is one line; a
// newline at the end does not begin another one.
func (m *Matcher) Match(text []byte) bool {
	switch {
	case m.p.literal:
		return m.p.seeker.next(text, 0) >= 0
	case m.p.prog.everyLine:
		return true
	case m.p.seeker != nil && m.p.seeker.next(text, 0) < 0:
		return false
	case len(text) == 0:
		return m.line(text)
	}
	if m.dfa != nil && !m.dfa.gaveUp {
		if at, _ := m.dfa.firstMatch(text, 0); at != -2 {
			return at >= 0 // nobody asks where the line begins
		}
	}
	start, _ := m.automaton(text, 0)
	return start >= 0
}

// NextLine returns where the first line of buf that matches and begins at or
// after from begins and ends, without its newline, or -1, -1 when there is
// none. from must be the beginning of a line.
func (m *Matcher) NextLine(buf []byte, from int) (start, end int) {
	at := -1
	switch {
	case from >= len(buf):
		return -1, -1
	case m.p.literal:
		at = m.p.seeker.next(buf, from)
	case m.p.prog.everyLine:
		at = from
	case m.p.seeker != nil:
		return m.proposals(buf, from)
	default:
		return m.automaton(buf, from)
	}
	if at < 0 {
		return -1, -1
	}
	return lineStart(buf, from, at), lineEnd(buf, at)
}

// CountLines returns how many lines of buf match.
func (m *Matcher) CountLines(buf []byte) int {
	n := 0
	if !m.p.literal {
		for from := 0; ; n++ {
			_, end := m.NextLine(buf, from)
			if end < 0 {
				return n
			}
			from = end + 1
		}
	}
	// Nobody asks where the lines begin.
	for from := 0; ; n++ {
		at := m.p.seeker.next(buf, from)
		if at < 0 {
			return n
		}
		from = lineEnd(buf, at) + 1
		if from >= len(buf) {
			return n + 1
		}
	}
}

// lineEnd returns where the newline after at stands, or the end of buf.
func lineEnd(buf []byte, at int) int {
	if i := bytes.IndexByte(buf[at:], '\n'); i >= 0 {
		return at + i
	}
	return len(buf)
}

// tooMany are the bytes of proposed lines after which it is decided whether
// proposals are worth it.
const tooMany = 1 << 16

// proposals tries the lines that the finder proposes.
func (m *Matcher) proposals(buf []byte, from int) (start, end int) {
	for from < len(buf) {
		if m.proposed > tooMany {
			if m.proposed > m.passed/4*3 {
				start, end = m.automaton(buf, from)
				// Sooner or later the proposals get another chance.
				if end < 0 {
					m.passed += len(buf) - from
				} else {
					m.passed += end - from
				}
				return start, end
			}
			m.proposed, m.passed = 0, 0
		}
		at := m.p.seeker.next(buf, from)
		if at < 0 {
			return -1, -1
		}
		end = lineEnd(buf, at)
		if start = at; !m.p.prefix {
			start = lineStart(buf, from, at)
		}
		m.proposed += end - start + 1
		m.passed += end - from + 1
		if m.line(buf[start:end]) {
			return lineStart(buf, from, start), end
		}
		from = end + 1
	}
	return -1, -1
}

// line reports whether one line matches.
func (m *Matcher) line(line []byte) bool {
	if m.dfa == nil {
		m.dfa = newDFA(m.p.prog)
	}
	if !m.dfa.gaveUp {
		switch at, _ := m.dfa.firstMatch(line, 0); {
		case at >= 0:
			return true
		case at == -1:
			return false
		}
	}
	return m.p.slow().Match(line)
}

// automaton looks at every byte from the line on that begins at from.
func (m *Matcher) automaton(buf []byte, from int) (start, end int) {
	if m.dfa == nil {
		m.dfa = newDFA(m.p.prog)
	}
	if !m.dfa.gaveUp {
		at, resume := m.dfa.firstMatch(buf, from)
		switch {
		case at >= 0:
			return lineStart(buf, from, at), lineEnd(buf, at)
		case at == -1:
			return -1, -1
		}
		from = max(from, resume)
	}
	for from < len(buf) {
		end = lineEnd(buf, from)
		if m.p.slow().Match(buf[from:end]) {
			return from, end
		}
		from = end + 1
	}
	return -1, -1
}

// Find returns where the leftmost match that begins at or after from begins and
// ends, with the preferences of package regexp among matches that begin at the
// same place; -1, -1 when there is none. What stands before from counts for
// conditions like \b and ^.
func (m *Matcher) Find(text []byte, from int) (start, end int) {
	if m.p.plain {
		f := m.p.seeker.(*finder)
		if start = f.next(text, from); start < 0 {
			return -1, -1
		}
		return start, start + len(f.lit.Text)
	}
	if m.tracer == nil {
		m.tracer = newTracer(m.p.prog)
	}
	lo, hi := lineStart(text, 0, from), lineEnd(text, from)
	for {
		if start, end = m.tracer.find(text, lo, hi, from); start >= 0 {
			return start, end
		}
		if lo, hi = m.NextLine(text, hi+1); lo < 0 {
			return -1, -1
		}
		from = lo
	}
}
