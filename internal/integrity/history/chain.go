package history

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// Chain is a copy of the records as they stood in one transaction, so that
// looking at them needs no lease.
type Chain struct {
	raw      []rawEntry
	sequence uint64 // how many records state.db says were ever written
	begun    bool   // there was a history, or there is about to be one
}

type rawEntry struct{ key, value []byte }

// Read copies the records.
func Read(tx *state.Tx) *Chain {
	c := new(Chain)
	if meta := tx.Bucket(metaBucket()); meta != nil {
		c.begun = meta.Get(beginningKey()) != nil
	}
	b := tx.Bucket(recordBucket())
	if b == nil {
		return c
	}
	c.begun = c.begun || b.Sequence() > 0
	c.sequence = b.Sequence()
	for k, v := range cursor(b.Cursor()) {
		c.raw = append(c.raw, rawEntry{bytes.Clone(k), bytes.Clone(v)})
	}
	return c
}

// cursor ranges over keys and values.
func cursor(c interface {
	First() (k, v []byte)
	Next() (k, v []byte)
}) func(func(k, v []byte) bool) {
	return func(yield func(k, v []byte) bool) {
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if !yield(k, v) {
				return
			}
		}
	}
}

// Len is the number of records.
func (c *Chain) Len() int { return len(c.raw) }

// Chain reads the records.
func (l *Log) Chain(ctx context.Context) (*Chain, error) {
	var c *Chain
	err := l.store.View(ctx, func(tx *state.Tx) error {
		c = Read(tx)
		return nil
	})
	return c, err
}

// Records calls fn with each record in order. It verifies nothing; a record
// that cannot be read is ErrBroken.
func (c *Chain) Records(fn func(*Entry) error) error {
	for _, r := range c.raw {
		e, err := decodeEntry(r.key, r.value)
		if err != nil {
			return fmt.Errorf("%w: record %s cannot be read: %w", ErrBroken, counterText(r.key), err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// Record returns the record with a counter. Its error is NotReady when there
// is none.
func (c *Chain) Record(n uint64) (*Entry, error) {
	key := counterKey(n)
	for _, r := range c.raw {
		if bytes.Equal(r.key, key) {
			e, err := decodeEntry(r.key, r.value)
			if err != nil {
				return nil, fmt.Errorf("%w: record %d cannot be read: %w", ErrBroken, n, err)
			}
			return e, nil
		}
	}
	return nil, failure.Hint(failure.Errorf(failure.NotReady, "the history has no record %d", n), "those that there are: mobileops integrity history")
}

func counterText(key []byte) string {
	if len(key) != 8 {
		return fmt.Sprintf("%x", key)
	}
	return fmt.Sprint(binary.BigEndian.Uint64(key))
}

// Problem is something for which the history cannot be trusted.
type Problem struct {
	Counter uint64 `json:"counter,omitempty"` // of the record; 0: it is about the whole
	What    string `json:"what"`
	Next    string `json:"next,omitempty"` // what to do
}

// Verification is what verifying the history found.
type Verification struct {
	Records uint64 // that there are
	Head    *Entry // the last one, nil when there is none
	Key     string // the public key that is in force, in minisign's base64
	// Elsewhere tells that its private half is not on this host.
	Elsewhere bool
	Signed    int       // records with a valid signature of their own
	Covered   int       // records that only a later signature vouches for
	Unsigned  []uint64  // records that nobody vouches for yet
	Problems  []Problem // the first one that breaks the chain, and all others
	Warnings  []string

	current map[string]*Record // name → the record of its current baseline
	known   map[string]*Record // id → the record that set it
	digests []Digest           // of record 1 and so on, as far as the chain holds
	signers []string
}

// Current returns the record that made the current baseline of a name so, nil
// when by the history there is none.
func (v *Verification) Current(name string) *Record { return v.current[name] }

// Names returns the names that have a current baseline by the history.
func (v *Verification) Names() []string {
	names := make([]string, 0, len(v.current))
	for n := range v.current {
		names = append(names, n)
	}
	return names
}

// Known returns the record that set a baseline, by its id, or nil.
func (v *Verification) Known(id string) *Record { return v.known[id] }

// Kind is what it means for the exit status.
func (v *Verification) Kind() failure.Kind {
	if len(v.Problems) > 0 || len(v.Unsigned) > 0 {
		return failure.Untrustworthy
	}
	return failure.None
}

func (v *Verification) problem(counter uint64, next, format string, args ...any) {
	v.Problems = append(v.Problems, Problem{counter, fmt.Sprintf(format, args...), next})
}

// clockTolerance is how far a clock may go back without a word: that is how
// time servers correct it.
const clockTolerance = 2 * time.Second

// Verify verifies the history.
func (l *Log) Verify(ctx context.Context) (*Verification, error) {
	c, err := l.Chain(ctx)
	if err != nil {
		return nil, err
	}
	return l.VerifyChain(c, false)
}

// VerifyChain verifies a copy of the history: counters, digests, signatures by
// the key that was in force, and that this is the host it was written on. With
// quick it verifies of the signatures under one key only the last: that proves
// as much, as it covers the digests of all before it, but a signature among
// them that is not valid is not noticed. Its error says that a key could not be
// read.
func (l *Log) VerifyChain(c *Chain, quick bool) (*Verification, error) {
	v := &Verification{current: map[string]*Record{}, known: map[string]*Record{}}
	if len(c.raw) > 0 {
		if last, err := decodeEntry(c.raw[len(c.raw)-1].key, c.raw[len(c.raw)-1].value); err == nil {
			if err := l.publishNext(last.next().key); err != nil {
				return nil, err
			}
		}
	}
	k, err := l.readKeys()
	if errors.Is(err, fs.ErrPermission) || failure.KindOf(err) == failure.NotReady {
		return nil, err
	}
	if err != nil {
		v.problem(0, "", "%v", err)
	}
	v.Records = uint64(len(c.raw))
	if len(c.raw) == 0 {
		if c.begun && c.sequence > 0 || !c.begun && (k.private != nil || k.public != nil && !k.configured) {
			removed := errRemoved(l).(*failure.Error)
			v.problem(0, removed.Hint, "%v", removed.Err)
		}
		return v, nil
	}
	w := walk{v: v, quick: quick}
	for _, r := range c.raw {
		if !w.record(r) {
			break
		}
	}
	w.endEra()
	if last := w.last; last != nil && len(v.Problems) == 0 {
		v.Head = last
		l.verifyHead(v, c, k)
	}
	return v, nil
}

// verifyHead compares the end of a chain that holds together with what is
// around it.
func (l *Log) verifyHead(v *Verification, c *Chain, k keys) {
	last := v.Head
	if c.sequence != last.Counter {
		v.problem(last.Counter, "compare with an anchor: mobileops integrity anchor check", "%d records were written, and the last one is %d: the others were removed", c.sequence, last.Counter)
	}
	force := last.next()
	v.Key, v.Elsewhere = force.key, force.elsewhere
	switch {
	case k.public == nil && !k.configured:
		v.problem(0, "put it back from a backup; if the keys are lost: mobileops integrity key rotate --lost", "the public key is gone from the state directory")
	case k.publicText() != force.key:
		v.problem(last.Counter, "put the right key back; to change it on purpose: mobileops integrity key use FILE",
			"the history is signed by the key %s, and the one that is trusted here is %s: was the key, or the history, replaced?", keyName(force.key), keyName(k.publicText()))
	case last.Kind == KeyChange && last.Signer != last.Key:
		v.problem(last.Counter, "", "the new key did not take over")
	case !force.elsewhere && !k.configured && k.elsewhere():
		private, _ := l.KeyFiles()
		v.Warnings = append(v.Warnings, fmt.Sprintf("the private key %s is gone, so nothing more can be signed: put it back from a backup", private))
	}
	if last.Host != l.opts.Host {
		v.problem(last.Counter, "when it was copied on purpose, begin anew: mobileops integrity baseline",
			"it was written on another host, %s: this state directory is a copy", last.HostName)
	}
	if ahead := last.Time.Sub(l.now()); ahead > clockTolerance {
		v.Warnings = append(v.Warnings, fmt.Sprintf("record %d is %v ahead of the clock: was the clock set back?", last.Counter, ahead.Round(time.Second)))
	}
}

// brokenNext is what to do about a chain that does not hold together, which is
// never repaired.
const brokenNext = "keep a copy of the state directory as evidence, compare with an anchor (mobileops integrity anchor check), and begin with a new state directory"

// walk is the state of verifying record after record.
type walk struct {
	v     *Verification
	last  *Entry
	force inForce
	open  []uint64 // records since the last signature that was verified
	// quick verifies only the last signature under each key, which vouches for
	// all records before it; signed is that one so far.
	quick  bool
	signed *Entry
}

// record verifies one record. It returns false when the chain ends there: what
// comes after a break proves nothing.
func (w *walk) record(r rawEntry) bool {
	v := w.v
	want := uint64(1)
	if w.last != nil {
		want = w.last.Counter + 1
	}
	e, err := decodeEntry(r.key, r.value)
	switch {
	case err != nil:
		v.problem(want, brokenNext, "record %s cannot be read: %v", counterText(r.key), err)
		return false
	case e.Counter != want:
		v.problem(want, brokenNext, "record %d is missing: the next one is %d", want, e.Counter)
		return false
	case w.last == nil && e.Previous != Digest{}:
		v.problem(1, brokenNext, "the first record follows another one")
		return false
	case w.last != nil && e.Previous != w.last.Digest:
		v.problem(e.Counter, brokenNext, "record %d does not follow record %d: one of them was altered or replaced", e.Counter, want-1)
		return false
	case w.last != nil && (e.Signer != w.force.key || e.Elsewhere != w.force.elsewhere):
		v.problem(e.Counter, brokenNext, "record %d is to be signed by the key %s, and %s was in force", e.Counter, keyName(e.Signer), keyName(w.force.key))
		return false
	case w.last != nil && e.Host != w.last.Host && !e.Kind.settles():
		v.problem(e.Counter, brokenNext, "record %d was written on another host, %s", e.Counter, e.HostName)
	case w.last != nil && e.Host != w.last.Host:
		v.Warnings = append(v.Warnings, fmt.Sprintf("the state directory came from the host %s between record %d and %d", w.last.HostName, want-1, want))
	}
	w.signature(e)
	if w.last != nil {
		if back := w.last.Time.Sub(e.Time); back > clockTolerance {
			v.Warnings = append(v.Warnings, fmt.Sprintf("the clock was set back by %v between record %d and %d", back.Round(time.Second), want-1, want))
		}
	}
	w.settle(e)
	w.last, w.force = e, e.next()
	v.digests, v.signers = append(v.digests, e.Digest), append(v.signers, e.Signer)
	return true
}

// signature looks at the signature of a record. One that is to be made
// elsewhere may be missing when a later one under the same key vouches for it.
func (w *walk) signature(e *Entry) {
	if w.last != nil && e.Signer != w.last.Signer {
		w.endEra() // the key changed: no later signature is by the former one
	}
	switch {
	case len(e.Signature) > 0 && w.quick:
		w.open, w.signed = append(w.open, e.Counter), e
	case len(e.Signature) > 0:
		w.proved(e)
	case e.signedLater():
		w.open = append(w.open, e.Counter)
	case e.keyLost():
		w.v.Warnings = append(w.v.Warnings, fmt.Sprintf("record %d replaced a key that was said to be lost: nobody signed that", e.Counter))
	default:
		w.v.problem(e.Counter, brokenNext, "record %d is not signed", e.Counter)
	}
}

// proved verifies a signature, which vouches for all records before it that
// are open.
func (w *walk) proved(e *Entry) {
	if err := e.verifySignature(); err != nil {
		w.v.problem(e.Counter, brokenNext, "record %d: %v", e.Counter, err)
		return
	}
	w.v.Signed++
	open := w.open
	w.open = nil
	for _, n := range open {
		switch {
		case n < e.Counter:
			w.v.Covered++
		case n > e.Counter:
			w.open = append(w.open, n)
		}
	}
}

// endEra ends the time of a key: what is still open then, nobody vouches for.
func (w *walk) endEra() {
	if w.signed != nil {
		w.proved(w.signed)
		w.signed = nil
	}
	w.v.Unsigned = append(w.v.Unsigned, w.open...)
	w.open = nil
}

// settle notes what a record makes the current baseline.
func (w *walk) settle(e *Entry) {
	v := w.v
	switch {
	case e.Kind.sets():
		v.current[e.Name] = &e.Record
		v.known[e.ID] = &e.Record
	case e.Kind == Removal:
		if c := v.current[e.Name]; c != nil && c.ID == e.ID {
			delete(v.current, e.Name)
		}
		delete(v.known, e.ID)
	}
}
