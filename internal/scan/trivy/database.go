//go:build goexperiment.jsonv2

package trivy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	tdb "github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy-db/pkg/metadata"
	"github.com/aquasecurity/trivy/pkg/scan"
	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/mobileops/mobileops/internal/failure"
)

const lockTimeout = 5 * time.Second

// openDatabase makes trivy-db read the database in dir, and nothing but read:
// many scans share the file. It is looked at first, because trivy-db removes a
// database that it cannot open.
func openDatabase(dir string) (closeIt func(), err error) {
	if dir == "" {
		return nil, failure.Hint(failure.New(failure.NotReady, "there is no vulnerability database"), "bring one in: mobileops vulndb import FILE")
	}
	path := tdb.Path(dir)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "there is no vulnerability database in %s", dir), "bring one in: mobileops vulndb import FILE")
	}
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	if err := checkMetadata(dir); err != nil {
		return nil, err
	}
	options := &bolt.Options{ReadOnly: true, Timeout: lockTimeout}
	if err := tryDatabase(path, info.Size(), options); err != nil {
		return nil, err
	}
	if err := tdb.Init(dir, tdb.WithBoltOptions(options)); err != nil {
		return nil, damaged(dir, err)
	}
	return func() { _ = tdb.Close() }, nil
}

// checkMetadata refuses a database of another schema; how old it may be is for others to say.
func checkMetadata(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "metadata.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return failure.Hint(failure.Errorf(failure.NotReady, "the vulnerability database in %s is not complete: metadata.json is missing", dir), "bring it in again: mobileops vulndb import FILE")
	}
	if err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	var m metadata.Metadata
	if err := json.Unmarshal(b, &m); err != nil {
		return damaged(dir, fmt.Errorf("metadata.json: %w", err))
	}
	if m.Version != tdb.SchemaVersion {
		return failure.Errorf(failure.NotReady, "the vulnerability database in %s is of schema %d, and %s reads schema %d", dir, m.Version, Engine, tdb.SchemaVersion)
	}
	return nil
}

// tryDatabase opens a database and sees that the file is as long as it says: a
// page that is missing would end the process when it is read.
func tryDatabase(path string, size int64, options *bolt.Options) (err error) {
	dir := filepath.Dir(path)
	defer func() {
		if v := recover(); v != nil {
			err = damaged(dir, fmt.Errorf("%v", v))
		}
	}()
	if size == 0 {
		return damaged(dir, errors.New("the file is empty"))
	}
	d, err := bolt.Open(path, 0, options)
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return failure.Errorf(failure.Busy, "the vulnerability database in %s is being written", dir)
	case errors.Is(err, fs.ErrPermission):
		return failure.Wrap(failure.NotAllowed, err)
	case err != nil:
		return damaged(dir, err)
	}
	defer d.Close()
	return d.View(func(tx *bolt.Tx) error {
		if tx.Size() > size {
			return damaged(dir, fmt.Errorf("it is cut: %d of %d bytes are there", size, tx.Size()))
		}
		if tx.Bucket([]byte("vulnerability")) == nil || tx.Bucket([]byte("data-source")) == nil {
			return damaged(dir, errors.New("it has no vulnerabilities"))
		}
		return nil
	})
}

func damaged(dir string, err error) error {
	return failure.Hint(failure.Errorf(failure.Untrustworthy, "the vulnerability database in %s is damaged: %w", dir, err),
		"go back to the one before: mobileops vulndb rollback")
}

// detection marks the time during which the database is read, so that a panic is
// told for what it is.
type detection struct {
	scan.Backend
	job *job
}

// Scan implements scan.Backend.
func (d detection) Scan(ctx context.Context, target, key string, blobs []string, o types.ScanOptions) (types.ScanResponse, error) {
	if err := context.Cause(ctx); err != nil {
		return types.ScanResponse{}, err
	}
	d.job.meter.set("match")
	d.job.detecting = d.job.wants.vulnerabilities
	defer func() {
		if v := recover(); v != nil {
			panic(v) // with detecting still set
		}
		d.job.detecting = false
	}()
	return d.Backend.Scan(ctx, target, key, blobs, o)
}
