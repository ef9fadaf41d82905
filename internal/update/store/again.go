package store

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/update/merge"
	"github.com/mobileops/mobileops/internal/update/pack"
	"golang.org/x/sys/unix"
)

// unfinished is what a generation has seen while it is brought up to date: no
// tree looks like that, so what is broken off is done again.
var unfinished = map[string]string{"": "unfinished"}

// catchUp brings a generation that was staged earlier up to date with what
// people did to the current tree since: edits of configuration are merged once
// more, and files of no package are taken over. The generation is not current,
// so it may change.
func (t *Session) catchUp(ctx context.Context, g *Generation, now time.Time) (changed bool, err error) {
	rules := &pack.Manifest{Config: g.Config, Data: g.Data}
	base, err := t.scanBase(ctx, rules, nil)
	if err != nil {
		return false, err
	}
	defer base.close()
	s := &stage{Session: t, req: &Request{Now: now}, g: g, dir: t.generation(g.Number), base: base, rules: rules, again: true, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()),
		theirs: map[string]*merge.File{}, mtimes: map[string]time.Time{}}
	seen := map[string]string{}
	for p := range base.paths() {
		if !s.isConfig(p) {
			continue
		}
		v, err := s.mine(p)
		if err != nil {
			return false, err
		}
		if v.File != nil {
			seen[p] = v.text()
		}
	}
	s.entries = base.names.view()
	if err = t.load(g.Number, s.entries); err != nil {
		return false, err
	}
	merged := maps.Equal(seen, g.Seen)
	s.redo = maps.Equal(g.Seen, unfinished)
	if merged && len(s.strayed()) == 0 {
		return false, nil
	}
	if s.tree, err = t.newTree(filepath.Join(s.dir, nameTree), base.names); err != nil {
		return false, err
	}
	defer s.tree.close()
	s.tree.reachable = true
	for e := range s.entries.all() {
		if e.Kind == Dir {
			s.tree.dirs[e.Path] = true
		}
	}
	g.Seen = unfinished
	if err := s.describe(); err != nil {
		return false, err
	}
	t.step("catching up")
	if err := s.sweepTree(); err != nil {
		return false, err
	}
	for _, p := range s.strayed() {
		if err := s.follow(p); err != nil {
			return false, err
		}
	}
	if err := s.mergeAgain(); err != nil {
		return false, err
	}
	t.step("caught up")
	return true, s.rewrite()
}

// lastChanges returns when everything of the base changed last that could make what
// was staged out of date: the files of configuration, as the merge has read them,
// and the directories, in which files of no package come and go.
func (s *stage) lastChanges() map[string]stamp {
	m := map[string]stamp{}
	if s.base.dir == nil {
		return m
	}
	m[s.base.tree] = s.base.root
	for p := range s.g.Seen {
		if f := s.base.found(p); f != nil {
			m[filepath.Join(s.base.tree, p)] = stamp{f.ino, f.ctime}
		}
	}
	for p, was := range s.base.directories() {
		m[filepath.Join(s.base.tree, p)] = was
	}
	return m
}

// upToDate says whether generation n was staged a moment ago by who holds the
// lock still, and no configuration or directory was touched since.
func (t *Session) upToDate(n int) bool {
	if t.staged != n {
		return false
	}
	for p, was := range t.basis {
		var st unix.Stat_t
		if unix.Lstat(p, &st) != nil || stampOf(&st) != was {
			return false
		}
	}
	return true
}

// mergeAgain settles all configuration anew.
func (s *stage) mergeAgain() error {
	for e := range s.entries.all() {
		p := e.Path
		if e.Kind != Config && (e.Kind != Link || !s.rules.IsConfig(p)) {
			continue
		}
		if e.Base != nil {
			data, err := os.ReadFile(filepath.Join(s.dir, nameBase, e.Base.Sum.String()))
			if err != nil {
				return err
			}
			s.theirs[p] = &merge.File{Content: data, Mode: fileMode(e.Base.Mode)}
		}
		if err := s.drop(p); err != nil {
			return err
		}
	}
	s.g.Settled = nil
	return s.settleAll()
}

// drop takes a file or link out of the tree.
func (s *stage) drop(p string) error {
	s.entries.drop(p)
	if err := s.tree.remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// strayed returns the paths that are of no package and not as they were when the
// generation was staged.
func (s *stage) strayed() (list []string) {
	for p := range s.base.paths() {
		f, e := s.base.found(p), s.entries.get(p)
		was := s.base.manifest.get(p)
		switch {
		case s.isConfig(p), s.rules.IsData(p), s.removed(p):
		case was != nil && was.Kind == File: // as packaged, whatever happened to it
			if (f == nil || !f.fixed) && !slices.Contains(s.g.Edited, p) {
				list = append(list, p)
			}
		case s.full():
			if f != nil && f.Kind != Dir && was == nil && e == nil && !slices.Contains(s.g.Left, p) {
				list = append(list, p)
			}
		case f == nil:
			if e != nil && e.Kind == Local {
				list = append(list, p)
			}
		case e == nil, e.Kind == Local && (s.redo || f.Kind != Local || f.Sum != e.Sum || f.Mode != e.Mode || f.UID != e.UID || f.GID != e.GID):
			list = append(list, p)
		}
	}
	for e := range s.entries.all() {
		if p := e.Path; e.Kind == Local && !s.base.present.has(p) && !s.base.manifest.has(p) && !s.rules.IsData(p) && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}

// sweepTree removes what an attempt that was broken off has left: what the
// manifest does not have.
func (s *stage) sweepTree() error {
	if !s.redo {
		return nil
	}
	return filepath.WalkDir(s.tree.path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(s.tree.path, p)
		if err != nil || s.entries.has(rel) {
			return err
		}
		return s.tree.remove(rel)
	})
}

// follow takes over what happened to one of these.
func (s *stage) follow(p string) error {
	f, was := s.base.found(p), s.base.manifest.get(p)
	switch {
	case was != nil && was.Kind == File:
		s.g.Edited = append(s.g.Edited, p)
		return nil
	case s.full():
		s.g.Left = append(s.g.Left, p)
		return nil
	}
	if s.entries.has(p) {
		if err := s.drop(p); err != nil {
			return err
		}
	}
	if f == nil {
		return nil
	}
	for d := filepath.Dir(p); d != "."; d = filepath.Dir(d) {
		if k := s.entries.kind(d); k != 0 && k != Dir { // the package made something else of its directory
			s.g.Left = append(s.g.Left, p)
			return nil
		}
	}
	if err := s.drop(p); err != nil && f.Kind != Dir { // of an attempt that was broken off
		return err
	}
	switch f.Kind {
	case Dir:
		if err := s.tree.mkdir(p); err != nil {
			return err
		}
		s.note(f.Entry)
		return s.dressDir(f.Entry)
	case Link:
		if err := s.tree.mkdir(filepath.Dir(p)); err != nil {
			return err
		}
		s.note(f.Entry)
		return s.tree.symlink(f.Target, p)
	}
	if err := s.tree.mkdir(filepath.Dir(p)); err != nil {
		return err
	}
	return s.carryFile(f)
}

// describe writes the description of the generation anew.
func (s *stage) describe() error {
	data, err := s.g.encode()
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(s.dir, nameGeneration), data, 0o644)
}

// rewrite writes manifest and description of a generation anew.
func (s *stage) rewrite() error {
	s.noteDirs()
	for e := range s.entries.all() {
		if e.Kind != Link {
			continue
		}
		// It was dropped, or is there as it was.
		if err := s.tree.symlink(e.Target, e.Path); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	s.g.Stats = Stats{NewFiles: s.g.Stats.NewFiles, NewBytes: s.g.Stats.NewBytes}
	s.count()
	f, err := durable.Create(filepath.Join(s.dir, nameManifest), 0o644)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := errors.Join(writeManifest(f, s.entries.all()), s.base.names.sound()); err != nil {
		return err
	}
	if err := f.Commit(); err != nil {
		return err
	}
	return s.describe()
}
