package source

import (
	"fmt"
	"path"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// maxAlternatives is how many patterns the braces of one may stand for.
const maxAlternatives = 256

// braces returns the patterns that one with {a,b} stands for.
func braces(p string) ([]string, error) {
	done, todo := []string{}, []string{p}
	for len(todo) > 0 {
		q := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		open := strings.IndexByte(q, '{')
		if open < 0 {
			done = append(done, q)
			if len(done) > maxAlternatives {
				return nil, fmt.Errorf("the pattern %q stands for more than %d", p, maxAlternatives)
			}
			continue
		}
		end, depth, commas := -1, 0, []int{open}
		for i := open; i < len(q) && end < 0; i++ {
			switch q[i] {
			case '{':
				depth++
			case ',':
				if depth == 1 {
					commas = append(commas, i)
				}
			case '}':
				if depth--; depth == 0 {
					end = i
				}
			}
		}
		if end < 0 {
			return nil, fmt.Errorf("the pattern %q has a { without a }", p)
		}
		commas = append(commas, end)
		if len(todo)+len(commas) > maxAlternatives {
			return nil, fmt.Errorf("the pattern %q stands for more than %d", p, maxAlternatives)
		}
		for k := len(commas) - 1; k > 0; k-- {
			todo = append(todo, q[:open]+q[commas[k-1]+1:commas[k]]+q[end+1:])
		}
	}
	return done, nil
}

// pattern is a path, or a pattern of paths, cut into its parts.
type pattern []string

func isPattern(part string) bool { return strings.ContainsAny(part, "*?[\\") }

// parsePatterns cuts patterns into their parts.
func parsePatterns(list []string) ([]pattern, error) {
	var out []pattern
	for _, text := range list {
		if !strings.HasPrefix(text, "/") {
			return nil, failure.Errorf(failure.Usage, "%q is no path from the root (begin it with /)", text)
		}
		plain, err := braces(text)
		if err != nil {
			return nil, failure.Wrap(failure.Usage, err)
		}
		for _, p := range plain {
			var parts pattern
			for part := range strings.SplitSeq(p, "/") {
				switch part {
				case "", ".":
					continue
				case "..":
					return nil, failure.Errorf(failure.Usage, "%q has .. in it (write the path without)", text)
				}
				if _, err := path.Match(part, ""); err != nil {
					return nil, failure.Errorf(failure.Usage, "%q is no pattern: %w", text, err)
				}
				parts = append(parts, part)
			}
			out = append(out, parts)
		}
	}
	return out, nil
}

// match reports whether a path, or a directory above it, is what the pattern
// says.
func (p pattern) match(name string) bool {
	return matchParts(p, strings.Split(strings.Trim(name, "/"), "/"), new(int))
}

// names reports whether the pattern is a path without wildcards, and this one.
func (p pattern) names(name string) bool {
	for i, part := range strings.Split(strings.TrimPrefix(name, "/"), "/") {
		if i >= len(p) || p[i] != part || isPattern(p[i]) {
			return false
		}
	}
	return len(p) == strings.Count(name, "/")
}

// maxSteps bounds the work for patterns with many ** in them.
const maxSteps = 100_000

func matchParts(p pattern, parts []string, steps *int) bool {
	for len(p) > 0 {
		if *steps++; *steps > maxSteps {
			return false
		}
		if p[0] == "**" {
			for i := 0; i <= len(parts); i++ {
				if matchParts(p[1:], parts[i:], steps) {
					return true
				}
			}
			return false
		}
		if len(parts) == 0 || !matchName(p[0], parts[0]) {
			return false
		}
		p, parts = p[1:], parts[1:]
	}
	return true // parts that are left are below
}

func matchName(p, name string) bool {
	if !isPattern(p) {
		return p == name
	}
	ok, _ := path.Match(p, name)
	return ok
}
