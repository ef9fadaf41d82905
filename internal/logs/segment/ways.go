package segment

// way is one way in which a literal can lie in a record of a template: all
// constraints hold. Without any, it lies in the constant text.
type way struct {
	constraints []constraint
	// unsure says that the time of the record has a part in it, so that the
	// record itself must be looked at.
	unsure bool
}

// constraint says what the value of a column must be.
type constraint struct {
	column int // of the template
	relation
	text []byte
}

// matcher finds the ways of a literal in templates.
type matcher struct {
	text    []byte
	fold    bool
	leading int // bytes before the first delimiter; all of text if there is none
	// Where in a time of each layout the literal may begin.
	times [len(layouts)][]int
	// Room for the way that is being tried.
	constraints []constraint
}

func newMatcher(text []byte, fold bool) *matcher {
	m := &matcher{text: text, fold: fold, leading: token(text)}
	for id := layoutID(1); int(id) < len(layouts); id++ {
		for from := range textLen(layouts[id]) {
			if id.couldBe(text, from) {
				m.times[id] = append(m.times[id], from)
			}
		}
	}
	return m
}

// token returns how many bytes come before the first delimiter.
func token(b []byte) int {
	for i, c := range b {
		if classes[c] == delimiter {
			return i
		}
	}
	return len(b)
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func (m *matcher) same(key, text byte) bool {
	return key == text || m.fold && lower(key) == text
}

// ways calls fn with each way in which the literal can lie in a record with
// this template, until fn returns false. The way is valid until fn returns.
//
// A value ends where a delimiter follows, or the record ends, and has none
// within; so of a literal that goes on beyond a place it is known which part
// the value must be.
func (m *matcher) ways(key []byte, fn func(way) bool) {
	if len(m.text) == 0 {
		fn(way{})
		return
	}
	column := 0
	for p := 0; p < len(key); p++ {
		switch key[p] {
		case placeVariable:
			// It begins within the value, not at its beginning unless the value
			// contains all of it.
			m.constraints = m.constraints[:0]
			switch {
			case m.leading == len(m.text):
				m.constraints = append(m.constraints, constraint{column, contains, m.text})
				if !fn(way{constraints: m.constraints}) {
					return
				}
			case m.leading > 0:
				m.constraints = append(m.constraints, constraint{column, ends, m.text[:m.leading]})
				if w, ok := m.follow(key, p+1, column+1, m.leading); ok && !fn(w) {
					return
				}
			}
			column++
		case placeTime:
			id := layoutID(key[p+1])
			p++
			n := textLen(layouts[id])
			for _, from := range m.times[id] {
				m.constraints = m.constraints[:0]
				if n-from >= len(m.text) {
					if !fn(way{unsure: true}) {
						return
					}
					continue
				}
				if w, ok := m.follow(key, p+1, column, n-from); ok {
					w.unsure = true
					if !fn(w) {
						return
					}
				}
			}
		default:
			if !m.same(key[p], m.text[0]) {
				continue
			}
			m.constraints = m.constraints[:0]
			if w, ok := m.follow(key, p, column, 0); ok && !fn(w) {
				return
			}
		}
	}
}

// follow goes on with the literal from its byte i at place p of the template.
func (m *matcher) follow(key []byte, p, column, i int) (way, bool) {
	var w way
	for ; i < len(m.text); p++ {
		if p == len(key) {
			return w, false
		}
		switch key[p] {
		case placeVariable:
			rest := m.text[i:]
			n := token(rest)
			switch n {
			case 0:
				return w, false // values are not empty
			case len(rest):
				m.constraints = append(m.constraints, constraint{column, begins, rest})
			default:
				m.constraints = append(m.constraints, constraint{column, equal, rest[:n]})
			}
			column++
			i += n
		case placeTime:
			id := layoutID(key[p+1])
			if !id.couldBe(m.text[i:], 0) {
				return w, false
			}
			w.unsure = true
			i += textLen(layouts[id])
			p++
		default:
			if !m.same(key[p], m.text[i]) {
				return w, false
			}
			i++
		}
	}
	w.constraints = m.constraints
	return w, true
}
