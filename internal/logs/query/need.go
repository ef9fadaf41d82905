package query

import (
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/mobileops/mobileops/internal/logs/match"
)

// maxLiterals bounds the literals of one Need: looking for more of them costs
// more than they save.
const maxLiterals = 64

// Need returns what the bytes (Raw) of every match contain.
//
// For texts it is what the patterns need. It is Exact only when the query is
// nothing but texts, which are looked for in Text: where that is less than Raw,
// as for the journal, what has the literals still has to be looked at.
//
// Fields give clauses only where their value is in the record in a form that
// is known: see Verbatim. Times, severities and negations give none.
func (q *Query) Need() match.Need { return q.NeedOf(Verbatim) }

// Verbatim reports whether formats take the value of a field from the bytes of
// the record, as they are or out of one of the encodings that Need knows: the
// escapes of JSON and of hexadecimal audit fields.
//
// That holds for pid, user and addr. No source knows them, so that a format
// has them from the record alone: process and user from one place of it, the
// text of a known message or the value of a JSON, logfmt, audit or journal
// field, and addresses by format.AppendAddrs, which reads the bytes as they
// are, or from audit's saddr. (In records that docker and CRI split, a seam
// comes after 16 KiB; no known message has a user that far from its beginning.)
//
// It does not hold for host (that of the collecting host stands in), unit and
// source (which may be named after a file), program ("kernel" is in no kernel
// message), message (joined of several records), severity and format. Fields
// that a format names itself are left out as well: there may be a seam in them.
func Verbatim(field string) bool {
	return field == fieldPID || field == fieldUser || field == fieldAddr
}

// NeedOf is Need for records of which more is known: verbatim says of which
// fields the value is in the record, for a given format and origin.
func (q *Query) NeedOf(verbatim func(field string) bool) match.Need {
	need := needOf(q.filter, verbatim)
	if count(need.Clauses) > maxLiterals {
		// Fewer clauses exclude less, and are still true.
		kept, total := need.Clauses[:0:0], 0
		for _, c := range need.Clauses {
			if total+len(c) <= maxLiterals {
				kept, total = append(kept, c), total+len(c)
			}
		}
		need = match.Need{Clauses: kept}
	}
	return need
}

func needOf(n node, verbatim func(string) bool) match.Need {
	switch n := n.(type) {
	case everything:
		return match.Need{Exact: true}
	case *text:
		return n.pattern.Need()
	case *comparison:
		if c := n.clause(verbatim); len(c) > 0 {
			return match.Need{Clauses: []match.Clause{c}}
		}
	case *and:
		need := match.Need{Exact: true}
		for _, x := range n.nodes {
			other := needOf(x, verbatim)
			need.Clauses = append(need.Clauses, other.Clauses...)
			need.Exact = need.Exact && other.Exact
		}
		return need
	case *or:
		return needOfEither(n.nodes, verbatim)
	}
	return match.Need{}
}

// needOfEither joins what the branches of an or need. (a and b) or c needs
// a or c, and b or c.
func needOfEither(nodes []node, verbatim func(string) bool) match.Need {
	var joined match.Need
	for i, n := range nodes {
		need := needOf(n, verbatim)
		if len(need.Clauses) == 0 {
			return match.Need{}
		}
		if i == 0 {
			joined = need
			continue
		}
		if len(joined.Clauses)*count(need.Clauses)+len(need.Clauses)*count(joined.Clauses) > maxLiterals {
			joined = match.Need{Clauses: []match.Clause{rarest(joined.Clauses)}}
			need = match.Need{Clauses: []match.Clause{rarest(need.Clauses)}}
		}
		product := match.Need{Exact: joined.Exact && need.Exact}
		for _, a := range joined.Clauses {
			for _, b := range need.Clauses {
				product.Clauses = append(product.Clauses, append(a[:len(a):len(a)], b...))
			}
		}
		if joined = product; count(joined.Clauses) > maxLiterals {
			return match.Need{}
		}
	}
	return joined
}

func count(clauses []match.Clause) int {
	n := 0
	for _, c := range clauses {
		n += len(c)
	}
	return n
}

// rarest is the clause whose shortest literal is longest.
func rarest(clauses []match.Clause) match.Clause {
	best, bestLength := clauses[0], -1
	for _, c := range clauses {
		shortest := len(c[0].Text)
		for _, l := range c {
			shortest = min(shortest, len(l.Text))
		}
		if shortest > bestLength {
			best, bestLength = c, shortest
		}
	}
	return best
}

// clause returns literals of which every record has one whose field is equal
// to one of the operands, or nil.
func (c *comparison) clause(verbatim func(string) bool) match.Clause {
	if c.op != opEqual && c.op != opContains || !verbatim(c.field) {
		return nil
	}
	var clause match.Clause
	for _, o := range c.operands {
		var own match.Clause
		switch {
		case o.kind == asAddress:
			own = addressClause(&o)
		case c.field == fieldPID:
			own = plainClause(o.text, false, false)
		case c.field == fieldAddr:
			// A part of the text of an address that may be written in another way.
		case o.glob != nil:
			longest := ""
			for _, piece := range o.glob {
				if len(piece) > len(longest) {
					longest = piece
				}
			}
			own = plainClause(longest, c.fold, true)
		case c.field == fieldUnit:
			own = plainClause(strings.TrimSuffix(o.text, ".service"), c.fold, true)
		default:
			own = plainClause(o.text, c.fold, true)
		}
		if own == nil {
			return nil
		}
		clause = append(clause, own...)
	}
	if len(clause) > maxLiterals {
		return nil
	}
	return clause
}

// escaped is in every record in which JSON escapes a character that it need
// not escape: "root" may be written "\u0072oot".
const escaped = `\u00`

// plainClause returns literals of which a record has one when it has a value.
// Only characters that no format has a reason to escape are believed to be
// there as they are. Even those can be escaped in JSON, and audit writes whole
// values in hexadecimal digits.
func plainClause(value string, fold, hexadecimal bool) match.Clause {
	if value == "" {
		return nil
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && strings.IndexByte("_.:-", c) < 0 {
			return nil
		}
	}
	clause := match.Clause{{Text: []byte(value), Fold: fold}, {Text: []byte(escaped)}}
	if fold {
		clause[0].Text = []byte(lower(value))
	}
	if hexadecimal {
		if fold && letters(value) {
			// root and Root have other digits. Half of each byte is the same,
			// but not as a literal.
			return nil
		}
		clause = append(clause, match.Literal{Text: []byte(hex.EncodeToString([]byte(value))), Fold: true})
	}
	return clause
}

func letters(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' })
}

// addressClause returns literals of which a record has one when it has a
// certain IPv4 address: in digits, in the hexadecimal ones of audit's saddr,
// or as the IPv6 address ::ffff:a00:1. Addresses stand alone: what has a letter
// or a digit right beside it is none to format.AppendAddrs. IPv6 addresses have
// too many ways of being written, and networks too many addresses.
func addressClause(o *operand) match.Clause {
	if o.from != o.to || !o.from.Is4() {
		return nil
	}
	b := o.from.As4()
	return match.Clause{
		{Text: []byte(netip.AddrFrom4(b).String()), Word: true},
		{Text: []byte(hex.EncodeToString(b[:])), Fold: true},
		{Text: []byte("ffff"), Fold: true, Word: true},
	}
}
