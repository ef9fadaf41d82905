//go:build goexperiment.jsonv2

package secret

import (
	"bytes"

	"github.com/aquasecurity/trivy/pkg/fanal/secret"
)

// candidates are what expressions matched in content. It asks what Trivy asks of
// each before it is a secret.
type candidates struct {
	*engine
	content []byte
	lower   []byte // in lower case, once it is needed
	global  blocks
}

// keyword tells whether a keyword of the rule is in the content. Trivy says so
// itself, so that all of Unicode's cases are as it has them.
func (c *candidates) keyword(r *rule) bool {
	if len(r.Keywords) == 0 {
		return true
	}
	if c.lower == nil {
		c.lower = bytes.ToLower(c.content)
	}
	return r.MatchKeywords(c.lower)
}

// take appends those that are secrets.
func (c *candidates) take(matches []match, r *rule, found [][]int) []match {
	local := blocks{regexes: r.ExcludeBlock.Regexes}
	for _, f := range found {
		if text := string(c.content[f[0]:f[1]]); c.engine.global.Allow(text) || r.Allow(text) {
			continue
		}
		groups := r.groups
		if len(groups) == 0 {
			groups = wholeMatch
		}
		for _, g := range groups {
			m := match{rule: r, start: f[2*g], end: f[2*g+1]}
			// A group that isn't part of this match is no secret. (Trivy fails.)
			if m.start < 0 || c.global.hold(c.content, m) || local.hold(c.content, m) {
				continue
			}
			matches = append(matches, m)
		}
	}
	return matches
}

var wholeMatch = []int{0}

// blocks are parts of content in which there are no secrets.
type blocks struct {
	regexes []*secret.Regexp
	found   [][]int
	looked  bool
}

func (b *blocks) hold(content []byte, m match) bool {
	if !b.looked {
		b.looked = true
		for _, r := range b.regexes {
			b.found = append(b.found, r.FindAllIndex(content, -1)...)
		}
	}
	for _, f := range b.found {
		if f[0] <= m.start && m.end <= f[1] {
			return true
		}
	}
	return false
}
