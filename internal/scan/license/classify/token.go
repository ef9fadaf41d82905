package classify

import (
	"bytes"
	"html"
	"unicode"
	"unicode/utf8"
)

// token splits a file into words as the classifier does, in its two passes: one
// that drops punctuation (Normalize) and one over its result (Match). It may give
// words that the classifier drops, such as those of copyright lines, and must give
// every word that it does not drop; FuzzWords compares.
type token struct {
	raw     []byte // the word so far, in lower case after its first rune
	letters []byte
}

// words calls yield for each word that is not a number. It returns false when the
// content has something of which only the classifier knows what it becomes.
func (t *token) words(content []byte, yield func(word []byte)) (sure bool) {
	if !wholeEnd(content) {
		return false
	}
	sure = true
	raw := t.raw[:0]
	// joining: a line ended in a hyphen, and the rest of the word stands on the next.
	joining := false
	flush := func(endOfLine bool) {
		if !t.flush(raw, endOfLine, yield) {
			sure = false
		}
		raw = raw[:0]
	}
	for i := 0; i < len(content); {
		r, n := rune(content[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(content[i:])
		}
		i += n
		switch {
		case r == '\n':
			if len(raw) == 0 {
				continue
			}
			if raw[len(raw)-1] == '-' {
				raw = raw[:len(raw)-1]
				joining = true
				continue
			}
			flush(true)
		case len(raw) == 0:
			if startsWord(r) {
				raw = utf8.AppendRune(raw, r)
			}
		case isSpace(r):
			if !joining {
				flush(false)
			}
		default:
			joining = false
			raw = appendMapped(raw, r)
		}
	}
	if len(raw) > 0 {
		flush(true)
	}
	t.raw = raw
	return sure
}

// wholeEnd reports whether the content does not end within a rune. What the
// classifier makes of such a one depends on what its buffer held before.
func wholeEnd(content []byte) bool {
	for n := 1; n <= min(utf8.UTFMax, len(content)); n++ {
		if b := content[len(content)-n]; utf8.RuneStart(b) {
			return utf8.FullRune(content[len(content)-n:])
		}
	}
	return true
}

func startsWord(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '&' || r == '('
	}
	return unicode.IsLetter(r) || unicode.IsDigit(r)
}

func isSpace(r rune) bool {
	if r < utf8.RuneSelf {
		return r == ' ' || '\t' <= r && r <= '\r'
	}
	return unicode.IsSpace(r)
}

// appendMapped appends a rune that is not the first of its word.
func appendMapped(raw []byte, r rune) []byte {
	if r < utf8.RuneSelf {
		switch {
		case 'A' <= r && r <= 'Z':
			r += 'a' - 'A'
		case r == '*':
			r = ' '
		}
		return append(raw, byte(r))
	}
	switch r {
	case '‒', '–', '—', '‐':
		return append(raw, '-')
	case '©':
		return append(raw, "(c)"...)
	case '§', '¤':
		return append(raw, "(s)"...)
	case '·':
		return append(raw, ' ')
	}
	return utf8.AppendRune(raw, unicode.ToLower(r))
}

// flush gives the word that raw becomes, if any.
func (t *token) flush(raw []byte, endOfLine bool, yield func([]byte)) (sure bool) {
	word := raw
	if bytes.IndexByte(word, '&') >= 0 {
		word = []byte(html.UnescapeString(string(word)))
	}
	word = plainHTTP(word)
	if r, _ := utf8.DecodeRune(word); unicode.IsDigit(r) {
		return !endOfLine || !endsInHyphen(word)
	}
	t.letters = t.letters[:0]
	for i := 0; i < len(word); {
		r, n := rune(word[i]), 1
		if r < utf8.RuneSelf {
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			if 'a' <= r && r <= 'z' {
				t.letters = append(t.letters, byte(r))
			}
		} else {
			if r, n = utf8.DecodeRune(word[i:]); unicode.IsLetter(r) {
				t.letters = utf8.AppendRune(t.letters, unicode.ToLower(r))
			}
		}
		i += n
	}
	if len(t.letters) > 0 {
		yield(sameWord(plainHTTP(t.letters)))
	}
	return true
}

// endsInHyphen reports whether a number, of which digits, dots and hyphens stay,
// ends in a hyphen: at the end of a line, the next pass joins it with what follows.
func endsInHyphen(word []byte) bool {
	last := byte(0)
	for _, c := range word {
		if '0' <= c && c <= '9' || c == '-' || c >= utf8.RuneSelf {
			last = c
		}
	}
	return last == '-'
}

// plainHTTP writes https as http: which of them a link has says nothing.
func plainHTTP(word []byte) []byte {
	if !bytes.Contains(word, []byte("https")) {
		return word
	}
	return bytes.ReplaceAll(word, []byte("https"), []byte("http"))
}

// sameWord returns the spelling that stands for all spellings of a word.
func sameWord(word []byte) []byte {
	if w, ok := spellings[string(word)]; ok {
		return []byte(w)
	}
	return word
}

// spellings are the words that the classifier takes for others: guideline 8 of
// matching licences of SPDX (varietal word spelling), as far as it follows that.
var spellings = map[string]string{
	"analyse": "analyze", "artefact": "artifact", "authorisation": "authorization", "authorised": "authorized",
	"calibre": "caliber", "cancelled": "canceled", "capitalisations": "capitalizations", "catalogue": "catalog",
	"categorise": "categorize", "centre": "center", "emphasised": "emphasized", "favour": "favor",
	"favourite": "favorite", "fulfil": "fulfill", "fulfilment": "fulfillment", "https": "http",
	"initialise": "initialize", "judgment": "judgement", "labelling": "labeling", "labour": "labor",
	"licence": "license", "maximise": "maximize", "modelled": "modeled", "modelling": "modeling",
	"offence": "offense", "optimise": "optimize", "organisation": "organization", "organise": "organize",
	"practise": "practice", "programme": "program", "realise": "realize", "recognise": "recognize",
	"signalling": "signaling", "utilisation": "utilization", "whilst": "while", "wilful": "wilfull",
}
