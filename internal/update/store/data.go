package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// intentData is the file that says which data directory is being moved.
const intentData = "data-move"

// prepareData sees that the data directories of a generation are there: moved
// from the current tree, which keeps a link to them, or made. The directories
// above them get owners and modes of those in the tree: what nobody could enter
// there nobody can enter here.
func (t *Session) prepareData(g *Generation, current int) error {
	if len(g.Data) == 0 {
		return nil
	}
	tree, err := os.Open(t.Tree(g.Number))
	if err != nil {
		return err
	}
	defer tree.Close()
	seed := filepath.Join(t.generation(g.Number), nameSeed)
	for _, d := range g.Data {
		if err := t.prepare(d, tree, filepath.Join(seed, filepath.FromSlash(d)), current); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(seed); err != nil {
		return nil
	}
	if err := t.plant(seed); err != nil {
		return err
	}
	return t.syncFilesystem()
}

// prepare does it for one directory.
func (t *Session) prepare(d string, tree *os.File, seed string, current int) error {
	parent, err := t.above(d, tree)
	if err != nil {
		return err
	}
	defer parent.Close()
	var st unix.Stat_t
	name := path.Base(d)
	if err := unix.Fstatat(int(parent.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return nil
	} else if !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "stat", Path: t.path(nameData, d), Err: err}
	}
	if current > 0 {
		moved, err := t.moveData(d, parent, current)
		if err != nil || moved {
			return err
		}
	}
	mode := uint32(0o755)
	if packaged, err := os.Lstat(seed); err == nil && packaged.IsDir() {
		mode = uint32(packaged.Mode().Perm())
	}
	if err := unix.Mkdirat(int(parent.Fd()), name, mode); err != nil {
		return &fs.PathError{Op: "mkdir", Path: t.path(nameData, d), Err: err}
	}
	made, err := openDir(parent, name)
	if err != nil {
		return err
	}
	defer made.Close()
	return errors.Join(unix.Fchmod(int(made.Fd()), mode), parent.Sync())
}

// above opens the directory in data/ that d lies in. What is missing is made, and
// all get owner and mode of the directory of that name in the tree. Services may
// own them, so they are entered through no link.
func (t *Session) above(d string, tree *os.File) (*os.File, error) {
	dir, err := os.Open(t.path(nameData))
	if err != nil {
		return nil, err
	}
	for at := ""; ; {
		if err := resemble(dir, tree, at); err != nil {
			dir.Close()
			return nil, err
		}
		name, _, more := strings.Cut(strings.TrimPrefix(d[len(at):], "/"), "/")
		if !more {
			return dir, nil
		}
		err := unix.Mkdirat(int(dir.Fd()), name, 0o700)
		if err == nil {
			err = dir.Sync()
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			dir.Close()
			return nil, &fs.PathError{Op: "mkdir", Path: filepath.Join(dir.Name(), name), Err: err}
		}
		next, err := openDir(dir, name)
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir, at = next, path.Join(at, name)
	}
}

// resemble gives a directory owner and mode of one in a tree. When there is none,
// nobody gets to the data by the tree either, and it stays as it is.
func resemble(dir, tree *os.File, at string) error {
	model := tree
	if at != "" {
		fd, err := openBeneath(int(tree.Fd()), at)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			return nil
		} else if err != nil {
			return &fs.PathError{Op: "open", Path: filepath.Join(tree.Name(), at), Err: err}
		}
		model = os.NewFile(uintptr(fd), filepath.Join(tree.Name(), at))
		defer model.Close()
	}
	var want, have unix.Stat_t
	if err := errors.Join(unix.Fstat(int(model.Fd()), &want), unix.Fstat(int(dir.Fd()), &have)); err != nil {
		return err
	}
	if want.Mode&unix.S_IFMT != unix.S_IFDIR || want.Mode == have.Mode && want.Uid == have.Uid && want.Gid == have.Gid {
		return nil
	}
	if err := unix.Fchown(int(dir.Fd()), int(want.Uid), int(want.Gid)); err != nil {
		return &fs.PathError{Op: "chown", Path: dir.Name(), Err: err}
	}
	if err := takeAfter(dir, model); err != nil {
		return err
	}
	if err := unix.Fchmod(int(dir.Fd()), want.Mode&0o7777); err != nil {
		return &fs.PathError{Op: "chmod", Path: dir.Name(), Err: err}
	}
	return nil
}

// openDir opens a directory in another, and no link to one.
func openDir(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "%s is no directory", filepath.Join(dir.Name(), name)), "find out who put it there, and move it away")
	} else if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name)), nil
}

// moveData exchanges a directory of the current tree with a link to where it will
// be, so that its path leads to it at every moment. When there is none, nothing is
// moved.
func (t *Session) moveData(d string, parent *os.File, current int) (bool, error) {
	tree, err := os.Open(t.Tree(current))
	if err != nil {
		return false, err
	}
	defer tree.Close()
	from := tree
	if above := path.Dir(d); above != "." {
		fd, err := openBeneath(int(tree.Fd()), above)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			return false, nil
		} else if err != nil {
			return false, &fs.PathError{Op: "open", Path: filepath.Join(tree.Name(), above), Err: err}
		}
		from = os.NewFile(uintptr(fd), filepath.Join(tree.Name(), above))
		defer from.Close()
	}
	name := path.Base(d)
	isDir := func(dir *os.File) bool {
		var st unix.Stat_t
		return unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
	}
	if !isDir(from) {
		return false, nil
	}
	if err := durable.WriteFile(t.path(nameTmp, intentData), []byte(d), 0o600); err != nil {
		return false, err
	}
	if err := unix.Symlinkat(dataTarget(d), int(parent.Fd()), name); err != nil {
		return false, &fs.PathError{Op: "symlink", Path: filepath.Join(parent.Name(), name), Err: err}
	}
	t.step("data")
	exchange := func() error {
		return unix.Renameat2(int(parent.Fd()), name, int(from.Fd()), name, unix.RENAME_EXCHANGE)
	}
	err = exchange()
	if err == nil && !isDir(parent) { // something else came in its place this moment
		err = errors.Join(unix.ENOTDIR, exchange())
	}
	if err != nil {
		err = &os.LinkError{Op: "exchange", Old: filepath.Join(from.Name(), name), New: filepath.Join(parent.Name(), name), Err: err}
		return false, errors.Join(err, unix.Unlinkat(int(parent.Fd()), name, 0))
	}
	return true, errors.Join(parent.Sync(), from.Sync(), os.Remove(t.path(nameTmp, intentData)))
}

// recoverData takes back the move of a data directory that did not come to the
// exchange.
func (t *Session) recoverData() error {
	d, err := os.ReadFile(t.path(nameTmp, intentData))
	if err != nil || !validPath(string(d)) {
		return nil
	}
	root, err := os.OpenRoot(t.path(nameData))
	if err != nil {
		return err
	}
	defer root.Close()
	if st, err := root.Lstat(string(d)); err != nil || st.Mode()&fs.ModeSymlink == 0 {
		return nil
	}
	if err := root.Remove(string(d)); err != nil {
		return fmt.Errorf("take back the move of data: %w", err)
	}
	t.Swept = append(t.Swept, "the move of data "+string(d))
	return nil
}

// plant copies what is not there yet.
func (t *Session) plant(seed string) error {
	root, err := os.OpenRoot(t.path(nameData)) // services write there, and may have put links in the way
	if err != nil {
		return err
	}
	defer root.Close()
	return filepath.WalkDir(seed, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(seed, p)
		if err != nil || rel == "." {
			return err
		}
		if _, err := root.Lstat(rel); err == nil {
			return nil
		}
		switch info, err := d.Info(); {
		case err != nil:
			return err
		case d.IsDir():
			return root.Mkdir(rel, info.Mode().Perm())
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return root.Symlink(to, rel)
		default:
			return t.plantFile(root, rel, p, info.Mode())
		}
	})
}

// plantFile copies a file, which gets its name when it is durable: what is there
// is never planted again, so it must not be half of it.
func (t *Session) plantFile(root *os.Root, name, from string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := durable.Create(t.path(nameTmp, nameSeed), mode.Perm())
	if err != nil {
		return err
	}
	defer out.Abort()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	dir, err := root.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	err = unix.Linkat(unix.AT_FDCWD, out.Name(), int(dir.Fd()), filepath.Base(name), 0)
	if err != nil && !errors.Is(err, unix.EEXIST) { // a service was faster
		return &fs.PathError{Op: "link", Path: t.path(nameData, name), Err: err}
	}
	return nil
}
