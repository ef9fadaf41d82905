package vex

import "strings"

// Query asks what statements say about a package on an asset.
type Query struct {
	Vulnerabilities []string // its id and aliases
	// Products are names of the asset: IRIs, package URLs such as that of an image,
	// digests.
	Products []string
	Package  string // package URL with version; "": not known
}

// Matches reports whether a statement speaks of what the query asks for. A product
// matches when it is the asset, and either it has no subcomponents or one of them
// is the package; or when it is the package itself.
func (s *Statement) Matches(q *Query) bool {
	if !s.Vulnerability.is(q.Vulnerabilities) {
		return false
	}
	for i := range s.Products {
		p := &s.Products[i]
		if p.isOne(q.Products) {
			if len(p.Subcomponents) == 0 {
				return true
			}
			for j := range p.Subcomponents {
				if p.Subcomponents[j].is(q.Package) {
					return true
				}
			}
		} else if len(p.Subcomponents) == 0 && p.is(q.Package) {
			return true
		}
	}
	return false
}

func (v *Vulnerability) is(ids []string) bool {
	for _, name := range v.Names() {
		for _, id := range ids {
			if strings.EqualFold(name, id) {
				return true
			}
		}
	}
	return false
}

func (c *Component) isOne(names []string) bool {
	for _, n := range names {
		if c.is(n) {
			return true
		}
	}
	return false
}

// is reports whether the component is what a name, an IRI or a package URL,
// stands for.
func (c *Component) is(name string) bool {
	if name == "" {
		return false
	}
	if c.ID == name {
		return true
	}
	for _, h := range c.Hashes {
		if strings.EqualFold(h, name) {
			return true
		}
	}
	q, isPURL := parsePURL(name)
	for _, id := range append([]string{c.ID}, values(c.Identifiers)...) {
		if id == name {
			return true
		}
		if p, ok := parsePURL(id); ok && isPURL && p.covers(&q) {
			return true
		}
	}
	return false
}

func values(m map[string]string) (list []string) {
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

// Match returns the newest statement of the documents that speaks of what the
// query asks for, and the document that it is in; nil when none does. Of
// statements of the same moment the one that stands later counts.
func Match(documents []*Document, q Query) (*Document, *Statement) {
	var from *Document
	var found *Statement
	for _, d := range documents {
		for i := range d.Statements {
			s := &d.Statements[i]
			if (found == nil || !d.Moment(s).Before(from.Moment(found))) && s.Matches(&q) {
				from, found = d, s
			}
		}
	}
	return from, found
}
