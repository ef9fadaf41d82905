package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// found is one name in a tree as it is now.
type found struct {
	*Entry        // of kind Dir, Link, File when it is fixed, or Local for every other file
	id     uint32 // of its name in the inventory
	ino    uint64 // of the file that Sum is the content of
	mtime  filehash.Time
	ctime  filehash.Time
	was    *Entry // what the manifest of the generation says of it; nil: nothing
	fixed  bool   // it is a file of a package, as it was delivered
}

// scan is a tree as it is now, every file of it read.
type scan struct {
	number   int    // of its generation; 0: it is not in the store yet, or there is none
	tree     string // "" when there is none
	dir      *os.File
	root     stamp // of the tree itself, before it was read
	names    *inventory
	present  *view       // what was found
	manifest *view       // what the manifest of its generation says
	gen      *Generation // nil when it has none
	left     []string    // sockets, pipes and devices, which no generation takes over
}

func (c *scan) close() {
	if c.dir != nil {
		c.dir.Close()
	}
	c.names.close()
}

// scanJobs is how many read at a time: more would need memory that unpacking needs.
const scanJobs = 4

// scanBase reads what a new generation is made from: the current one, a
// directory that is still to be adopted, or nothing. What lies beneath data
// directories is not looked at.
func (t *Session) scanBase(ctx context.Context, rules *pack.Manifest, progress *filehash.Counters) (*scan, error) {
	c := &scan{names: t.newInventory()}
	c.present, c.manifest = c.names.view(), c.names.view()
	current, err := t.Current()
	if err != nil {
		return nil, err
	}
	st, err := os.Lstat(t.target)
	switch {
	case current > 0:
		if err := t.Linked(); err != nil {
			return nil, err
		}
		c.number, c.tree = current, t.Tree(current)
		if c.gen, err = t.Generation(current); err != nil {
			return nil, err
		}
		if err = t.load(current, c.manifest); err != nil {
			return nil, err
		}
	case err == nil && st.IsDir():
		c.tree = t.target
	case err == nil:
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "%s is neither a directory nor a link into %s", t.target, t.dir), "move it away, or name another update.target")
	default:
		return c, nil
	}
	if c.dir, err = os.Open(c.tree); err != nil {
		return nil, err
	}
	var root unix.Stat_t
	if err := unix.Fstat(int(c.dir.Fd()), &root); err != nil {
		c.close()
		return nil, &os.PathError{Op: "stat", Path: c.tree, Err: err}
	}
	c.root = stampOf(&root)
	o := filehash.Options{Select: &noData{rules: rules}, Counters: progress, Jobs: scanJobs}
	if c.number > 0 {
		if known := t.readStamps(c.number, c.manifest.len()); known != nil {
			c.names.sorted()
			c.expect(known)
			o.NewPrior = func() filehash.Prior { return &stamped{scan: c} }
		}
	}
	if err = filehash.Walk(ctx, c.tree, o, c.add); err == nil {
		err = c.names.sound()
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// noData is a filehash.Selector that leaves data directories out.
type noData struct {
	rules *pack.Manifest
	dir   string
}

func (n *noData) join(name []byte) string {
	if n.dir == "" {
		return string(name)
	}
	return n.dir + "/" + string(name)
}

func (n *noData) Select([]byte) (filehash.Want, any) {
	return filehash.WantEntry | filehash.WantContent | filehash.WantPrior, nil
}

func (n *noData) Enter(name []byte) filehash.Selector {
	p := n.join(name)
	if n.rules.IsData(p) {
		return nil
	}
	return &noData{n.rules, p}
}

func (n *noData) Names() ([]string, bool) { return nil, false }

// add takes a batch of the walk.
func (c *scan) add(b *filehash.Batch) error {
	dir := strings.TrimPrefix(string(b.Dir), "/")
	if b.Err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(c.tree, dir), b.Err)
	}
	for i := range b.Entries {
		en := &b.Entries[i]
		p := path.Join(dir, string(en.Name))
		if en.Err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(c.tree, p), en.Err)
		}
		if en.Mountpoint {
			return failure.Hint(failure.Errorf(failure.NotReady, "%s is a mount point, and no update could take it along", filepath.Join(c.tree, p)),
				"mount it elsewhere, or unmount it during the update")
		}
		f := &Entry{Path: p, Mode: en.Info.Mode & 0o7777, UID: en.Info.UID, GID: en.Info.GID}
		switch en.Info.Type() {
		case unix.S_IFDIR:
			f.Kind = Dir
		case unix.S_IFLNK:
			f.Kind, f.Target = Link, string(en.Target)
		case unix.S_IFREG:
			f.Kind, f.Size = Local, en.Info.Size
			switch en.Content {
			case filehash.Hashed, filehash.Known:
				f.Sum = en.Sum
			case filehash.Unstable: // somebody writes to it: it is taken over as it is
			default:
				return fmt.Errorf("%s cannot be read", filepath.Join(c.tree, p))
			}
			if w := c.manifest.get(p); w != nil && w.Kind == File && w.Sum == f.Sum && w.Mode == f.Mode && w.UID == f.UID && w.GID == f.GID {
				f = w
			}
		default:
			c.left = append(c.left, p)
			continue
		}
		c.note(f, &en.Info)
	}
	return nil
}

// note enters what was found. A file of kind File is as it was delivered.
func (c *scan) note(e *Entry, info *filehash.Info) {
	id := c.present.put(e)
	c.names.mu.Lock()
	defer c.names.mu.Unlock()
	*c.names.seen.at(int(id)) = seen{info.Ino, info.Mtime.Sec, info.Ctime.Sec, info.Mtime.Nsec, info.Ctime.Nsec}
	if e.Kind == File {
		t := c.names.traits.at(c.names.what(c.present.refs.get(int(id))))
		t.state = t.state&stateBits | id + 1
	}
}

// found returns what a name was found to be, nil when it was not there.
func (c *scan) found(p string) *found {
	c.names.mu.Lock()
	defer c.names.mu.Unlock()
	id, ok := c.names.paths.find(p)
	if !ok {
		return nil
	}
	return c.foundBy(id)
}

// foundBy is found by the number of the name. It needs the lock.
func (c *scan) foundBy(id uint32) *found {
	e := c.present.entry(id)
	if e == nil {
		return nil
	}
	at := c.names.seen.look(int(id))
	return &found{
		Entry: e, id: id, ino: at.ino, mtime: filehash.Time{Sec: at.mtime, Nsec: at.mtimeNs}, ctime: filehash.Time{Sec: at.ctime, Nsec: at.ctimeNs},
		was: c.manifest.entry(id), fixed: e.Kind == File,
	}
}

// intact returns a file that was found to have the content of a blob, as it was
// delivered.
func (c *scan) intact(k blobKey) *found {
	c.names.mu.Lock()
	defer c.names.mu.Unlock()
	i, ok := c.names.content(k)
	if !ok {
		return nil
	}
	of := c.names.traits.look(int(i)).state &^ stateBits
	if of == 0 {
		return nil
	}
	return c.foundBy(of - 1)
}

// paths yields the paths of what was found and of what the manifest has, in
// order.
func (c *scan) paths() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, id := range c.names.sorted() {
			c.names.mu.Lock()
			has := c.present.refs.get(int(id)) != 0 || c.manifest.refs.get(int(id)) != 0
			p := c.names.paths.text(id)
			c.names.mu.Unlock()
			if has && !yield(p) {
				return
			}
		}
	}
}

// directories yields the paths of all directories beneath the tree, and when each
// had changed last before it was read.
func (c *scan) directories() iter.Seq2[string, stamp] {
	return func(yield func(string, stamp) bool) {
		c.names.mu.Lock()
		defer c.names.mu.Unlock()
		for id := range uint32(c.names.paths.count) {
			ref := c.present.refs.get(int(id))
			if ref == 0 || kindOf(ref) != Dir {
				continue
			}
			at := c.names.seen.look(int(id))
			if !yield(c.names.paths.text(id), stamp{at.ino, filehash.Time{Sec: at.ctime, Nsec: at.ctimeNs}}) {
				return
			}
		}
	}
}

// Linked proves that the installation is the link that switches it: ErrReplaced
// when something else is there.
func (s *Store) Linked() error {
	to, err := os.Readlink(s.target)
	if err == nil && s.resolves(to) {
		return nil
	}
	if err == nil || errors.Is(err, unix.EINVAL) {
		return failure.Hint(fmt.Errorf("%s: %w", s.target, ErrReplaced), "move away what is there and run the command again: the link to "+s.path(nameCurrent)+" is made anew")
	}
	if errors.Is(err, unix.ENOENT) {
		return failure.Hint(fmt.Errorf("%s: %w: nothing is there", s.target, ErrReplaced), "make the link anew: ln -s "+s.linkText()+" "+s.target)
	}
	return err
}

// resolves says whether a link with that text, at the place of the installation,
// leads to current.
func (s *Store) resolves(to string) bool {
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(s.target), to)
	}
	return filepath.Clean(to) == s.path(nameCurrent)
}
