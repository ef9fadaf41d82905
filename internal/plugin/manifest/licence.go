package manifest

import (
	"errors"
	"fmt"
	"strings"
)

// checkLicence says what is wrong with the form of an SPDX licence expression.
// Whether a licence of that name exists is not looked at: the list grows.
//
// The grammar, from the weakest operator to the strongest:
//
//	expression = conjunction {"OR" conjunction}
//	conjunction = operand {"AND" operand}
//	operand = "(" expression ")" | licence ["WITH" exception]
func checkLicence(s string) error {
	// Parentheses need no space around them.
	words := strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(s))
	if len(words) == 0 {
		return errors.New("is empty; an SPDX expression is needed, such as Apache-2.0")
	}
	p := licenceParser{words: words}
	if err := p.expression(0); err != nil {
		return err
	}
	if p.next() != "" {
		return fmt.Errorf("has %s where AND, OR or WITH is expected", quote(p.next()))
	}
	return nil
}

type licenceParser struct{ words []string }

func (p *licenceParser) next() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

func (p *licenceParser) take() string {
	w := p.next()
	p.words = p.words[min(1, len(p.words)):]
	return w
}

// expression reads AND and OR alike: for the form alone it does not matter
// which one binds more.
func (p *licenceParser) expression(depth int) error {
	if depth > 8 {
		return errors.New("has more than 8 parentheses within each other")
	}
	for {
		if err := p.operand(depth); err != nil {
			return err
		}
		if w := p.next(); w != "AND" && w != "OR" {
			return nil
		}
		p.take()
	}
}

func (p *licenceParser) operand(depth int) error {
	w := p.take()
	if w == "(" {
		if err := p.expression(depth + 1); err != nil {
			return err
		}
		if p.take() != ")" {
			return errors.New("has a parenthesis that is not closed")
		}
		return nil
	}
	if err := checkLicenceName(w, true); err != nil {
		return err
	}
	if p.next() != "WITH" {
		return nil
	}
	p.take()
	return checkLicenceName(p.take(), false)
}

func checkLicenceName(w string, licence bool) error {
	name := w
	if licence {
		name = strings.TrimSuffix(name, "+") // or later
		if document, ref, ok := strings.Cut(name, ":"); ok {
			if !strings.HasPrefix(document, "DocumentRef-") || !strings.HasPrefix(ref, "LicenseRef-") {
				return fmt.Errorf("has %s; with a colon it is DocumentRef-NAME:LicenseRef-NAME", quote(w))
			}
			name = strings.TrimPrefix(document, "DocumentRef-") + ref
		}
	}
	switch w {
	case "":
		return errors.New("ends where a licence is expected")
	case "AND", "OR", "WITH":
		return fmt.Errorf("has %s where a licence is expected", w)
	}
	good := name != "" && len(name) <= 100
	for i := 0; good && i < len(name); i++ {
		c := name[i]
		good = c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '.'
	}
	if !good {
		return fmt.Errorf("has %s, which is no SPDX identifier such as Apache-2.0", quote(w))
	}
	return nil
}
