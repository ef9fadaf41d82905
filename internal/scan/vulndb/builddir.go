package vulndb

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/durable"
)

// buildPrefix is what the names of directories begin with in which databases are
// built.
const buildPrefix = ".build-"

// BuildDir makes a directory to build a database in, on the filesystem that Adopt
// takes it to. It holds the lock of builds until release is called, which removes
// the directory; what builds that were killed left goes away here.
func (s *Store) BuildDir() (dir string, release func() error, err error) {
	lock, err := s.opts.State.Lock("scan-vulndb-build", "vulndb build")
	if err != nil {
		return "", nil, err
	}
	err = durable.MkdirAll(s.opts.Dir, 0o700)
	if err == nil {
		err = s.sweepBuilds()
	}
	if err == nil {
		dir, err = os.MkdirTemp(s.opts.Dir, buildPrefix+"*")
	}
	if err != nil {
		return "", nil, errors.Join(disk(err, s.opts.Dir), lock.Release())
	}
	return dir, func() error { return errors.Join(os.RemoveAll(dir), lock.Release()) }, nil
}

func (s *Store) sweepBuilds() error {
	entries, err := os.ReadDir(s.opts.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), buildPrefix) {
			if err := os.RemoveAll(filepath.Join(s.opts.Dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
