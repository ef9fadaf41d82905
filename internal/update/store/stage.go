package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update/merge"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/pkg/filehash"
)

const (
	bufferedFile = 256 << 10 // bytes; larger files are written as they are read
	maxConfig    = 4 << 20   // bytes of one configuration file, and …
	maxAllConfig = 16 << 20
)

// Request says what a new generation is made of.
type Request struct {
	// Package is what is laid over the current tree, or replaces it; nil: the
	// tree is kept as it is, for a backup.
	Package *pack.Reader
	// Prove is called when the last byte of the package was read. Nothing lasts
	// before it returns nil, and with what it returns.
	Prove func() (Origin, error)
	// Name is the package's name as its signature says it, before it is proved.
	Name     string
	By       string
	Change   string
	Now      time.Time
	Progress *filehash.Counters // files and bytes of the base that were read; may be nil
	Unpacked func(files, bytes int64)
}

// stage is the making of one generation.
type stage struct {
	*Session
	req   *Request
	g     *Generation
	dir   string // generations/N.partial
	tree  *tree  // nil: nothing is laid out, see Foresee
	base  *scan
	rules *pack.Manifest // patterns of configuration and data, of all packages
	uid   uint32         // of who makes it, who owns what a package brings
	gid   uint32         //
	again bool           // the generation is there, and is brought up to date
	redo  bool           // for the second time: the first one was broken off

	mu      sync.Mutex
	entries *view
	theirs  map[string]*merge.File // configuration in the package
	pending int64                  // bytes of it
	mtimes  map[string]time.Time
	lost    []string // paths of the base that cannot be carried over
}

// Stage makes a generation from the current one and a package. It is complete
// and durable when Stage returns, and not yet current. On an error everything is
// as it was.
func (t *Session) Stage(ctx context.Context, req Request) (g *Generation, err error) {
	s := &stage{Session: t, req: &req, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), theirs: map[string]*merge.File{}, mtimes: map[string]time.Time{}}
	g, err = s.run(ctx)
	return g, explain(err)
}

func (s *stage) run(ctx context.Context) (g *Generation, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.base.close()
	if err := os.MkdirAll(filepath.Join(s.dir, nameTree), 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = besides(err, os.RemoveAll(s.dir))
		}
	}()
	for _, d := range []string{nameTree, nameBase} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if s.tree, err = s.newTree(filepath.Join(s.dir, nameTree), s.base.names); err != nil {
		return nil, err
	}
	defer s.tree.close()
	defer func() {
		if err != nil {
			s.tree.abandon()
		}
	}()
	if s.req.Package != nil {
		if err := s.unpack(ctx); err != nil {
			return nil, err
		}
		s.step("unpacked")
		origin, err := s.req.Prove()
		if err != nil {
			return nil, err
		}
		s.g.Origin = &origin
		s.g.Packages[origin.Name] = origin
		s.step("proved")
	}
	if err := s.carry(ctx); err != nil {
		return nil, err
	}
	if err := s.finish(); err != nil {
		return nil, err
	}
	s.step("made")
	return s.commit(ctx)
}

// begin reads the base and decides about the number.
func (s *stage) begin(ctx context.Context) error {
	m := new(pack.Manifest)
	if s.req.Package != nil {
		m = s.req.Package.Manifest()
	}
	rules := &pack.Manifest{Config: m.Config, Data: m.Data}
	if current, err := s.Current(); err != nil {
		return err
	} else if current > 0 {
		g, err := s.Generation(current)
		if err != nil {
			return err
		}
		rules.Config = union(g.Config, m.Config)
		rules.Data = union(g.Data, m.Data)
	}
	base, err := s.scanBase(ctx, rules, s.req.Progress)
	if err != nil {
		return err
	}
	n, err := s.next()
	if err != nil {
		base.close()
		return err
	}
	if base.tree != "" && base.number == 0 { // the one that is adopted comes first
		base.number = n
		n++
	}
	s.base, s.rules, s.entries = base, rules, base.names.view()
	s.g = &Generation{
		Schema: generationSchema, Number: n, Kind: Updated, Created: s.req.Now.UTC().Round(0), By: s.req.By, Change: s.req.Change,
		Base: base.number, Config: rules.Config, Data: rules.Data, Packages: map[string]Origin{},
	}
	if base.gen != nil {
		for name, o := range base.gen.Packages {
			s.g.Packages[name] = o
		}
	}
	switch {
	case s.req.Package == nil:
		s.g.Kind = Backup
	case m.Kind == pack.KindFull:
		clear(s.g.Packages)
		fallthrough
	default:
		s.g.Manifest = m
	}
	s.g.Left = base.left
	s.dir = s.generation(n) + partialSuffix
	return nil
}

// next returns the number of the next generation. That of one that could not be
// removed is not free.
func (s *Store) next() (int, error) {
	names, err := os.ReadDir(s.path(nameGenerations))
	if errors.Is(err, fs.ErrNotExist) { // there is no store yet, see Foresee
		err = nil
	}
	n := 1
	for _, e := range names {
		if taken, err := strconv.Atoi(strings.TrimSuffix(e.Name(), partialSuffix)); err == nil {
			n = max(n, taken+1)
		}
	}
	return n, err
}

func union(a, b []string) []string {
	list := slices.Concat(a, b)
	slices.Sort(list)
	return slices.Compact(list)
}

// finish makes links, gives directories their modes, and writes down what there
// is.
func (s *stage) finish() error {
	if err := s.settleAll(); err != nil {
		return err
	}
	for _, d := range s.rules.Data {
		if err := s.linkData(d); err != nil {
			return err
		}
	}
	if err := s.checkParents(); err != nil {
		return err
	}
	for e := range s.entries.all() {
		if e.Kind == Link || e.Kind == Data {
			if err := s.tree.mkdir(path.Dir(e.Path)); err != nil {
				return err
			}
		}
	}
	s.noteDirs()
	f, err := os.OpenFile(filepath.Join(s.dir, nameManifest), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if err := errors.Join(writeManifest(f, s.entries.all()), f.Close()); err != nil {
		return err
	}
	for e := range s.entries.backward() { // what is in a directory comes before it
		switch e.Kind {
		case Link, Data:
			err = s.tree.symlink(e.Target, e.Path)
		case Dir:
			err = s.dressDir(e)
		}
		if err != nil {
			return err
		}
	}
	if err := s.dressTop(); err != nil {
		return err
	}
	s.count()
	slices.Sort(s.g.Edited)
	slices.Sort(s.g.Left)
	if err := s.g.write(s.dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, nameStaged), nil, 0o644)
}

// checkParents proves that everything lies in directories.
func (s *stage) checkParents() error {
	for e := range s.entries.all() {
		for d := path.Dir(e.Path); d != "."; d = path.Dir(d) {
			if k := s.entries.kind(d); k != 0 && k != Dir {
				return &archive.Error{Code: archive.CodeParentNotDir, Entry: e.Path, Err: fmt.Errorf("%s is no directory", d)}
			}
		}
	}
	return nil
}

// noteDirs adds the directories that are there because something lies in them.
func (s *stage) noteDirs() {
	for dir := range s.tree.dirs {
		if dir != "." && !s.entries.has(dir) {
			s.entries.put(&Entry{Path: dir, Kind: Dir, Mode: 0o755, UID: s.uid, GID: s.gid})
		}
	}
}

func (s *stage) count() {
	st := &s.g.Stats
	for e := range s.entries.all() {
		switch e.Kind {
		case Dir:
			st.Dirs++
		case Link, Data:
			st.Links++
		default:
			st.Files++
			st.Bytes += e.Size
			if e.Mode&setID != 0 {
				st.SetID++
			}
			if e.Kind == Config {
				st.Config++
			} else if e.Kind == Local {
				st.Local++
			}
		}
	}
	for _, c := range s.g.Settled {
		if c.Outcome == merge.Conflicted {
			st.Conflicts++
		}
	}
}

// commit makes the generation durable and visible. A directory that was not in
// the store yet is adopted just before, when nothing can fail any more but that.
func (s *stage) commit(ctx context.Context) (*Generation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.base.names.sound(); err != nil {
		return nil, err
	}
	if s.base.tree != "" && s.base.gen == nil {
		if err := s.adopt(ctx, s.base, s.req); err != nil {
			return nil, err
		}
	}
	if err := s.close(s.dir, s.g.Stats.SetID); err != nil {
		return nil, err
	}
	if err := s.syncFilesystem(); err != nil {
		return nil, err
	}
	s.step("synced")
	s.stamp()
	if err := os.Rename(s.dir, s.generation(s.g.Number)); err != nil {
		return nil, err
	}
	s.step("named")
	if err := durable.SyncDir(s.path(nameGenerations)); err != nil {
		// It may be gone after a power cut, so it must not be switched to.
		_ = os.Rename(s.generation(s.g.Number), s.dir)
		return nil, err
	}
	s.step("staged")
	s.g.Staged = true
	s.staged = s.g.Number
	s.basis = s.lastChanges()
	return s.g, nil
}

// unsound is the error about files that can be had from nowhere.
func unsound(paths []string) error {
	slices.Sort(paths)
	shown := paths[:min(len(paths), 5)]
	text := strings.Join(shown, ", ")
	if more := len(paths) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return failure.Hint(fmt.Errorf("%d files of the current generation are %w or gone, and so is their content in the store: %s", len(paths), ErrDamaged, text),
		"nothing was changed; apply a package that has them, or go back: mobileops rollback")
}
