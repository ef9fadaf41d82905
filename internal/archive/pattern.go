package archive

import (
	"errors"
	"path"
	"strings"
)

// Match tells whether a clean name matches a pattern that CheckPattern accepted:
// part by part as by path.Match, and ** stands for any number of parts, at the
// end for at least one. Only the last ** that was met is ever tried again, at
// the next part of the name: what stands before it matched as early as
// possible, which leaves the most for what follows. So it takes at most parts ×
// parts steps.
func Match(pattern, name string) bool {
	ps, ns := strings.Split(pattern, "/"), strings.Split(name, "/")
	p, n := 0, 0
	star, from := -1, 0
	for n < len(ns) {
		switch {
		case p < len(ps) && ps[p] == "**":
			if p == len(ps)-1 {
				return true // at least one part is left
			}
			star, from = p, n
			p++
		case p < len(ps) && matchPart(ps[p], ns[n]):
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return p == len(ps)
}

func matchPart(pattern, part string) bool {
	ok, err := path.Match(pattern, part)
	return ok && err == nil
}

// CheckPattern says what is wrong with a pattern.
func CheckPattern(pattern string, l Limits) error {
	if pattern == "" || len(pattern) > l.PathBytes {
		return errors.New("a pattern is empty or too long")
	}
	if err := CheckBytes(strings.ReplaceAll(pattern, `\`, "")); err != nil {
		return err
	}
	parts := strings.Split(pattern, "/")
	if len(parts) > l.Depth {
		return errors.New("a pattern has too many parts")
	}
	for i, part := range parts {
		switch {
		case part == "" && i == 0:
			return errors.New("a pattern is relative to the installation: leave out the slash at its beginning")
		case part == "":
			return errors.New("a pattern has an empty part; for all beneath a directory write dir/**")
		case part == "." || part == "..":
			return errors.New(`a pattern has "." or ".." in it`)
		case part != "**" && strings.Contains(part, "**"):
			return errors.New("** stands alone between slashes")
		}
		if _, err := path.Match(part, ""); err != nil {
			return errors.New("a bracket in a pattern has no end")
		}
	}
	return nil
}
