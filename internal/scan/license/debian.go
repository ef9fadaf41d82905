package license

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// Limits of a copyright file of Debian. The largest that Debian has (chromium, linux)
// are below 2 MB.
const (
	maxDebianFile  = 8 << 20
	maxParagraphs  = 20_000
	maxDebianField = 1 << 20 // bytes
)

// DebianCopyright is /usr/share/doc/PACKAGE/copyright, or debian/copyright.
type DebianCopyright struct {
	// Machine says that the file is in the machine-readable format 1.0
	// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/, DEP-5).
	// Of other files only Copyright and Common are known.
	Machine   bool
	Upstream  string        // Upstream-Name
	Licenses  []*Expression // of the files, each once, in their order
	Copyright []string      // whose they are, each line once
	Common    []string      // the texts of /usr/share/common-licenses that it refers to: "GPL-2"
	// Texts are the names of licences whose text stands in the file itself.
	Texts []string
}

// Expression is the licence of the whole package: all that its files have. nil when
// the file does not say it in a way that a machine can read.
func (d *DebianCopyright) Expression() *Expression { return Join(And, d.Licenses...) }

// DebianError is a copyright file that can't be read.
type DebianError struct {
	Line    int // from 1
	Problem string
}

func (e *DebianError) Error() string {
	return fmt.Sprintf("copyright file of Debian: line %d: %s", e.Line, e.Problem)
}

// ParseDebian reads a copyright file. It is lenient, as the files are not checked by
// anybody: what it does not understand it leaves out. The error is a *DebianError
// when the limits are exceeded.
func ParseDebian(content []byte) (*DebianCopyright, error) {
	if len(content) > maxDebianFile {
		return nil, failure.Wrap(failure.Failed, &DebianError{1, fmt.Sprintf("larger than %d bytes", maxDebianFile)})
	}
	d := &DebianCopyright{Common: commonLicenses(content)}
	if !isMachine(content) {
		d.Copyright = freeCopyrights(content)
		return d, nil
	}
	d.Machine = true
	seen := map[string]bool{}
	owners := map[string]bool{}
	number, first := 0, true
	var fallback *Expression
	for p, err := range paragraphs(content) {
		if err != nil {
			return nil, failure.Wrap(failure.Failed, err)
		}
		if number++; number > maxParagraphs {
			return nil, failure.Wrap(failure.Failed, &DebianError{p.line, fmt.Sprintf("more than %d paragraphs", maxParagraphs)})
		}
		name, text, _ := strings.Cut(p.fields["license"], "\n")
		name = strings.TrimSpace(name)
		_, files := p.fields["files"]
		if first {
			d.Upstream = firstLine(p.fields["upstream-name"])
		}
		if strings.TrimSpace(text) != "" && name != "" && !slices.Contains(d.Texts, name) {
			d.Texts = append(d.Texts, name)
		}
		packaging := files && packagingOnly(p.fields["files"])
		if (files || first) && !packaging {
			for line := range strings.Lines(p.fields["copyright"]) {
				if line = strings.TrimSpace(line); line != "" && line != "." && len(d.Copyright) < maxCopyrightLines && len(line) <= 4*maxCopyrightLine && !owners[line] {
					owners[line] = true
					d.Copyright = append(d.Copyright, clip(line))
				}
			}
		}
		// The header may say what the whole is under; the files say it in detail. The
		// packaging is not what is installed, save where there is nothing else.
		switch {
		case name == "" || seen[name]:
		case files && !packaging:
			seen[name] = true
			d.Licenses = append(d.Licenses, debianName(name))
		case (files || first) && fallback == nil:
			fallback = debianName(name)
		}
		first = false
	}
	if len(d.Licenses) == 0 && fallback != nil {
		d.Licenses = append(d.Licenses, fallback)
	}
	return d, nil
}

// packagingOnly reports whether a list of patterns names nothing but debian/.
func packagingOnly(files string) bool {
	n := 0
	for f := range strings.FieldsSeq(strings.ReplaceAll(files, ",", " ")) {
		n++
		if !strings.HasPrefix(f, "debian/") {
			return false
		}
	}
	return n > 0
}

// debianName reads a License field's first line: names joined by and, or and with,
// where a comma before and or or makes the operator the weaker one.
func debianName(text string) *Expression {
	text = strings.Join(strings.Fields(text), " ")
	for _, word := range []string{", and ", ", or "} {
		if !strings.Contains(text, word) {
			continue
		}
		var parts []*Expression
		for part := range strings.SplitSeq(text, word) {
			parts = append(parts, ParseName(part))
		}
		if word == ", and " {
			return Join(And, parts...)
		}
		return Join(Or, parts...)
	}
	return ParseName(text)
}

func clip(line string) string {
	line = strings.Join(strings.Fields(line), " ")
	if len(line) > maxCopyrightLine {
		line = strings.ToValidUTF8(line[:maxCopyrightLine], "") + "…"
	}
	return line
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return clip(s)
}

// isMachine reports whether the first field is Format (or Format-Specification, as
// it was called before).
func isMachine(content []byte) bool {
	for line := range bytes.Lines(content[:min(len(content), 4096)]) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		return len(line) > 7 && bytes.EqualFold(line[:7], []byte("format:")) || len(line) > 21 && bytes.EqualFold(line[:21], []byte("format-specification:"))
	}
	return false
}

// paragraph is a group of fields: names in lower case, values with their lines.
type paragraph struct {
	line   int
	fields map[string]string
}

// paragraphs yields the paragraphs of a file in the syntax of Debian's control files.
func paragraphs(content []byte) func(func(paragraph, error) bool) {
	return func(yield func(paragraph, error) bool) {
		p := paragraph{line: 1, fields: map[string]string{}}
		var name string
		var value strings.Builder
		store := func() {
			if name != "" {
				if _, ok := p.fields[name]; !ok {
					p.fields[name] = strings.TrimSpace(value.String())
				}
			}
			name = ""
			value.Reset()
		}
		number := 0
		for raw := range bytes.Lines(content) {
			number++
			line := strings.TrimRight(UTF8(raw), "\r\n")
			if strings.TrimSpace(line) == "" {
				store()
				if len(p.fields) > 0 && !yield(p, nil) {
					return
				}
				p = paragraph{line: number + 1, fields: map[string]string{}}
				continue
			}
			switch {
			case line[0] == '#':
			case line[0] == ' ' || line[0] == '\t':
				if value.Len()+len(line) > maxDebianField {
					yield(p, &DebianError{number, fmt.Sprintf("a field of more than %d bytes", maxDebianField)})
					return
				}
				value.WriteString("\n" + strings.TrimSpace(line))
			default:
				store()
				key, first, ok := strings.Cut(line, ":")
				if !ok || len(key) > 100 || len(first) > maxDebianField {
					continue
				}
				name = strings.ToLower(strings.TrimSpace(key))
				value.WriteString(strings.TrimSpace(first))
			}
		}
		store()
		if len(p.fields) > 0 {
			yield(p, nil)
		}
	}
}

// commonLicenses returns the names of the texts in /usr/share/common-licenses that a
// file refers to.
func commonLicenses(content []byte) []string {
	const dir = "/usr/share/common-licenses/"
	var out []string
	for {
		i := bytes.Index(content, []byte(dir))
		if i < 0 || len(out) >= 50 {
			return out
		}
		content = content[i+len(dir):]
		n := 0
		for n < min(len(content), 40) && (isIdentifier(string(content[n])) && content[n] != ':' || content[n] == '_' || content[n] == '+') {
			n++
		}
		name := strings.TrimRight(string(content[:n]), ".-+_")
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
}

// freeCopyrights reads whose something is from a file without a format: lines that
// say it, and the names below a line "Copyright:" or "Copyright Holder:".
func freeCopyrights(content []byte) []string {
	out := Copyrights(content)
	content = content[:min(len(content), maxCopyrightText)]
	below := false
	for raw := range bytes.Lines(content) {
		if len(raw) > 4*maxCopyrightLine {
			below = false
			continue
		}
		line := UTF8(raw)
		trimmed := strings.TrimSpace(line)
		if h := strings.ToLower(strings.TrimRight(trimmed, ": ")); strings.HasSuffix(trimmed, ":") && (h == "copyright" || h == "copyright holder" || h == "copyright holders" || h == "copyrights") {
			below = true
			continue
		}
		if !below || trimmed == "" {
			continue
		}
		if line[0] != ' ' && line[0] != '\t' || strings.HasSuffix(trimmed, ":") {
			below = false
			continue
		}
		if s := clip(trimmed); len(out) < maxCopyrightLines && hasYear(s) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
