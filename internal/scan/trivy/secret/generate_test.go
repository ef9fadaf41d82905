//go:build goexperiment.jsonv2

package secret

import (
	"math/rand/v2"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// generator writes text that expressions match, so that no secret, not even a made
// up one, stands in this repository.
type generator struct{ *rand.Rand }

func (g generator) sample(expression string) string {
	re, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		panic(err)
	}
	var b strings.Builder
	g.write(&b, re)
	return b.String()
}

func (g generator) write(b *strings.Builder, re *syntax.Regexp) {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			if re.Flags&syntax.FoldCase != 0 && g.IntN(2) == 0 {
				r = []rune(strings.ToLower(string(r)))[0]
			}
			b.WriteRune(r)
		}
	case syntax.OpCharClass:
		var ascii []rune
		for i := 0; i < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1] && r < utf8.RuneSelf; r++ {
				if r >= ' ' || r == '\n' || r == '\r' || r == '\t' {
					ascii = append(ascii, r)
				}
			}
		}
		switch {
		case len(re.Rune) > 0 && re.Rune[len(re.Rune)-1] > 0xff && g.IntN(8) == 0 && re.Rune[len(re.Rune)-1] > 0x2200:
			b.WriteRune('é')
		default:
			b.WriteRune(ascii[g.IntN(len(ascii))])
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteString([]string{".", " ", "=", "é", "\xff", ".", "."}[g.IntN(7)])
	case syntax.OpCapture:
		g.write(b, re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			g.write(b, sub)
		}
	case syntax.OpAlternate:
		g.write(b, re.Sub[g.IntN(len(re.Sub))])
	case syntax.OpQuest:
		if g.IntN(2) == 0 {
			g.write(b, re.Sub[0])
		}
	case syntax.OpStar, syntax.OpPlus, syntax.OpRepeat:
		least, most := 0, re.Max
		switch re.Op {
		case syntax.OpPlus:
			least, most = 1, -1
		case syntax.OpStar:
			most = -1
		default:
			least = re.Min
		}
		if most < 0 {
			most = least + []int{0, 1, 3, 40}[g.IntN(4)]
		}
		for range least + g.IntN(most-least+1) {
			g.write(b, re.Sub[0])
		}
	}
}

// pieces are what noise is made of: code, half secrets, words of rules.
var pieces = []string{
	"func main() {", "return key, nil", "}", "// example of a key", "password = ", "aws_secret", "AWS_ACCESS_KEY_ID=", "-----", "-----BEGIN RSA ", "PRIVATE KEY-----", "sk", "SK", "task SKip", "global blob lob", "linear", ".eyJ", "live_", "test_", "hf_", "ek_",
	"\"", "'", " ", "  ", "\t", ":", "=", ":=", "=>", "_", ".", ",", ";", "0123456789abcdef", "ABCDEF", "EXAMPLE", "xkeysib-", "github_pat_", "npm_", "facebook: ", "twitter=", "heroku", "sv=", "&sig=", "é", "日本語", "\xff\xfe", "\x80", "\r", "\x7f", "settings", "pk.", "SG.", "dapi", "8Q~", "T3BlbkFJ",
}

// noise is about n bytes of text in lines.
func (g generator) noise(n int, end string) string {
	var b strings.Builder
	for b.Len() < n {
		switch g.IntN(12) {
		case 0:
			b.WriteString(end)
		case 1:
			if g.IntN(20) == 0 {
				b.WriteString(strings.Repeat(pieces[g.IntN(len(pieces))], 40)) // a long line
			}
		default:
			b.WriteString(pieces[g.IntN(len(pieces))])
		}
	}
	return b.String()
}

// spoil changes a sample so that it may match no more.
func (g generator) spoil(s string) string {
	if s == "" {
		return s
	}
	i := g.IntN(len(s))
	switch g.IntN(4) {
	case 0:
		return s[:i] + s[i+1:]
	case 1:
		return s[:i] + "-" + s[i:]
	case 2:
		return s[:i] + "example" + s[i:]
	default:
		return s[:i]
	}
}
