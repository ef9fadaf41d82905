// Package policy says which paths are under the integrity baseline, which of
// their attributes count, and how bad a change is.
package policy

import "github.com/mobileops/mobileops/internal/finding"

// Rule is one line of a policy: what it matches and what follows.
type Rule struct {
	Pattern  string           // as written, without the "!"
	Exclude  bool             // the pattern was written with "!"
	Attrs    Attr             // what is compared; 0 for excluded entries
	Growing  bool             // a log: it may grow, what was there must stay; Attrs never has Mtime and Ctime
	Severity finding.Severity // of a change
	Line     int              // in the policy file, from 1; 0 when it has none
}

// Policy is a validated policy.
type Policy struct {
	Name             string
	Description      string
	Paths            []string // where walks start: absolute, clean, sorted, none below another; bytes, not necessarily UTF-8
	CrossFilesystems bool     // descend into file systems mounted below Paths
	Default          Rule     // for entries below Paths that no rule matches; its Pattern is empty
	Rules            []Rule   // the last one that matches decides
}

// Builtin returns a copy of a built-in policy.
func Builtin(name string) (*Policy, error) { panic("skeleton") }

// BuiltinNames returns the names of the built-in policies, the default first.
func BuiltinNames() []string { panic("skeleton") }

// Parse reads a policy file.
func Parse(name string, data []byte) (*Policy, error) { panic("skeleton") }

// Load returns the built-in policy of that name, else reads the file.
func Load(nameOrPath string) (*Policy, error) { panic("skeleton") }

// WithPaths returns the policy with the same rules and other start paths.
func (p *Policy) WithPaths(paths []string) *Policy { panic("skeleton") }

// Encode returns the canonical YAML of the policy.
func (p *Policy) Encode() []byte { panic("skeleton") }

// Digest returns the BLAKE3 of Encode.
func (p *Policy) Digest() [32]byte { panic("skeleton") }
