package license

import (
	_ "embed" // the catalogue
	"strings"
	"sync"
)

// Category is what kind of licence one is, in the words of Google's classifier.
type Category string

// The categories, from that which asks least to that which asks most.
const (
	CategoryUnencumbered Category = "unencumbered" // free for any use, such as the public domain
	CategoryPermissive   Category = "permissive"   // not even the copyright notice must be passed on
	CategoryNotice       Category = "notice"       // the copyright notice and the licence must be passed on
	CategoryReciprocal   Category = "reciprocal"   // changes of the work itself must be passed on as source
	CategoryRestricted   Category = "restricted"   // the source of what contains the work must be passed on
	CategoryForbidden    Category = "forbidden"    // use itself is restricted
	CategoryUnknown      Category = "unknown"      // nobody has judged it
)

// Categories returns all categories.
func Categories() []Category {
	return []Category{CategoryUnencumbered, CategoryPermissive, CategoryNotice, CategoryReciprocal, CategoryRestricted, CategoryForbidden, CategoryUnknown}
}

//go:embed data/licenses.txt
var licenseData string

//go:embed data/exceptions.txt
var exceptionData string

// entry is one licence of the catalogue.
type entry struct {
	id       string // in its own letters
	category Category
}

// catalogue is read when the first licence is looked up.
var catalogue = sync.OnceValue(func() map[string]entry {
	m := make(map[string]entry, 800)
	for line := range dataLines(licenseData) {
		id, category, _ := strings.Cut(line, " ")
		m[strings.ToLower(id)] = entry{id, Category(category)}
	}
	return m
})

var exceptions = sync.OnceValue(func() map[string]string {
	m := make(map[string]string, 100)
	for id := range dataLines(exceptionData) {
		m[strings.ToLower(id)] = id
	}
	return m
})

// dataLines yields the lines of an embedded file that are neither empty nor comments.
func dataLines(data string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.Lines(data) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' && !yield(line) {
				return
			}
		}
	}
}

// CategoryOf returns the category of a licence, by its identifier in any case. The
// ending of a version (-only, -or-later, +) makes no difference.
func CategoryOf(id string) Category {
	id = strings.ToLower(id)
	for _, s := range []string{id, family(id)} {
		if e, ok := catalogue()[s]; ok && e.category != CategoryUnknown {
			return e.category
		}
	}
	return CategoryUnknown
}

// family returns an identifier without what says which versions of it apply.
func family(id string) string {
	for _, ending := range []string{"+", "-only", "-or-later"} {
		if s, ok := strings.CutSuffix(id, ending); ok {
			return s
		}
	}
	return id
}

// gnu are the licences of which SPDX has -only and -or-later, so that the bare
// identifier is deprecated.
func gnu(id string) bool {
	for _, prefix := range []string{"AGPL-", "GPL-", "LGPL-", "GFDL-"} {
		if strings.HasPrefix(id, prefix) && len(id) > len(prefix) && '0' <= id[len(prefix)] && id[len(prefix)] <= '9' {
			return true
		}
	}
	return false
}

// identifier reads one identifier of SPDX. Deprecated ones become what SPDX has in
// their place: GPL-2.0 is GPL-2.0-only, GPL-2.0+ is GPL-2.0-or-later, and
// GPL-2.0-with-classpath-exception is GPL-2.0-only WITH Classpath-exception-2.0.
func identifier(text string) (*Expression, bool) {
	lower := strings.ToLower(text)
	if with, ok := withExceptions[lower]; ok {
		return &Expression{ID: with[0], Exception: with[1], Known: true}, true
	}
	base, plus := strings.CutSuffix(lower, "+")
	e, ok := catalogue()[base]
	if !ok {
		return nil, false
	}
	id := e.id
	if gnu(id) {
		if family(id) == id {
			if plus {
				id += "-or-later"
			} else {
				id += "-only"
			}
		} else if plus {
			id = family(id) + "-or-later"
		}
		plus = false
	}
	return &Expression{ID: id, Known: true, Later: plus}, true
}

// withExceptions are identifiers that SPDX has given up for WITH.
var withExceptions = map[string][2]string{
	"gpl-2.0-with-gcc-exception":       {"GPL-2.0-only", "GCC-exception-2.0"},
	"gpl-2.0-with-autoconf-exception":  {"GPL-2.0-only", "Autoconf-exception-2.0"},
	"gpl-2.0-with-bison-exception":     {"GPL-2.0-only", "Bison-exception-2.2"},
	"gpl-2.0-with-classpath-exception": {"GPL-2.0-only", "Classpath-exception-2.0"},
	"gpl-2.0-with-font-exception":      {"GPL-2.0-only", "Font-exception-2.0"},
	"gpl-3.0-with-gcc-exception":       {"GPL-3.0-only", "GCC-exception-3.1"},
	"gpl-3.0-with-autoconf-exception":  {"GPL-3.0-only", "Autoconf-exception-3.0"},
	"gpl-3.0-with-bison-exception":     {"GPL-3.0-only", "Bison-exception-2.2"},
}

// exceptionID returns an exception as SPDX writes it. One that SPDX does not have
// is written so that it is one word.
func exceptionID(text string) string {
	key := strings.ToLower(strings.Join(strings.Fields(text), "-"))
	if id, ok := exceptions()[key]; ok {
		return id
	}
	if id, ok := spellings().exceptions[strings.TrimSuffix(key, "-exception")]; ok {
		return id
	}
	return strings.TrimPrefix(reference(&Expression{ID: strings.Join(strings.Fields(text), "-")}), "LicenseRef-")
}
