package history

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"aead.dev/minisign"
)

// commentPrefix begins the trusted comment of a signature that mobileops made.
const commentPrefix = "mobileops record "

// trustedComment is what the signature of a record says beside it: which
// record of which host it is of.
func trustedComment(r *Record, d Digest) string {
	return fmt.Sprintf("%s%d host %s digest %s", commentPrefix, r.Counter, r.Host, d)
}

// signBytes returns the text of a .minisig file over the BLAKE2b digest of a
// message, which is what minisign makes since version 0.11.
func signBytes(key minisign.PrivateKey, message []byte, trusted, untrusted string) []byte {
	r := minisign.NewReader(bytes.NewReader(message))
	io.Copy(io.Discard, r) // reads memory, and cannot fail
	return r.SignWithComments(key, trusted, untrusted)
}

// verifySignature checks the signature of a record by the key that it names.
func (e *Entry) verifySignature() error {
	pub, err := ParsePublicKey(e.Signer)
	if err != nil {
		return err
	}
	return verifyText(pub, &e.Record, e.Body, e.Signature)
}

// verifyText checks the text of a .minisig file. One that the minisign tool
// made has a trusted comment of its own; one that mobileops made must name
// this very record in it.
func verifyText(pub minisign.PublicKey, r *Record, body, text []byte) error {
	var s minisign.Signature
	if err := s.UnmarshalText(trimText(text)); err != nil {
		return errors.New("its signature cannot be read")
	}
	if s.KeyID != pub.ID() {
		return fmt.Errorf("it is signed by the key %016X, not by %016X", s.KeyID, pub.ID())
	}
	if !minisign.Verify(pub, body, trimText(text)) {
		return errors.New("its signature is not valid")
	}
	if strings.HasPrefix(s.TrustedComment, commentPrefix) && s.TrustedComment != trustedComment(r, digestOf(body)) {
		return errors.New("its signature was made for another record")
	}
	return nil
}

// trimText takes away the last line end, which the tool writes and the library
// does not expect.
func trimText(text []byte) []byte { return bytes.TrimRight(text, "\r\n") }
