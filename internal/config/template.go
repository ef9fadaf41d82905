package config

import (
	"fmt"
	"strings"
)

// Template returns the commented file of "config init": every key with what it
// means, its environment variable and an example, all commented out.
func Template() string {
	var b strings.Builder
	b.WriteString(`# Configuration of mobileops.
#
# Every line is commented out: what stands behind the "#" is an example, and
# the default is in force. A flag goes before the environment, and that before
# this file.
# Check this file with: mobileops config validate
# See what is in force: mobileops config show --origin
`)
	part := ""
	for _, k := range Keys() {
		name, indent := k.Name, ""
		if p, rest, ok := strings.Cut(k.Name, "."); ok {
			name, indent = rest, "  "
			if p != part {
				// The part itself is no comment, so that removing one "#" below it is enough.
				fmt.Fprintf(&b, "\n%s:\n", p)
				part = p
			}
		}
		def := k.Default
		if k.Optional {
			def = "none"
		} else if def == "" {
			def = "depends on the user; see mobileops config show"
		}
		fmt.Fprintf(&b, "\n%s# %s\n%s# Default: %s. Environment: %s.\n%s# %s: %s\n", indent, wrapComment(k.Doc, indent), indent, def, k.Env(), indent, name, k.Example)
	}
	return b.String()
}

// wrapComment folds a comment to 80 columns.
func wrapComment(text, indent string) string {
	var b strings.Builder
	column := len(indent) + 2
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+len(word) > 80:
			b.WriteString("\n" + indent + "# ")
			column = len(indent) + 2
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
