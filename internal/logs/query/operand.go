package query

import (
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/spelling"
)

// value reads what a field is compared with: a word, or text between quotes,
// or both in a row. A star outside of quotes stands for any text. A byte of
// stop ends it too.
func (p *parser) value(stop string) (operand, error) {
	var (
		pieces []string
		piece  strings.Builder
		open   int
	)
	for !p.end() {
		c := p.src[p.pos]
		switch {
		case space(c) || c == '|' || c == ')' && open == 0 || strings.IndexByte(stop, c) >= 0:
			goto done
		case c == '"' || c == '\'' && piece.Len() == 0:
			s, err := p.quoted()
			if err != nil {
				return operand{}, err
			}
			piece.WriteString(s)
			continue
		case c == '\\':
			word := p.src[p.pos:min(p.pos+2, len(p.src))]
			s, err := p.unescape(p.pos, word)
			if err != nil {
				return operand{}, err
			}
			piece.WriteString(s)
			p.pos++
		case c == '*':
			pieces = append(pieces, piece.String())
			piece.Reset()
		case c == '(':
			open++
			piece.WriteByte(c)
		case c == ')':
			open--
			piece.WriteByte(c)
		default:
			piece.WriteByte(c)
		}
		p.pos++
	}
done:
	return pattern(pieces, piece.String()), nil
}

// flagValue reads the value of a flag, in which nothing but the star means
// anything, and \* is a star.
func (p *parser) flagValue() (operand, error) {
	if p.src == "" {
		return operand{}, p.fail(0, "a value is expected", "")
	}
	var pieces []string
	var piece strings.Builder
	for i := 0; i < len(p.src); i++ {
		switch c := p.src[i]; {
		case c == '\\' && strings.HasPrefix(p.src[i:], `\*`):
			piece.WriteByte('*')
			i++
		case c == '*':
			pieces = append(pieces, piece.String())
			piece.Reset()
		default:
			piece.WriteByte(c)
		}
	}
	return pattern(pieces, piece.String()), nil
}

// pattern makes an operand of the pieces before the stars and the one behind
// the last.
func pattern(pieces []string, last string) operand {
	if pieces == nil {
		return operand{text: last}
	}
	glob := pieces[:1:1]
	for _, s := range pieces[1:] {
		if s != "" { // stars in a row are one
			glob = append(glob, s)
		}
	}
	return operand{glob: append(glob, last)}
}

// operand reads the text of an operand as what the field is compared as.
func (p *parser) operand(at int, c *comparison, o *operand) error {
	ordered := c.op >= opLess && c.op <= opBetween
	if o.glob != nil {
		switch {
		case ordered:
			return p.fail(at, "a pattern has no order", "compare with one value, or write "+c.field+"=a*")
		case slices.Contains([]string{fieldTime, fieldPID, fieldSeverity, fieldClock}, c.field):
			return p.failf(at, "has("+c.field+") asks whether there is one", "%s takes no pattern", c.field)
		}
		return nil
	}
	switch p.kind(c.field) {
	case fieldTime:
		m, ok := moment(o.text, p.opts.Now, p.opts.Zone)
		if !ok {
			return p.failf(at, `times: 2026-05-01, "2026-05-01 14:30", 14:30, -1h, today; to find the text put all of it between quotes`,
				"%s is no time", quote(o.text))
		}
		o.kind, o.when = asTime, satisfying(c.op, m)
		return nil
	case fieldSeverity:
		level, ok := severityLevel(o.text)
		if !ok {
			hint := "severities, worst first: " + strings.Join(severityNames(), ", ")
			if s := spelling.Nearest(o.text, severityNames()); s != "" {
				hint = "did you mean " + s + "?"
			}
			return p.failf(at, hint, "%s is no severity", quote(o.text))
		}
		if ordered && len(o.text) == 1 {
			return p.failf(at, "severity>=err is err and worse; names: "+strings.Join(severityNames(), ", "),
				"by number the order of severities can be read in two ways")
		}
		o.kind, o.level = asSeverity, level
		return nil
	case fieldPID:
		n, ok := number(o.text)
		if !ok || n != math.Trunc(n) {
			return p.failf(at, "to find the text put all of it between quotes", "%s is no process id", quote(o.text))
		}
		o.kind, o.number = asNumber, n
		return nil
	case fieldAddr:
		if from, to, ok := addresses(o.text); ok {
			o.kind, o.from, o.to = asAddress, from, to
			return nil
		}
		if c.op == opContains {
			return nil
		}
		return p.failf(at, "write addr=10.0.0.1, addr=10.0.0.0/8, addr=2001:db8::/32 or addr=10.0.*", "%s is no network address", quote(o.text))
	case fieldClock:
		if !slices.Contains(clockNames(), o.text) {
			return p.failf(at, "clocks: "+strings.Join(clockNames(), ", "), "%s is no clock", quote(o.text))
		}
	}
	if !ordered {
		if _, _, ok := addresses(o.text); ok && c.op == opEqual && !known(c.field) && strings.Contains(o.text, "/") {
			o.kind = asAddress
			o.from, o.to, _ = addresses(o.text)
		}
		if n, ok := number(o.text); ok && p.columns != nil {
			o.kind, o.number, c.numeric = asNumber, n, true
		}
		return nil
	}
	if p.columns == nil && known(c.field) {
		return p.failf(at, c.field+"=a* and "+c.field+"~/a|b/ compare with patterns", "%s has no order", c.field)
	}
	if n, ok := quantity(o.text); ok {
		o.kind, o.number = asNumber, n
		return nil
	}
	if from, to, ok := addresses(o.text); ok && c.op == opBetween {
		o.kind, o.from, o.to = asAddress, from, to
		return nil
	}
	m, ok := moment(o.text, p.opts.Now, p.opts.Zone)
	if !ok {
		return p.failf(at, "numbers (500), sizes (10M), lengths of time (1.5s) and times (2026-05-01) have one", "%s has no order", quote(o.text))
	}
	o.kind, o.when = asTime, satisfying(c.op, m)
	return nil
}

// kind is the field that a field is compared as: a column of times is one of
// times, whatever its name.
func (p *parser) kind(field string) string {
	for _, c := range p.columns {
		if c.Name == field && c.Kind == Time {
			return fieldTime
		}
	}
	return field
}

// satisfying is the range of times that compare with a stretch in a way.
func satisfying(op operator, m stretch) stretch {
	switch op {
	case opLess:
		return stretch{math.MinInt64, m.first}
	case opLessEqual:
		return stretch{math.MinInt64, m.last}
	case opGreater:
		return stretch{m.last, math.MaxInt64}
	case opGreaterEqual:
		return stretch{m.first, math.MaxInt64}
	}
	return m
}

// joinEnds makes a range of its two ends, which were read one by one.
func (p *parser) joinEnds(at int, c *comparison) error {
	a, b := &c.operands[0], &c.operands[1]
	switch {
	case a.open && b.open:
		return p.fail(at, "a range has at least one end", "has("+c.field+") asks whether there is a value")
	case a.open:
		a.kind = b.kind
	case b.open:
		b.kind = a.kind
	case a.kind != b.kind:
		return p.failf(at, "", "%s and %s do not compare", quote(a.text), quote(b.text))
	}
	switch a.kind {
	case asTime:
		if a.open {
			a.when.first = math.MinInt64
		}
		if b.open {
			b.when.last = math.MaxInt64
		}
		if !a.open && !b.open && a.when.first >= b.when.last {
			return p.failf(at, "", "the range ends before it begins")
		}
		a.when = stretch{a.when.first, b.when.last}
		b.when = a.when
	case asAddress:
		// Addresses of the other family are in no range: see operand.holds.
		if a.open {
			a.from = netip.IPv4Unspecified()
			if b.to.Is6() {
				a.from = netip.IPv6Unspecified()
			}
		}
		if b.open {
			b.to = lastAddress(a.from)
		}
		if a.from.Is4() != b.to.Is4() || b.to.Less(a.from) {
			return p.failf(at, "", "the range ends before it begins")
		}
		a.to, b.from = b.to, a.from
	case asSeverity:
		if a.open {
			a.level = 0
		}
		if b.open {
			b.level = 7
		}
		if a.level > b.level {
			a.level, b.level = b.level, a.level // [err..debug] has one meaning only
		}
	case asNumber:
		if a.open {
			a.number = math.Inf(-1)
		}
		if b.open {
			b.number = math.Inf(1)
		}
		if a.number > b.number {
			return p.failf(at, "", "the range ends before it begins")
		}
	}
	return nil
}

// addresses reads an address or a network.
func addresses(s string) (from, to netip.Addr, ok bool) {
	if prefix, err := netip.ParsePrefix(s); err == nil {
		from = prefix.Masked().Addr()
		if from.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(from.Unmap(), prefix.Bits()-96)
			from = from.Unmap()
		}
		return from, lastOf(prefix), true
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, a, false
	}
	a = a.WithZone("").Unmap()
	return a, a, true
}

// lastOf is the last address of a network.
func lastOf(prefix netip.Prefix) netip.Addr {
	b := prefix.Masked().Addr().AsSlice()
	for i := prefix.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func lastAddress(like netip.Addr) netip.Addr {
	return lastOf(netip.PrefixFrom(like, 0))
}
