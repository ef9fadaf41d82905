package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/update/merge"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/zeebo/blake3"
)

// job is a file that is all in memory.
type job struct {
	name  string
	mode  uint32
	mtime time.Time
	body  *bytes.Buffer
}

// unpack reads the package: this goroutine takes entries from it, the others
// hash and write files.
func (s *stage) unpack(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	jobs := make(chan job, 2*runtime.GOMAXPROCS(0))
	var workers sync.WaitGroup
	buffers := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for j := range jobs {
				if ctx.Err() == nil {
					if err := s.putBuffered(j); err != nil {
						cancel(err)
					}
				}
				j.body.Reset()
				buffers.Put(j.body)
			}
		})
	}
	var files, size int64
	err := func() error {
		for {
			e, err := s.req.Package.Next()
			if errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			files++
			size += e.Size
			if s.req.Unpacked != nil {
				s.req.Unpacked(files, size)
			}
			if j, err := s.take(e, &buffers); err != nil {
				return err
			} else if j.body != nil {
				jobs <- j
			}
		}
	}()
	close(jobs)
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// take makes a directory, notes a link, or reads a file, which it returns if it
// is small.
func (s *stage) take(e *pack.Entry, buffers *sync.Pool) (j job, err error) {
	switch {
	case e.Meta:
		return j, s.takeMeta(e)
	case s.rules.IsData(e.Name):
		return j, s.takeData(e)
	case e.Kind == archive.Dir:
		if err := s.notOver(e); err != nil {
			return j, err
		}
		s.note(&Entry{Path: e.Name, Kind: Dir, Mode: e.Mode & 0o7777, UID: s.uid, GID: s.gid})
		return j, s.tree.mkdir(e.Name)
	}
	if err := s.notOver(e); err != nil {
		return j, err
	}
	if e.Kind == archive.Symlink && s.rules.IsConfig(e.Name) {
		s.theirs[e.Name] = &merge.File{Content: []byte(e.Link), Mode: fs.ModeSymlink | 0o777}
		return j, nil
	}
	if e.Kind == archive.Symlink {
		s.note(&Entry{Path: e.Name, Kind: Link, Target: e.Link})
		return j, nil
	}
	if s.rules.IsConfig(e.Name) {
		if e.Size > maxConfig || s.pending+e.Size > maxAllConfig {
			return j, &archive.Error{Code: archive.CodeTooLarge, Entry: e.Name, Err: fmt.Errorf("configuration has at most %d MiB a file, %d MiB together", maxConfig>>20, maxAllConfig>>20)}
		}
		content, err := io.ReadAll(e.Body)
		if err != nil {
			return j, err
		}
		s.pending += e.Size
		s.theirs[e.Name] = &merge.File{Content: content, Mode: fileMode(e.Mode)}
		s.mtimes[e.Name] = e.ModTime
		return j, nil
	}
	if err := s.tree.mkdir(path.Dir(e.Name)); err != nil {
		return j, err
	}
	if e.Size > bufferedFile {
		return j, s.putLarge(e)
	}
	b := buffers.Get().(*bytes.Buffer)
	b.Grow(int(e.Size) + bytes.MinRead) // or ReadFrom makes it twice as large
	if _, err := b.ReadFrom(e.Body); err != nil {
		return j, err
	}
	return job{e.Name, e.Mode, e.ModTime, b}, nil
}

// note adds an entry of the new tree.
func (s *stage) note(e *Entry) {
	s.entries.put(e)
}

// notOver refuses an entry that would make a directory of what is none, or the
// reverse. Somebody decided what it is, and only the package's remove: says that
// this is meant.
func (s *stage) notOver(e *pack.Entry) error {
	clash := func(p string, what string, code archive.Code) error {
		return &archive.Error{Code: code, Entry: e.Name, Err: fmt.Errorf("%s is a %s here; if it is meant to go away, list it under remove: in the package", p, what)}
	}
	if s.full() { // the old tree stays behind as it is
		return nil
	}
	for p := path.Dir(e.Name); p != "."; p = path.Dir(p) {
		if k := s.base.present.kind(p); k != 0 && k != Dir && !s.removed(p) {
			return clash(p, "file or a link", archive.CodeDirOverFile)
		}
	}
	switch k := s.base.present.kind(e.Name); {
	case k == 0, s.removed(e.Name):
	case e.Kind == archive.Dir && k != Dir:
		return clash(e.Name, "file or a link", archive.CodeDirOverFile)
	case e.Kind != archive.Dir && k == Dir:
		return clash(e.Name, "directory", archive.CodeFileOverDir)
	}
	return nil
}

// full says whether the package replaces the tree.
func (s *stage) full() bool { return s.g.Manifest != nil && s.g.Manifest.Kind == pack.KindFull }

// removed says whether the package takes a path away.
func (s *stage) removed(p string) bool {
	if s.g.Manifest == nil {
		return false
	}
	for _, r := range s.g.Manifest.Remove {
		if p == r || strings.HasPrefix(p, r+"/") {
			return true
		}
	}
	return false
}

// takeMeta keeps hooks beside the tree.
func (s *stage) takeMeta(e *pack.Entry) error {
	to := filepath.Join(s.dir, filepath.FromSlash(strings.TrimPrefix(e.Name, pack.MetaDir+"/")))
	switch {
	case e.Name != pack.HooksDir && !strings.HasPrefix(e.Name, pack.HooksDir+"/"):
		return nil // nothing else is known there
	case e.Kind == archive.Dir:
		return os.MkdirAll(to, 0o755)
	case e.Kind != archive.File:
		return nil
	}
	return writeAside(to, e)
}

// takeData keeps what a package puts into a data directory, for when there is
// nothing of that name yet.
func (s *stage) takeData(e *pack.Entry) error {
	to := filepath.Join(s.dir, nameSeed, filepath.FromSlash(e.Name))
	switch e.Kind {
	case archive.Dir:
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		return os.Chmod(to, fileMode(e.Mode).Perm()|0o700)
	case archive.Symlink:
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.Symlink(e.Link, to)
	}
	return writeAside(to, e)
}

// writeAside writes a file of the package that is not part of the tree.
func writeAside(to string, e *pack.Entry) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, e.Body)
	if err == nil {
		err = f.Chmod(fileMode(e.Mode).Perm())
	}
	return errors.Join(err, f.Close())
}

// putBuffered puts a file of a package into the tree.
func (s *stage) putBuffered(j job) error {
	e := s.entry(j.name, j.mode, int64(j.body.Len()))
	e.Sum = filehash.SumBytes(j.body.Bytes())
	linked, err := s.linkKnown(e)
	if err != nil || linked {
		return err
	}
	if err := s.tree.write(e.Path, e, j.mtime, nil, func(w io.Writer) error { _, err := w.Write(j.body.Bytes()); return err }); err != nil {
		return err
	}
	return s.added(e)
}

// entry describes a file of a package; who applies it owns it.
func (s *stage) entry(name string, mode uint32, size int64) *Entry {
	return &Entry{Path: name, Kind: File, Mode: mode & 0o7777, UID: s.uid, GID: s.gid, Size: size}
}

// putLarge does it for a file that is written while it is read, and is given up
// for a link when its content turns out to be known.
func (s *stage) putLarge(p *pack.Entry) error {
	e := s.entry(p.Name, p.Mode, p.Size)
	h := blake3.New()
	err := s.tree.write(e.Path, e, p.ModTime, nil, func(w io.Writer) error {
		buf := copyBuffers.Get().(*[128 << 10]byte)
		defer copyBuffers.Put(buf)
		_, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(h, w)}, struct{ io.Reader }{p.Body}, buf[:])
		return err
	})
	if err != nil {
		return err
	}
	h.Sum(e.Sum[:0])
	written := "." + strconv.Itoa(os.Getpid()) + "~large" // in the tree, which has no such name yet
	if err := os.Rename(filepath.Join(s.tree.path, e.Path), filepath.Join(s.dir, written)); err != nil {
		return err
	}
	if linked, err := s.linkKnown(e); err != nil {
		return err
	} else if linked {
		return os.Remove(filepath.Join(s.dir, written))
	}
	if err := os.Rename(filepath.Join(s.dir, written), filepath.Join(s.tree.path, e.Path)); err != nil {
		return err
	}
	return s.added(e)
}

// linkKnown links content that is here already.
func (s *stage) linkKnown(e *Entry) (bool, error) {
	if f := s.base.intact(e.key()); f != nil {
		if linked, err := s.tree.fromTree(s.base, f, e.Path); err != nil || linked {
			s.note(e)
			return linked, err
		}
	}
	linked, err := s.tree.fromBlob(e.Path, e)
	if linked {
		s.note(e)
	}
	return linked, err
}

// added notes a file whose content is new.
func (s *stage) added(e *Entry) error {
	if err := s.tree.keep(e.Path, e); err != nil {
		return err
	}
	s.note(e)
	s.mu.Lock()
	s.g.Stats.NewFiles++
	s.g.Stats.NewBytes += e.Size
	s.mu.Unlock()
	return nil
}
