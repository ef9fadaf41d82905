package ledger

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/vex"
	"github.com/mobileops/mobileops/internal/state"
)

// ExportVEX writes an OpenVEX document about the vulnerabilities of an asset, as
// they stand at now. The same ledger becomes the same document, under the same @id:
//
//   - what a VEX statement excludes is told as it says, and who said so;
//   - what is waived is affected, with the reason of the waiver as the action;
//   - what is open and has a fix is affected, with the update as the action;
//   - what is open and has none is under investigation;
//   - what is resolved is fixed in the versions that mend it. Where none is known it
//     is left out: the package may have gone, or the advisory, and another version
//     of it can be somewhere else.
func (l Ledger) ExportVEX(tx *state.Tx, asset, author, tooling string, now time.Time) ([]byte, error) {
	if strings.TrimSpace(author) == "" {
		return nil, fmt.Errorf("%w: a VEX document needs an author", ErrInvalid)
	}
	s, err := find(tx, asset)
	if err != nil {
		return nil, err
	}
	items, err := l.List(tx, Filter{Asset: asset, Classes: []Class{Vulnerability}}, now)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, failure.Errorf(failure.No, "no vulnerability was ever found on %s, so there is nothing to state", asset)
	}
	product := vex.Product{Component: vex.Component{ID: assetIRI(asset)}}
	for _, p := range s.about.Products {
		if strings.HasPrefix(p, "pkg:") {
			product.Identifiers = map[string]string{"purl": p}
			break
		}
	}
	doc := vex.Document{Author: author, Tooling: tooling, Role: "operator", Timestamp: s.about.Latest, Version: 1}
	for n := range items {
		if items[n].State != Resolved || len(items[n].Fixed) > 0 {
			doc.Statements = append(doc.Statements, items[n].statement(product))
		}
	}
	if len(doc.Statements) == 0 {
		return nil, failure.Errorf(failure.No, "what was found on %s is gone, and no version is known that mends it, so there is nothing to state", asset)
	}
	return doc.Encode()
}

// statement is what is to be said about an item on a product.
func (i *Item) statement(product vex.Product) vex.Statement {
	s := vex.Statement{
		Vulnerability: vex.Vulnerability{Name: i.ID, Aliases: slices.DeleteFunc(slices.Clone(i.Aliases), func(a string) bool { return a == i.ID })},
		Timestamp:     i.FirstSeen,
	}
	if len(s.Vulnerability.Aliases) > vex.MaxAliases {
		s.Vulnerability.Aliases = s.Vulnerability.Aliases[:vex.MaxAliases]
	}
	purls := i.PURLs
	if i.State == Resolved {
		purls = inVersions(purls, i.Fixed)
	}
	for _, p := range purls {
		product.Subcomponents = append(product.Subcomponents, vex.Component{ID: p})
	}
	if len(purls) == 0 {
		product.Subcomponents = []vex.Component{{ID: assetIRI(i.Ecosystem + "/" + i.Subject)}}
	}
	s.Products = []vex.Product{product}
	fix := strings.Join(i.Fixed, ", ")
	switch i.State {
	case NotAffected, Fixed:
		if v := i.VEX; v != nil {
			s.Status, s.Justification, s.ImpactStatement, s.Timestamp = vex.Status(v.Status), vex.Justification(v.Justification), v.Impact, v.At
			s.StatusNotes = "stated by " + v.Author + " in " + v.Document
		}
	case Waived:
		s.Status = vex.Affected
		if w := i.Waiver; w != nil {
			s.ActionStatement = fmt.Sprintf("accepted until %s on the responsibility of %s: %s", w.Until.Format(time.DateOnly), w.Owner, w.Reason)
		}
	case Resolved:
		s.Status, s.Timestamp = vex.Fixed, i.ResolvedAt
	default:
		if s.Timestamp = later(i.FirstSeen, i.ReopenedAt); fix == "" {
			s.Status = vex.UnderInvestigation
			s.StatusNotes = "found by a scan; no fixed version is known"
		} else {
			s.Status = vex.Affected
			s.ActionStatement = fmt.Sprintf("update %s from %s to %s", i.Package, strings.Join(i.Installed, ", "), fix)
		}
	}
	return s
}

// inVersions returns package URLs with other versions, and without qualifiers.
func inVersions(purls, versions []string) (list []string) {
	for _, p := range purls {
		p, _, _ = strings.Cut(p, "#")
		p, _, _ = strings.Cut(p, "?")
		if at := strings.LastIndexByte(p, '@'); at > 0 && p[at-1] != '/' {
			p = p[:at]
		}
		for _, v := range versions {
			// Package URL specification, "Character encoding": a colon stays as it is.
			list = append(list, p+"@"+strings.ReplaceAll(url.PathEscape(v), "%3A", ":"))
		}
	}
	return sorted(list)
}
