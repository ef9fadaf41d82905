package policy

import "github.com/mobileops/mobileops/internal/finding"

// Explanation is how a policy came to its decision about one path.
type Explanation struct {
	Path     string
	Start    string  // the entry of Paths that it lies at or below; empty when outside
	Matches  []Match // the rules that match, in order; the last one decides
	Decides  *Rule   // nil when outside; Policy.Default when no rule matches
	Covered  bool    // inside and not excluded
	Attrs    Attr
	Growing  bool
	Severity finding.Severity
}

// Match is one rule that matches a path or a directory above it.
type Match struct {
	Rule *Rule
	At   string // the path itself, or the ancestor that the pattern matched
}

// Explain says which rules match path, which decides, and with what result.
func (p *Policy) Explain(path string) Explanation { panic("skeleton") }
