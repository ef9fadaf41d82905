// Package store keeps log records: durable the moment a collector is told so,
// compressed soon after, and in a way that shows what was done to them.
//
// The directory of a store (mode 0700) holds
//
//	wal/         the write-ahead log: records that are in no segment yet
//	segments/    one file for each segment: records of one origin and one day
//	merkle.log   what was ever done to the store, and signed tree heads
//	damaged/     generations of the write-ahead log in which damage was found
//	readers.lock which readers hold, so that no file vanishes under them
//
// and state.db holds where reading each source goes on (cursors), the
// catalogue of the segments and the head of the Merkle log; never a line.
//
// # How a record gets there
//
// Writer.Append writes a frame to the newest generation of the write-ahead log
// and syncs it. When that is large or old enough a new generation begins, and
// the records of the old one are written to segments. A change of the store,
// here and elsewhere, has these steps:
//
//  1. the new segments are written under temporary names and synced;
//  2. one frame is appended to the Merkle log and synced: it says all that the
//     change does to state.db, cursors included;
//  3. the segments get their names, and the directory is synced;
//  4. one transaction in state.db makes it so;
//  5. what nobody needs any more is removed: the consumed generation, segments
//     that were merged or that retention let go.
//
// A process can die anywhere in between. Whoever next changes the store finds
// a frame behind the head that state.db knows. When the segments of the frame
// are all there, step 4 is done for it; otherwise the frame and the segments
// are undone, and the records are still in the write-ahead log.
//
// # Invariants
//
//   - What Append acknowledged is in exactly one place: in the generations
//     after the consumed one, or in the segments of the catalogue. A snapshot
//     (one transaction) sees it once.
//   - The generation after the consumed one exists.
//   - A segment is never changed. It goes by a record in the Merkle log that
//     says why; never under a legal hold.
//   - Ids of segments only grow.
//
// # Locks
//
// "logs" is held by the one Writer for its life. "logs-store" is held for one
// change of the store at a time, by the Writer, by retention, by whoever sets a
// hold. Readers take neither.
//
// The format of every file is in docs/formats/logs-store.md. Sources: RFC 6962
// and RFC 9162 (Merkle trees and their proofs), RFC 8032 (ed25519), BLAKE3.
package store

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/seal"
	"github.com/mobileops/mobileops/internal/state"
)

// Defaults of Options.
const (
	DefaultMaxOpen   = 64 << 20 // bytes
	DefaultMaxAge    = time.Hour
	DefaultSealEvery = 10 * time.Minute
)

// Signer has the key with which this host signs.
type Signer interface {
	// SigningKey returns the private key, and makes one when there never was one.
	SigningKey(ctx context.Context) (ed25519.PrivateKey, error)
}

// Options say where a store is and how it behaves.
type Options struct {
	Dir    string // of the store; its parent exists
	State  *state.Store
	Signer Signer // nil: nothing is sealed
	Host   string // identifies the host in seals, as in the audit chain (audit.HostID)

	Reserve   Reserve       // room that is left free
	MaxOpen   int64         // raw bytes in the write-ahead log before they become segments; 0: DefaultMaxOpen
	MaxAge    time.Duration // after which they become segments however few they are; 0: DefaultMaxAge
	SealEvery time.Duration // how often a changed store is sealed; 0: DefaultSealEvery

	// Recipients can read what is written from now on. None: it is not
	// encrypted.
	Recipients []seal.Recipient
	// Identities open what is encrypted.
	Identities []seal.Identity

	Now func() time.Time // nil: time.Now
}

// Errors that callers tell apart.
var (
	// ErrTampered says that the store is not what mobileops left.
	ErrTampered = failure.New(failure.Untrustworthy, "the log store was altered")
	// ErrGone says that a segment of a snapshot is not part of the store any
	// more: take a new snapshot. It happens only to snapshots of more than an
	// hour.
	ErrGone = failure.New(failure.Failed, "the segment was removed by retention or merged since")
)

// Store is a log store. Opening one reads nothing.
type Store struct {
	opts Options
	keys walKeys
}

// Open returns the store in a directory, which need not exist yet.
func Open(opts Options) (*Store, error) {
	if opts.Dir == "" || opts.State == nil {
		return nil, errors.New("a log store needs a directory and the state")
	}
	if opts.MaxOpen == 0 {
		opts.MaxOpen = DefaultMaxOpen
	}
	if opts.MaxAge == 0 {
		opts.MaxAge = DefaultMaxAge
	}
	if opts.SealEvery == 0 {
		opts.SealEvery = DefaultSealEvery
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Store{opts: opts}, nil
}

// Dir returns the directory of the store.
func (s *Store) Dir() string { return s.opts.Dir }

func (s *Store) walDir() string     { return filepath.Join(s.opts.Dir, "wal") }
func (s *Store) segmentDir() string { return filepath.Join(s.opts.Dir, "segments") }
func (s *Store) damagedDir() string { return filepath.Join(s.opts.Dir, "damaged") }
func (s *Store) merklePath() string { return filepath.Join(s.opts.Dir, "merkle.log") }

// segmentSuffix ends the name of every segment's file.
const segmentSuffix = ".seg"

func segmentName(id uint64) string { return fmt.Sprintf("%010d%s", id, segmentSuffix) }

func (s *Store) segmentPath(id uint64) string { return filepath.Join(s.segmentDir(), segmentName(id)) }

// index reads the catalogue; nil when there is no store yet.
func (s *Store) index(ctx context.Context) (x *index, err error) {
	err = s.opts.State.View(ctx, func(tx *state.Tx) (err error) {
		x, err = load(tx)
		return err
	})
	return x, err
}

// mustIndex is index, with an error when there is no store yet.
func (s *Store) mustIndex(ctx context.Context) (*index, error) {
	x, err := s.index(ctx)
	if err == nil && x == nil {
		err = failure.Hint(failure.New(failure.NotReady, "no logs were collected yet"), "collect some: mobileops logs collect")
	}
	return x, err
}

// create makes an empty store when there is none. The lock "logs-store" must
// be held.
func (s *Store) create(ctx context.Context) error {
	for _, dir := range []string{s.opts.Dir, s.walDir(), s.segmentDir()} {
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return access(err)
		}
	}
	if err := s.nothingThere(); err != nil {
		return err
	}
	x := &index{head: head{nextID: 1, bytes: merkleHeaderSize}}
	rand.Read(x.store[:]) // never fails: crypto/rand.Read
	// The files first: what state.db speaks of exists.
	if err := createMerkleLog(s.merklePath(), x.store); err != nil {
		return access(err)
	}
	if err := durable.WriteFile(s.readersPath(), nil, 0o600); err != nil {
		return access(err)
	}
	g, err := s.createGeneration(x.store, 1)
	if err != nil {
		return err
	}
	g.file.Close()
	return s.opts.State.Update(ctx, func(tx *state.Tx) error {
		if tx.Bucket([]byte(storeBucket)) != nil {
			return errors.New("the log store appeared while it was made")
		}
		return x.save(tx, nil)
	})
}

// nothingThere makes sure that no store is overwritten of which state.db, which
// may have been lost, does not know.
func (s *Store) nothingThere() error {
	segments, err := os.ReadDir(s.segmentDir())
	if err != nil {
		return access(err)
	}
	pending, err := s.walHasFrames()
	if err != nil {
		return err
	}
	st, err := os.Lstat(s.merklePath())
	if len(segments) == 0 && !pending && (errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() <= merkleHeaderSize) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return access(err)
	}
	return failure.Hint(fmt.Errorf("%w: there are logs in %s, and state.db knows of none", ErrTampered, s.opts.Dir),
		"put back the state.db that belongs to them: mobileops state restore FILE; or move that directory away")
}

// exclusive takes the lock for one change of the store, and waits for another
// change to come to its end.
func (s *Store) exclusive(ctx context.Context, doing string) (*state.Lock, error) {
	deadline := time.Now().Add(changeTimeout)
	for {
		l, err := s.opts.State.Lock("logs-store", doing)
		if err == nil || !errors.Is(err, state.ErrBusy) || time.Now().After(deadline) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(3 * time.Millisecond):
		}
	}
}

// changeTimeout is how long a change waits for others: each takes seconds.
const changeTimeout = 2 * time.Minute

func sortNumbers(list []uint64) { slices.Sort(list) }

// Empty reports whether nothing was ever kept here. That there are logs of
// which state.db does not know is ErrTampered.
func (s *Store) Empty(ctx context.Context) (bool, error) {
	x, err := s.index(ctx)
	if err != nil || x != nil {
		return false, err
	}
	err = s.nothingThere()
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if x, ierr := s.index(ctx); ierr == nil && x != nil {
		return false, nil // it was made meanwhile
	}
	return false, err
}
