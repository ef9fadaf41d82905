// Package generated knows which files maintainer scripts and triggers of
// packages write: files that no package has, and that yet change when packages
// do. The knowledge is in generated.yaml, with its cases beside it.
package generated

import (
	_ "embed"
	"fmt"
	"regexp"
	"sync"

	"github.com/mobileops/mobileops/internal/finding"
	"go.yaml.in/yaml/v3"
)

//go:embed generated.yaml
var source []byte

// rule is one entry of the list.
type rule struct {
	Path     string `yaml:"path"`
	Packages string `yaml:"packages"`
	Severity string `yaml:"severity"`

	path, packages *regexp.Regexp
	severity       finding.Severity
}

var rules = sync.OnceValues(func() ([]rule, error) {
	var list []rule
	if err := yaml.Unmarshal(source, &list); err != nil {
		return nil, err
	}
	for i := range list {
		r := &list[i]
		var err error
		if r.path, err = regexp.Compile(`\A(?:` + r.Path + `)\z`); err != nil {
			return nil, err
		}
		if r.packages, err = regexp.Compile(`\A(?:` + r.Packages + `)\z`); err != nil {
			return nil, err
		}
		if r.severity, err = finding.ParseSeverity(r.Severity); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Path, err)
		}
	}
	return list, nil
})

// By returns the package among the changed ones that explains a change of the
// file at path, and the severity that is enough for it then. changed are names
// of packages that were installed, removed or updated.
func By(path []byte, changed []string) (name string, severity finding.Severity, explained bool) {
	list, err := rules()
	if err != nil {
		panic(err) // embedded, and read by a test
	}
	for i := range list {
		r := &list[i]
		if !r.path.Match(path) {
			continue
		}
		for _, name := range changed {
			if r.Packages == "" || r.packages.MatchString(name) {
				return name, r.severity, true
			}
		}
	}
	return "", 0, false
}
