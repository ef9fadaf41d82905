package match

import (
	"errors"
	"regexp/syntax"
	"slices"
)

var errNewline = errors.New("a newline in the pattern: matches do not span lines")

// oneLine changes an expression so that no match of it spans a newline, as grep
// and ripgrep understand expressions: the newline is taken out of all classes,
// and the beginning and end of the text are those of the line. An expression
// that asks for a newline is an error.
func oneLine(re *syntax.Regexp) error {
	switch re.Op {
	case syntax.OpLiteral:
		if slices.Contains(re.Rune, '\n') {
			return errNewline
		}
	case syntax.OpCharClass:
		var runes []rune
		for i := 0; i+1 < len(re.Rune); i += 2 {
			lo, hi := re.Rune[i], re.Rune[i+1]
			if lo > '\n' || hi < '\n' {
				runes = append(runes, lo, hi)
				continue
			}
			if lo < '\n' {
				runes = append(runes, lo, '\n'-1)
			}
			if hi > '\n' {
				runes = append(runes, '\n'+1, hi)
			}
		}
		re.Rune = runes
		if len(runes) == 0 {
			re.Op = syntax.OpNoMatch
		}
	case syntax.OpAnyChar:
		re.Op = syntax.OpAnyCharNotNL
	case syntax.OpBeginText:
		re.Op = syntax.OpBeginLine
	case syntax.OpEndText:
		re.Op = syntax.OpEndLine
		re.Flags &^= syntax.WasDollar
	}
	for _, sub := range re.Sub {
		if err := oneLine(sub); err != nil {
			return err
		}
	}
	return nil
}
