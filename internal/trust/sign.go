package trust

import (
	"bytes"
	"context"
	"io"
	"strings"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/failure"
)

// maxUntrusted bounds the untrusted comment of a signature, in bytes. The
// minisign tool reads 1024, with what precedes it in the line.
const maxUntrusted = 512

// SignPackage reads a package from r to its end and returns the content of its
// signature file, which says that it is rel. untrusted is a line for people that
// nothing vouches for; "" names the key. The minisign tool verifies the result.
func SignPackage(ctx context.Context, s Signer, r io.Reader, rel Release, untrusted string) ([]byte, error) {
	if err := rel.Check(); err != nil { // before a long reading, not after
		return nil, err
	}
	h := NewDigest()
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			return SignDigest(ctx, s, h.Sum(nil), rel, untrusted)
		}
		if err != nil {
			return nil, err
		}
	}
}

// SignDigest is SignPackage for a package whose BLAKE2b-512 digest (NewDigest)
// is known.
func SignDigest(ctx context.Context, s Signer, digest []byte, rel Release, untrusted string) ([]byte, error) {
	if err := rel.Check(); err != nil {
		return nil, err
	}
	if len(digest) != 64 {
		return nil, failure.Errorf(failure.Failed, "a digest of %d bytes is not one of BLAKE2b-512", len(digest))
	}
	if untrusted == "" {
		untrusted = "signature of " + rel.Name + " " + rel.Version + " by key " + s.Public().ID()
	}
	if len(untrusted) > maxUntrusted || strings.ContainsFunc(untrusted, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, failure.Errorf(failure.Usage, "a comment is one line of at most %d bytes", maxUntrusted)
	}
	signature, err := s.Sign(ctx, digest)
	if err != nil {
		return nil, err
	}
	if signature, err = proved(s, digest, signature); err != nil {
		return nil, err
	}
	global := append(bytes.Clone(signature), rel.Comment()...)
	over, err := s.Sign(ctx, global)
	if err != nil {
		return nil, err
	}
	if over, err = proved(s, global, over); err != nil {
		return nil, err
	}
	return signatureFile(s.Public(), signature, over, rel.Comment(), untrusted), nil
}

// signatureFile writes a signature file of minisign.
func signatureFile(key PublicKey, signature, over []byte, comment, untrusted string) []byte {
	f := minisign.Signature{Algorithm: minisign.HashEdDSA, KeyID: key.Number, TrustedComment: comment, UntrustedComment: untrusted}
	copy(f.Signature[:], signature)
	copy(f.CommentSignature[:], over)
	return []byte(f.String())
}
