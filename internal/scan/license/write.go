package license

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// notFound is what stands in place of a text that the target does not have.
const notFound = "text not found in the target"

// omitted is what stands in place of a text that is too large.
const omitted = "the text is in the target and too large to be repeated here"

// WriteJSON writes the notice as one JSON document, which ParseAttribution reads.
func (n *Notice) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(n)
}

// WriteText writes the notice as a NOTICE file: each text once, after the packages
// that it belongs to and the lines that say whose they are. Equal targets give equal
// files.
func (n *Notice) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	line := strings.Repeat("=", 78)
	fmt.Fprintf(b, "NOTICE\n\nThis is third-party software in %s:\n%s.\n", printable(n.title()), n.Summary())
	credits := n.byName()
	for _, t := range n.Texts {
		fmt.Fprintf(b, "\n%s\n", line)
		for _, name := range t.Packages {
			fmt.Fprintf(b, "%s", printable(name))
			if c := credits[name]; c != nil && c.License != "" {
				fmt.Fprintf(b, " (%s)", printable(c.License))
			}
			b.WriteString("\n")
			if c := credits[name]; c != nil {
				for _, owner := range c.Copyright {
					fmt.Fprintf(b, "    %s\n", printable(owner))
				}
			}
		}
		if len(t.Packages) == 0 {
			for _, p := range t.Paths {
				fmt.Fprintf(b, "%s\n", printable(p))
			}
		}
		fmt.Fprintf(b, "%s\n\n", strings.Repeat("-", 78))
		if t.Omitted {
			fmt.Fprintf(b, "(%s: %s)\n", omitted, printable(strings.Join(t.Paths, ", ")))
			continue
		}
		b.WriteString(plainText(t.Text))
	}
	for i, c := range n.missing() {
		if i == 0 {
			fmt.Fprintf(b, "\n%s\nPackages without a text (%s)\n%s\n\n", line, notFound, strings.Repeat("-", 78))
		}
		fmt.Fprintf(b, "%s (%s)\n", printable(c.name()), printable(orNone(c.License)))
	}
	return b.Flush()
}

// WriteMarkdown writes the notice as Markdown: a table of packages, then the texts.
func (n *Notice) WriteMarkdown(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "# Third-party software in %s\n\n%s.\n\n", markdown(n.title()), n.Summary())
	number := map[string]int{}
	for i, t := range n.Texts {
		number[t.Digest] = i + 1
	}
	b.WriteString("| Package | Version | Licence | Copyright | Text |\n|---|---|---|---|---|\n")
	for _, c := range n.Packages {
		var links, owners []string
		for _, digest := range c.Texts {
			links = append(links, fmt.Sprintf("[%d](#text-%d)", number[digest], number[digest]))
		}
		for _, o := range c.Copyright {
			owners = append(owners, markdown(o))
		}
		if c.Missing {
			links = []string{notFound}
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", markdown(c.Package), markdown(c.Version), markdown(orNone(c.License)), strings.Join(owners, "<br>"), strings.Join(links, ", "))
	}
	for i, t := range n.Texts {
		fmt.Fprintf(b, "\n## Text %d\n\n", i+1)
		for _, name := range slices.Concat(t.Packages, t.Paths) {
			fmt.Fprintf(b, "- %s\n", markdown(name))
		}
		if t.Omitted {
			fmt.Fprintf(b, "\n%s.\n", omitted)
			continue
		}
		text := plainText(t.Text)
		fence := fenceFor(text)
		fmt.Fprintf(b, "\n%s\n%s%s\n", fence, text, fence)
	}
	return b.Flush()
}

// fenceFor returns a fence that the text does not close.
func fenceFor(text string) string {
	longest, run := 0, 0
	for _, r := range text {
		if r == '~' {
			run++
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	return strings.Repeat("~", max(3, longest+1))
}

func (n *Notice) title() string {
	if n.Image != "" {
		return n.Target + " (" + n.Image + ")"
	}
	return n.Target
}

func (n *Notice) byName() map[string]*Credit {
	out := map[string]*Credit{}
	for i := range n.Packages {
		if c := &n.Packages[i]; out[c.name()] == nil {
			out[c.name()] = c
		}
	}
	return out
}

func (n *Notice) missing() []Credit {
	var out []Credit
	for _, c := range n.Packages {
		if c.Missing {
			out = append(out, c)
		}
	}
	return out
}

func orNone(license string) string {
	if license == "" {
		return "no licence is named"
	}
	return license
}

// plainText returns a text with plain line ends, without signs that a terminal obeys,
// ending in a line end.
func plainText(text string) string {
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\f", "\n").Replace(text)
	text = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return harmless(r)
	}, text)
	return strings.TrimRight(text, "\n \t") + "\n"
}

// printable returns one line of a name that somebody else chose.
func printable(s string) string { return strings.Map(harmless, s) }

// harmless replaces control characters and marks that change the order of writing.
func harmless(r rune) rune {
	if unicode.IsControl(r) || '\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069' || r == '\u200e' || r == '\u200f' || r == '\u061c' {
		return unicode.ReplacementChar
	}
	return r
}

// markdown returns a name as text of a table's cell.
func markdown(s string) string {
	var b strings.Builder
	for _, r := range printable(s) {
		if strings.ContainsRune("\\`*_{}[]<>()#+!|&~", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
