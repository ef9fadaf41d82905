package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/update/merge"
	"github.com/zeebo/blake3"
)

// Foreseen is what a generation would be.
type Foreseen struct {
	Generation  *Generation  // as Stage would make it, without Stats
	Adopts      bool         // the directory that is there would become a generation of the store
	Differences []Difference // from the tree as it is now, ordered by path
}

// Foresee says what Stage would make of a request, and refuses what that would
// refuse, but writes nothing into the store and takes no lock: it sees neither
// whether there is room, nor what somebody changes meanwhile.
func (s *Store) Foresee(ctx context.Context, req Request) (*Foreseen, error) {
	st := &stage{Session: &Session{Store: s}, req: &req, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), theirs: map[string]*merge.File{}, mtimes: map[string]time.Time{}}
	f, err := st.foresee(ctx)
	return f, explain(err)
}

func (s *stage) foresee(ctx context.Context) (*Foreseen, error) {
	err := s.owned()
	if err == nil {
		err = s.check()
	}
	if errors.Is(err, ErrNone) {
		err = s.sameFilesystem()
	}
	if err != nil {
		return nil, err
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.base.close()
	if err := s.read(ctx); err != nil {
		return nil, err
	}
	origin, err := s.req.Prove()
	if err != nil {
		return nil, err
	}
	s.g.Origin = &origin
	s.g.Packages[origin.Name] = origin
	if err := s.carry(ctx); err != nil {
		return nil, err
	}
	if err := s.settleAll(); err != nil {
		return nil, err
	}
	for _, d := range s.rules.Data {
		if err := s.linkData(d); err != nil {
			return nil, err
		}
	}
	if err := s.checkParents(); err != nil {
		return nil, err
	}
	s.noteParents()
	return &Foreseen{Generation: s.g, Adopts: s.base.tree != "" && s.base.gen == nil, Differences: differences(s.base.present, s.entries, 0)}, s.base.names.sound()
}

// read is unpack without a tree.
func (s *stage) read(ctx context.Context) error {
	var files, size int64
	buffers := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	for {
		e, err := s.req.Package.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		files++
		size += e.Size
		if s.req.Unpacked != nil {
			s.req.Unpacked(files, size)
		}
		switch {
		case e.Meta, s.rules.IsData(e.Name): // no part of the tree
		case e.Kind == archive.File && !s.rules.IsConfig(e.Name):
			if err := s.notOver(e); err != nil {
				return err
			}
			h := blake3.New()
			if _, err := io.Copy(h, e.Body); err != nil {
				return err
			}
			entry := s.entry(e.Name, e.Mode, e.Size)
			h.Sum(entry.Sum[:0])
			s.note(entry)
		default:
			if _, err := s.take(e, &buffers); err != nil {
				return err
			}
		}
	}
}

// noteParents adds the directories that would be made because something lies in
// them.
func (s *stage) noteParents() {
	missing := map[string]bool{}
	for e := range s.entries.all() {
		for d := path.Dir(e.Path); d != "." && !s.entries.has(d) && !missing[d]; d = path.Dir(d) {
			missing[d] = true
		}
	}
	for d := range missing {
		s.entries.put(&Entry{Path: d, Kind: Dir, Mode: 0o755, UID: s.uid, GID: s.gid})
	}
}

// intact says whether the store has the content of a file of a package.
func (s *stage) intact(e *Entry) bool {
	blobs, err := os.Open(s.path(nameBlobs))
	if err != nil {
		return false
	}
	defer blobs.Close()
	return (&tree{blobs: int(blobs.Fd())}).same(e)
}
