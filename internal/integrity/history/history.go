// Package history keeps a signed record of every act that changed what the
// integrity engine trusts: a baseline taken, a change accepted, a baseline
// imported or removed, a signing key replaced.
//
// The records of a state directory are one chain for all names of baselines.
// Each has a counter, from 1 without gaps, and the digest of the record before
// it. A record is signed with ed25519 in the format of minisign, by the key
// that lies in the state directory or by one that never comes near this host.
// Nothing is ever dropped from the chain.
//
// Buckets of state.db:
//
//	integrity.history       counter (8 bytes, big endian) → length of the record (uvarint), record, signature (may be empty)
//	integrity.history.meta  "beginning" → there while the chain has begun and has no record yet
//
// A record is JSON in one canonical form (see Record). The signature is the
// text of a ".minisig" file: the minisign tool verifies an exported record.
//
// A record that is not signed itself is vouched for by the next signed one,
// since that covers its digest: only the last record under each key must be
// signed. What the chain cannot show is that it was replaced, as a whole, by
// an older copy of itself. Package anchor keeps its end elsewhere for that.
//
// Invariants: a record is appended in the transaction that does what it tells
// of; a private key that is gone is never silently replaced; what does not fit
// together is reported and never repaired.
//
// docs/formats/history.md describes all of it for programs of others.
//
// Sources: minisign (https://jedisct1.github.io/minisign/), ed25519 as in RFC
// 8032, BLAKE3.
package history

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// ErrBroken is wrapped by errors about a history that does not fit together.
var ErrBroken = failure.New(failure.Untrustworthy, "the history of the baselines is broken")

// Options say what surrounds a history.
type Options struct {
	// PublicKey is the path of the public key that must be in force, in
	// minisign's format. Its private half signs elsewhere. Empty: the key that
	// lies in the state directory.
	PublicKey string
	Tool      string // written into records: "mobileops 1.0.0"
	// Host identifies this host. Empty: audit.HostID.
	Host string
}

// Log is the history in a store. Making one opens nothing.
type Log struct {
	store *state.Store
	opts  Options
	now   func() time.Time
}

// New returns the history in a store.
func New(store *state.Store, o Options) *Log {
	if o.Host == "" {
		o.Host = audit.HostID()
	}
	return &Log{store: store, opts: o, now: time.Now}
}

// Host returns what identifies this host in records and anchors.
func (l *Log) Host() string { return l.opts.Host }

func recordBucket() []byte { return []byte("integrity.history") }
func metaBucket() []byte   { return []byte("integrity.history.meta") }
func beginningKey() []byte { return []byte("beginning") }

func counterKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// Pen appends records. It holds what must be read from files for that, so that
// none is read while state.db is leased.
type Pen struct {
	log  *Log
	keys keys
	boot string
	name string // of the host
}

// Pen gets ready to append: it reads the keys, and makes one when the history
// begins. A private key that is gone is an error.
func (l *Log) Pen(ctx context.Context) (*Pen, error) {
	if err := l.finishRotation(ctx); err != nil {
		return nil, err
	}
	k, err := l.readKeys()
	if err != nil {
		return nil, err
	}
	if k.public == nil {
		if k, err = l.begin(ctx); err != nil {
			return nil, err
		}
	}
	return l.pen(k), nil
}

func (l *Log) pen(k keys) *Pen {
	p := &Pen{log: l, keys: k, boot: bootID()}
	p.name, _ = os.Hostname()
	return p
}

// begin makes the first key. Before that it notes in state.db that the history
// begins here: a key without a history then shows that the history was removed.
func (l *Log) begin(ctx context.Context) (keys, error) {
	err := l.store.Update(ctx, func(tx *state.Tx) error {
		if last, err := lastEntry(tx); err != nil {
			return err
		} else if last != nil {
			_, public := l.KeyFiles()
			return failure.Hint(failure.Errorf(failure.Untrustworthy, "the history has records, and its public key %s is gone", public),
				"put keys/integrity.pub and keys/integrity.key back from a backup; if they are lost: mobileops integrity key rotate --lost")
		}
		return markBeginning(tx)
	})
	if err != nil {
		return keys{}, err
	}
	return l.generate()
}

// markBeginning notes that the history exists and has no record yet.
func markBeginning(tx *state.Tx) error {
	if _, err := tx.CreateBucketIfNotExists(recordBucket()); err != nil {
		return err
	}
	meta, err := tx.CreateBucketIfNotExists(metaBucket())
	if err != nil {
		return err
	}
	return meta.Put(beginningKey(), []byte{1})
}

// mayBegin returns an error when there was a history already, whose records are
// gone: the key of a state directory is made only after the history has begun.
func (p *Pen) mayBegin(tx *state.Tx) error {
	if meta := tx.Bucket(metaBucket()); meta != nil && meta.Get(beginningKey()) != nil {
		return nil
	}
	k := &p.keys
	if tx.Bucket(recordBucket()) != nil || k.private != nil || k.public != nil && !k.configured {
		return errRemoved(p.log)
	}
	return nil
}

// errRemoved says that the records are gone.
func errRemoved(l *Log) error {
	private, public := l.KeyFiles()
	return failure.Hint(fmt.Errorf("%w: all of its records are gone", ErrBroken),
		fmt.Sprintf("compare with an anchor; when state.db was lost, or one from before there was a history was restored on purpose, move %s and %s away, and a new one begins", private, public))
}

// Empty tells whether the history has no record yet.
func Empty(tx *state.Tx) (bool, error) {
	last, err := lastEntry(tx)
	return last == nil, err
}

// Append appends r to the history within the transaction that does what r
// tells of. It fills in what the history knows (counter, digest of the record
// before, host, boot, time, key), signs when the private key is here, and
// returns the record as it stands now.
func (p *Pen) Append(tx *state.Tx, r Record) (Record, error) {
	last, err := lastEntry(tx)
	if err == nil && last == nil {
		err = p.mayBegin(tx)
	}
	if err != nil {
		return Record{}, failure.Hint(err, "nothing was appended; see what is wrong: mobileops integrity history")
	}
	// The keys of a first record are those that are here, or configured.
	force := inForce{key: p.keys.publicText(), elsewhere: p.keys.configured && p.keys.elsewhere()}
	if last != nil {
		force = last.next()
	}
	return p.append(tx, r, last, force)
}

// append appends r behind last, which may be nil, to be signed by a key.
func (p *Pen) append(tx *state.Tx, r Record, last *Entry, force inForce) (Record, error) {
	b, err := tx.CreateBucketIfNotExists(recordBucket())
	if err != nil {
		return Record{}, err
	}
	r.Schema, r.Counter, r.Previous = RecordSchema, 1, Digest{}
	r.Host, r.HostName, r.Boot, r.Tool = p.log.opts.Host, cut(p.name), p.boot, p.log.opts.Tool
	r.Time = p.log.now().UTC().Truncate(time.Millisecond)
	r.Signer, r.Elsewhere = force.key, force.elsewhere
	if last != nil {
		r.Counter, r.Previous = last.Counter+1, last.Digest
		if last.Host != r.Host && !r.Kind.settles() {
			return Record{}, failure.Hint(fmt.Errorf("%w: its last record was written on another host, %s", ErrBroken, last.HostName),
				"when this state directory was copied on purpose, begin anew: mobileops integrity baseline")
		}
	}
	body, err := r.encode()
	if err != nil {
		return Record{}, err
	}
	signature, err := p.sign(&r, body)
	if err != nil {
		return Record{}, err
	}
	b.FillPercent = 0.95 // keys only grow
	if err := b.Put(counterKey(r.Counter), encodeEntry(body, signature)); err != nil {
		return Record{}, err
	}
	if err := b.SetSequence(r.Counter); err != nil {
		return Record{}, err
	}
	if meta := tx.Bucket(metaBucket()); meta != nil {
		err = meta.Delete(beginningKey())
	}
	return r, err
}

// sign signs the bytes of a record, or returns nothing when that is to be done
// elsewhere.
func (p *Pen) sign(r *Record, body []byte) ([]byte, error) {
	k := &p.keys
	if r.Kind != KeyChange && k.publicText() != r.Signer {
		if k.configured {
			return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "the history is signed by the key %s, and integrity.public_key names %s", keyName(r.Signer), keyName(k.publicText())),
				"to change the key: mobileops integrity key use FILE")
		}
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "the history is signed by the key %s, and the one in the state directory is %s", keyName(r.Signer), keyName(k.publicText())),
			"put keys/integrity.pub, and keys/integrity.key where there was one, back from a backup")
	}
	if k.private != nil && publicOf(k.private).String() == r.Signer {
		return signRecord(*k.private, r, body), nil
	}
	if r.signedLater() || r.keyLost() {
		return nil, nil
	}
	private, _ := p.log.KeyFiles()
	return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "the private key %s, which signs the history, is gone", private),
		"put it back from a backup; if it is lost: mobileops integrity key rotate --lost; if it was taken away to sign elsewhere: mobileops integrity key use "+strings.TrimSuffix(private, ".key")+".pub")
}

// signRecord returns the signature of a record's bytes, as the text of a
// .minisig file. Like minisign since version 0.11 it signs their BLAKE2b digest.
func signRecord(key minisign.PrivateKey, r *Record, body []byte) []byte {
	return signBytes(key, body, trustedComment(r, digestOf(body)), fmt.Sprintf("signature of record %d by %s", r.Counter, keyName(r.Signer)))
}

// bootID returns random_boot_id(5) of the running system, "" when unknown.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// KeyFiles returns the paths of the signing key and of its public half.
func (l *Log) KeyFiles() (private, public string) {
	dir := filepath.Join(l.store.Dir(), "keys")
	return filepath.Join(dir, "integrity.key"), filepath.Join(dir, "integrity.pub")
}

// seconds cuts a time to what is written into anchors.
func seconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
