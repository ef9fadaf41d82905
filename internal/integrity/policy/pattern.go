package policy

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of one pattern.
const (
	maxPatternBytes = 4096 // PATH_MAX
	maxComponents   = 256
)

// component is one step of a pattern: a name that matches one of globs, with
// any number of directories before it when deep is set.
//
// "**" is never a step of its own: it makes the next step deep, and at the
// end of a pattern it is the same as "*", because what matches a directory
// covers everything beneath.
type component struct {
	deep  bool
	globs []glob
}

// names returns the only names that the component matches, when they are few enough to
// be spelled out.
func (c *component) names() ([]string, bool) {
	var out []string
	for i := range c.globs {
		if g := &c.globs[i]; g.simple && !g.star {
			out = append(out, g.prefix)
		} else {
			return nil, false
		}
	}
	return out, true
}

// parsePattern reads the pattern of a rule, without "!". The pattern "/" has
// no components: it matches the root directory.
func parsePattern(text string) ([]component, error) {
	switch {
	case text == "":
		return nil, errors.New("an empty pattern matches nothing")
	case len(text) > maxPatternBytes:
		return nil, fmt.Errorf("the pattern is longer than %d bytes", maxPatternBytes)
	case strings.IndexByte(text, 0) >= 0:
		return nil, errors.New("a pattern cannot contain a zero byte")
	case text == "/":
		return nil, nil
	case strings.HasSuffix(text, "/"):
		return nil, errors.New("drop the slash at the end: a pattern that matches a directory covers everything beneath it")
	}
	anchored := strings.HasPrefix(text, "/")
	parts := strings.Split(strings.TrimPrefix(text, "/"), "/")
	if len(parts) > maxComponents {
		return nil, fmt.Errorf("the pattern has more than %d components", maxComponents)
	}
	var out []component
	deep := !anchored
	for i, part := range parts {
		switch {
		case part == "":
			return nil, errors.New("\"//\" in the pattern: write a single slash")
		case part == "**" && i < len(parts)-1:
			deep = true
			continue
		case part == "**":
			part = "*"
		}
		globs, err := parseComponent(part)
		if err != nil {
			return nil, err
		}
		out = append(out, component{deep: deep, globs: globs})
		deep = false
	}
	return out, nil
}

// parsePath reads a start path: a pattern without wildcards, with the same
// escapes. It returns the bytes of the path, clean.
func parsePath(text string) (string, error) {
	if text == "" || text[0] != '/' {
		return "", fmt.Errorf("the path %q is not absolute", text)
	}
	if len(text) > maxPatternBytes {
		return "", fmt.Errorf("the path is longer than %d bytes", maxPatternBytes)
	}
	var b strings.Builder
	for rest := text; rest != ""; {
		if strings.IndexByte("*?[{", rest[0]) >= 0 {
			return "", fmt.Errorf("the path %q has a wildcard: paths are literal, put the pattern under rules (or write \\%c for the character)", text, rest[0])
		}
		c, n, err := unescape(rest)
		if err != nil {
			return "", fmt.Errorf("path %q: %w", text, err)
		}
		if c == 0 {
			return "", errors.New("a path cannot contain a zero byte")
		}
		b.WriteByte(c)
		rest = rest[n:]
	}
	return b.String(), nil
}
