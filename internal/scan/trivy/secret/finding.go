//go:build goexperiment.jsonv2

package secret

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
)

// What a finding shows of the lines around it, as Trivy does: two above and one
// below, and of those that are longer than 100 bytes a part.
const (
	linesAbove  = 2
	linesBelow  = 1
	longestLine = 100
	bytesBefore = 30
	bytesBehind = 20
)

// blackOut puts asterisks in the place of a secret. Its lines remain.
func blackOut(secret []byte) {
	for i, c := range secret {
		if c != '\n' {
			secret[i] = '*'
		}
	}
}

// text is content in lines.
type text struct {
	content  []byte
	newlines []int // where they are
	before   int   // how many lines the file has before the content
}

func newText(content []byte, before int) *text {
	t := &text{content: content, before: before}
	for at := 0; ; {
		i := bytes.IndexByte(content[at:], '\n')
		if i < 0 {
			return t
		}
		t.newlines = append(t.newlines, at+i)
		at += i + 1
	}
}

// line is the number of the line that at is in, from 0 in the content.
func (t *text) line(at int) int { return sort.SearchInts(t.newlines, at) }

// bounds are where a line begins and where its newline is.
func (t *text) bounds(line int) (start, end int) {
	end = len(t.content)
	if line < len(t.newlines) {
		end = t.newlines[line]
	}
	if line > 0 {
		start = t.newlines[line-1] + 1
	}
	return start, end
}

// finding describes a match. Secrets in the text are blacked out already.
func (t *text) finding(m match) ftypes.SecretFinding {
	first, last := t.line(m.start), t.line(m.end)
	start, end := t.bounds(first)
	if end-start > longestLine {
		if m.start-bytesBefore >= start {
			start = m.start - bytesBefore
		}
		end = min(end, m.end+bytesBehind)
	}
	matched := plain(t.content[start:end])
	return ftypes.SecretFinding{
		RuleID: m.rule.ID, Category: m.rule.Category, Title: m.rule.Title,
		Severity:  cmp.Or(m.rule.Severity, "UNKNOWN"),
		StartLine: t.before + first + 1, EndLine: t.before + last + 1,
		Match: matched, Code: t.code(first, last, matched), Offset: m.start,
	}
}

// code is the lines of a match and those around it.
func (t *text) code(first, last int, matched string) (code ftypes.Code) {
	for n := max(0, first-linesAbove); n < min(last+linesBelow, len(t.newlines))+1; n++ {
		in := first <= n && n <= last
		start, end := t.bounds(n)
		var content string
		switch {
		case end-start <= longestLine:
			content = plain(t.content[start:end])
		case in:
			content = matched
		default:
			content = plain(t.content[start : start+longestLine])
		}
		code.Lines = append(code.Lines, ftypes.Line{
			Number: t.before + n + 1, Content: content, Highlighted: content,
			IsCause: in, FirstCause: n == first, LastCause: n == last,
		})
	}
	return code
}

// plain is text without carriage returns, and with U+FFFD for what isn't UTF-8.
func plain(b []byte) string {
	b = bytes.ReplaceAll(b, []byte("\r"), nil)
	if utf8.Valid(b) {
		return string(b)
	}
	return strings.ToValidUTF8(string(b), string(utf8.RuneError))
}

// unique leaves the first of findings of one rule at one place.
func unique(list []ftypes.SecretFinding) []ftypes.SecretFinding {
	type place struct {
		rule               string
		offset, start, end int
	}
	seen := make(map[place]bool, len(list))
	return slices.DeleteFunc(list, func(f ftypes.SecretFinding) bool {
		p := place{f.RuleID, f.Offset, f.StartLine, f.EndLine}
		if seen[p] {
			return true
		}
		seen[p] = true
		return false
	})
}

// order is Trivy's, and then that of the places.
func order(list []ftypes.SecretFinding) []ftypes.SecretFinding {
	slices.SortStableFunc(list, func(a, b ftypes.SecretFinding) int {
		return cmp.Or(cmp.Compare(a.RuleID, b.RuleID), cmp.Compare(a.Match, b.Match), cmp.Compare(a.Offset, b.Offset))
	})
	return list
}
