// Package audit keeps a hash-chained record of every act.
//
// Each act is one record in state.db. A record's hash covers the hash of the
// record before it and the exact bytes of the record, so a record that is
// changed, removed, added or moved breaks the chain from there on. The head of
// the chain (its last sequence number and hash) is signed with ed25519 every
// 64 records or hour, and the last signed head is also written to a file
// outside of the state, so that a chain whose tail was cut off, which is a
// valid chain, is known to be too short.
//
// Buckets of state.db:
//
//	audit         sequence number (8 bytes, big endian, from 1) → hash (32 bytes), record
//	audit_head    "head" → sequence number (8 bytes), hash (32 bytes) of the last record
//	audit_signed  sequence number (8 bytes) → signed head (JSON)
//
// docs/formats/audit.md describes all of it for programs of others. Invariants:
// a record is written once and never changed; an act is durable when Append
// returns; whatever does not fit together is reported and never repaired.
//
// Sources: BLAKE3; ed25519 as in RFC 8032; its key files as in RFC 8410.
package audit

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

// ErrBroken says that the chain cannot be trusted.
var ErrBroken = failure.New(failure.Untrustworthy, "the audit chain is broken")

// Actor is who did it.
type Actor struct {
	UID      int    `json:"uid"`
	User     string `json:"user,omitempty"`
	LoginUID int64  `json:"login_uid"` // /proc/self/loginuid; -1: none
	TTY      string `json:"tty,omitempty"`
	Remote   string `json:"remote,omitempty"` // the address of an SSH client, or an API identity
}

// Act is one thing done.
type Act struct {
	Time    time.Time     `json:"time"`
	Actor   Actor         `json:"actor"`
	Command string        `json:"command"`          // "integrity baseline"
	Args    []string      `json:"args,omitempty"`   // secrets already redacted
	Status  int           `json:"status"`           // exit status
	Result  string        `json:"result,omitempty"` // one line: what came of it
	Elapsed time.Duration `json:"elapsed"`
}

// Hash is a BLAKE3 hash of 256 bits.
type Hash [32]byte

// String returns the hash as 64 hexadecimal digits.
func (h Hash) String() string { return fmt.Sprintf("%x", h[:]) }

// Head is where a chain ends: its last record.
type Head struct {
	Sequence uint64 // 0: the chain is empty
	Hash     Hash
}

// Options say where a chain's surroundings are.
type Options struct {
	// LogDir is where the last signed head is written, away from the state:
	// audit-head.json. Empty: nowhere, and then a cut tail cannot be noticed.
	LogDir string
	// Host identifies the host in signed heads. Empty: derived from
	// /etc/machine-id, see HostID.
	Host string
}

// When a head is signed.
const (
	SignEveryRecords = 64
	SignEvery        = time.Hour
)

// Log is the audit chain in a store. Making one opens nothing.
type Log struct {
	store *state.Store
	opts  Options
}

// New returns the audit chain of a store.
func New(store *state.Store, opts Options) *Log { return &Log{store: store, opts: opts} }

// HeadFile returns the path of the signed head outside of the state, "" if
// there is to be none.
func (l *Log) HeadFile() string {
	if l.opts.LogDir == "" {
		return ""
	}
	return filepath.Join(l.opts.LogDir, "audit-head.json")
}

func recordBucket() []byte { return []byte("audit") }
func headBucket() []byte   { return []byte("audit_head") }
func signedBucket() []byte { return []byte("audit_signed") }
func headKey() []byte      { return []byte("head") }

func sequenceKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// chain hashes a record onto the hash of the one before it.
func chain(prev Hash, body []byte) (h Hash) {
	hasher := blake3.New()
	hasher.Write(prev[:])
	hasher.Write(body)
	hasher.Sum(h[:0])
	return h
}

// readHead returns the head that the database notes, and checks that it is the
// last record's.
func readHead(tx *state.Tx) (Head, error) {
	var noted, last Head
	if b := tx.Bucket(headBucket()); b != nil {
		if v := b.Get(headKey()); v != nil {
			if len(v) != 8+len(noted.Hash) {
				return noted, fmt.Errorf("%w: its noted head has %d bytes", ErrBroken, len(v))
			}
			noted.Sequence = binary.BigEndian.Uint64(v)
			copy(noted.Hash[:], v[8:])
		}
	}
	if b := tx.Bucket(recordBucket()); b != nil {
		if k, v := b.Cursor().Last(); k != nil {
			if len(k) != 8 || len(v) < len(last.Hash) {
				return noted, fmt.Errorf("%w: its last record is not one", ErrBroken)
			}
			last.Sequence = binary.BigEndian.Uint64(k)
			copy(last.Hash[:], v)
		}
	}
	switch {
	case noted.Sequence != last.Sequence:
		return noted, fmt.Errorf("%w: its head says %d records, the chain ends at %d", ErrBroken, noted.Sequence, last.Sequence)
	case noted.Hash != last.Hash:
		return noted, fmt.Errorf("%w: its head is not the hash of its last record %d", ErrBroken, last.Sequence)
	}
	return noted, nil
}

// Append chains the act to the record and returns its sequence number once it
// is durable. When the chain does not end where its head says, nothing is
// appended and the error is ErrBroken. An error together with a sequence
// number greater than 0 says that the act was recorded, but the head that was
// due could not be signed or written.
func (l *Log) Append(ctx context.Context, act Act) (seq uint64, err error) {
	var due *SignedHead
	var signErr error
	err = l.store.Update(ctx, func(tx *state.Tx) error {
		records, err := tx.CreateBucketIfNotExists(recordBucket())
		if err != nil {
			return err
		}
		heads, err := tx.CreateBucketIfNotExists(headBucket())
		if err != nil {
			return err
		}
		head, err := readHead(tx)
		if err != nil {
			return failure.Hint(err, "nothing was appended; see what is wrong: mobileops audit verify")
		}
		next := head.Sequence + 1
		body := encode(next, bounded(act))
		h := chain(head.Hash, body)
		records.FillPercent = 0.95 // keys only grow
		if err := records.Put(sequenceKey(next), append(h[:len(h):len(h)], body...)); err != nil {
			return err
		}
		head = Head{Sequence: next, Hash: h}
		if err := heads.Put(headKey(), append(sequenceKey(next), h[:]...)); err != nil {
			return err
		}
		seq = next
		due, signErr = l.signIfDue(tx, head, time.Now())
		return nil
	})
	if err != nil {
		return 0, err
	}
	if signErr == nil && due != nil {
		signErr = l.publish(due)
	}
	if signErr != nil {
		return seq, fmt.Errorf("record %d was written, but the head of the audit chain was not signed: %w", seq, signErr)
	}
	return seq, nil
}

// Head returns the present head of the chain and the last signed one, nil if
// none was signed yet.
func (l *Log) Head(ctx context.Context) (head Head, signed *SignedHead, err error) {
	err = l.store.View(ctx, func(tx *state.Tx) error {
		if head, err = readHead(tx); err != nil {
			return failure.Hint(err, "see what is wrong: mobileops audit verify")
		}
		signed, err = lastSigned(tx)
		return err
	})
	return head, signed, err
}

// Record is one act in the chain.
type Record struct {
	Sequence uint64 `json:"sequence"`
	Hash     Hash   `json:"-"`
	Act
}

// batch is how many records are read under one lease.
const batch = 4096

// stored is a record as it stands in the database.
type stored struct {
	key, value []byte
}

// scan calls fn with each entry of the chain whose key is above after, in
// order, up to and including the key last. It takes a lease for every batch
// and none while fn runs.
func (l *Log) scan(ctx context.Context, after, last []byte, fn func(stored) error) error {
	for {
		var got []stored
		err := l.store.View(ctx, func(tx *state.Tx) error {
			got = got[:0]
			b := tx.Bucket(recordBucket())
			if b == nil {
				return nil
			}
			c := b.Cursor()
			k, v := c.Seek(after)
			if k != nil && string(k) == string(after) {
				k, v = c.Next()
			}
			for ; k != nil && string(k) <= string(last) && len(got) < batch; k, v = c.Next() {
				got = append(got, stored{append([]byte(nil), k...), append([]byte(nil), v...)})
			}
			return nil
		})
		if err != nil || len(got) == 0 {
			return err
		}
		for _, s := range got {
			if err := fn(s); err != nil {
				return err
			}
		}
		after = got[len(got)-1].key
	}
}

// endOfChain is above every key of the chain.
func endOfChain() []byte { return []byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF} }

// Records calls fn with each record in order. It does not verify the chain; a
// record that cannot be read is ErrBroken.
func (l *Log) Records(ctx context.Context, fn func(Record) error) error {
	return l.scan(ctx, nil, endOfChain(), func(s stored) error {
		r, err := s.record()
		if err != nil {
			return failure.Hint(fmt.Errorf("%w: %w", ErrBroken, err), "see what is wrong: mobileops audit verify")
		}
		return fn(r)
	})
}

func (s stored) record() (r Record, err error) {
	if len(s.key) != 8 {
		return r, fmt.Errorf("an entry has the key %x, which is no sequence number", s.key)
	}
	r.Sequence = binary.BigEndian.Uint64(s.key)
	if len(s.value) < len(r.Hash) {
		return r, fmt.Errorf("record %d is cut off", r.Sequence)
	}
	copy(r.Hash[:], s.value)
	seq, act, err := decode(s.body())
	if err != nil {
		return r, fmt.Errorf("record %d cannot be read: %w", r.Sequence, err)
	}
	r.Act = act
	if seq != r.Sequence {
		return r, fmt.Errorf("record %d says it is record %d", r.Sequence, seq)
	}
	return r, nil
}

func (s stored) body() []byte { return s.value[len(Hash{}):] }
