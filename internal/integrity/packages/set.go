package packages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// database is that of one manager.
type database interface {
	manager() Manager
	// all returns the packages that are installed.
	all(ctx context.Context) ([]Package, error)
	// lookup adds to out[i] what is known of paths[i].
	lookup(ctx context.Context, paths [][]byte, out [][]File) error
	// each calls fn with every path; without digests these may be left out.
	each(ctx context.Context, digests bool, fn func(path []byte, f *File) error) error
}

// maxProblems bounds what a Set remembers of malformed packages.
const maxProblems = 1000

// Set is the package databases below a root directory. It reads them when it
// is asked, and keeps what it has read of the packages' versions: to see what
// was installed since, open a new one. It may be used by several goroutines.
type Set struct {
	tree    *tree
	aliases *aliases
	list    []database

	mu       sync.Mutex
	problems []error
	seen     map[string]bool
}

// Open finds the package databases below root. That there are none is no
// error: Managers is empty then.
func Open(root string) (*Set, error) {
	t, err := openTree(root)
	if err != nil {
		return nil, failure.Errorf(failure.KindOf(err), "package databases: %w", err)
	}
	s := &Set{tree: t, aliases: readAliases(t), seen: map[string]bool{}}
	for _, find := range []func(*Set) (database, error){findDpkg, findRPM, findAPK} {
		db, err := find(s)
		if err != nil {
			t.close()
			return nil, fmt.Errorf("package databases: %w", err)
		}
		if db != nil {
			s.list = append(s.list, db)
		}
	}
	return s, nil
}

func findDpkg(s *Set) (database, error) {
	for _, p := range []string{dpkgStatus, dpkgStatusD} {
		if ok, err := s.tree.exists(p); err != nil || ok {
			return &dpkgDB{tree: s.tree, aliases: s.aliases, problem: s.problem}, err
		}
	}
	return nil, nil
}

// exists tells whether something is there; what stands in the way of telling
// is an error.
func (t *tree) exists(path string) (bool, error) {
	fd, err := t.open(path, unix.O_PATH)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, unix.Close(fd)
}

// Managers returns the package managers that have a database below the root.
func (s *Set) Managers() []Manager {
	var list []Manager
	for _, db := range s.list {
		list = append(list, db.manager())
	}
	return list
}

// Close closes the set.
func (s *Set) Close() error { return s.tree.close() }

// problem remembers what is wrong with one package.
func (s *Set) problem(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text := err.Error(); !s.seen[text] && len(s.problems) < maxProblems {
		s.seen[text] = true
		s.problems = append(s.problems, err)
	}
}

// Problems returns what was found missing or malformed so far in the records
// of single packages, up to a thousand: of what belongs to them less is known
// than there was, the others are not touched. Errors that are about a format
// wrap ErrDamaged.
func (s *Set) Problems() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error(nil), s.problems...)
}

// Packages returns the packages that are installed.
func (s *Set) Packages(ctx context.Context) ([]Package, error) {
	var list []Package
	for _, db := range s.list {
		l, err := db.all(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, l...)
	}
	return list, nil
}

// Lookup returns what is known of each of the absolute paths: usually nothing
// or one file, several for directories and for files that packages of several
// architectures share. Databases are read no further than needed for them.
func (s *Set) Lookup(ctx context.Context, paths [][]byte) ([][]File, error) {
	out := make([][]File, len(paths))
	if len(paths) == 0 {
		return out, nil
	}
	for _, db := range s.list {
		if err := db.lookup(ctx, paths, out); err != nil {
			return nil, fmt.Errorf("%s database: %w", db.manager(), err)
		}
	}
	return out, nil
}

// Each calls fn with every path of every package, directories included, in the
// order of the packages: path is where the file is below the root. It and what
// f refers to are valid during the call. The error of fn ends it.
func (s *Set) Each(ctx context.Context, fn func(path []byte, f *File) error) error {
	return s.each(ctx, true, fn)
}

func (s *Set) each(ctx context.Context, digests bool, fn func(path []byte, f *File) error) error {
	for _, db := range s.list {
		var stop error // by fn, whose errors are not those of the database
		err := db.each(ctx, digests, func(path []byte, f *File) error {
			stop = fn(slices.Clip(path), f) // appending to it writes elsewhere
			return stop
		})
		if stop != nil {
			return stop
		}
		if err != nil {
			return fmt.Errorf("%s database: %w", db.manager(), err)
		}
	}
	return nil
}
