package query

import "strings"

// Complete returns what the beginning of an expression can go on as, for the
// Tab key: each one is the whole expression as typed, with its last word
// completed to a field, a function, a stage or a value.
func Complete(prefix string) []string {
	if len(prefix) > maxLength {
		return nil
	}
	start, stage := 0, ""
	quote := byte(0)
	inStage := false
	for i := 0; i < len(prefix); i++ {
		switch c := prefix[i]; {
		case quote != 0:
			if c == '\\' {
				i++
			} else if c == quote {
				quote = 0
			}
		case (c == '"' || c == '\'') && i == start:
			quote = c
		case c == '|':
			start, stage, inStage = i+1, "", true
		case space(c) || c == '(' || c == ',' || c == '-' && i == start:
			if inStage && stage == "" {
				stage = strings.TrimSpace(prefix[start:i])
			}
			start = i + 1
		}
	}
	if quote != 0 {
		return nil
	}
	word := prefix[start:]
	var candidates []string
	switch {
	case inStage && stage == "":
		for _, s := range stageNames() {
			candidates = append(candidates, s+" ")
		}
	case inStage && stage == "stats":
		for _, f := range statNames() {
			candidates = append(candidates, f+"(")
		}
		candidates = append(append(candidates, "by "), FieldNames()...)
	case inStage && stage != "where":
		candidates = append(FieldNames(), "count")
	default:
		if name, _, ok := strings.Cut(word, "="); ok {
			var values []string
			switch strings.TrimRight(name, "<>!") {
			case fieldSeverity:
				values = severityNames()
			case fieldClock:
				values = clockNames()
			}
			for _, v := range values {
				candidates = append(candidates, name+"="+v)
			}
			break
		}
		for _, f := range FieldNames() {
			candidates = append(candidates, f+"=")
		}
		candidates = append(candidates, "has(")
	}
	var list []string
	for _, c := range candidates {
		if strings.HasPrefix(c, word) && c != word {
			list = append(list, prefix[:start]+c)
		}
	}
	return list
}
