package format

import (
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

// grammar says what a format does with text, beside writing out what does not
// show.
type grammar struct {
	special [256]byte // 1: gets a backslash in front; 2: is written as \xNN
	doubled bool      // the backslash is an escape of the format, too, and so is doubled once more
}

// The grammars. They are constants in all but name: tables that the linker lays
// out, without work at the start.
var (
	plainText  = grammar{}
	sdValue    = grammar{special: [256]byte{'"': 1, ']': 1}, doubled: true}
	cefHeader  = grammar{special: [256]byte{'|': 1}, doubled: true}
	cefValue   = grammar{special: [256]byte{'=': 1}, doubled: true}
	leefHeader = grammar{special: [256]byte{'|': 2}}
)

const hexDigits = "0123456789abcdef"

// appendText appends s with everything written out that a reader could be
// misled by, and reports whether all of it fitted into limit bytes. What is cut
// is cut between two characters, never within an escape.
func appendText(dst []byte, s string, limit int, g *grammar) ([]byte, bool) {
	end := len(dst) + max(limit, 0)
	for i := 0; i < len(s); {
		run := i
		for i < len(s) && s[i] >= ' ' && s[i] < 0x7f && s[i] != '\\' && g.special[s[i]] == 0 {
			i++
		}
		if i > run {
			if room := end - len(dst); i-run > room {
				return append(dst, s[run:run+room]...), false
			}
			dst = append(dst, s[run:i]...)
			continue
		}
		before := len(dst)
		var size int
		dst, size = appendOdd(dst, s[i:], g)
		if len(dst) > end {
			return dst[:before], false
		}
		i += size
	}
	return dst, true
}

// appendOdd appends the first character of s, one that is not simply copied,
// and returns how many bytes of s it has.
func appendOdd(dst []byte, s string, g *grammar) ([]byte, int) {
	c := s[0]
	if c < utf8.RuneSelf {
		switch {
		case c == '\\':
			return backslash(backslash(dst, g), g), 1
		case c == '\n':
			return append(backslash(dst, g), 'n'), 1
		case c == '\r':
			return append(backslash(dst, g), 'r'), 1
		case c == '\t':
			return append(backslash(dst, g), 't'), 1
		case g.special[c] == 1:
			return append(dst, '\\', c), 1
		}
		return append(backslash(dst, g), 'x', hexDigits[c>>4], hexDigits[c&15]), 1
	}
	r, size := utf8.DecodeRuneInString(s)
	switch {
	case r == utf8.RuneError && size == 1:
		return append(backslash(dst, g), 'x', hexDigits[c>>4], hexDigits[c&15]), 1
	case strconv.IsPrint(r):
		return append(dst, s[:size]...), size
	case r < 0x10000:
		return appendHex(append(backslash(dst, g), 'u'), uint32(r), 4), size
	}
	return appendHex(append(backslash(dst, g), 'U'), uint32(r), 8), size
}

// backslash appends one backslash of the visible text, as the format needs it.
func backslash(dst []byte, g *grammar) []byte {
	if g.doubled {
		return append(dst, '\\', '\\')
	}
	return append(dst, '\\')
}

func appendHex(dst []byte, n uint32, digits int) []byte {
	for shift := (digits - 1) * 4; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[n>>shift&15])
	}
	return dst
}

// appendWord appends s as a word of printable ASCII without spaces, at most
// limit characters, with instead for each character that is none, and "-", the
// NILVALUE of RFC 5424, for nothing.
func appendWord(dst []byte, s string, limit int, instead byte) []byte {
	if s == "" {
		return append(dst, '-')
	}
	for i, r := range s {
		if limit == 0 {
			break
		}
		if r > ' ' && r < 0x7f {
			dst = append(dst, s[i])
		} else {
			dst = append(dst, instead)
		}
		limit--
	}
	return dst
}

// appendJSON appends s as a string of JSON. Bytes that are no UTF-8 become
// U+FFFD, and what does not show becomes \uNNNN, so that no reader of the raw
// text is misled either.
func appendJSON(dst []byte, s string) []byte {
	return append(appendJSONText(append(dst, '"'), s), '"')
}

// appendJSONText is appendJSON without the quotes.
func appendJSONText(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		run := i
		for i < len(s) && s[i] >= ' ' && s[i] < 0x7f && s[i] != '\\' && s[i] != '"' {
			i++
		}
		dst = append(dst, s[run:i]...)
		if i == len(s) {
			break
		}
		c := s[i]
		if c == '"' || c == '\\' {
			dst = append(dst, '\\', c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, `\ufffd`...)
		case strconv.IsPrint(r):
			dst = append(dst, s[i:i+size]...)
		case r < 0x10000:
			dst = appendHex(append(dst, `\u`...), uint32(r), 4)
		default:
			r -= 0x10000
			dst = appendHex(append(dst, `\u`...), uint32(0xd800+r>>10), 4)
			dst = appendHex(append(dst, `\u`...), uint32(0xdc00+r&0x3ff), 4)
		}
		i += size
	}
	return dst
}

// sortedKeys returns the keys of m in order, in buf as far as it reaches.
func sortedKeys(buf []string, m map[string]string) []string {
	keys := slices.AppendSeq(buf[:0], maps.Keys(m))
	slices.Sort(keys)
	return keys
}
