package history

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

// RecordSchema is the format's name and version.
const RecordSchema = "mobileops.integrity.record/v1"

// Digest is a BLAKE3 digest that is written as hexadecimal digits.
type Digest = baseline.Hash

// Kind says what a record tells of.
type Kind string

// The kinds of records.
const (
	Baseline   Kind = "baseline"   // a baseline was taken
	Acceptance Kind = "acceptance" // reported changes were accepted into a new baseline
	Import     Kind = "import"     // a baseline was imported
	Removal    Kind = "removal"    // a baseline was removed by somebody
	KeyChange  Kind = "key"        // another key signs from the next record on
)

// settles tells whether an act looks at the host afresh, so that it may be the
// first one after the state directory came to another host.
func (k Kind) settles() bool { return k == Baseline || k == Import || k == KeyChange }

// sets tells whether a record of the kind makes a baseline the current one.
func (k Kind) sets() bool { return k == Baseline || k == Import || k == Acceptance }

func (k Kind) known() bool { return k.sets() || k == Removal || k == KeyChange }

// Record is one act. Its canonical form, which is what is signed, is JSON with
// the members in this order, without white space, with a newline at its end;
// members that are empty, where that is allowed, are left out.
type Record struct {
	Schema   string      `json:"schema"`
	Counter  uint64      `json:"counter"`
	Previous Digest      `json:"previous"` // of the canonical form of the record before; zeros for the first
	Time     time.Time   `json:"time"`     // UTC, to the millisecond
	Kind     Kind        `json:"kind"`
	Host     string      `json:"host"`      // derived from machine-id(5), see audit.HostID
	HostName string      `json:"host_name"` // hostname(7)
	Boot     string      `json:"boot"`      // random id of the boot, random(4)
	Tool     string      `json:"tool"`      // "mobileops 1.0.0"
	Actor    audit.Actor `json:"actor"`     // who did it
	Reason   string      `json:"reason,omitempty"`
	Ticket   string      `json:"ticket,omitempty"`

	// The baseline that became the current one of its name, or was removed.
	Name         string `json:"name,omitempty"`
	ID           string `json:"id,omitempty"`
	Root         Digest `json:"root,omitzero"` // Merkle root
	Policy       string `json:"policy,omitempty"`
	PolicyDigest Digest `json:"policy_digest,omitzero"`
	FactsDigest  Digest `json:"facts_digest,omitzero"`  // of the snapshot of sockets, containers and others beside it
	OwnersDigest Digest `json:"owners_digest,omitzero"` // of the table of packages beside it

	// Of an acceptance.
	Report         string `json:"report,omitempty"`         // id of the report whose changes were accepted
	Accepted       int    `json:"accepted,omitempty"`       // number of changes
	AcceptedDigest Digest `json:"accepted_digest,omitzero"` // of the list of them

	// Of a change of key: the public key that signs from the next record on,
	// in minisign's base64, and whether its private half is not on this host.
	Key          string `json:"key,omitempty"`
	KeyElsewhere bool   `json:"key_elsewhere,omitempty"`
	Lost         bool   `json:"lost,omitempty"` // the former key was lost, so nobody signed this record

	// The public key that signs this record, in minisign's base64, and whether
	// its private half is not on this host.
	Signer    string `json:"signer"`
	Elsewhere bool   `json:"elsewhere,omitempty"`
}

// Limits of a record.
const (
	maxRecord    = 16 << 10 // bytes of its canonical form
	maxSignature = 2 << 10  // bytes of the text of a signature
	maxText      = 255      // bytes of a field that others choose
	MaxReason    = 1024     // bytes of a reason
	MaxTicket    = 128      // bytes of a ticket
)

// CheckReason tells whether a reason and a ticket fit into a record.
func CheckReason(reason, ticket string) error {
	for _, f := range []struct {
		name, text string
		most       int
	}{{"reason", reason, MaxReason}, {"ticket", ticket, MaxTicket}} {
		if len(f.text) > f.most {
			return failure.Errorf(failure.Usage, "the %s has %d bytes; at most %d are kept", f.name, len(f.text), f.most)
		}
		if !utf8.ValidString(f.text) {
			return failure.Errorf(failure.Usage, "the %s is not UTF-8", f.name)
		}
	}
	return nil
}

// cut bounds a text that the system chose.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "?")
	for len(s) > maxText {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// encode returns the canonical form.
func (r *Record) encode() ([]byte, error) {
	if err := CheckReason(r.Reason, r.Ticket); err != nil {
		return nil, err
	}
	r.Actor.User, r.Actor.TTY, r.Actor.Remote = cut(r.Actor.User), cut(r.Actor.TTY), cut(r.Actor.Remote)
	r.Policy, r.Tool = cut(r.Policy), cut(r.Tool)
	b, err := r.marshal()
	if err == nil && len(b) > maxRecord {
		err = failure.Errorf(failure.Failed, "a record of %d bytes is too large for the history", len(b))
	}
	return b, err
}

func (r *Record) marshal() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(r) // ends with a newline
	return b.Bytes(), err
}

// DecodeError says why something is no record.
type DecodeError struct {
	Offset int64 // in bytes, where it is known, else -1
	What   string
}

func (e *DecodeError) Error() string {
	if e.Offset < 0 {
		return e.What
	}
	return fmt.Sprintf("%s at byte %d", e.What, e.Offset)
}

// Decode reads the canonical form of a record, and nothing else: each record
// has one. Its error is a *DecodeError.
func Decode(body []byte) (Record, error) {
	var r Record
	if len(body) > maxRecord {
		return r, &DecodeError{maxRecord, "it is too large for a record"}
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(&r); err != nil {
		return Record{}, &DecodeError{dec.InputOffset(), "it is not a record: " + err.Error()}
	}
	if r.Schema != RecordSchema {
		return Record{}, &DecodeError{-1, fmt.Sprintf("its format is %.40q, not %q", r.Schema, RecordSchema)}
	}
	again, err := r.marshal()
	if err != nil || !bytes.Equal(again, body) {
		return Record{}, &DecodeError{int64(firstDifference(again, body)), "it is not in canonical form"}
	}
	switch {
	case r.Counter == 0:
		return Record{}, &DecodeError{-1, "its counter is 0"}
	case !r.Kind.known():
		return Record{}, &DecodeError{-1, fmt.Sprintf("its kind %.20q is unknown", r.Kind)}
	case r.Kind != KeyChange && (r.Name == "" || r.ID == ""):
		return Record{}, &DecodeError{-1, "it names no baseline"}
	}
	if _, err := ParsePublicKey(r.Signer); err != nil {
		return Record{}, &DecodeError{-1, "its signer is no public key"}
	}
	if _, err := ParsePublicKey(r.Key); r.Kind == KeyChange && err != nil {
		return Record{}, &DecodeError{-1, "its new key is none"}
	}
	if r.Kind != KeyChange && (r.Key != "" || r.KeyElsewhere || r.Lost) {
		return Record{}, &DecodeError{-1, "it names a new key, and is of another kind"}
	}
	return r, nil
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func digestOf(body []byte) Digest { return blake3.Sum256(body) }

// Entry is a record as it is kept.
type Entry struct {
	Record
	Digest    Digest // of Body
	Body      []byte // canonical form
	Signature []byte // text of a .minisig file; empty: not signed
}

// inForce is the key that signs.
type inForce struct {
	key       string // minisign's base64
	elsewhere bool   // its private half is not on this host
}

// next returns the key that signs the record behind this one.
func (r *Record) next() inForce {
	if r.Kind == KeyChange {
		return inForce{r.Key, r.KeyElsewhere}
	}
	return inForce{r.Signer, r.Elsewhere}
}

// signedLater tells whether a record may be appended without a signature: its
// key is not on this host, or this very record says so.
func (r *Record) signedLater() bool {
	return r.Elsewhere || r.Kind == KeyChange && r.Key == r.Signer && r.KeyElsewhere
}

// keyLost tells whether a record needs no signature because its key was lost.
// A key that is not on this host cannot be lost here: otherwise root could take
// the history over.
func (r *Record) keyLost() bool { return r.Lost && r.Kind == KeyChange && !r.Elsewhere }

func encodeEntry(body, signature []byte) []byte {
	v := binary.AppendUvarint(nil, uint64(len(body)))
	v = append(v, body...)
	return append(v, signature...)
}

// decodeEntry reads what encodeEntry wrote under a key.
func decodeEntry(k, v []byte) (*Entry, error) {
	if len(k) != 8 {
		return nil, &DecodeError{-1, fmt.Sprintf("its key %x is no counter", k)}
	}
	n, used := binary.Uvarint(v)
	if used <= 0 || n > maxRecord || n > uint64(len(v)-used) {
		return nil, &DecodeError{0, "it is cut off"}
	}
	e := &Entry{Body: bytes.Clone(v[used : used+int(n)]), Signature: bytes.Clone(v[used+int(n):])}
	if len(e.Signature) > maxSignature {
		return nil, &DecodeError{int64(used) + int64(n), "its signature is too large"}
	}
	var err error
	if e.Record, err = Decode(e.Body); err != nil {
		return nil, err
	}
	if c := binary.BigEndian.Uint64(k); c != e.Counter {
		return nil, &DecodeError{-1, fmt.Sprintf("it says that it is record %d", e.Counter)}
	}
	e.Digest = digestOf(e.Body)
	return e, nil
}

// lastEntry returns the last record, nil when there is none.
func lastEntry(tx *state.Tx) (*Entry, error) {
	b := tx.Bucket(recordBucket())
	if b == nil {
		return nil, nil
	}
	k, v := b.Cursor().Last()
	if k == nil {
		return nil, nil
	}
	e, err := decodeEntry(k, v)
	if err != nil {
		return nil, fmt.Errorf("%w: its last record %x cannot be read: %w", ErrBroken, k, err)
	}
	return e, nil
}
