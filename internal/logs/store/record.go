package store

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// Kind is what a record of the Merkle log tells.
type Kind uint8

// The kinds of records.
const (
	KindAdded     Kind = 1 + iota // a segment appeared
	KindMerged                    // a segment took the place of others
	KindRemoved                   // retention removed a segment
	KindSealed                    // the tree head was signed
	KindHeld                      // a legal hold was set
	KindReleased                  // a legal hold was released
	KindDamaged                   // records were lost to damage of the write-ahead log
	KindRewrapped                 // the readers of a sealed segment changed
)

func (k Kind) String() string {
	names := [...]string{"", "added", "merged", "removed", "sealed", "held", "released", "damaged", "rewrapped"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Record is one leaf of the Merkle log. Which fields count depends on its Kind.
type Record struct {
	Kind Kind  `json:"kind"`
	Time int64 `json:"time"` // of the record itself, nanoseconds since 1970 UTC

	Segment  *SegmentRecord `json:"segment,omitempty"`  // Added, Merged
	From     []uint64       `json:"from,omitempty"`     // Merged: the segments whose place it took
	ID       uint64         `json:"id,omitempty"`       // Removed, Rewrapped
	Reason   string         `json:"reason,omitempty"`   // Removed, Released
	Seal     *Seal          `json:"seal,omitempty"`     // Sealed
	Hold     *Hold          `json:"hold,omitempty"`     // Held
	Name     string         `json:"name,omitempty"`     // Released: of the hold
	By       string         `json:"by,omitempty"`       // Released
	Damage   *Damage        `json:"damage,omitempty"`   // Damaged
	Replaced uint64         `json:"replaced,omitempty"` // Rewrapped: how many segments were
}

// SegmentRecord is what the Merkle log and the catalogue tell about a segment.
type SegmentRecord struct {
	ID       uint64       `json:"id"`
	Origin   event.Origin `json:"origin"`
	MinTime  int64        `json:"min_time"`  // nanoseconds since 1970 UTC
	MaxTime  int64        `json:"max_time"`  // nanoseconds since 1970 UTC
	Records  int64        `json:"records"`   // how many
	RawBytes int64        `json:"raw_bytes"` // of the records as they were written
	Bytes    int64        `json:"bytes"`     // of the file
	// Hash is the BLAKE3 of the file; of a sealed one, of what rewrapping leaves
	// as it is (seal.Fixed). Plain is that of the file before it was sealed.
	Hash   Hash `json:"hash"`
	Plain  Hash `json:"plain"`
	Sealed bool `json:"sealed"` // encrypted at rest by package seal
}

// maxRecord bounds a record of the Merkle log, in bytes.
const maxRecord = 8 << 20

// encode returns the bytes of the leaf: kind, time (varint), and
//
//	added      segment
//	merged     segment, count, ids (uvarint)
//	removed    id, reason
//	sealed     size uvarint, root, time varint, host, public key 32, signature 64
//	held       name, count, sources, since varint, until varint, reason, by, time varint
//	released   name, reason, by
//	damaged    file, offset uvarint, length uvarint
//	rewrapped  number of segments uvarint
//
// where a segment is: id, source, format, host, least time varint, greatest
// minus least time uvarint, records, raw bytes, bytes (uvarint), hash, byte 0,
// or byte 1 and the hash of the plain file. Text has a uvarint length before it.
func (r *Record) encode() []byte {
	b := []byte{byte(r.Kind)}
	b = binary.AppendVarint(b, r.Time)
	switch r.Kind {
	case KindAdded, KindMerged:
		b = r.Segment.encode(b)
		if r.Kind == KindMerged {
			b = binary.AppendUvarint(b, uint64(len(r.From)))
			for _, id := range r.From {
				b = binary.AppendUvarint(b, id)
			}
		}
	case KindRemoved:
		b = binary.AppendUvarint(b, r.ID)
		b = appendBytes(b, r.Reason)
	case KindSealed:
		b = binary.AppendUvarint(b, r.Seal.Size)
		b = append(b, r.Seal.Root[:]...)
		b = binary.AppendVarint(b, r.Seal.Time.UnixNano())
		b = appendBytes(b, r.Seal.Host)
		b = append(b, r.Seal.PublicKey...)
		b = append(b, r.Seal.Signature...)
	case KindHeld:
		b = r.Hold.encode(b)
	case KindReleased:
		b = appendBytes(b, r.Name)
		b = appendBytes(b, r.Reason)
		b = appendBytes(b, r.By)
	case KindDamaged:
		b = appendBytes(b, r.Damage.File)
		b = binary.AppendUvarint(b, uint64(r.Damage.Offset))
		b = binary.AppendUvarint(b, uint64(r.Damage.Length))
	case KindRewrapped:
		b = binary.AppendUvarint(b, r.Replaced)
	}
	return b
}

func (s *SegmentRecord) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, s.ID)
	b = appendOrigin(b, s.Origin)
	return s.encodeRest(b)
}

// encodeRest is what follows id and origin.
func (s *SegmentRecord) encodeRest(b []byte) []byte {
	b = binary.AppendVarint(b, s.MinTime)
	b = binary.AppendUvarint(b, uint64(s.MaxTime)-uint64(s.MinTime))
	b = binary.AppendUvarint(b, uint64(s.Records))
	b = binary.AppendUvarint(b, uint64(s.RawBytes))
	b = binary.AppendUvarint(b, uint64(s.Bytes))
	b = append(b, s.Hash[:]...)
	if !s.Sealed {
		return append(b, 0)
	}
	b = append(b, 1)
	return append(b, s.Plain[:]...)
}

func (s *SegmentRecord) decodeRest(d *decoder) {
	s.MinTime = d.varint()
	s.MaxTime = int64(uint64(s.MinTime) + d.uvarint())
	if s.MaxTime < s.MinTime {
		d.fail("no range of times")
	}
	s.Records, s.RawBytes, s.Bytes = d.nonNegative(), d.nonNegative(), d.nonNegative()
	s.Hash = d.hash()
	switch d.byte() {
	case 0:
		s.Plain = s.Hash
	case 1:
		s.Sealed, s.Plain = true, d.hash()
	default:
		d.fail("neither sealed nor not")
	}
}

func (h *Hold) encode(b []byte) []byte {
	b = appendBytes(b, h.Name)
	b = binary.AppendUvarint(b, uint64(len(h.Sources)))
	for _, s := range h.Sources {
		b = appendBytes(b, s)
	}
	b = binary.AppendVarint(b, h.Since)
	b = binary.AppendVarint(b, h.Until)
	b = appendBytes(b, h.Reason)
	b = appendBytes(b, h.By)
	return binary.AppendVarint(b, h.Time.UnixNano())
}

func decodeHold(d *decoder) *Hold {
	h := &Hold{Name: d.string()}
	for range d.count(1) {
		h.Sources = append(h.Sources, d.string())
	}
	h.Since, h.Until = d.varint(), d.varint()
	h.Reason, h.By = d.string(), d.string()
	h.Time = time.Unix(0, d.varint()).UTC()
	return h
}

// decodeRecord reads the bytes of a leaf.
func decodeRecord(b []byte) (*Record, error) {
	d := &decoder{what: "record of the Merkle log", b: b}
	r := &Record{Kind: Kind(d.byte()), Time: d.varint()}
	switch r.Kind {
	case KindAdded, KindMerged:
		r.Segment = &SegmentRecord{ID: d.uvarint(), Origin: d.origin()}
		r.Segment.decodeRest(d)
		if r.Kind == KindMerged {
			for range d.count(1) {
				r.From = append(r.From, d.uvarint())
			}
		}
	case KindRemoved:
		r.ID, r.Reason = d.uvarint(), d.string()
	case KindSealed:
		s := &Seal{Size: d.uvarint(), Root: d.hash(), Time: time.Unix(0, d.varint()).UTC(), Host: d.string()}
		s.PublicKey = append([]byte(nil), d.take(ed25519.PublicKeySize)...)
		s.Signature = append([]byte(nil), d.take(ed25519.SignatureSize)...)
		r.Seal = s
	case KindHeld:
		r.Hold = decodeHold(d)
	case KindReleased:
		r.Name, r.Reason, r.By = d.string(), d.string(), d.string()
	case KindDamaged:
		r.Damage = &Damage{File: d.string(), Offset: d.nonNegative(), Length: d.nonNegative()}
	case KindRewrapped:
		r.Replaced = d.uvarint()
	default:
		d.fail("an unknown kind of record")
	}
	return r, d.end()
}

// errBounds is for what an operator gave that no record can hold.
var errBounds = errors.New("a text of more than 64 KiB")
