package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/update/pack"
	"golang.org/x/sys/unix"
)

// nameSeed is what a package puts into data directories.
const nameSeed = "seed"

// carry takes over from the base what the package does not say anything about.
// A full package lets all of it stay behind but configuration.
func (s *stage) carry(ctx context.Context) error {
	if s.base.tree == "" {
		return nil
	}
	var files []uint32 // by the numbers of their names
	for p := range s.base.paths() {
		f, was := s.base.found(p), s.base.manifest.get(p)
		packaged := was != nil && was.Kind == File
		if packaged && f != nil && !f.fixed && s.g.Kind != Backup {
			s.g.Edited = append(s.g.Edited, p) // whatever takes its place, it is not that
		}
		switch {
		case s.entries.has(p), s.theirs[p] != nil, s.rules.IsData(p), s.isConfig(p):
			continue // settled elsewhere
		case s.full(), s.removed(p):
			if f != nil && f.Kind != Dir && (was == nil || was.Kind == Local) { // also what an earlier generation took over
				s.g.Left = append(s.g.Left, p)
			}
			continue
		case f == nil: // somebody removed it
			switch {
			case s.g.Kind == Backup, was.Kind == Local, was.Kind == Config, was.Kind == Data:
				continue
			case was.Kind == Dir:
				s.note(&Entry{Path: p, Kind: Dir, Mode: was.Mode, UID: was.UID, GID: was.GID})
				if err := s.tree.mkdir(p); err != nil {
					return err
				}
				continue
			case was.Kind == Link:
				s.note(was)
			}
			s.g.Edited = append(s.g.Edited, p)
			if was.Kind == File {
				files = append(files, s.base.names.id(p))
			}
		case f.Kind == Dir:
			s.note(f.Entry)
			if err := s.tree.mkdir(p); err != nil {
				return err
			}
		case f.Kind == Link && was != nil && s.g.Kind != Backup && (was.Kind == Link && was.Target != f.Target):
			s.g.Edited = append(s.g.Edited, p)
			s.note(was)
		case f.Kind == Link && (!packaged || s.g.Kind == Backup):
			s.note(f.Entry)
		default:
			files = append(files, f.id)
		}
	}
	for _, id := range files {
		if err := s.tree.mkdir(path.Dir(s.base.names.path(id))); err != nil {
			return err
		}
	}
	if err := s.carryFiles(ctx, files); err != nil {
		return err
	}
	if len(s.lost) > 0 {
		return unsound(s.lost)
	}
	return nil
}

// carryFiles links files, by as many goroutines as there are processors.
func (s *stage) carryFiles(ctx context.Context, files []uint32) error {
	const chunk = 256
	work := make(chan []uint32)
	errs := make(chan error, runtime.GOMAXPROCS(0))
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			var failed error
			for list := range work {
				for _, id := range list {
					if failed == nil {
						failed = ctx.Err()
					}
					if failed == nil {
						failed = s.carryFile(s.base.toCarry(id))
					}
				}
			}
			errs <- failed
		})
	}
	for len(files) > 0 {
		n := min(chunk, len(files))
		work <- files[:n]
		files = files[n:]
	}
	close(work)
	workers.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// toCarry returns what a name was found to be, or, when somebody removed it, what
// it was.
func (c *scan) toCarry(id uint32) *found {
	c.names.mu.Lock()
	defer c.names.mu.Unlock()
	if f := c.foundBy(id); f != nil {
		return f
	}
	return &found{Entry: &Entry{Path: c.names.paths.text(id)}, id: id, was: c.manifest.entry(id)}
}

// carryFile takes over one file: one of a package as it was packaged, any other
// as it is.
func (s *stage) carryFile(f *found) error {
	if s.tree == nil {
		e := f.Entry
		if f.was != nil && f.was.Kind == File {
			if e = f.was; !f.fixed && !s.intact(e) { // nothing is left that it could be put right with
				s.mu.Lock()
				s.lost = append(s.lost, e.Path)
				s.mu.Unlock()
				return nil
			}
		}
		s.note(e)
		return nil
	}
	if f.was != nil && f.was.Kind == File && (f.fixed || s.g.Kind != Backup) {
		e := *f.was
		if f.fixed {
			if linked, err := s.tree.fromTree(s.base, f, e.Path); err != nil {
				return err
			} else if linked {
				s.note(&e)
				return nil
			}
		}
		linked, err := s.tree.fromBlob(e.Path, &e)
		if err != nil {
			return err
		}
		if !linked && f.fixed { // as many links as there can be: another inode begins
			got, err := s.tree.copyFile(s.base, f, e.Path)
			if err == nil && got.key() == e.key() {
				linked, err = true, s.tree.keep(e.Path, &e)
			}
			if err != nil {
				return err
			}
		}
		if !linked {
			s.mu.Lock()
			s.lost = append(s.lost, e.Path)
			s.mu.Unlock()
			return nil
		}
		s.note(&e)
		return nil
	}
	e := *f.Entry
	if s.g.Kind != Backup {
		if linked, err := s.tree.fromTree(s.base, f, e.Path); err != nil {
			return err
		} else if linked {
			s.note(&e)
			return nil
		}
	}
	got, err := s.tree.copyFile(s.base, f, e.Path)
	if errors.Is(err, os.ErrNotExist) { // it went away meanwhile, and nobody vouches for it
		return nil
	} else if err != nil {
		return err
	}
	s.note(got)
	return nil
}

// linkData makes the link to a data directory, and refuses to when there is
// something else.
func (s *stage) linkData(d string) error {
	if s.entries.has(d) {
		return &archive.Error{Code: pack.CodeDataPath, Entry: d, Err: errors.New("it is data that outlives generations, and a part of the package")}
	}
	f, was := s.base.found(d), s.base.manifest.get(d)
	if f != nil && f.file() {
		return &archive.Error{Code: pack.CodeDataPath, Entry: d, Err: errors.New("it is a file here; move it away first")}
	}
	if f != nil && f.Kind == Link && f.Target != dataTarget(d) && (was == nil || was.Target != f.Target) { // data may lie on another disk
		return &archive.Error{Code: pack.CodeDataPath, Entry: d, Err: fmt.Errorf("somebody made it a link to %q here, and what is there would be out of sight; mount that on a directory in its place", f.Target)}
	}
	s.note(&Entry{Path: d, Kind: Data, Target: dataTarget(d)})
	return nil
}

// dataTarget is the text of the link to a data directory, from its place in a
// tree.
func dataTarget(d string) string {
	return strings.Repeat("../", 3+strings.Count(d, "/")) + nameData + "/" + d
}

func (t *tree) symlink(target, name string) error {
	dir, base, done, err := t.in(name)
	if err != nil {
		return err
	}
	defer done()
	if err := unix.Symlinkat(target, dir, base); err != nil {
		return t.fail("symlink", name, err)
	}
	return nil
}

// adopt makes a directory that was never in the store the tree of the first
// generation: the installation becomes a link in the same instant, and every
// file stays the inode that it was.
func (t *Session) adopt(ctx context.Context, base *scan, req *Request) error {
	dir := t.generation(base.number) + partialSuffix
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	g := &Generation{Schema: generationSchema, Number: base.number, Kind: Adopted, Created: req.Now.UTC().Round(0), By: req.By, Packages: map[string]Origin{}}
	for f := range base.present.all() {
		switch f.Kind {
		case Dir:
			g.Stats.Dirs++
		case Link:
			g.Stats.Links++
		default:
			g.Stats.Files++
			g.Stats.Local++
			g.Stats.Bytes += f.Size
			if f.Mode&setID != 0 {
				g.Stats.SetID++
			}
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, nameManifest), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err == nil {
		err = errors.Join(writeManifest(f, base.present.all()), f.Close())
	}
	if err == nil {
		err = g.write(dir)
	}
	if err == nil && g.Stats.SetID > 0 { // it is current, so it is open
		err = os.WriteFile(filepath.Join(dir, nameSetID), nil, 0o644)
	}
	// The link lies where the tree will be, and the exchange puts it in the place
	// of the installation.
	if err == nil {
		err = os.Symlink(t.linkText(), filepath.Join(dir, nameTree))
	}
	if err == nil {
		err = t.syncFilesystem()
	}
	if err != nil {
		return besides(err, os.RemoveAll(dir))
	}
	t.step("adopting")
	final := t.generation(base.number)
	if err = os.Rename(dir, final); err == nil {
		err = durable.SyncDir(t.path(nameGenerations))
	}
	if err == nil {
		err = t.point(base.number)
	}
	if err != nil {
		return besides(err, t.unadopt(base.number))
	}
	t.step("exchange")
	if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(final, nameTree), unix.AT_FDCWD, t.target, unix.RENAME_EXCHANGE); err != nil {
		if errors.Is(err, unix.EBUSY) {
			err = errors.New("it is a mount point, or something is mounted on it; an installation must be a directory of a larger filesystem")
		}
		return besides(&os.LinkError{Op: "exchange", Old: t.target, New: filepath.Join(final, nameTree), Err: err}, t.unadopt(base.number))
	}
	t.step("adopted")
	return errors.Join(durable.SyncDir(filepath.Dir(t.target)), durable.SyncDir(final))
}

// unadopt takes back an adoption that did not come to the exchange.
func (t *Session) unadopt(n int) error {
	var errs []error
	if current, err := t.Current(); err == nil && current == n {
		errs = append(errs, os.Remove(t.path(nameCurrent)))
	}
	return errors.Join(append(errs, os.RemoveAll(t.generation(n)), os.RemoveAll(t.generation(n)+partialSuffix))...)
}

// linkText is the text of the link that the installation is: relative, so that a
// whole filesystem can be mounted elsewhere.
func (s *Store) linkText() string {
	if rel, err := filepath.Rel(filepath.Dir(s.target), s.path(nameCurrent)); err == nil {
		return rel
	}
	return s.path(nameCurrent)
}

// readSmall reads a file beneath a directory, through no link.
func readSmall(dir *os.File, name string, most int64) ([]byte, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := openBeneath(int(dir.Fd()), name)
	if err != nil {
		return nil, st, &os.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name))
	defer f.Close()
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, st, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG { // reading a pipe might never end
		return nil, st, &os.PathError{Op: "read", Path: f.Name(), Err: unix.ELOOP}
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = &os.PathError{Op: "read", Path: f.Name(), Err: unix.EFBIG}
	}
	return data, st, err
}
