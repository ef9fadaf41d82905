package license

import (
	"bytes"
	"path"
	"strings"
)

// tagBytes is how far from its beginning a file's tag is looked for.
const tagBytes = 16 << 10

// Tag returns what the line "SPDX-License-Identifier: EXPRESSION" of a file says
// (annex E of SPDX 2.3), nil when it has none of which all licences are known. Only
// the signs of comments may stand before it, so that a text about such lines is not
// taken for one. Several lines all apply.
func Tag(content []byte) *Expression {
	content = content[:min(len(content), tagBytes)]
	const word = "SPDX-License-Identifier:"
	var found []*Expression
	for len(found) < 20 {
		i := bytes.Index(content, []byte(word))
		if i < 0 {
			break
		}
		before := content[bytes.LastIndexByte(content[:i], '\n')+1 : i]
		rest, _, _ := bytes.Cut(content[i+len(word):], []byte("\n"))
		content = content[i+len(word):]
		if strings.Trim(string(before), " \t/*#;%!<>-\"'.@|{(") != "" && !strings.EqualFold(strings.TrimSpace(string(before)), "rem") && strings.TrimSpace(string(before)) != "dnl" {
			continue
		}
		text := string(rest)
		for _, end := range []string{"*/", "-->", "#}", "\""} {
			text, _, _ = strings.Cut(text, end)
		}
		e, err := Parse(strings.TrimSpace(text))
		if err != nil {
			continue
		}
		for _, l := range e.Licenses() {
			if !l.Known {
				e = nil
				break
			}
		}
		found = append(found, e)
	}
	return Join(And, found...)
}

// CommonLicense returns the licence whose text a file of Debian's
// /usr/share/common-licenses is, nil when it isn't one.
func CommonLicense(name string) *Expression {
	dir, base := path.Split(name)
	if !strings.HasSuffix(strings.TrimSuffix(dir, "/"), "usr/share/common-licenses") {
		return nil
	}
	return known(base)
}
