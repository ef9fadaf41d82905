package export

import (
	"bufio"
	"encoding/xml"
)

// XML writes elements, one to a line. The bufio.Writer below it keeps the first
// error.
type XML struct{ *bufio.Writer }

// Open writes a start tag with attributes, which are names and values in turn, or the
// tag of an element that ends with it.
func (x XML) Open(indent, name string, closed bool, attrs ...string) {
	_, _ = x.WriteString(indent)
	x.tag(name, attrs)
	if closed {
		_, _ = x.WriteString("/>\n")
		return
	}
	_, _ = x.WriteString(">\n")
}

// Text writes an element that holds a text alone.
func (x XML) Text(indent, name, text string, attrs ...string) {
	_, _ = x.WriteString(indent)
	x.tag(name, attrs)
	_ = x.WriteByte('>')
	_ = xml.EscapeText(x, []byte(text))
	_, _ = x.WriteString("</" + name + ">\n")
}

// Close writes an end tag.
func (x XML) Close(indent, name string) {
	_, _ = x.WriteString(indent + "</" + name + ">\n")
}

func (x XML) tag(name string, attrs []string) {
	_, _ = x.WriteString("<" + name)
	for i := 0; i < len(attrs); i += 2 {
		_, _ = x.WriteString(" " + attrs[i] + `="`)
		_ = xml.EscapeText(x, []byte(attrs[i+1]))
		_ = x.WriteByte('"')
	}
}
