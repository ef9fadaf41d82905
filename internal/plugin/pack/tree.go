package pack

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

// tree reads the files of a directory, through a handle that nothing in it
// leads out of.
type tree struct{ root *os.Root }

// openDir opens a directory that is a package.
func openDir(dir string) (p *Package, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, access(err)
	}
	defer func() {
		if err != nil {
			root.Close()
		}
	}()
	t := &tree{root}
	if info, err := root.Lstat("."); err != nil {
		return nil, err
	} else if err := loose(".", info); err != nil {
		return nil, err
	}
	raw, err := t.small(manifest.FileName, manifest.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse(CodeNotPackage, "", "name a package, as mobileops plugin pack builds it", "%s has no %s", dir, manifest.FileName)
	}
	if err != nil {
		return nil, err
	}
	signature, err := t.small(manifest.SignatureName, MaxSignatureBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse(CodeUnsigned, "", hintPublisher, "there is no %s", manifest.SignatureName)
	}
	if err != nil {
		return nil, err
	}
	return newPackage(raw, signature, t)
}

// small reads one of the first two files.
func (t *tree) small(name string, most int64) ([]byte, error) {
	info, err := t.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	f, err := t.open(name, info)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, name, most)
}

// open opens a file that is what info, of Lstat, says: a regular one. os.Root
// would follow a link that was put in its place meanwhile; that it is the same
// file is what tells. Opening does not wait for the other end of a pipe.
func (t *tree) open(name string, info fs.FileInfo) (*os.File, error) {
	if err := regular(name, info); err != nil {
		return nil, err
	}
	if err := loose(name, info); err != nil {
		return nil, err
	}
	f, err := t.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, access(err)
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(now, info) {
		f.Close()
		return nil, errors.Join(err, failure.Errorf(failure.Failed, "%q was replaced while it was read; try again when nobody works in the directory", name))
	}
	return f, nil
}

// regular refuses all but files without special bits.
func regular(name string, info fs.FileInfo) error {
	switch t := info.Mode().Type(); {
	case t == 0 && info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0:
		return refuse(archive.CodeSetID, name, hintPublisher, "mode %s: no file of a plugin has such bits", info.Mode())
	case t == 0:
		return nil
	case t == fs.ModeDir:
		return refuse(archive.CodeDirOverFile, name, hintPackage, "a directory in place of a file")
	case t == fs.ModeSymlink:
		return refuse(archive.CodeType, name, hintPublisher, "a symbolic link; packages have files only")
	default:
		return refuse(archive.CodeDevice, name, hintPublisher, "a device, pipe or socket; packages have files only")
	}
}

// loose refuses what belongs to somebody else and can be written by others than
// its owner: nobody could say who put it there. Digests prove the content
// anyway.
func loose(name string, info fs.FileInfo) error {
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Perm()&0o022 == 0 || int64(sys.Uid) == int64(os.Geteuid()) || info.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	return refuse(CodeWritable, name, "look at it, then: chmod -R go-w the package", "it belongs to user %d, and others may write it too (mode %04o)", sys.Uid, info.Mode().Perm())
}

// visitor is told everything in a tree, and says whether a directory is entered.
type visitor func(name string, info fs.FileInfo) (enter bool, err error)

// walk visits what lies beneath a directory, in the order of names within each.
func (t *tree) walk(ctx context.Context, dir string, visit visitor) error {
	entries, err := fs.ReadDir(t.root.FS(), dir)
	if err != nil {
		return access(err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := path.Join(dir, e.Name())
		info, err := t.root.Lstat(name)
		if err != nil {
			return access(err)
		}
		enter, err := visit(name, info)
		if err != nil {
			return err
		}
		if enter && info.IsDir() {
			if err := t.walk(ctx, name, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// each first looks at all names, and reads nothing of a directory that has
// other files than its manifest lists.
func (t *tree) each(ctx context.Context, m *manifest.Manifest, take taker) error {
	wanted := newPaths(m, "")
	infos := make(map[string]fs.FileInfo, len(m.Files))
	err := t.walk(ctx, ".", func(name string, info fs.FileInfo) (bool, error) {
		node := wanted.find(name)
		switch {
		case node == nil:
			return false, refuse(CodeExtraFile, name, hintPackage, "%s does not list it", manifest.FileName)
		case node.isDir() && !info.IsDir():
			if err := regular(name, info); err != nil {
				return false, err
			}
			return false, refuse(archive.CodeFileOverDir, name, hintPackage, "a file in place of a directory")
		case node.isDir():
			return true, loose(name, info)
		}
		if err := regular(name, info); err != nil {
			return false, err
		}
		if f, listed := m.Files[name]; listed {
			infos[name] = info
			if executable := info.Mode().Perm()&0o111 != 0; executable != f.Executable {
				return false, refuse(CodeMode, name, hintPublisher, "mode %04o; it must be %04o", info.Mode().Perm(), modeOf(f))
			}
		}
		return false, loose(name, info)
	})
	if err != nil {
		return err
	}
	for _, name := range names(m) {
		info, there := infos[name]
		if !there {
			return refuse(CodeMissingFile, name, hintPackage, "%s lists it, and it is not in the package", manifest.FileName)
		}
		if err := t.take(name, m.Files[name], info, take); err != nil {
			return err
		}
	}
	return nil
}

// take opens a file for take.
func (t *tree) take(name string, f manifest.File, info fs.FileInfo, take taker) error {
	in, err := t.open(name, info)
	if err != nil {
		return err
	}
	defer in.Close()
	return take(name, f, io.Reader(in))
}

func (t *tree) close() error { return t.root.Close() }
