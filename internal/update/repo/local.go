package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"github.com/mobileops/mobileops/internal/durable"
	"golang.org/x/sys/unix"
)

// local is the metadata that was verified last, in files named as in a
// repository with consistent snapshots: timestamp.json names the version of
// N.snapshot.json, and that the one of N.targets.json. timestamp.json is
// replaced last, so what it leads to is always whole. Nothing here is believed:
// whoever reads it verifies it as if it came from the source, and what is torn
// is fetched again.
type local struct{ dir string }

func rootName(version int64) string     { return fmt.Sprintf("%d.root.json", version) }
func snapshotName(version int64) string { return fmt.Sprintf("%d.snapshot.json", version) }
func targetsName(version int64) string  { return fmt.Sprintf("%d.targets.json", version) }

const timestampName = "timestamp.json"

// read returns a file, or nil when it cannot be had for whatever reason:
// it is fetched then.
func (l local) read(name string, limit int64) []byte {
	f, err := os.OpenFile(filepath.Join(l.dir, name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	data, err := readLimited(f, name, limit)
	if err != nil {
		return nil
	}
	return data
}

// save makes verified metadata what is here, timestamp.json last, and removes
// what it replaces. A file that has the content already is left alone.
func (l local) save(s *verified) error {
	if err := durable.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	for _, f := range s.files() {
		if string(l.read(f.name, int64(len(f.data)))) == string(f.data) {
			continue
		}
		if st, err := os.Lstat(filepath.Join(l.dir, f.name)); err == nil && !st.Mode().IsRegular() {
			// A directory or a device in its place would stop it for ever.
			if err := os.RemoveAll(filepath.Join(l.dir, f.name)); err != nil {
				return err
			}
		}
		if err := durable.WriteFile(filepath.Join(l.dir, f.name), f.data, 0o600); err != nil {
			return err
		}
	}
	return l.prune(s)
}

var versioned = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9]{1,18})\.(snapshot|targets)\.json$`)
})

// prune removes metadata of other publications. The roots stay: they are the
// chain from the pinned one.
func (l local) prune(s *verified) error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, f := range s.files() {
		keep[f.name] = true
	}
	for _, e := range entries {
		if m := versioned().FindStringSubmatch(e.Name()); m == nil || keep[e.Name()] {
			continue
		} else if _, err := strconv.ParseInt(m[1], 10, 64); err != nil {
			continue
		}
		if err := os.RemoveAll(filepath.Join(l.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
