package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// Breach is the first thing in a chain that cannot be trusted.
type Breach struct {
	Kind     string     `json:"kind"`     // record, hash, gap, signature, head, tail
	Sequence uint64     `json:"sequence"` // the record where it shows
	Time     *time.Time `json:"time,omitempty"`
	What     string     `json:"what"`
}

func (b *Breach) Error() string {
	at := ""
	if b.Time != nil {
		at = " of " + b.Time.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%v at record %d%s: %s", ErrBroken, b.Sequence, at, b.What)
}

func (b *Breach) Unwrap() error { return ErrBroken }

// Kinds of Breach.
const (
	BadRecord    = "record"    // a record that cannot be read
	BadHash      = "hash"      // a record that does not follow from its content and the one before it
	BadGap       = "gap"       // a record is missing
	BadSignature = "signature" // a signed head that is not valid, or not of this chain
	BadHead      = "head"      // the noted head is not the last record
	BadTail      = "tail"      // the chain ends before its head
)

// Verification is what Verify found.
type Verification struct {
	Records     uint64      `json:"records"`
	First       *time.Time  `json:"first,omitempty"`
	Last        *time.Time  `json:"last,omitempty"`
	Head        string      `json:"head,omitempty"` // the hash of the last record
	Signatures  int         `json:"signatures"`     // signed heads, all valid
	Unsigned    uint64      `json:"unsigned"`       // records after the last signed head
	PublicKey   string      `json:"public_key,omitempty"`
	HeadFile    string      `json:"head_file,omitempty"`
	Outside     *SignedHead `json:"outside,omitempty"` // what the head file says
	Breach      *Breach     `json:"breach,omitempty"`
	Unproven    []string    `json:"unproven"` // what could not be checked; with any, the result is incomplete
	lastRecord  Record
	outsideSeen bool
}

// VerifyOptions say with what to compare.
type VerifyOptions struct {
	HeadFile  string // a signed head kept elsewhere; "": the one in the log directory
	PublicKey string // a public key kept elsewhere; "": the one in the state directory
}

// Verify reads the whole chain and proves it, or returns the first *Breach,
// which wraps ErrBroken. When something that should be there to compare with
// is missing, the error has the kind Incomplete. An empty chain is fine.
func (l *Log) Verify(ctx context.Context, opts VerifyOptions) (Verification, error) {
	v := Verification{Unproven: []string{}}
	err := l.verify(ctx, opts, &v)
	var b *Breach
	if errors.As(err, &b) {
		v.Breach = b
	}
	if err == nil && len(v.Unproven) > 0 {
		err = failure.Errorf(failure.Incomplete, "the chain holds together, but %s", v.Unproven[0])
	}
	return v, err
}

func (l *Log) verify(ctx context.Context, opts VerifyOptions, v *Verification) error {
	// The head outside is read before the chain, which only grows: read after
	// it, a head that another process had just written would look like a cut.
	if err := l.readOutside(opts, v); err != nil {
		return err
	}
	var noted Head
	var headErr error
	signed := make(map[uint64][]byte)
	err := l.store.View(ctx, func(tx *state.Tx) error {
		clear(signed)
		noted, headErr = readHead(tx)
		b := tx.Bucket(signedBucket())
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, val []byte) error {
			if len(k) != 8 {
				return &Breach{Kind: BadSignature, What: fmt.Sprintf("a signed head has the key %x, which is no sequence number", k)}
			}
			signed[binary.BigEndian.Uint64(k)] = bytes.Clone(val)
			return nil
		})
	})
	if err != nil {
		return err
	}
	if v.Outside == nil && v.HeadFile != "" && (noted.Sequence > 0 || len(signed) > 0) {
		v.Unproven = append(v.Unproven, fmt.Sprintf("%s is missing, so a tail that was cut off would not be noticed (write it: mobileops audit head --sign)", v.HeadFile))
	}
	key, err := l.readKey(opts, v, len(signed) > 0 || v.Outside != nil)
	if err != nil {
		return err
	}
	if v.Outside != nil && key != nil {
		if err := v.Outside.Verify(key); err != nil {
			return &Breach{Kind: BadSignature, Sequence: v.Outside.Sequence, What: fmt.Sprintf("the head in %s: %v", v.HeadFile, err)}
		}
	}
	// Others may append meanwhile: what is proved is the chain as it was noted,
	// and when its head is wrong, all of it.
	end := endOfChain()
	if headErr == nil {
		end = sequenceKey(noted.Sequence)
	}
	if err := l.walk(ctx, v, key, signed, end); err != nil {
		return err
	}
	return v.atEnd(noted, headErr, signed)
}

// readOutside reads the head that is kept outside of the state.
func (l *Log) readOutside(opts VerifyOptions, v *Verification) error {
	v.HeadFile = opts.HeadFile
	if v.HeadFile == "" {
		v.HeadFile = l.HeadFile()
	}
	if v.HeadFile == "" {
		return nil
	}
	h, err := ReadHead(v.HeadFile)
	if errors.Is(err, fs.ErrNotExist) && opts.HeadFile == "" {
		return nil
	}
	if err != nil {
		return err
	}
	v.Outside = h
	return nil
}

// readKey reads the public key, which is only needed where something is signed.
func (l *Log) readKey(opts VerifyOptions, v *Verification, needed bool) (ed25519.PublicKey, error) {
	path := opts.PublicKey
	if path == "" {
		_, path = l.KeyFiles()
	}
	key, err := ReadPublicKey(path)
	if errors.Is(err, fs.ErrNotExist) && opts.PublicKey == "" {
		if needed {
			v.Unproven = append(v.Unproven, fmt.Sprintf("the public key %s is missing, so no signature was checked (give a copy: --public-key FILE)", path))
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v.PublicKey = fingerprint(key)
	return key, nil
}

// walk goes over the records up to the key end.
func (l *Log) walk(ctx context.Context, v *Verification, key ed25519.PublicKey, signed map[uint64][]byte, end []byte) error {
	var prev Hash
	return l.scan(ctx, nil, end, func(s stored) error {
		r, err := s.record()
		at := r.Sequence
		if err != nil && at == 0 {
			at = v.Records + 1
		}
		if err != nil {
			return v.breach(BadRecord, at, nil, err.Error())
		}
		if want := v.Records + 1; r.Sequence != want {
			return v.breach(BadGap, want, v.Last, fmt.Sprintf("it is missing: record %d follows record %d", r.Sequence, v.Records))
		}
		if chain(prev, s.body()) != r.Hash {
			return v.breach(BadHash, r.Sequence, &r.Time, "its hash does not follow from its content and the record before it: one of the two was changed")
		}
		prev = r.Hash
		v.Records, v.Head, v.lastRecord = r.Sequence, r.Hash.String(), r
		if v.First == nil {
			v.First = &r.Time
		}
		v.Last = &r.Time
		v.Unsigned++
		if raw, ok := signed[r.Sequence]; ok {
			if err := v.signature(raw, r, key); err != nil {
				return err
			}
		}
		if o := v.Outside; o != nil && o.Sequence == r.Sequence {
			v.outsideSeen = true
			if o.Hash != v.Head {
				return v.breach(BadSignature, r.Sequence, &r.Time, fmt.Sprintf("the signed head in %s has another hash: a record up to this one was replaced", v.HeadFile))
			}
		}
		return nil
	})
}

// signature checks the signed head in the database that belongs to a record.
func (v *Verification) signature(raw []byte, r Record, key ed25519.PublicKey) error {
	h, err := decodeHead(raw)
	if err == nil && h.Sequence != r.Sequence {
		err = fmt.Errorf("it is of record %d", h.Sequence)
	}
	if err == nil && h.Hash != hex.EncodeToString(r.Hash[:]) {
		err = errors.New("it has another hash: a record up to this one was replaced")
	}
	if err == nil && key != nil {
		err = h.Verify(key)
	}
	if err != nil {
		return v.breach(BadSignature, r.Sequence, &r.Time, fmt.Sprintf("its signed head: %v", err))
	}
	v.Signatures++
	v.Unsigned = 0
	return nil
}

// atEnd compares where the chain ended with everything that says where it
// should.
func (v *Verification) atEnd(noted Head, headErr error, signed map[uint64][]byte) error {
	tail := func(who string, says uint64) error {
		return v.breach(BadTail, v.Records, v.Last, fmt.Sprintf("%s says %d records, the chain ends at %d: its tail was cut off", who, says, v.Records))
	}
	if o := v.Outside; o != nil && o.Sequence > v.Records {
		return tail("the signed head in "+v.HeadFile, o.Sequence)
	}
	for seq := range signed {
		if seq > v.Records {
			return tail("a signed head in the state", seq)
		}
	}
	if headErr != nil && noted.Sequence > v.Records {
		return tail("the head in the state", noted.Sequence)
	}
	if headErr != nil {
		return v.breach(BadHead, v.Records, v.Last, headErr.Error())
	}
	if v.Outside != nil && !v.outsideSeen {
		return v.breach(BadSignature, 0, nil, fmt.Sprintf("the signed head in %s is of record %d, which is none", v.HeadFile, v.Outside.Sequence))
	}
	switch {
	case v.Records > 0 && len(signed) == 0:
		v.Unproven = append(v.Unproven, "nothing in it is signed (sign it: mobileops audit head --sign)")
	case v.Unsigned > 2*SignEveryRecords:
		v.Unproven = append(v.Unproven, fmt.Sprintf("its last %d records are not signed, and every %d should be (sign it: mobileops audit head --sign)", v.Unsigned, SignEveryRecords))
	}
	return nil
}

func (v *Verification) breach(kind string, seq uint64, at *time.Time, what string) error {
	return &Breach{Kind: kind, Sequence: seq, Time: at, What: what}
}
