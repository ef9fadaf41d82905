//go:build goexperiment.jsonv2

package secret

import (
	"slices"

	"github.com/aquasecurity/trivy/pkg/fanal/secret"

	"github.com/mobileops/mobileops/internal/scan/keyword"
	"github.com/mobileops/mobileops/internal/scan/keyword/window"
)

// gate is what must be in a file before the expression of a rule is run.
type gate int

const (
	always    gate = iota
	byAnchor       // and it is run where anchors are
	byKeyword      // and it is run everywhere: nothing is known of where it matches
)

// rule is one of Trivy's, and how it is looked for.
type rule struct {
	*secret.Rule
	number     int
	gate       gate
	expression *window.Expression
	groups     []int // those that are the secret; of none the whole match is
}

// engine looks for secrets in content.
type engine struct {
	global    *secret.Global
	rules     []rule
	automaton *keyword.Automaton
	owners    [][]int32 // rules by pattern; those without any are anchors of all
	always    bool      // a rule must be run on everything
}

const (
	// tooUsual is the rarity from which anchors are of no use: one in 500 bytes.
	tooUsual = 2e-3
	// keywordBytes is how much of a keyword is looked for in the first place.
	keywordBytes = 8
)

// newEngine makes rules ready.
func newEngine(global *secret.Global) (*engine, error) {
	e := &engine{global: global}
	for i := range global.Rules {
		r := rule{Rule: &global.Rules[i]}
		if r.Regex == nil || r.Regex.Regexp == nil {
			continue // such a rule finds nothing
		}
		if r.SecretGroupName != "" {
			for n, name := range r.Regex.SubexpNames() {
				if name == r.SecretGroupName {
					r.groups = append(r.groups, n)
				}
			}
			if len(r.groups) == 0 {
				continue // and neither does this one
			}
		}
		r.expression = window.New(r.Regex.Regexp)
		switch {
		case len(r.expression.Anchors) > 0 && r.expression.Rarity < tooUsual:
			r.gate = byAnchor
		case len(r.Keywords) > 0 && !slices.ContainsFunc(r.Keywords, odd):
			r.gate = byKeyword
		default:
			e.always = true
		}
		r.number = len(e.rules)
		e.rules = append(e.rules, r)
	}
	// Rules of somebody's own may need too many states. Their beginnings need less.
	var err error
	for _, length := range []int{keywordBytes, 5, 4, 3, 2, 1} {
		if err = e.compile(length); err == nil {
			return e, nil
		}
	}
	return nil, err
}

// odd tells whether a keyword is not plain text: Trivy compares in lower case by
// Unicode. An empty one is in every file.
func odd(word string) bool {
	for _, c := range []byte(word) {
		if c >= 0x80 {
			return true
		}
	}
	return word == ""
}

// compile makes the automaton of what rules need, cut to a length.
func (e *engine) compile(length int) error {
	// The small i with a dot is the third character that is plain in lower case.
	patterns := append(window.Exotic(), keyword.Exact("\u0130"))
	e.owners = make([][]int32, len(patterns))
	add := func(seq keyword.Sequence, rule int) {
		seq = seq[:min(len(seq), length)]
		at := slices.IndexFunc(patterns, func(p keyword.Sequence) bool { return slices.Equal(p, seq) })
		if at < 0 {
			at = len(patterns)
			patterns, e.owners = append(patterns, seq), append(e.owners, nil)
		}
		if !slices.Contains(e.owners[at], int32(rule)) {
			e.owners[at] = append(e.owners[at], int32(rule))
		}
	}
	for i := range e.rules {
		switch r := &e.rules[i]; r.gate {
		case byAnchor:
			for _, seq := range r.expression.Anchors {
				add(seq, i)
			}
		case byKeyword:
			for _, word := range r.Keywords {
				add(keyword.Word(word), i)
			}
		}
	}
	var err error
	e.automaton, err = keyword.Compile(patterns)
	return err
}

// hit sorts out what the automaton found: where the anchors of each rule end. exotic
// says that there are characters that only look like those of keywords.
func (e *engine) hit(b *buffer, content []byte) (exotic bool) {
	b.hits = e.automaton.Find(content, b.hits[:0])
	for _, i := range b.touched {
		b.ends[i] = b.ends[i][:0]
	}
	b.touched = b.touched[:0]
	if len(b.ends) < len(e.rules) {
		b.ends = make([][]int, len(e.rules))
	}
	add := func(i int32, end int32) {
		if len(b.ends[i]) == 0 {
			b.touched = append(b.touched, i)
		}
		b.ends[i] = append(b.ends[i], int(end))
	}
	for _, h := range b.hits {
		owners := e.owners[h.Pattern]
		for _, i := range owners {
			add(i, h.End)
		}
		if len(owners) == 0 {
			exotic = true
			for i := range e.rules {
				add(int32(i), h.End)
			}
		}
	}
	for _, i := range b.touched {
		slices.Sort(b.ends[i])
	}
	return exotic
}

// match is where a rule found a secret.
type match struct {
	rule       *rule
	start, end int
}

// look looks for secrets in content, in the order of the rules and of the places.
// They are appended to those in b.
func (e *engine) look(b *buffer, content []byte, at location) {
	exotic := e.hit(b, content)
	b.matches = b.matches[:0]
	if len(b.touched) == 0 && !e.always {
		return
	}
	c := candidates{engine: e, content: content, global: blocks{regexes: e.global.ExcludeBlock.Regexes}}
	for i := range e.rules {
		r := &e.rules[i]
		var found [][]int
		switch {
		case !at.applies(r):
		case r.gate == always, r.gate == byKeyword && (exotic || len(b.ends[i]) > 0):
			if c.keyword(r) {
				found = r.Regex.FindAllSubmatchIndex(content, -1)
			}
		case r.gate == byAnchor && len(b.ends[i]) > 0:
			if found = r.expression.FindAll(content, b.ends[i]); len(found) > 0 && !c.keyword(r) {
				found = nil
			}
		}
		if len(found) > 0 {
			b.matches = c.take(b.matches, r, found)
		}
	}
}

// expensive tells whether looking for secrets means more than a look at every byte.
func (e *engine) expensive() bool {
	return e.always || slices.ContainsFunc(e.rules, func(r rule) bool { return r.gate == byKeyword })
}
