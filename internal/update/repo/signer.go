package repo

import (
	"context"
	"crypto"
	"io"

	"github.com/mobileops/mobileops/internal/trust"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// tufSigner lets a trust.Signer sign metadata of TUF. A failure of the key is
// kept, because go-tuf tells no more of it than that there was one.
type tufSigner struct {
	ctx    context.Context
	signer trust.Signer
	err    error
}

// SignMessage signs what canonical JSON made of a role.
func (s *tufSigner) SignMessage(message io.Reader, _ ...signature.SignOption) ([]byte, error) {
	data, err := io.ReadAll(message)
	if err != nil {
		return nil, err
	}
	sig, err := s.signer.Sign(s.ctx, data)
	s.err = err
	return sig, err
}

// PublicKey returns the public half.
func (s *tufSigner) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.signer.Public().Ed25519, nil
}

// sign adds the signatures of all signers to metadata, in place of those that
// it has.
func sign[T metadata.Roles](ctx context.Context, m *metadata.Metadata[T], signers []trust.Signer) error {
	m.ClearSignatures()
	seen := map[string]bool{}
	for _, s := range signers {
		id, err := keyID(s)
		if err != nil {
			return err
		}
		if seen[id] {
			continue // two signatures by one key make metadata that nobody reads
		}
		seen[id] = true
		t := &tufSigner{ctx: ctx, signer: s}
		if _, err := m.Sign(t); err != nil {
			if t.err != nil {
				err = t.err
			}
			return err
		}
	}
	return nil
}

func tufKey(s trust.Signer) (*metadata.Key, error) {
	return metadata.KeyFromPublicKey(s.Public().Ed25519)
}

// keyID is how TUF calls the key of a signer.
func keyID(s trust.Signer) (string, error) {
	k, err := tufKey(s)
	if err != nil {
		return "", err
	}
	return k.ID()
}
