package trust

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// Signer makes ed25519 signatures (RFC 8032, without prehashing), with a
// private key wherever that is.
type Signer interface {
	// Public returns the public half of the key.
	Public() PublicKey
	// Sign returns the 64 bytes of a signature of message, which has been
	// verified with Public.
	Sign(ctx context.Context, message []byte) ([]byte, error)
	// String says which key it is, for messages; it holds no secret.
	String() string
}

// What a specification of a key begins with, when it is not a file.
const (
	pkcs11Scheme = "pkcs11:"
	execScheme   = "exec:"
)

// OpenSigner returns the key that spec names:
//
//	PATH          a secret key file of minisign, or an ed25519 key in PKCS #8 PEM
//	pkcs11:...    a key on a token, by its RFC 7512 URI; pkcs11-tool of OpenSC signs
//	exec:PROGRAM  a program that signs; docs/formats/release.md has the protocol
//
// password is asked for the password of an encrypted file or the PIN of a token,
// at most once. It may be nil when there is nobody to ask. A password is
// overwritten after use; a PIN is kept as long as the Signer.
func OpenSigner(ctx context.Context, spec string, password func() ([]byte, error)) (Signer, error) {
	if password == nil {
		password = func() ([]byte, error) {
			return nil, failure.Errorf(failure.NotAllowed, "%s needs a password, and there is nobody to ask", spec)
		}
	}
	switch {
	case strings.HasPrefix(spec, pkcs11Scheme):
		return openToken(ctx, spec, password)
	case strings.HasPrefix(spec, execScheme):
		return openProgram(ctx, strings.TrimPrefix(spec, execScheme))
	case spec == "":
		return nil, failure.New(failure.Usage, "no key was named")
	}
	s, err := openKeyFile(spec, password)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Hint(failure.Wrap(failure.NotReady, err), "make a key: mobileops update key generate")
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, failure.Wrap(failure.NotAllowed, err)
	}
	return s, err
}

// proved returns signature when it is one of message by key. Whatever a token
// or a program answers, nothing leaves here that verification refuses.
func proved(s Signer, message, signature []byte) ([]byte, error) {
	if !s.Public().verify(message, signature) {
		return nil, failure.Errorf(failure.Untrustworthy, "%s made a signature (%d bytes) that its public key %s does not verify", s, len(signature), s.Public().ID())
	}
	return signature, nil
}

// probe makes sure that both halves of a key belong together, before anything
// is signed with them.
func probe(ctx context.Context, s Signer) error {
	if _, err := s.Sign(ctx, []byte("mobileops: do these halves belong together?")); err != nil {
		return fmt.Errorf("try the key: %w", err)
	}
	return nil
}
