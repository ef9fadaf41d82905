package vulndb

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// partial is what the names of directories begin with that are being filled or
// emptied.
const partial = ".partial-"

// lockName is the lock of everything that changes the databases.
const lockName = "scan-vulndb"

// stage is a directory in which a database is put together before it is proved.
type stage struct {
	s      *Store
	dir    string
	kind   Kind   // once it is known
	digest string // of the database's file
	size   int64
	meta   []byte // metadata.json; nil: not there yet
}

// newStage makes an empty stage.
func (s *Store) newStage() (*stage, error) {
	if err := durable.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return nil, disk(err, s.opts.Dir)
	}
	dir, err := os.MkdirTemp(s.opts.Dir, partial+"*")
	if err != nil {
		return nil, disk(err, s.opts.Dir)
	}
	return &stage{s: s, dir: dir}, nil
}

// drop removes what is left of a stage.
func (st *stage) drop() { _ = os.RemoveAll(st.dir) }

// sweep removes stages whose process died, and generations that the catalogue
// never came to know. Whoever calls it holds the lock.
func (s *Store) sweep(ctx context.Context) error {
	if err := sweepPartial(s.opts.Dir); err != nil {
		return err
	}
	for _, k := range []Kind{Vulnerabilities, Java} {
		if err := sweepPartial(s.base(k)); err != nil {
			return err
		}
		if err := sweepPartial(s.generations(k)); err != nil {
			return err
		}
		sh, err := s.shelf(ctx, k)
		if err != nil {
			return err
		}
		entries, err := os.ReadDir(s.generations(k))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if n, ok := numbered(e.Name()); ok && sh.get(n) == nil {
				if err := s.remove(k, n); err != nil && !errors.Is(err, errInUse) {
					return err
				}
			}
		}
		if err := s.point(k, sh.current); err != nil {
			return err
		}
	}
	return nil
}

func sweepPartial(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), partial) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// database writes the file of the database from r, which has size bytes or, if
// that is unknown, -1.
func (st *stage) database(ctx context.Context, k Kind, r io.Reader, size int64) error {
	if st.kind != "" {
		return failure.Errorf(failure.Untrustworthy, "there are two databases in one, %s and %s", st.kind.file(), k.file())
	}
	st.kind = k
	var err error
	st.digest, st.size, err = st.write(ctx, k.file(), "unpack", r, size, st.s.opts.MaxBytes)
	return err
}

// metadata takes what metadata.json says.
func (st *stage) metadata(r io.Reader) error {
	if st.meta != nil {
		return failure.Errorf(failure.Untrustworthy, "there are two files metadata.json in one database")
	}
	data, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	if err != nil {
		return err
	}
	if len(data) > maxMetadata {
		return failure.Errorf(failure.Untrustworthy, "metadata.json of the database has more than %d bytes", maxMetadata)
	}
	st.meta = data
	return nil
}

// write makes a file of r durable, and returns its BLAKE3 digest and size.
func (st *stage) write(ctx context.Context, name, what string, r io.Reader, size, limit int64) (digest string, n int64, err error) {
	if size > limit {
		return "", 0, tooLarge(name, limit)
	}
	path := filepath.Join(st.dir, name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", 0, disk(err, st.dir)
	}
	defer f.Close()
	hash := blake3.New()
	buf := make([]byte, 1<<20)
	for {
		if err := context.Cause(ctx); err != nil {
			return "", 0, err
		}
		k, rerr := r.Read(buf)
		if n += int64(k); n > limit {
			return "", 0, tooLarge(name, limit)
		}
		_, _ = hash.Write(buf[:k]) // it never fails
		if _, err := f.Write(buf[:k]); err != nil {
			return "", 0, disk(err, st.dir)
		}
		st.s.opts.Progress(what, n, max(size, 0))
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			return "", 0, rerr
		}
	}
	if size >= 0 && n != size {
		return "", 0, &sizeError{name, n, size}
	}
	err = f.Chmod(0o400) // generations never change
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return "", 0, disk(err, st.dir)
	}
	return hex.EncodeToString(hash.Sum(nil)), n, nil
}

// sizeError is a file of another size than was promised. Its kind is
// failure.Untrustworthy.
type sizeError struct {
	name      string
	got, want int64
}

func (e *sizeError) Error() string {
	return fmt.Sprintf("%s has %d bytes, and %d were promised", e.name, e.got, e.want)
}

func (e *sizeError) Unwrap() error { return failure.New(failure.Untrustworthy, "another size") }

func tooLarge(name string, limit int64) error {
	return failure.Errorf(failure.Untrustworthy, "%s is larger than %d bytes, the limit for a database", name, limit)
}

// disk says what to do about an error of writing.
func disk(err error, dir string) error {
	switch {
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return failure.Hint(failure.Wrap(failure.Failed, fmt.Errorf("%w; the databases from before are as they were", err)), "make room on the filesystem of "+dir+": a database needs its size there twice over while it is replaced")
	case errors.Is(err, fs.ErrPermission):
		return failure.Wrap(failure.NotAllowed, err)
	}
	return err
}

// seal proves the database of a stage and says what it is: a Generation without
// a number.
func (st *stage) seal(ctx context.Context) (*Generation, error) {
	switch {
	case st.kind == "":
		return nil, failure.Errorf(failure.Untrustworthy, "there is no database in it: neither trivy.db nor trivy-java.db")
	case st.meta == nil:
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "metadata.json is missing, so nobody could tell how old the database is"), "it lies beside "+st.kind.file()+" where that was made")
	}
	meta, err := parseMetadata(st.meta, st.kind)
	if err != nil {
		return nil, err
	}
	g := &Generation{Kind: st.kind, Digest: st.digest, Size: st.size, Metadata: meta, Imported: st.s.opts.Now().UTC().Truncate(time.Second), By: st.s.opts.By}
	f, err := os.Open(filepath.Join(st.dir, st.kind.file()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := st.s.examine(ctx, f, g); err != nil {
		return nil, err
	}
	if g.Seen, err = look(f); err != nil {
		return nil, err
	}
	m, err := os.OpenFile(filepath.Join(st.dir, metadataFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return nil, disk(err, st.dir)
	}
	defer m.Close()
	if _, err := m.Write(st.meta); err != nil {
		return nil, disk(err, st.dir)
	}
	if err := m.Sync(); err != nil {
		return nil, disk(err, st.dir)
	}
	return g, durable.SyncDir(st.dir)
}

// examine proves the file of a database and fills in what it has.
func (s *Store) examine(ctx context.Context, f *os.File, g *Generation) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if g.Kind == Java {
		return inspectJava(f, st.Size())
	}
	c, err := inspect(ctx, f, st.Size(), func(done int64) { s.opts.Progress("check", done, st.Size()) })
	if err != nil {
		return err
	}
	if c.advisories == 0 || c.vulnerabilities == 0 {
		return failure.Errorf(failure.Untrustworthy, "the database is empty: it has %d advisories and describes %d vulnerabilities", c.advisories, c.vulnerabilities)
	}
	g.Advisories, g.Vulnerabilities, g.Ecosystems, g.Sources = c.advisories, c.vulnerabilities, c.ecosystems, c.sources
	return nil
}
