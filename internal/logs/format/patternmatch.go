package format

import "bytes"

// span is where a captured field lies in a record; start is -1 when it does not.
type span struct{ start, end int32 }

type captures struct {
	at   [maxCaptures]span
	time Civil
	used *layout // of the time
}

func (c *captures) reset(n int) {
	for i := range n {
		c.at[i].start = -1
	}
}

// match runs steps on b from position i. line is the end of the first line of
// b: only the kinds that take the rest go beyond.
func match(steps []step, b []byte, i, line int, c *captures) (int, bool) {
	for k := range steps {
		s := &steps[k]
		start := i
		switch s.kind {
		case stepText:
			n := len(s.text)
			if line-i < n || b[i] != s.text[0] || n > 1 && string(b[i:i+n]) != s.text {
				return i, false
			}
			i += n
			continue
		case stepUntil:
			var n int
			if len(s.text) == 1 {
				n = bytes.IndexByte(b[i:line], s.text[0])
			} else {
				n = indexText(b[i:line], s.text)
			}
			if n < 0 || n == 0 && !s.empty {
				return i, false
			}
			i += n
		case stepLast:
			n := lastText(b[i:line], s.text)
			if n < 0 || n == 0 && !s.empty {
				return i, false
			}
			i += n
		case stepNewline:
			if i < line && b[i] == '\r' {
				i++
			}
			if i != line || line == len(b) {
				return i, false
			}
			i++
			line = i + lineEnd(b[i:])
			continue
		case stepWord:
			for i < line && b[i] > ' ' {
				i++
			}
			if i == start && !s.empty {
				return i, false
			}
		case stepClass:
			for i < line && s.set[b[i]] {
				i++
			}
			if i == start && !s.empty {
				return i, false
			}
		case stepTime:
			n := 0
			for _, l := range s.layouts {
				var ok bool
				if c.time, n, ok = l.Parse(b[i:line]); ok && (i+n == line || !digit(b[i+n])) {
					c.used = l
					break
				}
				n = 0
			}
			if n == 0 {
				return i, false
			}
			i += n
		case stepLine:
			i = line
			if i > start && b[i-1] == '\r' {
				i-- // of the end of the line
			}
			if i == start && !s.empty {
				return i, false
			}
		case stepRest, stepLogfmt, stepJSON, stepLines:
			i = len(b)
			line = i
		case stepBlanks:
			for i < line && (b[i] == ' ' || b[i] == '\t') {
				i++
			}
			continue
		case stepGroup:
			end, ok := match(s.group, b, i, line, c)
			if !ok {
				c.forget(s.group)
				continue
			}
			if i = end; i > line {
				line = i + lineEnd(b[i:])
			}
			continue
		default:
			var ok bool
			if i, ok = s.rare(b, i, line); !ok {
				return i, false
			}
			if s.kind == stepQuoted { // without the quotes
				if s.capture >= 0 {
					c.at[s.capture] = span{int32(start + 1), int32(i - 1)}
				}
				continue
			}
		}
		if s.capture >= 0 {
			c.at[s.capture] = span{int32(start), int32(i)}
		}
	}
	return i, true
}

// forget takes back what a group that does not fit has captured.
func (c *captures) forget(steps []step) {
	for i := range steps {
		if s := &steps[i]; s.capture >= 0 {
			c.at[s.capture].start = -1
		} else if s.kind == stepGroup {
			c.forget(s.group)
		}
	}
}

// rare runs the steps that match leaves to it.
func (s *step) rare(b []byte, i, line int) (int, bool) {
	start := i
	switch s.kind {
	case stepInt:
		if i < line && b[i] == '-' {
			i++
			start++
		}
		for i < line && digit(b[i]) {
			i++
		}
	case stepHex:
		for i < line && (digit(b[i]) || b[i]|0x20 >= 'a' && b[i]|0x20 <= 'f') {
			i++
		}
	case stepSeverity:
		for i < line && (letter(b[i]) || i > start && digit(b[i])) {
			i++
		}
		_, ok := severityOf(s.words, b[start:i])
		return i, ok
	case stepPriority:
		v := 0
		for i < line && digit(b[i]) && i-start < 3 {
			v = v*10 + int(b[i]-'0')
			i++
		}
		return i, i > start && v <= maxPriority
	case stepChoice:
		for _, word := range s.choice {
			end := i + len(word)
			if end <= line && string(b[i:end]) == word && (end == line || !wordByte(b[end])) {
				return end, true
			}
		}
		return i, s.empty
	case stepStatus:
		return i + 3, i+3 <= line && b[i] >= '1' && b[i] <= '5' && digit(b[i+1]) && digit(b[i+2]) && (i+3 == line || !digit(b[i+3]))
	case stepQuoted:
		end := quotedEnd(b[:line], i)
		return end, end > 0
	case stepData:
		end := structuredEnd(b[:line], i)
		return end, end > 0
	}
	return i, i > start || s.empty
}

// indexText is bytes.Index for a string.
func indexText(b []byte, text string) int {
	for i := 0; ; {
		n := bytes.IndexByte(b[i:], text[0])
		if n < 0 || len(b)-i-n < len(text) {
			return -1
		}
		i += n
		if string(b[i:i+len(text)]) == text {
			return i
		}
		i++
	}
}

// lastText is bytes.LastIndex for a string. Texts are short and their second
// byte tells more than their first, which is mostly a blank.
func lastText(b []byte, text string) int {
	if len(text) == 1 {
		return bytes.LastIndexByte(b, text[0])
	}
	for i := len(b) - len(text); i >= 0; i-- {
		if b[i+1] == text[1] && b[i] == text[0] && string(b[i:i+len(text)]) == text {
			return i
		}
	}
	return -1
}

// quotedEnd returns the position after the closing quote of what begins with a
// quote at i, or -1.
func quotedEnd(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	for j := i + 1; j < len(b); {
		n := bytes.IndexByte(b[j:], '"')
		if n < 0 {
			return -1
		}
		j += n
		slashes := 0
		for b[j-1-slashes] == '\\' && j-1-slashes > i {
			slashes++
		}
		if slashes%2 == 0 {
			return j + 1
		}
		j++
	}
	return -1
}
