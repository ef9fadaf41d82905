package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update/merge"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// Aside is the suffix of what a package brings for a file of configuration that
// was changed here in another way.
const Aside = ".mobileops-new"

// Settled says what became of a file of configuration that was changed here.
type Settled struct {
	Path      string           `json:"path"`
	Outcome   merge.Outcome    `json:"outcome"`
	Reason    string           `json:"reason,omitempty"`
	Conflicts []merge.Conflict `json:"conflicts,omitempty"`
}

// fileMode turns permissions, set-id bits and the type of a link into those of
// package fs.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	if mode&unix.S_IFMT == unix.S_IFLNK {
		m |= fs.ModeSymlink
	}
	if mode&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	return m
}

// isConfig says whether a path of the base is configuration: a file or link that
// matches a pattern, or that was configuration before.
func (s *stage) isConfig(p string) bool {
	was := s.base.manifest.kind(p)
	if s.rules.IsData(p) || s.base.present.kind(p) == Dir {
		return false
	}
	return was == Config || s.rules.IsConfig(p) && was != Dir
}

// settleAll decides about every file of configuration: those of the package,
// those that are here, and those that were removed here.
func (s *stage) settleAll() error {
	names := map[string]bool{}
	for p := range s.theirs {
		names[p] = true
	}
	for p := range s.base.paths() {
		if s.isConfig(p) && !s.entries.has(p) {
			names[p] = true
		}
	}
	s.g.Seen = map[string]string{}
	var asides []string
	for _, p := range sorted(names) {
		if _, ours := s.theirs[p]; !ours && strings.HasSuffix(p, Aside) {
			asides = append(asides, p)
		} else if err := s.settle(p); err != nil {
			return err
		}
	}
	for _, p := range asides { // of an earlier conflict: a new one takes its place
		if !s.entries.has(p) {
			if err := s.settle(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func sorted(m map[string]bool) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// version is one version of a file of configuration, with what a merge does not
// look at.
type version struct {
	*merge.File
	uid, gid uint32
	mtime    time.Time
}

// text tells versions apart.
func (v *version) text() string {
	return fmt.Sprintf("%s %v %d:%d", filehash.SumBytes(v.Content), v.Mode, v.uid, v.gid)
}

// settle decides about one path.
func (s *stage) settle(p string) error {
	mine, err := s.mine(p)
	if err != nil {
		return err
	}
	if mine.File != nil {
		s.g.Seen[p] = mine.text()
	}
	base, err := s.delivered(p)
	if err != nil {
		return err
	}
	theirs, inPackage := s.theirs[p]
	if !inPackage && !s.full() && !s.removed(p) {
		theirs = base // the package says nothing about it
	}
	d := merge.Decide(p, base, mine.File, theirs)
	edited := !same(mine.File, base)
	if edited && (d.Outcome == merge.Conflicted || !same(base, theirs)) {
		s.g.Settled = append(s.g.Settled, Settled{Path: p, Outcome: d.Outcome, Reason: d.Reason, Conflicts: d.Conflicts})
	}
	if theirs != nil {
		if err := s.keepDelivered(theirs); err != nil {
			return err
		}
	}
	if d.Aside != nil {
		aside := version{File: d.Aside, uid: s.uid, gid: s.gid, mtime: s.mtimes[p]}
		if err := s.putConfig(p+Aside, aside, nil); err != nil {
			return err
		}
	}
	if d.File == nil {
		return nil
	}
	v := version{File: d.File, uid: mine.uid, gid: mine.gid, mtime: mine.mtime}
	if mine.File == nil {
		v.uid, v.gid = s.uid, s.gid
	}
	if !same(d.File, mine.File) {
		if v.mtime = s.req.Now; same(d.File, theirs) && !s.mtimes[p].IsZero() {
			v.mtime = s.mtimes[p]
		}
	}
	return s.putConfig(p, v, theirs)
}

func same(a, b *merge.File) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Mode == b.Mode && string(a.Content) == string(b.Content)
}

// mine reads the file as it is here; its File is nil when there is none.
func (s *stage) mine(p string) (v version, err error) {
	f := s.base.found(p)
	if f == nil {
		return v, nil
	}
	v.uid, v.gid, v.mtime = f.UID, f.GID, f.mtime.Time()
	if f.Kind == Link {
		v.File = &merge.File{Content: []byte(f.Target), Mode: fs.ModeSymlink | 0o777}
		return v, nil
	}
	data, st, err := readSmall(s.base.dir, p, maxAllConfig)
	switch {
	case errors.Is(err, fs.ErrNotExist): // since the scan
		return version{}, nil
	case errors.Is(err, unix.ELOOP):
		return v, failure.Hint(failure.Errorf(failure.Failed, "%s was changed at this moment", p), "nothing was changed; try again")
	case errors.Is(err, unix.EFBIG):
		return v, &archive.Error{Code: archive.CodeTooLarge, Entry: p, Err: fmt.Errorf("%s matches a pattern of configuration and has more than %d MiB: no person edits that; make its directory data", p, maxAllConfig>>20)}
	case err != nil:
		return v, err
	}
	v.uid, v.gid = st.Uid, st.Gid
	v.mtime = time.Unix(int64(st.Mtim.Sec), int64(st.Mtim.Nsec))
	v.File = &merge.File{Content: data, Mode: fileMode(st.Mode & 0o7777)}
	return v, nil
}

// delivered reads what the package delivered last; nil when none did, or when it
// is not known any more.
func (s *stage) delivered(p string) (*merge.File, error) {
	was := s.base.manifest.get(p)
	if was == nil {
		return nil, nil
	}
	switch {
	case was.Base != nil:
		data, err := os.ReadFile(filepath.Join(s.generation(s.base.number), nameBase, was.Base.Sum.String()))
		if err != nil || filehash.SumBytes(data) != was.Base.Sum {
			return nil, nil // then every difference is a conflict, and nothing is lost
		}
		return &merge.File{Content: data, Mode: fileMode(was.Base.Mode)}, nil
	case was.Kind == File: // it was not configuration then
		data, err := os.ReadFile(s.path(nameBlobs, was.key().name()))
		if err != nil || filehash.SumBytes(data) != was.Sum {
			return nil, nil
		}
		return &merge.File{Content: data, Mode: fileMode(was.Mode)}, nil
	}
	return nil, nil
}

// keepDelivered keeps what the package delivers, for the next merge.
func (s *stage) keepDelivered(f *merge.File) error {
	if s.tree == nil {
		return nil
	}
	to := filepath.Join(s.dir, nameBase, filehash.SumBytes(f.Content).String())
	if _, err := os.Lstat(to); err == nil {
		return nil
	}
	return os.WriteFile(to, f.Content, 0o600)
}

// putConfig puts a file of configuration into the new tree, as a copy of its own.
func (s *stage) putConfig(p string, v version, delivered *merge.File) error {
	e := &Entry{Path: p, Kind: Config, UID: v.uid, GID: v.gid}
	if delivered != nil {
		e.Base = &Delivered{filehash.SumBytes(delivered.Content), modeOf(delivered.Mode)}
	}
	if s.entries.has(p) {
		return &archive.Error{Code: archive.CodeDuplicate, Entry: p, Err: errors.New("the package has it, and it is what would be laid beside a conflict")}
	}
	for d := path.Dir(p); d != "."; d = path.Dir(d) { // an admin's file in a directory that a package made something else
		if k := s.entries.kind(d); k != 0 && k != Dir {
			s.g.Left = append(s.g.Left, p)
			return nil
		}
	}
	if err := s.tree.mkdir(path.Dir(p)); err != nil {
		return err
	}
	if s.again { // what an attempt that was broken off has left
		if err := s.drop(p); err != nil {
			return err
		}
	}
	if v.Mode&fs.ModeSymlink != 0 {
		e.Kind, e.Target = Link, string(v.Content)
		s.note(e)
		return nil
	}
	e.Mode, e.Size, e.Sum = modeOf(v.Mode), int64(len(v.Content)), filehash.SumBytes(v.Content)
	s.note(e)
	model, err := s.model(p)
	if err != nil {
		return err
	}
	if model != nil {
		defer model.Close()
	}
	return s.tree.write(p, e, v.mtime, model, func(w io.Writer) error { _, err := w.Write(v.Content); return err })
}

// model opens the file of the base that a file of configuration comes after; nil
// when there is none.
func (s *stage) model(p string) (*os.File, error) {
	if f := s.base.present.get(p); f == nil || !f.file() {
		return nil, nil
	}
	fd, err := openBeneath(int(s.base.dir.Fd()), p)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	} else if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(s.base.tree, p), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(s.base.tree, p)), nil
}

func modeOf(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	if m&fs.ModeSymlink != 0 {
		mode |= unix.S_IFLNK
	}
	if m&fs.ModeSetuid != 0 {
		mode |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		mode |= unix.S_ISGID
	}
	return mode
}
