package trust

import (
	"encoding/hex"
	"hash"

	"aead.dev/minisign"
	"golang.org/x/crypto/blake2b"
)

// NewDigest returns the hash that a package is known by and that signatures are
// of: BLAKE2b-512.
func NewDigest() hash.Hash {
	h, err := blake2b.New512(nil)
	if err != nil { // only a key can be wrong, and there is none
		panic(err)
	}
	return h
}

// Verifier proves one package against its signature, while the package streams
// by. It is made by Keys.Verifier, and is not for use by several goroutines at
// once.
type Verifier struct {
	release   Release
	key       Key
	signature [64]byte
	hash      hash.Hash
}

// Verifier reads a signature file and proves its trusted comment by the trusted
// key that it names. What Release returns can be relied upon from then on; that
// it is about a certain package is what Verify proves. Errors are of type
// *Error. Whether the release has expired is for the caller to ask
// (Release.Current).
func (k *Keys) Verifier(signature []byte) (*Verifier, error) {
	s, err := parseSignature(signature)
	if err != nil {
		return nil, err
	}
	key, err := k.signer(s)
	if err != nil {
		return nil, err
	}
	comment := append(s.Signature[:len(s.Signature):len(s.Signature)], s.TrustedComment...)
	if !key.verify(comment, s.CommentSignature[:]) {
		return nil, refuse(CodeBadSignature, "get package and signature again; if it stays so, somebody changed it: do not install it",
			"the comment in its signature is not what the key %s signed", key.ID())
	}
	r, err := ParseComment(s.TrustedComment)
	if err != nil {
		return nil, err
	}
	if err := key.Scope.allows(key.ID(), r); err != nil {
		return nil, err
	}
	return &Verifier{release: r, key: key, signature: s.Signature, hash: NewDigest()}, nil
}

// signer returns the trusted key that made s.
func (k *Keys) signer(s *minisign.Signature) (Key, error) {
	if len(k.list) == 0 {
		return Key{}, refuse(CodeNoKeys, "trust the key of who makes the packages: mobileops update key add FILE.pub",
			"no key is trusted here: there is none in %s", k.dir)
	}
	for _, key := range k.list {
		if key.Number == s.KeyID {
			return key, nil
		}
	}
	return Key{}, refuse(CodeWrongKey, "if that key is one of yours: mobileops update key add FILE.pub",
		"it is signed by the key %s, which is not trusted here; those are: %s", formatID(s.KeyID), k.ids())
}

// Release returns what the signature says the package is.
func (v *Verifier) Release() Release { return v.release }

// Key returns the trusted key that made the signature.
func (v *Verifier) Key() Key { return v.key }

// Write takes the next bytes of the package. It never fails.
func (v *Verifier) Write(p []byte) (int, error) { return v.hash.Write(p) }

// Digest returns the digest of what was written so far: 128 hexadecimal digits
// of BLAKE2b-512. After the last byte it is that of the package, by which
// change requests name it.
func (v *Verifier) Digest() string { return hex.EncodeToString(v.hash.Sum(nil)) }

// Verify reports whether what was written is the package that was signed. The
// error is an *Error with CodeBadSignature.
func (v *Verifier) Verify() error {
	if v.key.verify(v.hash.Sum(nil), v.signature[:]) {
		return nil
	}
	return refuse(CodeBadSignature, "get it again; if it stays so, somebody changed it: do not install it",
		"the package is not what the key %s signed as %s %s", v.key.ID(), v.release.Name, v.release.Version)
}
