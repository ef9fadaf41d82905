package audit

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

// HeadSchema names the format of a signed head.
const HeadSchema = "mobileops.audit.head/v1"

// maxHeadFile bounds what is read as a signed head, in bytes.
const maxHeadFile = 16 << 10

// SignedHead states, under a signature, where a chain ended at a time.
type SignedHead struct {
	Schema    string    `json:"schema"`
	Sequence  uint64    `json:"sequence"`
	Hash      string    `json:"hash"` // 64 hexadecimal digits
	Time      time.Time `json:"time"` // to the nanosecond
	Host      string    `json:"host"`
	PublicKey string    `json:"public_key"` // base64; a hint only: trust comes from the key that the reader has
	Signature string    `json:"signature"`  // base64
}

// message is what is signed: "mobileops audit head v1" and a newline; sequence
// uint64, hash, time int64 in nanoseconds since 1970 UTC, length of the host
// uint32, host; big endian.
func (h *SignedHead) message() []byte {
	hash, _ := hex.DecodeString(h.Hash)
	be := binary.BigEndian
	b := []byte("mobileops audit head v1\n")
	b = be.AppendUint64(b, h.Sequence)
	b = append(b, hash...)
	b = be.AppendUint64(b, uint64(h.Time.UnixNano()))
	b = be.AppendUint32(b, uint32(len(h.Host)))
	return append(b, h.Host...)
}

// Verify checks the signature with a public key.
func (h *SignedHead) Verify(key ed25519.PublicKey) error {
	if hash, err := hex.DecodeString(h.Hash); err != nil || len(hash) != len(Hash{}) {
		return errors.New("its hash is not one")
	}
	sig, err := base64.StdEncoding.DecodeString(h.Signature)
	if err != nil || !ed25519.Verify(key, h.message(), sig) {
		return errors.New("its signature is not valid under the key " + fingerprint(key))
	}
	return nil
}

func (h *SignedHead) encode() []byte {
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return append(b, '\n')
}

func decodeHead(b []byte) (*SignedHead, error) {
	h := new(SignedHead)
	if err := json.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("not a signed head: %w", err)
	}
	if h.Schema != HeadSchema {
		return nil, fmt.Errorf("not a signed head: its schema is %q, not %q", h.Schema, HeadSchema)
	}
	return h, nil
}

// ReadHead reads a signed head from a file.
func ReadHead(path string) (*SignedHead, error) {
	b, err := readSmall(path, maxHeadFile)
	if err != nil {
		return nil, err
	}
	h, err := decodeHead(b)
	if err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "%s: %w", path, err)
	}
	return h, nil
}

// HostID returns what identifies this host in signed heads: 32 hexadecimal
// digits derived by BLAKE3 from /etc/machine-id, which itself should not be
// told (machine-id(5)), or the host name where there is none.
func HostID() string {
	b, err := os.ReadFile("/etc/machine-id")
	if id := strings.TrimSpace(string(b)); err == nil && len(id) == 32 {
		var out [16]byte
		blake3.DeriveKey("mobileops 2025 audit host id", []byte(id), out[:])
		return hex.EncodeToString(out[:])
	}
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "unknown"
}

func (l *Log) host() string {
	if l.opts.Host != "" {
		return l.opts.Host
	}
	return HostID()
}

// lastSigned returns the newest signed head in the database, or nil.
func lastSigned(tx *state.Tx) (*SignedHead, error) {
	b := tx.Bucket(signedBucket())
	if b == nil {
		return nil, nil
	}
	k, v := b.Cursor().Last()
	if k == nil {
		return nil, nil
	}
	h, err := decodeHead(v)
	if err != nil {
		return nil, fmt.Errorf("%w: the signed head at record %x: %w", ErrBroken, k, err)
	}
	return h, nil
}

// signIfDue signs the head when enough records or time have passed since the
// last one. It is called within the transaction that made the head, so that
// signing costs no further fsync.
func (l *Log) signIfDue(tx *state.Tx, head Head, now time.Time) (*SignedHead, error) {
	last, err := lastSigned(tx)
	if err != nil {
		return nil, err
	}
	// A clock that was set back must not put off the next signature for long.
	if last != nil && head.Sequence < last.Sequence+SignEveryRecords && now.Sub(last.Time).Abs() < SignEvery {
		return nil, nil
	}
	if err := l.outsideAgrees(tx); err != nil {
		return nil, err
	}
	return l.sign(tx, head, now, last != nil)
}

// sign signs the head and keeps the signature in the database.
func (l *Log) sign(tx *state.Tx, head Head, now time.Time, mustHaveKey bool) (*SignedHead, error) {
	key, err := l.privateKey(mustHaveKey)
	if err != nil {
		return nil, err
	}
	s := &SignedHead{
		Schema:    HeadSchema,
		Sequence:  head.Sequence,
		Hash:      head.Hash.String(),
		Time:      now.UTC(),
		Host:      l.host(),
		PublicKey: base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)),
	}
	s.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, s.message()))
	b, err := tx.CreateBucketIfNotExists(signedBucket())
	if err != nil {
		return nil, err
	}
	return s, b.Put(sequenceKey(head.Sequence), s.encode())
}

// outsideAgrees returns an error when the head file speaks of a record that
// this chain does not have. Then it is evidence, and must not be overwritten.
func (l *Log) outsideAgrees(tx *state.Tx) error {
	if l.HeadFile() == "" {
		return nil
	}
	out, err := ReadHead(l.HeadFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var v []byte
	if b := tx.Bucket(recordBucket()); b != nil {
		v = b.Get(sequenceKey(out.Sequence))
	}
	if len(v) < len(Hash{}) || hex.EncodeToString(v[:len(Hash{})]) != out.Hash {
		return failure.Hint(
			fmt.Errorf("%w: %s speaks of a record %d that is not in the chain", ErrBroken, l.HeadFile(), out.Sequence),
			"see what is wrong: mobileops audit verify; if an older state was restored on purpose: mobileops audit head --sign --force")
	}
	return nil
}

// publish writes a signed head outside of the state, unless a later one is
// there already. Two processes at once can leave the earlier one; it proves
// less until the next is due, but never accuses wrongly.
func (l *Log) publish(h *SignedHead) error {
	path := l.HeadFile()
	if path == "" {
		return nil
	}
	if there, err := ReadHead(path); err == nil && there.Sequence > h.Sequence {
		return nil
	}
	if err := durable.MkdirAll(l.opts.LogDir, 0o750); err != nil {
		return err
	}
	return durable.WriteFile(path, h.encode(), 0o644)
}

// Sign signs the present head, whether it is due or not, and writes it outside
// of the state. It refuses with ErrBroken when the head that is there speaks
// of a record that the chain does not have, unless force is set; then it keeps
// that file as evidence and returns its new name.
func (l *Log) Sign(ctx context.Context, force bool) (signed *SignedHead, kept string, err error) {
	err = l.store.Update(ctx, func(tx *state.Tx) error {
		head, err := readHead(tx)
		if err != nil {
			return failure.Hint(err, "see what is wrong: mobileops audit verify")
		}
		if head.Sequence == 0 {
			return failure.New(failure.NotReady, "the audit chain is empty, so there is no head to sign")
		}
		if err := l.outsideAgrees(tx); err != nil {
			if !force {
				return err
			}
			kept = l.HeadFile() + ".replaced-" + time.Now().UTC().Format("20060102T150405.000Z")
			if err := os.Rename(l.HeadFile(), kept); err != nil {
				return err
			}
		}
		last, err := lastSigned(tx)
		if err != nil {
			return err
		}
		signed, err = l.sign(tx, head, time.Now(), last != nil)
		return err
	})
	if err == nil {
		err = l.publish(signed)
	}
	return signed, kept, err
}
