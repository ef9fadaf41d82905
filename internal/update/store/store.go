// Package store keeps the generations of an installation: whole trees, of which
// one is current, and which share what they have in common.
//
// A store is a directory on the filesystem of the installation:
//
//	format               schema of the store, and which installation it is of
//	current              link to generations/N/tree: the only truth about what is live
//	generations/N/       generation.json, manifest, stamps, tree/, base/, hooks/, seed/, staged, pinned, setid
//	generations/N.partial/  one that is being made; swept by the next who takes the lock
//	blobs/ab/cdef….M.U.G content by BLAKE3, with mode and owner, linked into trees
//	data/                what outlives generations: trees have links to it
//	tmp/                 nothing that lasts
//	locks/               the lock of whoever changes the store
//
// The installation itself (/opt/mobileops) is a symbolic link to current, so it
// changes by one rename(2). A directory that was there before is adopted by one
// renameat2(2) with RENAME_EXCHANGE: it becomes the tree of a generation as it
// is, with every inode where it was.
//
// Files of packages are hard links to blobs, and are not to be written to: a
// change in place changes every generation that has the file, and Verify tells.
// Configuration is an own copy in each generation, merged when a package brings
// a new one.
//
// Invariants: a generation whose name has no .partial is complete and durable;
// current never names another; content is proved before it is linked into a new
// generation, by reading it or by its stamp; an error leaves nothing behind but what was there before.
//
// Sources: rename(2), renameat2(2), link(2), syncfs(2), openat2(2).
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// schema names the layout of a store.
const schema = "mobileops.update.store/v1"

// Names in a store.
const (
	nameFormat      = "format"
	nameCurrent     = "current"
	nameGenerations = "generations"
	nameBlobs       = "blobs"
	nameData        = "data"
	nameTmp         = "tmp"
	nameTree        = "tree"
	nameManifest    = "manifest"
	nameGeneration  = "generation.json"
	nameStaged      = "staged"
	namePinned      = "pinned"
	nameSetID       = "setid"
	nameBase        = "base"
	partialSuffix   = ".partial"
)

// Errors that callers tell apart.
var (
	ErrNone     = failure.New(failure.NotReady, "no update was applied here yet")
	ErrMissing  = failure.New(failure.No, "no such generation")
	ErrForeign  = failure.New(failure.Untrustworthy, "is not the store of this installation")
	ErrDamaged  = failure.New(failure.Untrustworthy, "damaged")
	ErrReplaced = failure.New(failure.Untrustworthy, "the installation is no longer a link to its store")
)

// Options say where a store is.
type Options struct {
	Dir    string // the store
	Target string // the installation
	// Step is told of every step by which something becomes lasting, before
	// the next one; nil: nobody. Its names are those of the commit points.
	Step func(name string)
}

// Store is the store of an installation. Making one opens nothing.
type Store struct {
	dir, target string
	step        func(string)
}

// New returns the store, which need not exist yet.
func New(o Options) *Store {
	s := &Store{dir: o.Dir, target: o.Target, step: o.Step}
	if s.step == nil {
		s.step = func(string) {}
	}
	return s
}

// Dir returns the directory of the store, and Target the installation.
func (s *Store) Dir() string { return s.dir }

// Target returns the path of the installation.
func (s *Store) Target() string { return s.target }

// Tree returns the path of the tree of generation n.
func (s *Store) Tree(n int) string { return filepath.Join(s.generation(n), nameTree) }

func (s *Store) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

func (s *Store) generation(n int) string { return s.path(nameGenerations, strconv.Itoa(n)) }

// format is the content of the file of that name.
type format struct {
	Schema string `json:"schema"`
	Target string `json:"target"`
}

// check says whether the directory is a store of this installation: ErrNone when
// there is none.
func (s *Store) check() error {
	data, err := os.ReadFile(s.path(nameFormat))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(s.path(nameCurrent)); err != nil {
			return ErrNone
		}
		text, err := json.Marshal(format{schema, s.target})
		return errors.Join(err, failure.Hint(fmt.Errorf("%s: %w: it is gone", s.path(nameFormat), ErrDamaged),
			fmt.Sprintf("when it is the store of %s, write it anew: echo '%s' > %s", s.target, text, s.path(nameFormat))))
	} else if err != nil {
		return err
	}
	var f format
	if err := json.Unmarshal(data, &f); err != nil || f.Schema != schema {
		if strings.HasPrefix(f.Schema, "mobileops.update.store/") {
			return failure.Hint(failure.Errorf(failure.Untrustworthy, "%s was written by a newer mobileops (%s)", s.dir, f.Schema), "use that one: nothing here was read or changed")
		}
		return fmt.Errorf("%s %w: its file %q cannot be read", s.dir, ErrForeign, nameFormat)
	}
	if f.Target != s.target {
		return failure.Hint(fmt.Errorf("%s %w: it is of %s", s.dir, ErrForeign, f.Target), "name another with update.store")
	}
	return nil
}

// Current returns the number of the current generation, 0 when there is none.
func (s *Store) Current() (int, error) {
	to, err := os.Readlink(s.path(nameCurrent))
	if errors.Is(err, fs.ErrNotExist) {
		if at, err := os.Readlink(s.target); err != nil || !s.resolves(at) {
			return 0, nil
		}
		// The link of the installation comes after it, and nothing removes it since.
		to, err = os.Readlink(s.path(nameCurrent))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return 0, failure.Hint(fmt.Errorf("%s: %w: it is gone", s.path(nameCurrent), ErrDamaged), "make it anew: "+s.howToLink())
	} else if errors.Is(err, unix.EINVAL) {
		return 0, s.noLink("it is no link")
	} else if err != nil {
		return 0, err
	}
	parts := strings.Split(to, "/")
	if len(parts) != 3 || parts[0] != nameGenerations || parts[2] != nameTree {
		return 0, s.noLink("it leads to %q", to)
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil || n < 1 || strconv.Itoa(n) != parts[1] {
		return 0, s.noLink("it leads to %q", to)
	}
	return n, nil
}

// noLink says that current is not what it has to be. Which generation was live
// nobody here can know, so it is up to the operator.
func (s *Store) noLink(format string, args ...any) error {
	return failure.Hint(fmt.Errorf("%s: %w: %s", s.path(nameCurrent), ErrDamaged, fmt.Sprintf(format, args...)),
		fmt.Sprintf("move it away and make it anew: mv %s %[1]s.damaged && %s", s.path(nameCurrent), s.howToLink()))
}

func (s *Store) howToLink() string {
	return fmt.Sprintf("ln -s %s/N/%s %s, with N one of those in %s", nameGenerations, nameTree, s.path(nameCurrent), s.path(nameGenerations))
}

// Numbers returns the numbers of all complete generations in ascending order.
func (s *Store) Numbers() ([]int, error) {
	names, err := os.ReadDir(s.path(nameGenerations))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var list []int
	for _, e := range names {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > 0 && strconv.Itoa(n) == e.Name() && e.IsDir() {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

// List returns all complete generations in ascending order. One whose
// description cannot be read is described by its number and Damaged, and so is the
// current one when it is gone.
func (s *Store) List() ([]*Generation, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	numbers, err := s.Numbers()
	if err != nil {
		return nil, err
	}
	current, err := s.Current()
	if err != nil {
		return nil, err
	}
	if current > 0 && !slices.Contains(numbers, current) {
		numbers = append(numbers, current)
		slices.Sort(numbers)
	}
	var list []*Generation
	for _, n := range numbers {
		g, err := s.Generation(n)
		switch {
		case errors.Is(err, ErrMissing): // pruned meanwhile
			continue
		case errors.Is(err, ErrDamaged):
			if hinted, ok := errors.AsType[*failure.Error](err); ok && hinted.Err != nil {
				err = hinted.Err
			}
			g = &Generation{Number: n, Damaged: err.Error()}
			g.look(s.generation(n), current)
		case errors.Is(err, fs.ErrPermission): // see close
			g = &Generation{Number: n, Damaged: "only its owner may look at it: it has set-id programs and is not current"}
		case err != nil:
			return nil, err
		}
		list = append(list, g)
	}
	return list, nil
}

// Session is the store held by its lock: what changes it needs one.
type Session struct {
	*Store
	lock *state.Lock
	// Swept says what earlier, unfinished work was cleared away, and Stuck what
	// could not be.
	Swept []string

	staged int              // the generation that was staged in this session; 0: none
	basis  map[string]stamp // what of the current tree it was made from, by path
	Stuck  []error
}

// Lock makes the store if there is none, takes its lock, and puts right what
// whoever held it before left unfinished: the link that is current decides what
// happened. When another process holds it, the error is a *state.HeldError.
func (s *Store) Lock(ctx context.Context, doing string) (*Session, error) {
	err := s.owned()
	if err == nil {
		err = s.check()
	}
	if errors.Is(err, ErrNone) {
		err = s.create()
	}
	if err != nil {
		return nil, explain(err)
	}
	return s.take(ctx, doing)
}

// Existing is Lock for what needs a store: ErrNone when there is none.
func (s *Store) Existing(ctx context.Context, doing string) (*Session, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.take(ctx, doing)
}

// owned refuses a store that somebody else made, or could change: its hooks are
// run, and what is in it is believed.
func (s *Store) owned() error {
	var st unix.Stat_t
	if err := unix.Stat(s.dir, &st); errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return &fs.PathError{Op: "stat", Path: s.dir, Err: err}
	}
	switch {
	case st.Uid != 0 && int64(st.Uid) != int64(os.Geteuid()):
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "%s belongs to user %d, who could change what is run from it", s.dir, st.Uid),
			"run it as who owns the installation; a store that nobody here made is to be moved away")
	case st.Mode&0o002 != 0, st.Mode&0o020 != 0 && st.Gid != 0:
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "others may write %s (mode %04o), and so change what is run from it", s.dir, st.Mode&0o7777),
			"look at what is in it, then: chmod go-w "+s.dir)
	}
	return nil
}

func (s *Store) take(ctx context.Context, doing string) (*Session, error) {
	if err := s.owned(); err != nil {
		return nil, err
	}
	lock, err := state.New(s.dir, state.Options{Doing: doing}).Lock("update", doing)
	if err != nil {
		return nil, explain(err)
	}
	t := &Session{Store: s, lock: lock}
	if err := t.recover(ctx); err != nil {
		return nil, errors.Join(explain(err), lock.Release())
	}
	return t, nil
}

// Release gives the lock back.
func (t *Session) Release() error { return t.lock.Release() }

// create makes an empty store. The file that says what it is comes last, so that
// no half of one is taken for one.
func (s *Store) create() error {
	if names, err := os.ReadDir(s.dir); err == nil && len(names) > 0 {
		for _, e := range names {
			if !slices.Contains([]string{nameGenerations, nameBlobs, nameData, nameTmp, "locks"}, e.Name()) && !strings.HasPrefix(e.Name(), "."+nameFormat) {
				return failure.Hint(failure.Errorf(failure.Untrustworthy, "%s is not empty, and is no store", s.dir), "name another directory with update.store")
			}
		}
	}
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o755); err != nil {
		return err
	}
	if err := s.makeDirs(); err != nil {
		return err
	}
	if err := s.sameFilesystem(); err != nil {
		return err
	}
	data, err := json.Marshal(format{schema, s.target})
	if err != nil {
		return err
	}
	return durable.WriteFile(s.path(nameFormat), append(data, '\n'), 0o644)
}

// makeDirs makes the directories of a store that are not there.
func (s *Store) makeDirs() error {
	for _, d := range []string{"", nameGenerations, nameBlobs, nameData, nameTmp} {
		perm := fs.FileMode(0o755)
		if d == nameTmp || d == nameBlobs { // what nobody has vouched for yet is nobody's to run
			perm = 0o700
		}
		if err := durable.MkdirAll(s.path(d), perm); err != nil {
			return err
		}
	}
	return nil
}

// sameFilesystem refuses a store from which nothing can be renamed to the place
// of the installation.
func (s *Store) sameFilesystem() error {
	var store, place unix.Stat_t
	stat := func(dir string, st *unix.Stat_t) error { // of what it would be made in while it is not there
		err := unix.Stat(dir, st)
		for ; errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir); err = unix.Stat(dir, st) {
			dir = filepath.Dir(dir)
		}
		if err != nil {
			return &fs.PathError{Op: "stat", Path: dir, Err: err}
		}
		return nil
	}
	at := s.target
	if st, err := os.Lstat(at); err != nil || !st.IsDir() {
		at = filepath.Dir(at)
	}
	if err := errors.Join(stat(s.dir, &store), stat(at, &place)); err != nil {
		return err
	}
	if store.Dev != place.Dev {
		return failure.Hint(failure.Errorf(failure.NotReady, "%s and %s are on different filesystems, so no update could be one rename", s.dir, s.target),
			"name a directory on the filesystem of the installation with update.store; an installation that is a mount point itself needs its parent instead")
	}
	return nil
}

// besides adds what went wrong while things were put back, unless that is the
// same trouble once more.
func besides(err, more error) error {
	var a, b unix.Errno
	if errors.As(err, &a) && errors.As(more, &b) && a == b {
		return err
	}
	return errors.Join(err, more)
}

// Explain gives errors of the system the kind they have for whoever updates, and
// says what to do. It is for errors after which everything is as it was. What the
// state advises for its locks, which the store uses too, is no advice here.
func Explain(err error) error { return explain(err) }

func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case failure.KindOf(err) == failure.NotAllowed: // it says what to do
		return err
	}
	if e, ok := err.(*failure.Error); ok && e.Hint != "" && e.Err != nil && systemError(err) {
		err = e.Err
	}
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0:
		return failure.Hint(failure.Wrap(failure.Failed, err), "root may not do that either: see whether it is immutable (lsattr), and make it changeable with chattr -i")
	case errors.Is(err, fs.ErrPermission):
		return failure.Hint(failure.Wrap(failure.NotAllowed, err), "run it as root, or as who owns the installation")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return failure.Hint(failure.Wrap(failure.Failed, err), "nothing was changed; make room: mobileops update prune")
	case errors.Is(err, unix.EROFS):
		return failure.Hint(failure.Wrap(failure.Failed, err), "nothing was changed; the filesystem is mounted read-only")
	}
	return err
}

// systemError says whether explain knows better what to do about an error than who
// returned it.
func systemError(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}

// syncFilesystem makes everything in the store durable.
func (s *Store) syncFilesystem() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return &fs.PathError{Op: "syncfs", Path: s.dir, Err: err}
	}
	return nil
}
