// Package state keeps what mobileops remembers in one bbolt file, state.db.
//
// bbolt locks the file for as long as it is open, so a process leases it:
// open, one short transaction, close. Nothing holds the lease across hashing,
// scanning, network or a prompt. Bulk data lives beside state.db in the same
// directory, as files made with package durable, and is catalogued in it.
//
// The directory (mode 0700) holds
//
//	state.db    the database, mode 0600: one bucket for each engine, and "meta"
//	state.sum   the checksum of each page of state.db: see seal
//	state.lock  the lease and who holds it: see lease
//	locks/      the locks of long operations: see Store.Lock
//
// Invariants: state.db appears whole or not at all; an Update that returned
// nil survives a power cut; a file that is damaged, foreign or of a newer
// schema is named as such, and neither changed nor replaced. bbolt trusts its
// file and panics, or faults, on a damaged one, so it is opened only after the
// file was examined by plain reads, and whatever it still runs into is caught.
package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Errors that callers tell apart.
var (
	ErrCorrupt = failure.New(failure.Untrustworthy, "state.db is damaged")
	ErrForeign = failure.New(failure.Untrustworthy, "state.db is not a mobileops state file")
	ErrNewer   = failure.New(failure.Untrustworthy, "state.db was written by a newer mobileops")
	ErrBusy    = failure.New(failure.Busy, "state is leased by another process")
)

const (
	dbName   = "state.db"
	sumName  = "state.sum"
	lockName = "state.lock"
)

// Options say how a Store behaves.
type Options struct {
	LockTimeout time.Duration       // how long to wait for the lease; 0: 10 s
	OnWait      func(holder string) // called once when a wait exceeds a second
	Doing       string              // what waiting processes are told is under way, such as "integrity baseline"
}

// Store is the state directory. Making one opens nothing.
type Store struct {
	dir    string
	opts   Options
	schema []migration
}

// New returns the store in dir, which need not exist yet.
func New(dir string, opts Options) *Store {
	return &Store{dir: dir, opts: opts, schema: migrations()}
}

// Dir returns the state directory; bulk data lives beneath it.
func (s *Store) Dir() string { return s.dir }

// Path returns the path of state.db, which need not exist yet.
func (s *Store) Path() string { return filepath.Join(s.dir, dbName) }

func (s *Store) sumPath() string { return filepath.Join(s.dir, sumName) }

func (s *Store) doing() string {
	if s.opts.Doing == "" {
		return "mobileops"
	}
	return s.opts.Doing
}

// Tx is one transaction on state.db. Engines keep to buckets of their own,
// named after their package.
type Tx = bolt.Tx

// View leases state.db, runs fn in a read-only transaction and gives the lease
// back. With no state.db yet, fn sees an empty database and nothing is
// created. Other readers can hold leases at the same time. An error of fn is
// returned as it is.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	old, err := s.view(ctx, fn)
	if old && err == nil {
		// Bringing the schema forward needs the exclusive lease.
		if err = s.Update(ctx, func(*Tx) error { return nil }); err == nil {
			_, err = s.view(ctx, fn)
		}
	}
	return err
}

// view is View, but runs nothing and says so when the schema is an old one.
func (s *Store) view(ctx context.Context, fn func(*Tx) error) (old bool, err error) {
	if _, err := os.Lstat(s.Path()); errors.Is(err, fs.ErrNotExist) {
		return false, viewEmpty(fn)
	} else if err != nil {
		return false, access(err)
	}
	l, err := s.acquire(ctx, false)
	if err != nil {
		return false, err
	}
	defer l.release()
	err = s.open(ctx, false, func(o *opened) error {
		return o.db.View(func(tx *Tx) error {
			v, err := s.checkSchema(tx)
			if err != nil {
				return err
			}
			if old = v < s.latest(); old {
				return nil
			}
			return fn(tx)
		})
	})
	return old, err
}

// viewEmpty shows fn an empty database that exists in memory only.
func viewEmpty(fn func(*Tx) error) error {
	db, err := bolt.Open("empty", 0o600, &bolt.Options{
		NoSync:     true,
		NoGrowSync: true,
		OpenFile: func(name string, _ int, _ os.FileMode) (*os.File, error) {
			fd, err := unix.MemfdCreate("mobileops-"+name, unix.MFD_CLOEXEC)
			if err != nil {
				return nil, os.NewSyscallError("memfd_create", err)
			}
			return os.NewFile(uintptr(fd), name), nil
		},
	})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(fn)
}

// Update leases state.db, creating it when there is none, runs fn in a
// read-write transaction, and returns once it is durable. When fn returns an
// error, which is returned as it is, or the disk is full, nothing was changed.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	if err := durable.MkdirAll(s.dir, 0o700); err != nil {
		return access(err)
	}
	l, err := s.acquire(ctx, true)
	if err != nil {
		return err
	}
	defer l.release()
	if _, err := os.Lstat(s.Path()); errors.Is(err, fs.ErrNotExist) {
		if err := s.create(); err != nil {
			return access(fmt.Errorf("create %s: %w", s.Path(), err))
		}
	}
	return s.open(ctx, true, func(o *opened) error {
		if err := s.migrate(ctx, o); err != nil {
			return err
		}
		return o.update(fn)
	})
}

// update runs one read-write transaction and seals what it wrote.
func (o *opened) update(fn func(*Tx) error) error {
	tx, err := o.db.Begin(true)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		if named := (*fs.PathError)(nil); !errors.As(err, &named) {
			err = fmt.Errorf("write %s: %w", o.db.Path(), err)
		}
		return access(err)
	}
	return o.reseal()
}
