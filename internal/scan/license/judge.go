package license

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// Verdicts are what a policy says about a target.
type Verdicts struct {
	Policy   string         `json:"policy"`
	Counts   map[string]int `json:"counts"` // packages by outcome: "allow", "attribution-missing", "review", "deny"
	Verdicts []Verdict      `json:"verdicts"`
	// Unused are exceptions and grants that concern nothing in the target, and Expired
	// those that would, were their time not over.
	Unused  []Rule `json:"unused,omitempty"`
	Expired []Rule `json:"expired,omitempty"`
}

// Verdict is what a policy says about one package, or about files of one licence.
type Verdict struct {
	Subject
	Outcome Outcome `json:"verdict"`
	Reason  string  `json:"reason"` // in words
	Rule    Rule    `json:"rule"`
	// Attribution says where that which must be passed on is: "target", "given" for the
	// attribution file, "missing"; "" when nothing must be.
	Attribution string `json:"attribution,omitempty"`
}

// Judge gives a verdict for each package of the report, and for files that belong to
// none, the worst first. now decides whether an exception's time is over.
func (p *Policy) Judge(report *protocol.Report, now time.Time) *Verdicts {
	v := &Verdicts{Policy: p.Name, Counts: map[string]int{}, Verdicts: []Verdict{}}
	used := map[int]bool{} // lines
	late := map[int]Rule{}
	for _, s := range subjects(report) {
		verdict := p.judge(s, now, used, late)
		v.Counts[verdict.Outcome.String()]++
		v.Verdicts = append(v.Verdicts, verdict)
	}
	slices.SortStableFunc(v.Verdicts, func(a, b Verdict) int { return cmp.Compare(b.Outcome, a.Outcome) })
	for _, s := range p.selectors() {
		if rule, ok := late[s.line]; ok {
			v.Expired = append(v.Expired, rule)
		} else if !used[s.line] {
			v.Unused = append(v.Unused, p.selected(s))
		}
	}
	return v
}

// selectors are those of all exceptions and grants, in the order of their lines.
func (p *Policy) selectors() []*selector {
	var out []*selector
	for i := range p.exceptions {
		out = append(out, &p.exceptions[i].selector)
	}
	for i := range p.licensed {
		out = append(out, &p.licensed[i].selector)
	}
	slices.SortFunc(out, func(a, b *selector) int { return cmp.Compare(a.line, b.line) })
	return out
}

func (p *Policy) selected(s *selector) Rule {
	return Rule{Policy: p.Name, Line: s.line, Text: strings.TrimSpace(s.pattern + " " + s.version)}
}

func (p *Policy) judge(s *Subject, now time.Time, used map[int]bool, late map[int]Rule) Verdict {
	v := Verdict{Subject: *s}
	for i := range p.licensed {
		g := &p.licensed[i]
		if !g.matches(s) {
			continue
		}
		used[g.line] = true
		if g.expired(now) {
			late[g.line] = p.selected(&g.selector)
			continue
		}
		v.Outcome, v.Rule = Allow, p.selected(&g.selector)
		v.Reason = "licensed by contract " + g.contract
		if g.licensor != "" {
			v.Reason += " with " + g.licensor
		}
		v.Reason += ", until " + g.expires.Format(time.DateOnly)
		return v
	}
	d := p.weigh(s.expression, s.hasText())
	v.Outcome, v.Reason, v.Rule = d.outcome, d.reason, d.rule
	needed, attributionRule := p.attribute(d.chosen)
	for i := range p.exceptions {
		e := &p.exceptions[i]
		if !e.matches(s) || !e.concerns(s.expression) {
			continue
		}
		used[e.line] = true
		if e.expired(now) {
			late[e.line] = p.selected(&e.selector)
			continue
		}
		v.Outcome, v.Rule = e.outcome, p.selected(&e.selector)
		v.Reason = fmt.Sprintf("exception of %s until %s: %s", e.owner, e.expires.Format(time.DateOnly), e.reason)
		needed = needed && e.attribution
		break
	}
	if !needed {
		return v
	}
	switch {
	case s.hasText() || s.Package == "":
		v.Attribution = "target"
	case p.given.has(s):
		v.Attribution = "given"
	default:
		v.Attribution = "missing"
		if v.Outcome < AttributionMissing {
			v.Outcome, v.Rule = AttributionMissing, attributionRule
			v.Reason = fmt.Sprintf("%s wants to be attributed, and neither the target nor the attribution file has a text of it", s.License)
		}
	}
	return v
}

// concerns reports whether the exception is about a licence of the expression.
func (e *exception) concerns(x *Expression) bool {
	if len(e.licenses) == 0 {
		return true
	}
	for _, l := range x.Licenses() {
		for _, want := range e.licenses {
			if strings.EqualFold(l.String(), want.String()) {
				return true
			}
		}
	}
	return false
}

// decision is what a policy says about an expression.
type decision struct {
	outcome Outcome
	reason  string
	rule    Rule
	chosen  []*Expression // the licences under which it is used
}

// weigh judges an expression: of Or the best part, of And the worst.
func (p *Policy) weigh(e *Expression, hasText bool) decision {
	if e == nil && hasText {
		return decision{p.unknownWithText.outcome, "nothing names its licence; the target has a text to read", p.unknownWithText.rule, nil}
	}
	if e == nil {
		return decision{p.none.outcome, "nothing says under which licence it is", p.none.rule, nil}
	}
	if e.Op == Leaf {
		return p.one(e, hasText)
	}
	var d decision
	for i, part := range e.Parts {
		next := p.weigh(part, hasText)
		if i == 0 {
			d = next
			continue
		}
		if e.Op == And {
			chosen := append(slices.Clip(d.chosen), next.chosen...)
			if next.outcome > d.outcome {
				d = next
			}
			d.chosen = chosen
			continue
		}
		// Of what is as good, that which asks for less.
		dNeeds, _ := p.attribute(d.chosen)
		nextNeeds, _ := p.attribute(next.chosen)
		if next.outcome < d.outcome || next.outcome == d.outcome && dNeeds && !nextNeeds {
			d = next
		}
	}
	return d
}

func (p *Policy) one(l *Expression, hasText bool) decision {
	chosen := []*Expression{l}
	if o, rule, ok := p.decide(l); ok {
		verb := map[Outcome]string{Allow: "is allowed", Review: "must be looked at", Deny: "is denied"}[o]
		return decision{o, fmt.Sprintf("%s %s (%s)", l, verb, CategoryOf(l.ID)), rule, chosen}
	}
	what := "is no licence that SPDX has, and no class of the policy names it"
	if l.Known && !strings.HasPrefix(l.ID, "LicenseRef-") {
		what = "is named by no class of the policy"
	}
	if hasText {
		return decision{p.unknownWithText.outcome, fmt.Sprintf("%s %s; the target has a text to read", l, what), p.unknownWithText.rule, chosen}
	}
	return decision{p.unknown.outcome, fmt.Sprintf("%s %s", l, what), p.unknown.rule, chosen}
}

// attribute reports whether any of the licences wants to be attributed, and which
// rule says so.
func (p *Policy) attribute(licenses []*Expression) (bool, Rule) {
	for _, l := range licenses {
		if e, rank := p.attribution.finds(l); rank > 0 {
			return true, p.attribution.rule(p.Name, e, rank)
		}
	}
	return false, Rule{}
}
