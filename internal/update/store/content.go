package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// tree is the tree of a generation that is being made. Its methods but close may
// be used by several goroutines at once. Names are relative and have been proved
// to lie beneath it; no symbolic link is made before everything else is there, so
// none is ever followed.
type tree struct {
	store *Store
	path  string
	fd    int
	blobs int // descriptor of blobs/
	// reachable says that the tree has its name already: who owns a directory in
	// it may put links there at any moment.
	reachable bool

	names *inventory // which knows what became of blobs

	mu   sync.Mutex
	dirs map[string]bool
}

func (s *Store) newTree(dir string, names *inventory) (*tree, error) {
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	blobs, err := unix.Open(s.path(nameBlobs), unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "open", Path: s.path(nameBlobs), Err: err}
	}
	return &tree{store: s, path: dir, fd: fd, blobs: blobs, names: names, dirs: map[string]bool{".": true}}, nil
}

func (t *tree) close() {
	unix.Close(t.fd)
	unix.Close(t.blobs)
}

// abandon removes the blobs that were added for nothing.
func (t *tree) abandon() {
	for b := range t.names.created() {
		_ = unix.Unlinkat(t.blobs, b.name(), 0)
	}
}

func (t *tree) fail(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: filepath.Join(t.path, name), Err: err}
}

// in opens the directory that a name lies in, through no link, and returns what
// the name is in there. A tree that nobody else can reach is walked by the kernel
// at once.
func (t *tree) in(name string) (dir int, base string, done func(), err error) {
	parent, base := path.Split(name)
	if !t.reachable || parent == "" {
		return t.fd, name, func() {}, nil
	}
	parent = strings.TrimSuffix(parent, "/")
	dir, err = openBeneath(t.fd, parent)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return -1, "", nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "%s: somebody put something else in the place of a directory", filepath.Join(t.path, parent)),
			"find out who did; then apply the package again")
	} else if err != nil {
		return -1, "", nil, t.fail("open", parent, err)
	}
	return dir, base, func() { unix.Close(dir) }, nil
}

// mkdir makes a directory and the ones above it that are missing. It gets its own
// mode at the end, when nothing is made in it any more.
func (t *tree) mkdir(dir string) error {
	if t == nil { // see Foresee
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mkdirLocked(dir)
}

func (t *tree) mkdirLocked(dir string) error {
	if t.dirs[dir] {
		return nil
	}
	if err := t.mkdirLocked(path.Dir(dir)); err != nil {
		return err
	}
	at, base, done, err := t.in(dir)
	if err != nil {
		return err
	}
	defer done()
	if err := unix.Mkdirat(at, base, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return t.fail("mkdir", dir, err)
	}
	t.dirs[dir] = true
	return nil
}

// write makes the file name with content of its own, and with the extended
// attributes of a file that it is a later version of; nil: it is none.
func (t *tree) write(name string, e *Entry, mtime time.Time, model *os.File, content func(io.Writer) error) error {
	if t == nil { // see Foresee
		return nil
	}
	dir, base, done, err := t.in(name)
	if err != nil {
		return err
	}
	defer done()
	fd, err := unix.Openat(dir, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return t.fail("create", name, err)
	}
	f := os.NewFile(uintptr(fd), filepath.Join(t.path, name))
	err = content(f)
	if err == nil {
		err = dress(f, e, mtime, model)
	}
	return errors.Join(err, f.Close())
}

// dress gives an open file owner, attributes, mode and time. The owner comes
// first: a change of it takes set-id bits and capabilities away.
func dress(f *os.File, e *Entry, mtime time.Time, model *os.File) error {
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Uid != e.UID || st.Gid != e.GID {
		if err := unix.Fchown(fd, int(e.UID), int(e.GID)); err != nil {
			return &fs.PathError{Op: "chown", Path: f.Name(), Err: err}
		}
	}
	if model != nil {
		if err := takeAfter(f, model); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, e.Mode); err != nil {
		return &fs.PathError{Op: "chmod", Path: f.Name(), Err: err}
	}
	if !mtime.IsZero() {
		ts := unix.NsecToTimeval(mtime.UnixNano())
		if err := unix.Futimes(fd, []unix.Timeval{ts, ts}); err != nil {
			return &fs.PathError{Op: "utimes", Path: f.Name(), Err: err}
		}
	}
	return nil
}

// same says whether the blob of that key has the content that its name says.
// What is wrong is left for replace.
func (t *tree) same(e *Entry) bool {
	fd, err := unix.Openat(t.blobs, e.key().name(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), e.Path)
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Size != e.Size || st.Mode&0o7777 != e.Mode || st.Uid != e.UID || st.Gid != e.GID {
		return false
	}
	sum, err := hashOf(f)
	return err == nil && sum == e.Sum
}

var copyBuffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

func hashOf(r io.Reader) (sum filehash.Sum, err error) {
	h := blake3.New()
	buf := copyBuffers.Get().(*[128 << 10]byte)
	defer copyBuffers.Put(buf)
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{r}, buf[:]); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// fromBlob links the blob with the entry's content into the tree, if there is
// one whose content is right.
func (t *tree) fromBlob(name string, e *Entry) (bool, error) {
	if !t.names.proved(e) && !t.same(e) {
		return false, nil
	}
	dir, base, done, err := t.in(name)
	if err != nil {
		return false, err
	}
	defer done()
	switch err := unix.Linkat(t.blobs, e.key().name(), dir, base, 0); {
	case err == nil:
	case errors.Is(err, unix.EMLINK), errors.Is(err, unix.ENOENT):
		t.names.unmark(e, fresh) // a copy begins a new inode, which keep makes the blob
		return false, nil
	default:
		return false, t.fail("link", name, err)
	}
	t.names.mark(e, fresh)
	return true, nil
}

// fromTree links a file that was read before into the tree, unless it is another
// file by now.
func (t *tree) fromTree(base *scan, f *found, name string) (bool, error) {
	dir, last, done, err := t.in(name)
	if err != nil {
		return false, err
	}
	defer done()
	switch err := unix.Linkat(int(base.dir.Fd()), f.Path, dir, last, 0); {
	case err == nil:
	case errors.Is(err, unix.EMLINK), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPERM), errors.Is(err, unix.EXDEV):
		return false, nil // EPERM: immutable, or protected_hardlinks
	default:
		return false, t.fail("link", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, last, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, t.fail("stat", name, err)
	}
	if f.Kind == Local && !f.fixed && st.Ino == f.ino { // nobody vouches for it, but it is that file
		return true, nil
	}
	if st.Ino == f.ino && st.Size == f.Size && int64(st.Mtim.Sec) == f.mtime.Sec && uint32(st.Mtim.Nsec) == f.mtime.Nsec {
		return true, nil
	}
	return false, t.remove(name)
}

// remove removes a file, a link or an empty directory.
func (t *tree) remove(name string) error {
	dir, base, done, err := t.in(name)
	if err != nil {
		return err
	}
	defer done()
	err = unix.Unlinkat(dir, base, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		if rmdir := unix.Unlinkat(dir, base, unix.AT_REMOVEDIR); !errors.Is(rmdir, unix.ENOTDIR) {
			err = rmdir
		}
	}
	if err != nil {
		return t.fail("remove", name, err)
	}
	return nil
}

// keep makes a file of the tree a blob. A blob of that name that is there was
// proved to be wrong, has all the links that an inode can have, or was written by
// another goroutine this moment.
func (t *tree) keep(name string, e *Entry) error {
	key := e.key()
	blob := key.name()
	err := unix.Linkat(t.fd, name, t.blobs, blob, 0)
	if errors.Is(err, unix.ENOENT) {
		if err := unix.Mkdirat(t.blobs, blob[:2], 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return t.fail("mkdir", "blobs/"+blob[:2], err)
		}
		err = unix.Linkat(t.fd, name, t.blobs, blob, 0)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.names.mark(e, created)
	case errors.Is(err, unix.EEXIST):
		if t.names.proved(e) {
			return nil // two of the same content at the same time; both are right
		}
		if err := t.replace(name, key); err != nil {
			return err
		}
	default:
		return t.fail("link", name, err)
	}
	t.names.mark(e, fresh)
	return nil
}

// replace puts a file of the tree in the place of a blob.
func (t *tree) replace(name string, key blobKey) error {
	tmp := t.store.path(nameTmp, strings.ReplaceAll(key.name(), "/", ""))
	_ = os.Remove(tmp)
	if err := unix.Linkat(t.fd, name, unix.AT_FDCWD, tmp, 0); err != nil {
		return t.fail("link", name, err)
	}
	if err := unix.Renameat(unix.AT_FDCWD, tmp, t.blobs, key.name()); err != nil {
		return t.fail("rename", name, err)
	}
	return nil
}

// copyFile copies a file of another tree, its holes as holes, and returns what it
// has copied. Owner and mode are those of the file that it opened, which may be
// another than was read before: who owns the directory may put a file there, but
// has no say about whose it is.
func (t *tree) copyFile(base *scan, f *found, name string) (*Entry, error) {
	fd, err := openBeneath(int(base.dir.Fd()), f.Path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(base.tree, f.Path), Err: err}
	}
	in := os.NewFile(uintptr(fd), filepath.Join(base.tree, f.Path))
	defer in.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: in.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG { // reading a pipe might never end
		return nil, &fs.PathError{Op: "open", Path: in.Name(), Err: fs.ErrNotExist}
	}
	e := *f.Entry
	e.Path, e.Mode, e.UID, e.GID = name, st.Mode&0o7777, st.Uid, st.Gid
	err = t.write(name, &e, time.Unix(int64(st.Mtim.Sec), int64(st.Mtim.Nsec)), in, func(w io.Writer) error {
		h := blake3.New()
		out := &holed{f: w.(*os.File)}
		buf := copyBuffers.Get().(*[128 << 10]byte)
		defer copyBuffers.Put(buf)
		// Nor might that of a file that somebody writes to all the time.
		n, err := io.CopyBuffer(io.MultiWriter(out, h), io.LimitReader(in, st.Size), buf[:])
		if err != nil {
			return fmt.Errorf("copy %s: %w", in.Name(), err)
		}
		h.Sum(e.Sum[:0])
		e.Size = n
		return out.f.Truncate(out.at)
	})
	return &e, err
}

// holed writes a file, and leaves holes where there is nothing but zeros.
type holed struct {
	f  *os.File
	at int64
}

var zeros [64 << 10]byte

func (h *holed) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), len(zeros))
		if !bytes.Equal(rest[:n], zeros[:n]) {
			if _, err := h.f.WriteAt(rest[:n], h.at); err != nil {
				return 0, err
			}
		}
		h.at += int64(n)
		rest = rest[n:]
	}
	return len(p), nil
}

// openBeneath opens a file beneath a directory, through no symbolic link.
func openBeneath(dir int, name string) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}
