package state

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	bolt "go.etcd.io/bbolt"
)

// The bucket "meta" says what the file is.
const (
	metaBucket = "meta"
	magicKey   = "magic"
	schemaKey  = "schema"  // decimal
	createdKey = "created" // RFC 3339
	idKey      = "id"      // 32 hexadecimal digits, drawn when the file was created

	magic = "mobileops state"
)

// firstSchema is the schema that a file is created with; the migrations then
// bring it forward, so that new and old files end up the same.
const firstSchema = 1

// migration brings the schema forward to a version.
type migration struct {
	to    int
	apply func(*Tx) error
}

// migrations returns the steps from firstSchema on, in order.
func migrations() []migration { return nil }

// latest is the schema that this program works with.
func (s *Store) latest() int {
	if n := len(s.schema); n > 0 {
		return s.schema[n-1].to
	}
	return firstSchema
}

// checkMagic tells our files from those of other programs that use bbolt.
func checkMagic(tx *Tx) error {
	b := tx.Bucket([]byte(metaBucket))
	if b == nil || string(b.Get([]byte(magicKey))) != magic {
		return fmt.Errorf("%w: another program's bbolt file", ErrForeign)
	}
	return nil
}

// checkSchema returns the schema of the file, or ErrNewer.
func (s *Store) checkSchema(tx *Tx) (int, error) {
	raw := tx.Bucket([]byte(metaBucket)).Get([]byte(schemaKey))
	v, err := strconv.Atoi(string(raw))
	if err != nil || v < firstSchema {
		return 0, fmt.Errorf("%w: its schema is %q", ErrCorrupt, raw)
	}
	if v > s.latest() {
		return v, fmt.Errorf("%w: its schema is %d, and this program knows up to %d", ErrNewer, v, s.latest())
	}
	return v, nil
}

// create makes an empty state.db. It is written under a temporary name, so
// that nobody, and no crash, leaves half of one.
func (s *Store) create() error {
	// The directory can be as new as the database: see makeLocks. Who cannot
	// read the one above has not made it.
	if err := durable.SyncDir(filepath.Dir(filepath.Clean(s.dir))); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err := durable.Clean(s.Path()); err != nil {
		return err
	}
	tmp := durable.Temp(s.Path())
	defer os.Remove(tmp)
	db, err := bolt.Open(tmp, 0o600, nil)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *Tx) error {
		b, err := tx.CreateBucket([]byte(metaBucket))
		if err != nil {
			return err
		}
		var id [16]byte
		rand.Read(id[:]) // never fails: crypto/rand.Read
		return errors.Join(
			b.Put([]byte(magicKey), []byte(magic)),
			b.Put([]byte(schemaKey), []byte(strconv.Itoa(firstSchema))),
			b.Put([]byte(createdKey), []byte(time.Now().UTC().Format(time.RFC3339))),
			b.Put([]byte(idKey), []byte(hex.EncodeToString(id[:]))),
		)
	})
	if err == nil {
		err = os.Chmod(tmp, 0o600) // whatever the umask
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	// A seal left by a file that was removed says nothing about this one.
	if err := s.unseal(); err != nil {
		return err
	}
	return durable.PublishNew(tmp, s.Path())
}

// migrate brings the schema of an opened file forward, after a backup. Before
// the first step of a new file there is nothing to back up.
func (s *Store) migrate(ctx context.Context, o *opened) error {
	var from int
	err := o.db.View(func(tx *Tx) (err error) {
		from, err = s.checkSchema(tx)
		return err
	})
	if err != nil || from == s.latest() {
		return err
	}
	if o.header.Txid > newFileTxid {
		to := fmt.Sprintf("%s.before-schema-%d-%s", s.Path(), s.latest(), stamp())
		if err := o.backup(ctx, to, false); err != nil {
			return fmt.Errorf("back up before the schema is changed: %w", err)
		}
	}
	return o.update(func(tx *Tx) error { return s.apply(tx, from) })
}

// newFileTxid is the transaction that a file stands at when it was just created.
const newFileTxid = 2

// apply runs the migrations after schema from, all in one transaction.
func (s *Store) apply(tx *Tx, from int) error {
	for _, m := range s.schema {
		if m.to <= from {
			continue
		}
		if err := m.apply(tx); err != nil {
			return fmt.Errorf("change the schema to %d: %w", m.to, err)
		}
	}
	return tx.Bucket([]byte(metaBucket)).Put([]byte(schemaKey), []byte(strconv.Itoa(s.latest())))
}

// stamp is the time as part of a file name, which sorts by time.
func stamp() string { return time.Now().UTC().Format("20060102T150405.000Z") }
