package license

import (
	_ "embed" // the spellings
	"strings"
	"sync"
)

//go:embed data/spellings.txt
var spellingData string

// book is what data/spellings.txt says.
type book struct {
	names      map[string]string // an expression of SPDX, by key
	exceptions map[string]string
}

// spellings is read when the first name is looked up that SPDX does not have.
var spellings = sync.OnceValue(func() book {
	b := book{map[string]string{}, map[string]string{}}
	for line := range dataLines(spellingData) {
		names, means, _ := strings.Cut(line, "=")
		means = strings.TrimSpace(means)
		for name := range strings.SplitSeq(names, "|") {
			name = strings.TrimSpace(name)
			if exception, ok := strings.CutPrefix(name, "with "); ok {
				b.exceptions[exception] = means
				continue
			}
			b.names[key(name)] = means
		}
	}
	return b
})

// ParseName reads what people write where a licence is asked for: an expression of
// SPDX, or names such as "GPLv2+", "Apache License, Version 2.0", "MIT or BSD
// 3-clause", and Debian's short names. What nobody knows is a licence with Known
// false; it is never an error, save when it exceeds the limits, and then the whole
// text is one unknown name.
func ParseName(text string) *Expression {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	if len(text) <= 200 {
		if e := known(text); e != nil {
			return e
		}
	}
	// "The MIT License (MIT)": what is in parentheses says the same once more.
	if outer, inner, ok := strings.Cut(strings.TrimSuffix(text, ")"), "("); ok && strings.HasSuffix(text, ")") && strings.TrimSpace(outer) != "" && len(text) <= 200 {
		for _, name := range []string{outer, inner} {
			if e := known(name); e != nil {
				return e
			}
		}
	}
	e, err := parse(orLater(text), looseNames{})
	if err != nil {
		return &Expression{ID: text}
	}
	return e
}

// looseNames reads names with spaces in them.
type looseNames struct{}

func (looseNames) spaces() bool { return true }

func (looseNames) name(text string) *Expression {
	text = strings.Trim(text, " ,;")
	if e := known(text); e != nil {
		return e
	}
	// "MIT/X11" stands in the book; "MIT/Apache-2.0" means one of them.
	if left, right, ok := strings.Cut(text, "/"); ok && !strings.Contains(text, ":") {
		if l, r := known(left), known(right); l != nil && r != nil {
			return Join(Or, l, r)
		}
	}
	if text == "" {
		text = "unnamed"
	}
	return &Expression{ID: text}
}

// known returns what a name stands for, nil when nobody knows it.
func known(text string) *Expression {
	text = strings.Trim(text, " \t\"'`")
	if e, ok := identifier(text); ok {
		return e
	}
	if strings.HasPrefix(text, "LicenseRef-") && isIdentifier(text) {
		return spdxNames{}.name(text)
	}
	k := key(text)
	if e := spelled(k); e != nil {
		return e
	}
	if e, ok := identifier(k); ok {
		return e
	}
	base, later := strings.CutSuffix(k, "+")
	e := gnuName(base, later)
	if e == nil && later {
		if e = spelled(base); e == nil || e.Op != Leaf {
			return nil
		}
		if gnu(e.ID) {
			id := family(e.ID) + "-or-later"
			return &Expression{ID: id, Known: true, Exception: e.Exception}
		}
		return &Expression{ID: e.ID, Known: true, Later: true, Exception: e.Exception}
	}
	return e
}

// spelled looks a key up in the book.
func spelled(key string) *Expression {
	means, ok := spellings().names[key]
	if !ok {
		return nil
	}
	e, err := Parse(means)
	if err != nil {
		return nil // a test checks that all of the book can be read
	}
	return e
}

// gnuName reads the names of GNU's licences, in which the version is written in
// every way there is: gpl2, gplv2, gpl-2.0, lgpl-2.1.
func gnuName(k string, later bool) *Expression {
	for _, prefix := range []string{"gnu-", "gnu"} {
		k = strings.TrimPrefix(k, prefix)
	}
	for _, n := range []struct{ name, id string }{
		{"lesser-general-public", "LGPL"}, {"library-general-public", "LGPL"}, {"affero-general-public", "AGPL"}, {"free-documentation", "GFDL"}, {"general-public", "GPL"},
		{"lgpl", "LGPL"}, {"agpl", "AGPL"}, {"gfdl-niv", "GFDL-NIV"}, {"gfdl", "GFDL"}, {"fdl", "GFDL"}, {"gpl", "GPL"},
	} {
		version, ok := strings.CutPrefix(k, n.name)
		if !ok {
			continue
		}
		version = strings.TrimLeft(version, "-v")
		if version == "" {
			return nil // which version, nobody said; what that means stands in the book
		}
		if !strings.Contains(version, ".") {
			version += ".0"
		}
		ending := "-only"
		if later {
			ending = "-or-later"
		}
		id := n.id + "-" + version
		if n.id == "GFDL-NIV" {
			id = "GFDL-" + version + "-no-invariants"
		}
		if e, ok := catalogue()[strings.ToLower(id+ending)]; ok {
			return &Expression{ID: e.id, Known: true}
		}
		return nil
	}
	return nil
}

// key is the form of a name under which it is looked up: in lower case, with one
// hyphen between its words, without the words that all licences have.
func key(text string) string {
	text = strings.ToLower(orLater(text))
	text = strings.NewReplacer("version", " ", "licence", " ", "license", " ", "(", " ", ")", " ", ",", " ", ";", " ", "_", " ", "\"", " ", "'", " ", ":", " ").Replace(text)
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' || r == '-' })
	var out []string
	for _, w := range words {
		if w == "the" || w == "v" || w == "ver" || w == "ver." || w == "v." {
			continue
		}
		if len(w) > 1 && w[0] == 'v' && '0' <= w[1] && w[1] <= '9' {
			w = w[1:]
		}
		if w == "+" && len(out) > 0 {
			out[len(out)-1] += "+"
			continue
		}
		out = append(out, w)
	}
	return strings.Trim(strings.Join(out, "-"), ".-")
}

// orLater writes "or later", in the ways it is said, as a plus.
func orLater(text string) string {
	words := strings.Fields(text)
	var out []string
	for i := 0; i < len(words); i++ {
		w := strings.ToLower(strings.Trim(words[i], "(,"))
		if n := laterWords(words[i:]); (w == "or" || w == "and") && n > 0 && len(out) > 0 {
			last := &out[len(out)-1]
			*last = strings.TrimRight(*last, ",")
			if !strings.HasSuffix(*last, "+") {
				*last += "+"
			}
			i += n - 1
			continue
		}
		out = append(out, words[i])
	}
	return strings.Join(out, " ")
}

// laterWords returns how many of the words, of which the first is "or", say that a
// later version may be used; 0 when they don't.
func laterWords(words []string) int {
	for n := 1; n < min(len(words), 8); n++ {
		w := strings.ToLower(strings.Trim(words[n], "(),.;"))
		switch w {
		case "later", "newer", "greater", "higher", "above":
			for n+1 < len(words) && strings.EqualFold(strings.Trim(words[n+1], "(),.;"), "version") {
				n++
			}
			return n + 1
		case "any", "at", "your", "option", "a", "version":
		default:
			return 0
		}
	}
	return 0
}
