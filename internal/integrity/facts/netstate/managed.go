package netstate

import (
	_ "embed"
	"strings"

	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/ruleset"
)

//go:embed managed.txt
var managedList string

// writers says which daemon writes a chain or a table by itself.
type writers []struct{ kind, name, who string }

func managers() writers {
	var list writers
	meaning(managedList, "#", func(w []string) {
		if len(w) == 3 {
			list = append(list, struct{ kind, name, who string }{w[0], w[1], w[2]})
		}
	})
	return list
}

// of returns who writes an object, or none.
func (w writers) of(o *ruleset.Object) string {
	for _, m := range w {
		name := o.Table
		if m.kind == "chain" {
			if o.Kind != "chain" || o.Hook != "" {
				continue
			}
			name = o.Name
		}
		prefix, begins := strings.CutSuffix(m.name, "*")
		if name == m.name || begins && strings.HasPrefix(name, prefix) {
			return m.who
		}
	}
	return facts.None
}
