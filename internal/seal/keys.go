package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/mobileops/mobileops/internal/failure"
)

const (
	keySize = 32 // AES-256, of data keys and key files

	kindAge     = 1 // an age file for one recipient, whose content is the data key
	kindKeyFile = 2 // key id, nonce, and the data key under AES-256-GCM
)

// The labels keep what is derived from one key apart.
const (
	labelHeader  = "mobileops.seal/v1 header"
	labelPayload = "mobileops.seal/v1 payload"
	labelWrap    = "mobileops.seal/v1 wrap"
	labelKeyID   = "mobileops.seal/v1 key id"
)

// Recipient is somebody for whom objects are sealed: an age recipient or a Key.
type Recipient interface {
	wrap(dataKey []byte, p *preamble) (stanza, error)
}

// Identity opens what was sealed for its recipient: an age identity or a Key.
type Identity interface {
	// unwrap returns errNotMine for a stanza of somebody else.
	unwrap(s stanza, p *preamble) ([]byte, error)
}

var errNotMine = errors.New("wrapped for another key")

// ParseRecipients reads age recipients (age1…, also the hybrid age1pq1…), one a
// line, with empty lines and comments (#), as in a recipients file of age. An
// error names the line.
func ParseRecipients(r io.Reader) ([]Recipient, error) {
	parsed, err := age.ParseRecipients(r)
	if err != nil {
		return nil, failure.Hint(failure.Errorf(failure.Usage, "age recipients: %w", err),
			"one public key a line, as age-keygen -y prints it")
	}
	to := make([]Recipient, len(parsed))
	for i, p := range parsed {
		to[i] = ageRecipient{p}
	}
	return to, nil
}

// ParseIdentities reads age identities (AGE-SECRET-KEY-1…), one a line, with
// empty lines and comments (#), as age-keygen writes them. Errors never hold
// what was read. Read files with IdentityFile, which looks at who else may.
func ParseIdentities(r io.Reader) ([]Identity, error) {
	parsed, err := age.ParseIdentities(r)
	if err != nil {
		return nil, failure.Hint(failure.Errorf(failure.Usage, "age identities: %w", err),
			"a file as age-keygen writes it, without a passphrase")
	}
	ids := make([]Identity, len(parsed))
	for i, p := range parsed {
		ids[i] = ageIdentity{p}
	}
	return ids, nil
}

type ageRecipient struct{ age.Recipient }

func (r ageRecipient) wrap(dataKey []byte, _ *preamble) (stanza, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, r.Recipient)
	if err != nil {
		return stanza{}, err
	}
	if _, err := w.Write(dataKey); err != nil {
		return stanza{}, err
	}
	if err := w.Close(); err != nil {
		return stanza{}, err
	}
	return stanza{kindAge, b.Bytes()}, nil
}

type ageIdentity struct{ age.Identity }

func (i ageIdentity) unwrap(s stanza, _ *preamble) ([]byte, error) {
	if s.kind != kindAge {
		return nil, errNotMine
	}
	r, err := age.Decrypt(bytes.NewReader(s.body), i.Identity)
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return nil, errNotMine
	}
	if err != nil {
		return nil, err
	}
	dataKey, err := io.ReadAll(io.LimitReader(r, keySize+1))
	if err != nil {
		return nil, err
	}
	if len(dataKey) != keySize {
		return nil, fmt.Errorf("a data key of %d bytes or more", len(dataKey))
	}
	return dataKey, nil
}

// Key is the key of a key file. It both seals and opens.
type Key struct {
	secret [keySize]byte
	id     [8]byte
}

func newKey(secret []byte) (*Key, error) {
	id, err := hkdf.Key(sha256.New, secret, nil, labelKeyID, len(Key{}.id))
	if err != nil {
		return nil, err
	}
	k := &Key{secret: [keySize]byte(secret)}
	copy(k.id[:], id)
	return k, nil
}

// ID names the key without telling anything about it: 16 hexadecimal digits.
func (k *Key) ID() string { return hex.EncodeToString(k.id[:]) }

// String is "key file ID": a key that gets into a message stays secret.
func (k *Key) String() string { return "key file " + k.ID() }

// GoString keeps the secret out of %#v.
func (k *Key) GoString() string { return k.String() }

// aead returns the cipher that wraps for one object. The nonce of the object
// is in its key, so that random nonces of GCM never come near their limit,
// however many objects a key file wraps.
func (k *Key) aead(p *preamble) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, k.secret[:], p.nonce[:], labelWrap, keySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return newGCM(key)
}

func (k *Key) wrap(dataKey []byte, p *preamble) (stanza, error) {
	gcm, err := k.aead(p)
	if err != nil {
		return stanza{}, err
	}
	nonce := make([]byte, gcm.NonceSize())
	rand.Read(nonce) // never fails: crypto/rand.Read
	body := append(bytes.Clone(k.id[:]), nonce...)
	return stanza{kindKeyFile, gcm.Seal(body, nonce, dataKey, k.id[:])}, nil
}

func (k *Key) unwrap(s stanza, p *preamble) ([]byte, error) {
	if s.kind != kindKeyFile || len(s.body) < len(k.id) || !bytes.Equal(s.body[:len(k.id)], k.id[:]) {
		return nil, errNotMine
	}
	gcm, err := k.aead(p)
	if err != nil {
		return nil, err
	}
	if len(s.body) != len(k.id)+gcm.NonceSize()+keySize+tagSize {
		return nil, fmt.Errorf("%d bytes", len(s.body))
	}
	nonce, sealed := s.body[len(k.id):len(k.id)+gcm.NonceSize()], s.body[len(k.id)+gcm.NonceSize():]
	dataKey, err := gcm.Open(nil, nonce, sealed, k.id[:])
	if err != nil {
		return nil, errors.New("altered, or of another object")
	}
	return dataKey, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// wrapAll wraps the data key for every recipient.
func wrapAll(dataKey []byte, p *preamble, to []Recipient) ([]stanza, error) {
	if len(to) == 0 {
		return nil, failure.New(failure.Usage, "nothing is sealed for nobody: no recipient and no key file is given")
	}
	if len(to) > maxStanzas {
		return nil, failure.Errorf(failure.Usage, "%d recipients and key files; at most %d", len(to), maxStanzas)
	}
	stanzas := make([]stanza, len(to))
	for i, r := range to {
		var err error
		if stanzas[i], err = r.wrap(dataKey, p); err != nil {
			return nil, fmt.Errorf("wrap the data key: %w", err)
		}
	}
	return stanzas, nil
}

// unwrap returns the data key of the slot that begins at offset.
func unwrap(stanzas []stanza, p *preamble, offset int, ids []Identity) ([]byte, error) {
	if len(ids) == 0 {
		return nil, failure.Errorf(failure.NotReady, "%w: none is given", ErrNoKey)
	}
	var damaged error
	for n, s := range stanzas {
		for _, id := range ids {
			dataKey, err := id.unwrap(s, p)
			if err == nil {
				return dataKey, nil
			}
			if !errors.Is(err, errNotMine) && damaged == nil {
				damaged = corruptHeader(offset, "wrapped key %d: %v", n, err)
			}
		}
	}
	if damaged != nil {
		return nil, damaged
	}
	return nil, fmt.Errorf("%w: it is sealed for %s", ErrNoKey, readers(stanzas))
}

// readers says for whom stanzas are, as far as they tell: age's do not.
func readers(stanzas []stanza) string {
	var ages, unknown int
	var text string
	add := func(s string) {
		if text != "" {
			text += ", "
		}
		text += s
	}
	for _, s := range stanzas {
		switch {
		case s.kind == kindAge:
			ages++
		case s.kind == kindKeyFile && len(s.body) >= 8:
			add("key file " + hex.EncodeToString(s.body[:8]))
		default:
			unknown++
		}
	}
	if ages > 0 {
		add(fmt.Sprintf("%d age recipients", ages))
	}
	if unknown > 0 {
		add(fmt.Sprintf("%d of kinds unknown to this program", unknown))
	}
	return text
}
