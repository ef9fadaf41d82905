package store

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/zeebo/blake3"
)

// ProofSchema names the format of a proof.
const ProofSchema = "mobileops.logs.proof/v1"

// maxPath is more than any tree is deep.
const maxPath = 64

// Proof shows, without the store, that a segment was in it when it was sealed:
// who has the file of the segment, this and the public key of the host needs
// nothing else.
type Proof struct {
	Schema string `json:"schema"`
	Leaf   []byte `json:"leaf"`  // bytes of the segment's record in the Merkle log
	Index  uint64 `json:"index"` // its number
	Path   []Hash `json:"path"`  // as in RFC 6962, section 2.1.1
	Seal   *Seal  `json:"seal"`  // whose tree the path leads to the root of
}

// ReadProof reads the document mobileops.logs.proof/v1.
func ReadProof(b []byte) (*Proof, error) {
	p := new(Proof)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("not a proof: %w", err)
	}
	if p.Schema != ProofSchema || p.Seal == nil || len(p.Path) > maxPath || len(p.Leaf) > maxRecord {
		return nil, errors.New("not a proof of a segment")
	}
	return p, nil
}

// Verify checks the proof with the public key of the host and returns what it
// proves: the record of the segment. That a file is the segment is for
// VerifyFile.
func (p *Proof) Verify(key ed25519.PublicKey) (*SegmentRecord, error) {
	if p.Seal == nil || len(p.Path) > maxPath {
		return nil, errors.New("not a proof of a segment")
	}
	if err := p.Seal.Verify(key); err != nil {
		return nil, fmt.Errorf("the seal: %w", err)
	}
	root, err := rootByPath(leafHash(p.Leaf), p.Index, p.Seal.Size, p.Path)
	if err != nil {
		return nil, err
	}
	if root != p.Seal.Root {
		return nil, errors.New("the record is not in the tree that was sealed")
	}
	r, err := decodeRecord(p.Leaf)
	if err != nil {
		return nil, err
	}
	if r.Segment == nil {
		return nil, errors.New("the record is not about a segment")
	}
	return r.Segment, nil
}

// VerifyFile is Verify, and checks that a file of size bytes is the segment:
// as it lies in the store, or decrypted.
func (p *Proof) VerifyFile(ctx context.Context, key ed25519.PublicKey, file io.ReaderAt, size int64) (*SegmentRecord, error) {
	rec, err := p.Verify(key)
	if err != nil {
		return nil, err
	}
	plain, err := hashSegment(ctx, file, size, false)
	if err != nil {
		return nil, err
	}
	if plain == rec.Plain {
		return rec, nil
	}
	if rec.Sealed && size == rec.Bytes {
		if sum, err := hashSegment(ctx, file, size, true); err == nil && sum == rec.Hash {
			return rec, nil
		}
	}
	return nil, errors.New("the file is not the segment that was sealed")
}

// Prove returns the proof of a segment, which may have been merged or removed
// since. Without a seal that covers it yet, the error is NotReady.
func (s *Store) Prove(ctx context.Context, id uint64) (*Proof, error) {
	x, err := s.mustIndex(ctx)
	if err != nil {
		return nil, err
	}
	var leaves []Hash
	p := &Proof{Schema: ProofSchema}
	found := false
	err = s.history(ctx, x, func(op *operation) error {
		for i, r := range op.records {
			if r.Segment != nil && r.Segment.ID == id {
				found = true
				p.Leaf, p.Index = op.leaves[i], uint64(len(leaves))
			}
			if r.Kind == KindSealed && found && p.Seal == nil {
				r.Seal.Store = x.store.String()
				p.Seal = r.Seal
			}
			leaves = append(leaves, leafHash(op.leaves[i]))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, failure.Errorf(failure.No, "there never was a segment %d", id)
	}
	if p.Seal == nil {
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "segment %d is not sealed yet", id), "the collector seals every few minutes")
	}
	if p.Seal.Size > uint64(len(leaves)) || p.Index >= p.Seal.Size {
		return nil, tampered("a seal speaks of %d records, and there are %d before it", p.Seal.Size, len(leaves))
	}
	p.Path = inclusionPath(int(p.Index), leaves[:p.Seal.Size])
	return p, nil
}

// history calls fn with each operation in the Merkle log up to the head.
func (s *Store) history(ctx context.Context, x *index, fn func(*operation) error) error {
	r, f, err := openMerkle(s.merklePath(), x.store, 0, tree{}, x.bytes)
	if isFormat(err) {
		return tampered("%w", err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		op, err := r.next(ctx)
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, errTorn), isFormat(err):
			return tampered("%w", err)
		case err != nil:
			return err
		}
		if err := fn(op); err != nil {
			return err
		}
	}
}

// keyName names a public key in messages: the first 16 hexadecimal digits of
// its BLAKE3 hash, as the audit chain does.
func keyName(key ed25519.PublicKey) string {
	sum := Hash(blake3.Sum256(key))
	return sum.String()[:16]
}
