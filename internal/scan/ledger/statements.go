package ledger

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/vex"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
	bolt "go.etcd.io/bbolt"
)

// MaxVEXBytes is how much all VEX documents together may take.
const MaxVEXBytes = 64 << 20

// vexSlack is how far the clock of who wrote a VEX document may be ahead.
const vexSlack = 24 * time.Hour

// ErrNoDocument says that no VEX document has such a digest or id.
var ErrNoDocument = failure.New(failure.No, "no such VEX document")

// VEXDocument is what is kept about a document that was imported.
type VEXDocument struct {
	Version    int       `json:"v"`
	Digest     string    `json:"digest"` // BLAKE3 of its bytes, 32 hexadecimal digits
	ID         string    `json:"id"`     // its @id
	Author     string    `json:"author"`
	Revision   int       `json:"version"`
	Timestamp  time.Time `json:"timestamp"`
	Statements int       `json:"statements"`
	Size       int       `json:"size"` // bytes
	Imported   Person    `json:"imported"`
}

// statement is a statement as it is stored, under each name of its vulnerability.
type statement struct {
	Document  string        `json:"document"`
	Digest    string        `json:"digest"`
	Author    string        `json:"author"`
	Moment    time.Time     `json:"moment"`
	Statement vex.Statement `json:"statement"`
}

func (s *statement) decision() decision {
	return nameOf(fmt.Sprintf("vex %s %s %s %s", s.Digest, s.Statement.Status, s.Statement.Justification, s.Moment))
}

func (s *statement) note() *VEXNote {
	return &VEXNote{
		Document: s.Document, Digest: s.Digest, Author: s.Author, Status: string(s.Statement.Status), Justification: string(s.Statement.Justification),
		Impact: clip(s.Statement.ImpactStatement, MaxMessage), Action: clip(s.Statement.ActionStatement, MaxMessage), At: s.Moment,
	}
}

// assetIRI names an asset in VEX documents.
func assetIRI(id string) string { return "urn:mobileops:asset:" + url.PathEscape(id) }

// stated returns the newest statement about an item; nil: there is none. Of an item
// with several versions, one that is affected, or about which nothing is said,
// counts more than the others.
func (d *decisions) stated(s *Sighting) (*statement, error) {
	q := vex.Query{Vulnerabilities: append([]string{s.ID}, s.Aliases...), Products: d.products}
	var about []*statement
	for _, id := range q.Vulnerabilities {
		list, err := d.statementsOf(id)
		if err != nil {
			return nil, err
		}
		about = append(about, list...)
	}
	if len(about) == 0 {
		return nil, nil
	}
	var found *statement
	for i, p := range append(slices.Clone(s.PURLs), "") {
		if p == "" && i > 0 {
			break
		}
		q.Package = p
		var newest *statement
		for _, st := range about {
			if (newest == nil || !st.Moment.Before(newest.Moment)) && st.Statement.Matches(&q) {
				newest = st
			}
		}
		if newest == nil || newest.Statement.Status != vex.NotAffected && newest.Statement.Status != vex.Fixed {
			return newest, nil
		}
		if found == nil {
			found = newest
		}
	}
	return found, nil
}

func statementPrefix(name string) []byte {
	return append([]byte(strings.ToUpper(clip(name, MaxName))), 0)
}

// statementsOf returns what documents say about a vulnerability.
func (d *decisions) statementsOf(id string) ([]*statement, error) {
	if list, ok := d.known[id]; ok {
		return list, nil
	}
	var list []*statement
	prefix := statementPrefix(id)
	c := d.vex.Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		s := new(statement)
		if err := decodeStatement(k, v, s); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	d.known[id] = list
	return list, nil
}

func decodeStatement(k, v []byte, s *statement) error {
	what := fmt.Sprintf("VEX statement %q", clip(string(k), 128))
	if err := json.Unmarshal(v, s); err != nil {
		return damaged(what, -1, "%v", err)
	}
	return nil
}

// ImportVEX stores an OpenVEX document. What it says holds from the next scan of
// each asset on, or from Settle. A document with the @id of one that is stored
// replaces it when its version is higher, and is refused otherwise.
func (l Ledger) ImportVEX(tx *state.Tx, data []byte, by change.Identity, now time.Time) (*VEXDocument, error) {
	doc, err := vex.Parse(data)
	if err != nil {
		return nil, err
	}
	for i := range doc.Statements {
		// The newest statement counts, so one of times to come could never be corrected.
		if at := doc.Moment(&doc.Statements[i]); at.After(now.Add(vexSlack)) {
			return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "statement %d of %s is of %s, which is still to come: no later one could correct it", i+1, clip(doc.ID, 256), at.Format(time.RFC3339)), "is the clock of this host right?")
		}
	}
	sum := blake3.Sum256(data)
	digest := sum[:16]
	d := &VEXDocument{
		Version: version, Digest: hex.EncodeToString(digest), ID: doc.ID, Author: clip(doc.Author, MaxName), Revision: doc.Version,
		Timestamp: storable(doc.Timestamp), Statements: len(doc.Statements), Size: len(data), Imported: Person{by, storable(now)},
	}
	all, err := l.ListVEX(tx)
	if err != nil {
		return nil, err
	}
	total := 0
	for _, o := range all {
		switch {
		case o.ID == d.ID && o.Revision >= d.Revision:
			return nil, failure.Errorf(failure.Busy, "version %d of %s is there already, imported on %s", o.Revision, clip(o.ID, 256), o.Imported.At.Format(time.DateOnly))
		case o.ID == d.ID:
			if _, err := l.RemoveVEX(tx, o.Digest); err != nil {
				return nil, err
			}
		default:
			total += o.Size
		}
	}
	if len(all) >= MaxDocuments || total+d.Size > MaxVEXBytes {
		return nil, failure.Hint(failure.Errorf(failure.Failed, "%d VEX documents of %d bytes are there, and no more fit", len(all), total), "remove one: mobileops scan vex remove DIGEST")
	}
	documents, err := top(tx, vexBucket)
	if err != nil {
		return nil, err
	}
	statements, err := top(tx, statementBucket)
	if err != nil {
		return nil, err
	}
	for i := range doc.Statements {
		s := &doc.Statements[i]
		v, err := json.Marshal(statement{doc.ID, d.Digest, d.Author, storable(doc.Moment(s)), *s})
		if err != nil {
			return nil, err
		}
		for _, name := range s.Vulnerability.Names() {
			k := append(append(statementPrefix(name), digest...), 0, 0, 0, 0)
			binary.BigEndian.PutUint32(k[len(k)-4:], uint32(i))
			if err := statements.Put(k, v); err != nil {
				return nil, err
			}
		}
	}
	v, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return d, documents.Put(digest, v)
}

// ListVEX returns the documents that were imported, the latest first.
func (l Ledger) ListVEX(tx *state.Tx) (list []VEXDocument, err error) {
	b, err := top(tx, vexBucket)
	if err != nil || b == nil {
		return nil, err
	}
	err = b.ForEach(func(k, v []byte) error {
		var d VEXDocument
		what := fmt.Sprintf("VEX document %x", k)
		if err := form.Read(named(what), v, &d); err != nil {
			return err
		}
		if d.Digest != hex.EncodeToString(k) {
			return damaged(what, -1, "its digest is %q", clip(d.Digest, 64))
		}
		list = append(list, d)
		return nil
	})
	slices.SortFunc(list, func(x, y VEXDocument) int {
		return cmp.Or(y.Imported.At.Compare(x.Imported.At), strings.Compare(x.Digest, y.Digest))
	})
	return list, err
}

// RemoveVEX removes the document with a digest, or the beginning of one that only
// it has, or with an @id.
func (l Ledger) RemoveVEX(tx *state.Tx, word string) (*VEXDocument, error) {
	all, err := l.ListVEX(tx)
	if err != nil {
		return nil, err
	}
	var found []VEXDocument
	for _, d := range all {
		if d.ID == word || len(word) >= 4 && strings.HasPrefix(d.Digest, strings.ToLower(word)) {
			found = append(found, d)
		}
	}
	switch {
	case len(found) == 0:
		return nil, failure.Hint(fmt.Errorf("%w: %q", ErrNoDocument, clip(word, 128)), "see them: mobileops scan vex list")
	case len(found) > 1:
		return nil, failure.Errorf(failure.Usage, "%q can mean %d documents: type more of it", clip(word, 128), len(found))
	}
	d := found[0]
	digest, err := hex.DecodeString(d.Digest)
	if err != nil {
		return nil, err
	}
	documents, err := top(tx, vexBucket)
	if err != nil {
		return nil, err
	}
	statements, err := top(tx, statementBucket)
	if err != nil {
		return nil, err
	}
	var keys [][]byte
	err = statements.ForEach(func(k, _ []byte) error {
		if i := bytes.IndexByte(k, 0); i >= 0 && bytes.HasPrefix(k[i+1:], digest) {
			keys = append(keys, k)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &d, deleteAll(statements, keys, func() error { return documents.Delete(digest) })
}

func deleteAll(b *bolt.Bucket, keys [][]byte, then func() error) error {
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return then()
}
