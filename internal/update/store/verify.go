package store

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// Kinds of Difference.
const (
	Changed  = "changed" // content
	Mode     = "mode"    // permissions or owner
	Removed  = "removed" //
	Added    = "added"   // of no package
	TypeOf   = "type"    // a file became a link, and the like
	BlobFlip = "damaged" // the content in the store is not what its name says
	Edited   = "edited"  // configuration, which people may edit
	Unread   = "unread"  // could not be read
	Drifted  = "drifted" // a file of no package changed
)

// Difference is one thing that is not as it was put there.
type Difference struct {
	Generation int    `json:"generation,omitempty"`
	Path       string `json:"path"`
	Kind       string `json:"kind"`
	What       string `json:"what,omitempty"`
}

// Serious says whether nobody can have meant it: content of packages that
// changed, and what is gone.
func (d *Difference) Serious() bool {
	return d.Kind == Changed || d.Kind == Mode || d.Kind == Removed || d.Kind == TypeOf || d.Kind == BlobFlip
}

// Verification is what Verify found.
type Verification struct {
	Generations []int        `json:"generations"`
	Files       int          `json:"files"` // read
	Bytes       int64        `json:"bytes"`
	Blobs       int          `json:"blobs"` // compared with their names
	Differences []Difference `json:"differences"`
}

// verifyBlobs compares every blob with its name, and returns which of them, by
// inode, are what they should be.
func (s *Store) verifyBlobs(ctx context.Context, v *Verification, good *known, progress *filehash.Counters) error {
	if _, err := os.Lstat(s.path(nameBlobs)); errors.Is(err, fs.ErrNotExist) {
		v.Differences = append(v.Differences, Difference{Path: nameBlobs, Kind: Removed, What: "trees have their content still; the next update makes it anew"})
		return nil
	}
	return filehash.Walk(ctx, s.path(nameBlobs), filehash.Options{Counters: progress}, func(b *filehash.Batch) error {
		if b.Err != nil {
			return b.Err
		}
		for i := range b.Entries {
			en := &b.Entries[i]
			if en.Info.Type() != unix.S_IFREG {
				continue
			}
			key := path.Base(string(b.Dir)) + string(en.Name)
			v.Blobs++
			v.Bytes += en.Info.Size
			switch hash, _, _ := strings.Cut(key, "."); {
			case en.Err != nil || en.Content != filehash.Hashed:
				v.Differences = append(v.Differences, Difference{Path: "blobs/" + key[:2] + "/" + key[2:], Kind: Unread, What: fmt.Sprint(en.Err)})
			case en.Sum.String() != hash:
				v.Differences = append(v.Differences, Difference{Path: "blobs/" + key[:2] + "/" + key[2:], Kind: BlobFlip})
			default:
				good.add(&en.Info, en.Sum)
			}
		}
		return nil
	})
}

// known vouches for files that were read as blobs a moment ago.
type known struct {
	names *inventory
	blobs table[inode]
	n     int
	index index
}

// inode is one of them, and its trait.
type inode struct {
	ino  uint64
	what uint32
}

func (k *known) hash(ino uint64) uint64 { return maphash.Comparable(k.names.paths.seed, ino) }

func (k *known) find(ino uint64) (uint32, bool) {
	return k.index.find(k.hash(ino), func(i uint32) bool { return k.blobs.at(int(i)).ino == ino })
}

func (k *known) add(info *filehash.Info, sum filehash.Sum) {
	k.names.mu.Lock()
	defer k.names.mu.Unlock()
	if _, ok := k.find(info.Ino); ok { // a file with two names
		return
	}
	*k.blobs.at(k.n) = inode{info.Ino, k.names.intern(&Entry{Mode: info.Mode & 0o7777, UID: info.UID, GID: info.GID, Size: info.Size, Sum: sum})}
	k.index.add(k.hash(info.Ino), func(i uint32) uint64 { return k.hash(k.blobs.at(int(i)).ino) })
	k.n++
}

func (k *known) Lookup(_, _ []byte, info *filehash.Info) filehash.PriorAnswer {
	k.names.mu.Lock()
	defer k.names.mu.Unlock()
	i, ok := k.find(info.Ino)
	if !ok {
		return filehash.PriorAnswer{}
	}
	return filehash.PriorAnswer{Known: true, Sum: k.names.traits.look(int(k.blobs.at(int(i)).what)).sum}
}

// Verify reads the trees of generations, and every blob, and says what is not as
// it was put there.
func (s *Store) Verify(ctx context.Context, numbers []int, progress *filehash.Counters) (*Verification, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	v := &Verification{Generations: numbers, Differences: []Difference{}}
	names := s.newInventory() // for all of them: most names and contents are in each
	defer names.close()
	good := &known{names: names}
	if err := s.verifyBlobs(ctx, v, good, progress); err != nil {
		return nil, explain(err)
	}
	for _, n := range numbers {
		if err := s.verifyTree(ctx, n, v, good, progress); err != nil {
			return nil, explain(err)
		}
	}
	if err := names.sound(); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(v.Differences, func(d Difference) bool { return d.Kind == BlobFlip || d.Kind == Changed }) {
		// What no time of change has told of must not be believed again.
		if err := s.Forget(); err != nil && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
	}
	return v, nil
}

func (s *Store) verifyTree(ctx context.Context, n int, v *Verification, good *known, progress *filehash.Counters) error {
	g, err := s.Generation(n)
	if err != nil {
		return err
	}
	want := good.names.view()
	if err := s.load(n, want); err != nil {
		return err
	}
	rules := &pack.Manifest{Config: g.Config, Data: g.Data}
	say := func(p, kind, format string, args ...any) {
		v.Differences = append(v.Differences, Difference{n, p, kind, fmt.Sprintf(format, args...)})
	}
	seen := table[bool]{}
	var moved []string  // data that a later generation took out of this tree
	var closed []string // directories that could not be read: nobody knows what is in them
	err = filehash.Walk(ctx, s.Tree(n), filehash.Options{Select: &noData{rules: rules}, NewPrior: func() filehash.Prior { return good }, Counters: progress}, func(b *filehash.Batch) error {
		dir := strings.TrimPrefix(string(b.Dir), "/")
		if b.Err != nil {
			say(dir, Unread, "%v", b.Err)
			closed = append(closed, dir)
			return nil
		}
		for i := range b.Entries {
			en := &b.Entries[i]
			p := path.Join(dir, string(en.Name))
			*seen.at(int(good.names.id(p))) = true
			e := want.get(p)
			if en.Info.Type() == unix.S_IFLNK && string(en.Target) == dataTarget(p) && (e == nil || e.Kind == Dir) {
				moved = append(moved, p)
				continue
			}
			if e == nil {
				if !rules.IsData(p) && en.Info.Type() != unix.S_IFDIR {
					say(p, Added, "")
				}
				continue
			}
			s.compare(e, en, v, say)
		}
		return nil
	})
	if err != nil {
		return err
	}
	beneath := func(p string) bool {
		return slices.ContainsFunc(slices.Concat(moved, closed), func(d string) bool { return d == "" || strings.HasPrefix(p, d+"/") })
	}
	for e := range want.all() {
		p := e.Path
		if seen.get(int(good.names.id(p))) || rules.IsData(p) || beneath(p) {
			continue
		}
		switch e.Kind {
		case Config:
			say(p, Edited, "it was removed")
		case Local:
			say(p, Drifted, "it was removed")
		default:
			say(p, Removed, "")
		}
	}
	slices.SortStableFunc(v.Differences, func(a, b Difference) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

// compare holds one name of a tree against its manifest.
func (s *Store) compare(e *Entry, en *filehash.Entry, v *Verification, say func(p, kind, format string, args ...any)) {
	typ := en.Info.Type()
	wantType := uint32(unix.S_IFREG)
	switch e.Kind {
	case Dir:
		wantType = unix.S_IFDIR
	case Link, Data:
		wantType = unix.S_IFLNK
	}
	changed, mode := Changed, Mode
	switch e.Kind {
	case Config:
		changed, mode = Edited, Edited
	case Local:
		changed, mode = Drifted, Drifted
	}
	if typ != wantType {
		kind := TypeOf
		if e.Kind == Config || e.Kind == Local {
			kind = changed
		}
		say(e.Path, kind, "it is no longer a %s", map[uint32]string{unix.S_IFREG: "file", unix.S_IFDIR: "directory", unix.S_IFLNK: "link"}[wantType])
		return
	}
	switch wantType {
	case unix.S_IFLNK:
		if string(en.Target) != e.Target {
			say(e.Path, changed, "it leads to %q, not to %q", en.Target, e.Target)
		}
		return
	case unix.S_IFREG:
		v.Files++
		if en.Content != filehash.Known {
			v.Bytes += en.Info.Size
		}
		switch {
		case en.Content == filehash.Unreadable, en.Err != nil:
			say(e.Path, Unread, "%v", en.Err)
		case e.Sum == filehash.Sum{}: // it was being written to when it was taken over
		case en.Content == filehash.Unstable, en.Sum != e.Sum:
			say(e.Path, changed, "")
		}
	}
	if en.Info.Mode&0o7777 != e.Mode || en.Info.UID != e.UID || en.Info.GID != e.GID {
		say(e.Path, mode, "%04o of %d:%d, not %04o of %d:%d", en.Info.Mode&0o7777, en.Info.UID, en.Info.GID, e.Mode, e.UID, e.GID)
	}
}

// Diff compares the manifests of two generations.
func (s *Store) Diff(a, b int) ([]Difference, error) {
	names := s.newInventory()
	defer names.close()
	old, now := names.view(), names.view()
	if err := s.load(a, old); err != nil {
		return nil, missing(err, a)
	}
	if err := s.load(b, now); err != nil {
		return nil, missing(err, b)
	}
	return differences(old, now, b), names.sound()
}

// differences says what is in one tree and not, or not so, in the other; number is
// that of the second one.
func differences(old, now *view, number int) []Difference {
	list := []Difference{}
	for e := range now.all() {
		p := e.Path
		was := old.get(p)
		switch {
		case was == nil:
			list = append(list, Difference{number, p, Added, ""})
		case was.file() != e.file() || (was.Kind == Dir) != (e.Kind == Dir):
			list = append(list, Difference{number, p, TypeOf, ""})
		case was.Target != e.Target:
			list = append(list, Difference{number, p, Changed, fmt.Sprintf("it leads to %q, before to %q", e.Target, was.Target)})
		case was.Sum != e.Sum:
			list = append(list, Difference{number, p, Changed, fmt.Sprintf("%d → %d bytes", was.Size, e.Size)})
		case e.Kind == Link || e.Kind == Data: // whose permissions and owner mean nothing
		case was.Mode != e.Mode || was.UID != e.UID || was.GID != e.GID:
			list = append(list, Difference{number, p, Mode, fmt.Sprintf("%04o of %d:%d → %04o of %d:%d", was.Mode, was.UID, was.GID, e.Mode, e.UID, e.GID)})
		}
	}
	for e := range old.all() {
		if !now.has(e.Path) {
			list = append(list, Difference{number, e.Path, Removed, ""})
		}
	}
	slices.SortFunc(list, func(x, y Difference) int { return strings.Compare(x.Path, y.Path) })
	return list
}

func missing(err error, n int) error {
	if os.IsNotExist(err) {
		return fmt.Errorf("%w: %d", ErrMissing, n)
	}
	return err
}
