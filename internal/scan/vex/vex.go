// Package vex reads and writes OpenVEX documents: what somebody who knows a
// product says about whether a vulnerability concerns it.
//
// The format is OpenVEX 0.2.0 (https://github.com/openvex/spec), JSON-LD with the
// context https://openvex.dev/ns/v0.2.0. Parse reads a document that others wrote
// and refuses what cannot be relied on: a statement without a product, one that
// says "not_affected" without saying why, members that are there twice. Match
// picks the statement that speaks of a package on an asset. Encode writes a
// document; the same content always becomes the same bytes under the same @id.
//
// Members that are not known are passed over, as JSON-LD wants it.
package vex

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// Context is the @context of the documents that are read and written.
const Context = "https://openvex.dev/ns/v0.2.0"

// Limits of a document.
const (
	MaxSize       = 8 << 20 // bytes
	MaxDepth      = 16      // of nested objects and arrays; the format has 7
	MaxStatements = 50_000
	MaxProducts   = 10_000   // of one statement, and subcomponents of one product
	MaxText       = 16 << 10 // bytes of one text
	MaxAliases    = 64
)

// Status is what a statement says.
type Status string

// The statuses.
const (
	NotAffected        Status = "not_affected"
	Affected           Status = "affected"
	Fixed              Status = "fixed"
	UnderInvestigation Status = "under_investigation"
)

// Justification is why something is not affected.
type Justification string

// Justifications returns the words that the format has for it.
func Justifications() []Justification {
	return []Justification{
		"component_not_present", "vulnerable_code_not_present", "vulnerable_code_not_in_execute_path",
		"vulnerable_code_cannot_be_controlled_by_adversary", "inline_mitigations_already_exist",
	}
}

// Component is a piece of software, named by an IRI, which may be a package URL,
// by identifiers or by digests.
type Component struct {
	ID          string            `json:"@id,omitempty"`
	Identifiers map[string]string `json:"identifiers,omitempty"` // "purl", "cpe22", "cpe23"
	Hashes      map[string]string `json:"hashes,omitempty"`
}

// Product is what a statement is about; with subcomponents, only these of it.
type Product struct {
	Component
	Subcomponents []Component `json:"subcomponents,omitempty"`
}

// Vulnerability names what a statement is about.
type Vulnerability struct {
	ID          string   `json:"@id,omitempty"`
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	Aliases     []string `json:"aliases,omitempty"`
}

// Statement says how products stand to a vulnerability.
type Statement struct {
	ID              string        `json:"@id,omitempty"`
	Vulnerability   Vulnerability `json:"vulnerability"`
	Timestamp       time.Time     `json:"timestamp,omitzero"`
	LastUpdated     time.Time     `json:"last_updated,omitzero"`
	Products        []Product     `json:"products,omitempty"`
	Status          Status        `json:"status"`
	StatusNotes     string        `json:"status_notes,omitempty"`
	Justification   Justification `json:"justification,omitempty"`
	ImpactStatement string        `json:"impact_statement,omitempty"`
	ActionStatement string        `json:"action_statement,omitempty"`
}

// Document is a document of statements.
type Document struct {
	Context     string      `json:"@context"`
	ID          string      `json:"@id"`
	Author      string      `json:"author"`
	Role        string      `json:"role,omitempty"`
	Timestamp   time.Time   `json:"timestamp"`
	LastUpdated time.Time   `json:"last_updated,omitzero"`
	Version     int         `json:"version"`
	Tooling     string      `json:"tooling,omitempty"`
	Statements  []Statement `json:"statements"`
}

// Moment returns when a statement of the document was last known to be true: its
// own times, or those of the document.
func (d *Document) Moment(s *Statement) time.Time {
	if t := latest(s.Timestamp, s.LastUpdated); !t.IsZero() {
		return t
	}
	return latest(d.Timestamp, d.LastUpdated)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// ParseError says what is wrong with a document. It is a failure.Untrustworthy
// error.
type ParseError struct {
	Offset    int64  // byte within the document; -1: none in particular
	Statement int    // from 1; 0: none in particular
	Reason    string // what is wrong there
}

func (e *ParseError) Error() string {
	where := ""
	if e.Statement > 0 {
		where = fmt.Sprintf("statement %d: ", e.Statement)
	}
	if e.Offset >= 0 {
		where += fmt.Sprintf("byte %d: ", e.Offset)
	}
	return "no valid OpenVEX document: " + where + e.Reason
}

func wrong(offset int64, statement int, format string, args ...any) error {
	return failure.Wrap(failure.Untrustworthy, &ParseError{offset, statement, fmt.Sprintf(format, args...)})
}

// Parse reads a document. Its error is a *ParseError.
func Parse(data []byte) (*Document, error) {
	if len(data) > MaxSize {
		return nil, wrong(MaxSize, 0, "it is larger than %d bytes", MaxSize)
	}
	if err := examine(data); err != nil {
		return nil, err
	}
	var head struct {
		Context string `json:"@context"`
	}
	if err := json.Unmarshal(data, &head); err != nil || head.Context != Context {
		if !strings.HasPrefix(head.Context, "https://openvex.dev/ns") {
			return nil, wrong(-1, 0, "its @context is %q, not %q", clip(head.Context, 128), Context)
		}
		return nil, wrong(-1, 0, "it is of another version, %q, than the one that is understood, %q", clip(head.Context, 128), Context)
	}
	d := new(Document)
	if err := json.Unmarshal(data, d); err != nil {
		return nil, unmarshalError(err)
	}
	return d, d.Check()
}

func unmarshalError(err error) error {
	switch e := err.(type) {
	case *json.SyntaxError:
		return wrong(e.Offset, 0, "%v", e)
	case *json.UnmarshalTypeError:
		return wrong(e.Offset, 0, "%s cannot be a %s", clip(e.Field, 128), e.Value)
	case *time.ParseError:
		return wrong(-1, 0, "%q is no time as of RFC 3339", clip(e.Value, 64))
	}
	return wrong(-1, 0, "%s", clip(err.Error(), 256))
}

// Check names what a document must never be.
func (d *Document) Check() error {
	for _, f := range []struct{ what, text string }{{"@id", d.ID}, {"author", d.Author}} {
		if strings.TrimSpace(f.text) == "" {
			return wrong(-1, 0, "it has no %s", f.what)
		}
	}
	switch {
	case d.Timestamp.IsZero():
		return wrong(-1, 0, "it has no timestamp")
	case d.Version < 1:
		return wrong(-1, 0, "it has no version, which counts from 1")
	case len(d.Statements) == 0:
		return wrong(-1, 0, "it has no statements")
	case len(d.Statements) > MaxStatements:
		return wrong(-1, 0, "it has %d statements, more than %d", len(d.Statements), MaxStatements)
	}
	for i := range d.Statements {
		if reason := d.Statements[i].wrong(); reason != "" {
			return wrong(-1, i+1, "%s", reason)
		}
	}
	return nil
}

// wrong says what a statement lacks.
func (s *Statement) wrong() string {
	v := &s.Vulnerability
	if v.Name == "" && v.ID == "" {
		return "it names no vulnerability"
	}
	if len(v.Aliases) > MaxAliases {
		return fmt.Sprintf("its vulnerability has more than %d aliases", MaxAliases)
	}
	switch s.Status {
	case NotAffected:
		if s.Justification == "" && strings.TrimSpace(s.ImpactStatement) == "" {
			return "it says not_affected without a justification or an impact statement"
		}
	case Affected, Fixed, UnderInvestigation:
	default:
		return fmt.Sprintf("its status is %q", clip(string(s.Status), 64))
	}
	if s.Justification != "" && !slices.Contains(Justifications(), s.Justification) {
		return fmt.Sprintf("its justification is %q", clip(string(s.Justification), 64))
	}
	if len(s.Products) == 0 {
		return "it names no product"
	}
	if len(s.Products) > MaxProducts {
		return fmt.Sprintf("it has more than %d products", MaxProducts)
	}
	for i := range s.Products {
		p := &s.Products[i]
		if !p.named() {
			return fmt.Sprintf("product %d has no @id, identifiers or hashes", i+1)
		}
		if len(p.Subcomponents) > MaxProducts {
			return fmt.Sprintf("product %d has more than %d subcomponents", i+1, MaxProducts)
		}
		for j := range p.Subcomponents {
			if !p.Subcomponents[j].named() {
				return fmt.Sprintf("subcomponent %d of product %d has no @id, identifiers or hashes", j+1, i+1)
			}
		}
	}
	return ""
}

func (c *Component) named() bool {
	return c.ID != "" || len(c.Identifiers) > 0 || len(c.Hashes) > 0
}

// Names returns the names under which a statement's vulnerability is known.
func (v *Vulnerability) Names() []string {
	names := make([]string, 0, 2+len(v.Aliases))
	for _, n := range append([]string{v.Name, v.ID}, v.Aliases...) {
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

func clip(s string, limit int) string {
	if s = strings.ToValidUTF8(s[:min(len(s), limit+4)], "\ufffd"); len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "")
}
