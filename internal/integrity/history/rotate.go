package history

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// A change of key is two records in one transaction: one signed by the former
// key, which names the new one, and one by the new key, which so vouches for
// all before it. The new key's file has another name until the transaction is
// durable; what a killed process left is finished by the next one.

// nextFiles are the paths of a key that is about to be in force: of its private
// half, when that is to be here, or of its public half.
func (l *Log) nextFiles() (private, public string) {
	private, public = l.KeyFiles()
	return private + ".next", public + ".next"
}

// Rotate makes a new key on this host and puts it in force. about tells who
// does it and why, and whether the former key was lost. It returns the record
// by the new key.
func (l *Log) Rotate(ctx context.Context, about Record) (Record, error) {
	p, err := l.rotator(ctx, about.Lost)
	if err != nil {
		return Record{}, err
	}
	if about.Lost && p.keys.private != nil {
		return Record{}, failure.New(failure.Usage, "the key is here and not lost")
	}
	if p.keys.configured || p.keys.private == nil && !about.Lost {
		return Record{}, failure.Hint(failure.New(failure.NotReady, "the history is signed elsewhere, so a new key is made there"),
			"make one with minisign -G, bring its public half here, and: mobileops integrity key use FILE")
	}
	pub, key, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		return Record{}, err
	}
	next, _ := l.nextFiles()
	if err := durable.MkdirAll(filepath.Dir(next), 0o700); err != nil {
		return Record{}, denied(err)
	}
	if err := writePrivateKey(next, &key); err != nil {
		return Record{}, err
	}
	return l.change(ctx, p, about, pub, &key)
}

// rotator is Pen; with lost, both halves of the former key may be gone.
func (l *Log) rotator(ctx context.Context, lost bool) (*Pen, error) {
	if !lost {
		return l.Pen(ctx)
	}
	if err := l.finishRotation(ctx); err != nil {
		return nil, err
	}
	k, err := l.readKeys()
	return l.pen(k), err
}

// Use puts a key in force whose private half is elsewhere. When that is the
// present key, it is only noted that signing happens elsewhere from now on.
func (l *Log) Use(ctx context.Context, about Record, pub minisign.PublicKey) (Record, error) {
	if err := l.finishRotation(ctx); err != nil {
		return Record{}, err
	}
	k, err := l.readKeys()
	if err != nil {
		return Record{}, err
	}
	if k.configured && k.publicText() != pub.String() {
		return Record{}, failure.Hint(failure.Errorf(failure.Usage, "integrity.public_key in the configuration names the key %s", keyName(k.publicText())), "change it first, then run this again")
	}
	private, public := l.KeyFiles()
	if err := durable.MkdirAll(filepath.Dir(public), 0o700); err != nil {
		return Record{}, denied(err)
	}
	_, next := l.nextFiles()
	if err := writePublicKey(next, pub); err != nil {
		return Record{}, err
	}
	r, err := l.change(ctx, l.pen(k), about, pub, nil)
	if err != nil {
		return Record{}, err
	}
	if k.private != nil && publicOf(k.private).String() != pub.String() {
		// What it could sign is over; the records that it signed need only its
		// public half, which they hold.
		err = denied(os.Remove(private))
	}
	return r, err
}

// change appends the records of a change of key.
func (l *Log) change(ctx context.Context, p *Pen, about Record, pub minisign.PublicKey, key *minisign.PrivateKey) (Record, error) {
	about.Kind, about.Key, about.KeyElsewhere = KeyChange, pub.String(), key == nil
	var out Record
	err := l.store.Update(ctx, func(tx *state.Tx) error {
		last, err := lastEntry(tx)
		if err != nil {
			return err
		}
		force := inForce{pub.String(), key == nil}
		switch {
		case last == nil && about.Lost:
			return failure.New(failure.Usage, "there is no history whose key could be lost")
		case last == nil:
			if err := p.mayBegin(tx); err != nil {
				return err
			}
		case last.next() == force:
			return failure.Errorf(failure.Busy, "the key %s is in force already", keyName(force.key))
		case last.next().key != force.key:
			if about.Lost && last.next().elsewhere {
				return failure.New(failure.Usage, "the history is signed elsewhere, so a key cannot be lost here")
			}
			if _, err = p.append(tx, about, last, last.next()); err != nil {
				return err
			}
			about.Lost = false
			if last, err = lastEntry(tx); err != nil {
				return err
			}
		default: // the same key, which signs elsewhere from now on
			force = last.next()
		}
		by := l.pen(keys{private: key, public: &pub})
		if force.key == p.keys.publicText() {
			by.keys.private = p.keys.private
		}
		out, err = by.append(tx, about, last, force)
		return err
	})
	if err != nil {
		return Record{}, err
	}
	return out, l.publishNext(pub.String())
}

// finishRotation finishes a change of key whose process was killed.
func (l *Log) finishRotation(ctx context.Context) error {
	private, public := l.nextFiles()
	if !exists(private) && !exists(public) {
		return nil
	}
	var last *Entry
	err := l.store.View(ctx, func(tx *state.Tx) (err error) {
		last, err = lastEntry(tx)
		return err
	})
	if err != nil || last == nil {
		return err
	}
	return l.publishNext(last.next().key)
}

// publishNext gives the files of the next key their names when it is the one
// in force. Files of another key are of a change that did not happen.
func (l *Log) publishNext(force string) error {
	nextPrivate, nextPublic := l.nextFiles()
	private, public := l.KeyFiles()
	if exists(nextPrivate) {
		key, err := ReadPrivateKey(nextPrivate, nil)
		if err == nil && publicOf(key).String() == force {
			if err := denied(durable.Publish(nextPrivate, private)); err != nil {
				return err
			}
			return writePublicKey(public, publicOf(key))
		}
	}
	if exists(nextPublic) {
		key, err := ReadPublicKey(nextPublic)
		if err == nil && key.String() == force {
			return denied(durable.Publish(nextPublic, public))
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// ToSign returns the records that must be signed elsewhere, so that everything
// is vouched for: the last one under each key.
func (l *Log) ToSign(c *Chain, v *Verification) ([]*Entry, error) {
	var list []*Entry
	for _, n := range v.Unsigned {
		e, err := c.Record(n)
		if err != nil {
			return nil, err
		}
		if k := len(list); k > 0 && list[k-1].Signer == e.Signer {
			list[k-1] = e
		} else {
			list = append(list, e)
		}
	}
	return list, nil
}

// SignRecord signs the canonical form of a record, on whatever machine the key
// is. It returns the record and the text of the .minisig file.
func SignRecord(key *minisign.PrivateKey, body []byte) (Record, []byte, error) {
	r, err := Decode(body)
	if err != nil {
		return Record{}, nil, failure.Errorf(failure.Untrustworthy, "this is not a record of a history: %w", err)
	}
	if signer := publicOf(key).String(); r.Signer != signer {
		return r, nil, failure.Errorf(failure.Usage, "record %d is to be signed by the key %s, and this one is %s", r.Counter, keyName(r.Signer), keyName(signer))
	}
	return r, signRecord(*key, &r, body), nil
}

// ImportSignature keeps a signature that was made elsewhere with the record
// that it is of, and returns that. It replaces nothing but a missing one.
func (l *Log) ImportSignature(ctx context.Context, text []byte) (Record, error) {
	if len(text) > maxSignature {
		return Record{}, failure.Errorf(failure.Untrustworthy, "it is too large for a signature")
	}
	c, err := l.Chain(ctx)
	if err != nil {
		return Record{}, err
	}
	var found *Entry
	var why error
	err = c.Records(func(e *Entry) error {
		pub, err := ParsePublicKey(e.Signer)
		if err == nil {
			err = verifyText(pub, &e.Record, e.Body, text)
		}
		if err == nil {
			found = e
		} else if len(e.Signature) == 0 {
			why = fmt.Errorf("not of record %d: %w", e.Counter, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return Record{}, err
	case found == nil && why == nil:
		return Record{}, failure.New(failure.Untrustworthy, "it is a signature of no record of this history, and no record waits for one")
	case found == nil:
		return Record{}, failure.Errorf(failure.Untrustworthy, "it is a signature of no record of this history: %w", why)
	case len(found.Signature) > 0:
		return found.Record, failure.Errorf(failure.Busy, "record %d is signed already", found.Counter)
	}
	err = l.store.Update(ctx, func(tx *state.Tx) error {
		b := tx.Bucket(recordBucket())
		if b == nil {
			return ErrBroken
		}
		key := counterKey(found.Counter)
		e, err := decodeEntry(key, b.Get(key))
		if err != nil || e.Digest != found.Digest {
			return fmt.Errorf("%w: record %d changed meanwhile", ErrBroken, found.Counter)
		}
		return b.Put(key, encodeEntry(e.Body, text))
	})
	return found.Record, err
}
