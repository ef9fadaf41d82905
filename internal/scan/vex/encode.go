package vex

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/blake3"
)

// IDPrefix begins the @id of documents that are written here; the digest of the
// rest of the document follows.
const IDPrefix = "urn:mobileops:vex:"

// idContext separates the digests of documents from other uses of BLAKE3.
const idContext = "mobileops 2026 openvex document v1"

// Encode completes a document and returns its bytes, indented, with a newline at
// the end. Statements are sorted by vulnerability, product and status, times are
// in UTC with whole seconds, and the @id follows from everything else. Of a
// not_affected statement that has both, the justification stays and the impact
// statement moves to the notes, as the JSON schema of the format wants it.
func (d Document) Encode() ([]byte, error) {
	d.Context, d.ID = Context, ""
	d.Version = max(d.Version, 1)
	d.Timestamp, d.LastUpdated = seconds(d.Timestamp), seconds(d.LastUpdated)
	d.Statements = slices.Clone(d.Statements)
	keys := make(map[*Statement]string, len(d.Statements))
	order := make([]*Statement, len(d.Statements))
	for i := range d.Statements {
		s := &d.Statements[i]
		s.Timestamp, s.LastUpdated = seconds(s.Timestamp), seconds(s.LastUpdated)
		if s.Status == NotAffected && s.Justification != "" && s.ImpactStatement != "" {
			s.StatusNotes = strings.TrimSpace(s.StatusNotes + "\n" + s.ImpactStatement)
			s.ImpactStatement = ""
		}
		products, err := json.Marshal(s.Products)
		if err != nil {
			return nil, err
		}
		order[i], keys[s] = s, string(products)
	}
	slices.SortStableFunc(order, func(a, b *Statement) int {
		return cmp.Or(
			strings.Compare(a.Vulnerability.Name, b.Vulnerability.Name),
			strings.Compare(keys[a], keys[b]),
			strings.Compare(string(a.Status), string(b.Status)),
			a.Timestamp.Compare(b.Timestamp),
		)
	})
	sorted := make([]Statement, len(order))
	for i, s := range order {
		sorted[i] = *s
	}
	d.Statements = sorted
	content, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	h := blake3.NewDeriveKey(idContext)
	h.Write(content)
	d.ID = IDPrefix + hex.EncodeToString(h.Sum(nil)[:16])
	if err := d.Check(); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	err = enc.Encode(d)
	return out.Bytes(), err
}

func seconds(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Second)
}
