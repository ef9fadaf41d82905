package segment

// way is one way in which a literal can lie in a record of a template: all
// constraints hold. Without any, it lies in the constant text.
type way struct{ constraints []constraint }

// constraint says what the value of a column must be, or the time of the record.
type constraint struct {
	column int // of the template; inTime for its time
	relation
	text []byte
	// Of a time: its layout, and at which byte of it text begins.
	layout layoutID
	from   int
}

const inTime = -1

// matcher finds the ways of a literal in templates.
type matcher struct {
	text    []byte
	fold    bool
	leading int // bytes before the first delimiter; all of text if there is none
	// Bytes of a template at which the literal may begin; outside, if no value of
	// a block can contain the beginning.
	begins, outside [256]bool
	// constant says that it may begin in constant text: that has no digits, and
	// goes over to a value behind a delimiter or one of _-.# only.
	constant bool
	// What Block.inside found of the block that it was asked for last.
	block  *blockInfo
	inside bool
	// Where in a time of each layout the literal may begin.
	times  [len(layouts)][]int
	timely bool // in any
	// Room for the way that is being tried.
	constraints []constraint
}

func newMatcher(text []byte, fold bool) *matcher {
	m := &matcher{text: text, fold: fold, leading: token(text)}
	for i, c := range text {
		if k := classes[c]; k == digit || k == reserved {
			break
		} else if k != letter || i == len(text)-1 {
			m.constant = true
		}
	}
	m.begins[placeVariable], m.begins[placeTime], m.begins[placeAddress] = true, true, true
	for c := range m.begins {
		m.begins[c] = m.begins[c] || m.constant && m.same(byte(c), text[0])
	}
	m.outside = m.begins
	m.outside[placeVariable], m.outside[placeAddress] = false, false
	for id := layoutID(1); int(id) < len(layouts); id++ {
		for from := range textLen(layouts[id]) {
			if id.couldBe(text, from) {
				m.times[id] = append(m.times[id], from)
				m.timely = true
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
// the value must be. inside says whether the literal may begin within a value.
func (m *matcher) ways(key []byte, inside bool, fn func(way) bool) {
	if len(m.text) == 0 {
		fn(way{})
		return
	}
	begins := &m.begins
	if !inside {
		begins = &m.outside
	}
	column, counted := 0, 0 // places before p; before counted
	for p := 0; p < len(key); p++ {
		if !begins[key[p]] {
			continue
		}
		if !inside {
			n, _ := variables(key[counted:p])
			column, counted = column+n, p
		}
		switch key[p] {
		case placeVariable, placeAddress:
			// It begins within the value, not at its beginning unless the value
			// contains all of it.
			m.constraints = m.constraints[:0]
			switch {
			case m.leading == len(m.text):
				m.constraints = append(m.constraints, constraint{column: column, relation: contains, text: m.text})
				if !fn(way{constraints: m.constraints}) {
					return
				}
			case m.leading > 0:
				m.constraints = append(m.constraints, constraint{column: column, relation: ends, text: m.text[:m.leading]})
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
				part := min(n-from, len(m.text))
				m.constraints = append(m.constraints[:0], constraint{column: inTime, text: m.text[:part], layout: id, from: from})
				if w, ok := m.follow(key, p+1, column, part); ok && !fn(w) {
					return
				}
			}
		default:
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
		case placeVariable, placeAddress:
			rest := m.text[i:]
			n := token(rest)
			switch n {
			case 0:
				return w, false // values are not empty
			case len(rest):
				m.constraints = append(m.constraints, constraint{column: column, relation: begins, text: rest})
			default:
				m.constraints = append(m.constraints, constraint{column: column, relation: equal, text: rest[:n]})
			}
			column++
			i += n
		case placeTime:
			id := layoutID(key[p+1])
			if !id.couldBe(m.text[i:], 0) {
				return w, false
			}
			part := min(textLen(layouts[id]), len(m.text)-i)
			m.constraints = append(m.constraints, constraint{column: inTime, text: m.text[i : i+part], layout: id})
			i += part
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
