// Package state keeps what mobileops remembers in one bbolt file, state.db.
//
// bbolt locks the file for as long as it is open, so a process leases it:
// open, one short transaction, close. Nothing holds the lease across hashing,
// scanning, network or a prompt.
package state

import (
	"context"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	bolt "go.etcd.io/bbolt"
)

// Errors that callers tell apart.
var (
	ErrCorrupt = failure.New(failure.Untrustworthy, "state.db is damaged")
	ErrForeign = failure.New(failure.Untrustworthy, "state.db is not a mobileops state file")
	ErrNewer   = failure.New(failure.Untrustworthy, "state.db was written by a newer mobileops")
	ErrBusy    = failure.New(failure.Busy, "state is leased by another process")
)

// Options say how a Store behaves.
type Options struct {
	LockTimeout time.Duration       // how long to wait for the lease; 0: 10 s
	OnWait      func(holder string) // called once when a wait exceeds a second
}

// Store is the state directory. Making one opens nothing.
type Store struct {
	dir  string
	opts Options
}

// New returns the store in dir, which need not exist yet.
func New(dir string, opts Options) *Store { return &Store{dir: dir, opts: opts} }

// Dir returns the state directory; bulk data lives beneath it.
func (s *Store) Dir() string { return s.dir }

// Tx is one transaction on state.db. Engines keep to buckets of their own,
// named after their package.
type Tx = bolt.Tx

// View leases state.db, runs fn in a read-only transaction and gives the lease
// back. With no state.db yet, fn sees an empty database.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error { panic("skeleton") }

// Update leases state.db, creating it when there is none, runs fn in a
// read-write transaction, and returns once it is durable.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error { panic("skeleton") }

// Lock takes the named exclusive lock of a long operation, such as
// "integrity-default", without touching state.db. It does not wait: when
// another process has it, it returns a *HeldError, which wraps ErrBusy. The
// kernel drops the lock when the process dies.
func (s *Store) Lock(name, doing string) (*Lock, error) { panic("skeleton") }

// Lock is a held lock.
type Lock struct{}

// Release gives the lock back.
func (l *Lock) Release() error { return nil }

// Holder says who holds a lock or a lease.
type Holder struct {
	PID   int       `json:"pid"`
	UID   int       `json:"uid"`
	Doing string    `json:"doing"` // the command, such as "integrity baseline"
	Since time.Time `json:"since"`
}

// HeldError says that another process holds a lock. It wraps ErrBusy.
type HeldError struct {
	Name   string
	Holder Holder
}

func (e *HeldError) Error() string { return "skeleton" }
func (e *HeldError) Unwrap() error { return ErrBusy }
