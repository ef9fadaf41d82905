package license

import (
	_ "embed" // the built-in policy
	"path"
	"slices"
	"strings"
	"time"
)

// Outcome is what a policy says about a package. Outcomes are ordered: of several
// that apply, the greater one holds.
type Outcome int

// The outcomes.
const (
	Allow              Outcome = iota // may be used
	AttributionMissing                // may be used with attribution, for which there is nothing to show
	Review                            // somebody must look at it
	Deny                              // may not be used
)

var outcomeWords = [...]string{"allow", "attribution-missing", "review", "deny"}

// String returns the word for the outcome that policies and reports use.
func (o Outcome) String() string { return outcomeWords[o] }

// MarshalText writes the word.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads the word.
func (o *Outcome) UnmarshalText(b []byte) error {
	i := slices.Index(outcomeWords[:], string(b))
	if i < 0 {
		return &ExpressionError{Expression: string(b), Problem: "is no verdict"}
	}
	*o = Outcome(i)
	return nil
}

// Rule is what of a policy decided.
type Rule struct {
	Policy string `json:"policy"`         // the name of its file
	Line   int    `json:"line,omitempty"` // from 1; 0: no line, such as for a policy that says nothing of it
	Text   string `json:"text"`           // "deny.licenses: SSPL-1.0"
}

// Policy says which licences may be used. docs/formats/license-policy.md describes
// its file. It is not changed after it was read, except by WithAttribution.
type Policy struct {
	Name        string // what the file was called
	classes     map[Outcome]*class
	attribution *class
	// What is done with a licence that no class names, when the target has no text of
	// it and when it has one, and with a package that says nothing of a licence.
	unknown, unknownWithText, none standard
	exceptions                     []exception
	licensed                       []grant
	given                          *Attributions
}

// standard is an outcome with the line that says so.
type standard struct {
	outcome Outcome
	rule    Rule
}

// class is a list of licences and categories.
type class struct {
	name       string // "allow"
	licenses   []listed
	categories []listed
}

// listed is one entry of a list.
type listed struct {
	text string
	line int
}

// selector is which packages an exception or a grant is about.
type selector struct {
	pattern string // a glob of the name, or of the package URL when it begins with "pkg:"
	version string // a glob; "": any
	line    int
	reason  string
	owner   string
	expires time.Time // the end of that day; zero: never
}

// exception sets the outcome for some packages.
type exception struct {
	selector
	licenses    []*Expression // only when the package is under one of them; none: any
	outcome     Outcome
	attribution bool // it must still be attributed
}

// grant says that somebody has a contract for a package.
type grant struct {
	selector
	contract string
	licensor string
}

// matches reports whether a package is meant.
func (s *selector) matches(p *Subject) bool {
	text := p.Package
	if strings.HasPrefix(s.pattern, "pkg:") {
		text = p.PURL
	}
	return glob(s.pattern, text) && (s.version == "" || glob(s.version, p.Version))
}

// glob is path.Match without a meaning for slashes.
func glob(pattern, text string) bool {
	if text == "" {
		return false
	}
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\x01"), strings.ReplaceAll(text, "/", "\x01"))
	return ok && err == nil
}

// expired reports whether the selector's time is over.
func (s *selector) expired(now time.Time) bool {
	return !s.expires.IsZero() && now.After(s.expires)
}

//go:embed default-policy.yaml
var defaultPolicy []byte

// DefaultPolicy returns the policy that holds when there is no other. Its file is
// packaging/examples/license-policy.yaml, word for word.
func DefaultPolicy() *Policy {
	p, err := ParsePolicy("built-in", defaultPolicy)
	if err != nil {
		panic("the built-in licence policy: " + err.Error()) // a test reads it
	}
	return p
}

// finds returns the entry that names the licence, the most particular one: itself
// with its exception, itself, a pattern, its category. rank tells how particular: 0
// is none.
func (c *class) finds(l *Expression) (entry listed, rank int) {
	if c == nil {
		return listed{}, 0
	}
	consider := func(e listed, r int) {
		if r > rank {
			entry, rank = e, r
		}
	}
	name := reference(l)
	whole := name
	if l.Later {
		whole += "+"
	}
	with := whole + " WITH " + l.Exception
	for _, e := range c.licenses {
		switch {
		case l.Exception != "" && strings.EqualFold(e.text, with):
			consider(e, 5)
		case strings.EqualFold(e.text, whole):
			consider(e, 4)
		case strings.EqualFold(e.text, name) || gnu(name) && strings.EqualFold(e.text, family(name)):
			consider(e, 3)
		case strings.ContainsAny(e.text, "*?[") && glob(strings.ToLower(e.text), strings.ToLower(name)):
			consider(e, 2)
		}
	}
	category := CategoryOf(l.ID)
	for _, e := range c.categories {
		if e.text == string(category) {
			consider(e, 1)
		}
	}
	return entry, rank
}

// decide returns what the policy says about one licence, nil when no class names it.
// The most particular entry decides; among equals the strictest.
func (p *Policy) decide(l *Expression) (o Outcome, rule Rule, ok bool) {
	best := 0
	for _, outcome := range []Outcome{Deny, Review, Allow} {
		c := p.classes[outcome]
		if e, rank := c.finds(l); rank > best {
			best, o, ok = rank, outcome, true
			rule = c.rule(p.Name, e, rank)
		}
	}
	return o, rule, ok
}

func (c *class) rule(policy string, e listed, rank int) Rule {
	list := "licenses"
	if rank == 1 {
		list = "categories"
	}
	return Rule{Policy: policy, Line: e.line, Text: c.name + "." + list + ": " + e.text}
}
