package store

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"
)

// SealSchema names the format of a seal.
const SealSchema = "mobileops.logs.seal/v1"

// Seal states, under a signature, what the Merkle log was at a time. One that
// is kept outside of the host shows when the end of the log was cut off.
type Seal struct {
	Store     string // 32 hexadecimal digits
	Host      string
	Size      uint64 // leaves in the tree
	Root      Hash
	Time      time.Time // UTC, to the nanosecond
	PublicKey []byte    // ed25519; a hint only: trust comes from the key that the reader has
	Signature []byte
}

// sealJSON is a seal as it is exported.
type sealJSON struct {
	Schema    string    `json:"schema"`
	Store     string    `json:"store"`
	Host      string    `json:"host"`
	Size      uint64    `json:"size"`
	Root      Hash      `json:"root"`
	Time      time.Time `json:"time"`
	PublicKey string    `json:"public_key"`
	Signature string    `json:"signature"`
}

// MarshalJSON returns the document mobileops.logs.seal/v1.
func (s *Seal) MarshalJSON() ([]byte, error) {
	return json.Marshal(sealJSON{SealSchema, s.Store, s.Host, s.Size, s.Root, s.Time,
		base64.StdEncoding.EncodeToString(s.PublicKey), base64.StdEncoding.EncodeToString(s.Signature)})
}

// UnmarshalJSON reads the document mobileops.logs.seal/v1.
func (s *Seal) UnmarshalJSON(b []byte) error {
	var j sealJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	if j.Schema != SealSchema {
		return errors.New("not a seal of a log store: its schema is not " + SealSchema)
	}
	pub, err := base64.StdEncoding.DecodeString(j.PublicKey)
	sig, serr := base64.StdEncoding.DecodeString(j.Signature)
	if err != nil || serr != nil || len(pub) != ed25519.PublicKeySize || len(sig) != ed25519.SignatureSize {
		return errors.New("not a seal of a log store: its key or signature is none")
	}
	*s = Seal{j.Store, j.Host, j.Size, j.Root, j.Time.UTC(), pub, sig}
	return nil
}

// message is what is signed: "mobileops logs seal v1" and a newline; id of the
// store 16 bytes, size uint64, root 32 bytes, time int64 in nanoseconds since
// 1970 UTC, length of the host uint32, host; big endian.
func (s *Seal) message() []byte {
	be := binary.BigEndian
	b := []byte("mobileops logs seal v1\n")
	var id storeID
	raw, err := hex.DecodeString(s.Store)
	if err == nil && len(raw) == len(id) {
		copy(id[:], raw)
	}
	b = append(b, id[:]...)
	b = be.AppendUint64(b, s.Size)
	b = append(b, s.Root[:]...)
	b = be.AppendUint64(b, uint64(s.Time.UnixNano()))
	b = be.AppendUint32(b, uint32(len(s.Host)))
	return append(b, s.Host...)
}

// Verify checks the signature with a public key.
func (s *Seal) Verify(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, s.message(), s.Signature) {
		return errors.New("its signature is not valid under the key of this host")
	}
	return nil
}

// sealDue tells whether the store changed since the last seal, and that is
// long enough ago.
func (s *Store) sealDue(x *index) bool {
	if s.opts.Signer == nil || x.tree.size == 0 {
		return false
	}
	if x.seal == nil {
		return true
	}
	// A seal is a leaf itself. A clock that was set back must not put off the
	// next one for long.
	return x.tree.size > x.seal.Size+1 && s.opts.Now().Sub(x.seal.Time).Abs() >= s.opts.SealEvery
}

// Seal signs the head of the Merkle log when it changed since the last seal,
// however short a time that is ago, and returns the newest seal. It is nil
// when there is nothing to seal yet.
func (s *Store) Seal(ctx context.Context) (*Seal, error) { return s.seal(ctx, true) }

func (s *Store) seal(ctx context.Context, now bool) (*Seal, error) {
	x, err := s.index(ctx)
	if err != nil || x == nil {
		return nil, err
	}
	if s.opts.Signer == nil || x.tree.size == 0 || x.seal != nil && x.tree.size == x.seal.Size+1 || !now && !s.sealDue(x) {
		return x.seal, nil
	}
	// The key needs a lease of its own, so it is fetched before.
	key, err := s.opts.Signer.SigningKey(ctx)
	if err != nil {
		return nil, err
	}
	var made *Seal
	err = s.change(ctx, "logs seal", func(c *change) error {
		made = &Seal{
			Store: c.head.store.String(), Host: s.opts.Host, Size: c.tree.size, Root: c.tree.root(),
			Time: c.now.UTC(), PublicKey: key.Public().(ed25519.PublicKey),
		}
		made.Signature = ed25519.Sign(key, made.message())
		return c.commit(ctx, &operation{records: []*Record{{Kind: KindSealed, Time: c.now.UnixNano(), Seal: made}}})
	})
	return made, err
}

// Head returns the newest seal, nil when there is none yet, and how many leaves
// the Merkle log has by now. The seal is what is to be kept outside.
func (s *Store) Head(ctx context.Context) (newest *Seal, leaves uint64, err error) {
	x, err := s.index(ctx)
	if err != nil || x == nil {
		return nil, 0, err
	}
	return x.seal, x.tree.size, nil
}
