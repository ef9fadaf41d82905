package policy

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/blake3"
)

// Encode returns the canonical YAML of the policy: one form for each policy,
// whatever file it came from. Parse of it gives an Equal policy.
func (p *Policy) Encode() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nname: %s\n", quote(p.Name))
	if p.Description != "" {
		fmt.Fprintf(&b, "description: %s\n", quote(p.Description))
	}
	b.WriteString("paths:\n")
	for _, path := range p.Paths {
		fmt.Fprintf(&b, "  - %s\n", quote(escapeName(path)))
	}
	fmt.Fprintf(&b, "cross_filesystems: %t\n", p.CrossFilesystems)
	b.WriteString("defaults:\n")
	encodeRule(&b, "  ", p.Default)
	if len(p.Rules) > 0 {
		b.WriteString("rules:\n")
	}
	for _, r := range p.Rules {
		if r.Exclude {
			fmt.Fprintf(&b, "  - %s\n", quote("!"+r.Pattern))
			continue
		}
		fmt.Fprintf(&b, "  - path: %s\n", quote(r.Pattern))
		encodeRule(&b, "    ", r)
	}
	return []byte(b.String())
}

// encodeRule writes what the rule decides.
func encodeRule(b *strings.Builder, indent string, r Rule) {
	attrs := "none"
	if r.Attrs != 0 {
		attrs = strings.Join(r.Attrs.Names(), ", ")
	}
	fmt.Fprintf(b, "%sattributes: [%s]\n%sseverity: %v\n", indent, attrs, indent, r.Severity)
	if r.Growing {
		fmt.Fprintf(b, "%sclass: growing\n", indent)
	}
}

// quote returns s as a double-quoted YAML scalar on one line (YAML 1.2.2,
// section 7.3.1). The form does not depend on a YAML library, so that digests
// stay the same when that is updated.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c != utf8.RuneError && unicode.IsPrint(c):
			b.WriteRune(c)
		case c > 0xffff:
			fmt.Fprintf(&b, "\\U%08x", c)
		default:
			fmt.Fprintf(&b, "\\u%04x", c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Digest returns the BLAKE3 of Encode.
func (p *Policy) Digest() [32]byte { return blake3.Sum256(p.Encode()) }
