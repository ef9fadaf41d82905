package vex

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

// examine goes through the tokens of a document before it is decoded: it bounds
// depth, counts and texts, and refuses members that are there twice, of which
// different programs would read different ones. encoding/json does not tell upper
// from lower case in names of members, so neither does this.
func examine(data []byte) error {
	if !utf8.Valid(data) {
		return wrong(-1, 0, "it is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	type level struct {
		names map[string]bool // nil: an array
		key   bool            // the next token is the name of a member
		count int
	}
	var stack []level
	for started := false; !started || len(stack) > 0; started = true {
		tok, err := dec.Token()
		at := dec.InputOffset()
		if err != nil {
			var syntax *json.SyntaxError
			switch {
			case errors.As(err, &syntax):
				return wrong(syntax.Offset, 0, "%v", err)
			case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
				return wrong(at, 0, "it ends here")
			}
			return wrong(at, 0, "%s", clip(err.Error(), 256))
		}
		if !started && tok != json.Delim('{') {
			return wrong(at, 0, "it is no object")
		}
		var top *level
		if len(stack) > 0 {
			top = &stack[len(stack)-1]
		}
		if d, ok := tok.(json.Delim); ok && (d == '}' || d == ']') {
			stack = stack[:len(stack)-1]
			continue
		}
		if top != nil && top.names != nil && top.key {
			name := strings.ToLower(tok.(string))
			if top.names[name] {
				return wrong(at, 0, "the member %q is there twice", clip(name, 64))
			}
			if top.names[name] = true; len(top.names) > 256 {
				return wrong(at, 0, "an object has more than 256 members")
			}
			top.key = false
			continue
		}
		if top != nil {
			top.key = top.names != nil
			if top.count++; top.count > MaxStatements {
				return wrong(at, 0, "a list has more than %d entries", MaxStatements)
			}
		}
		switch v := tok.(type) {
		case string:
			if len(v) > MaxText {
				return wrong(at, 0, "a text has %d bytes, more than %d", len(v), MaxText)
			}
		case json.Delim:
			if len(stack) == MaxDepth {
				return wrong(at, 0, "it is nested more than %d deep", MaxDepth)
			}
			l := level{}
			if v == '{' {
				l.names, l.key = map[string]bool{}, true
			}
			stack = append(stack, l)
		}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return wrong(dec.InputOffset(), 0, "something follows the document")
	}
	return nil
}
