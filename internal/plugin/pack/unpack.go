package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

// Unpack makes the directory dst, which must not exist, and writes the package
// there: each file is held against the manifest while it is written. It is
// after Verify, and of an archive it can be done once.
//
// When it returns nil everything is on the disk and was proved to the archive's
// last byte; dst has mode 0755 and is for the caller to rename and to sync the
// directory above, or to Discard. After an error nothing of it is left, unless
// the error says so. Until then dst has mode 0700.
func (p *Package) Unpack(ctx context.Context, dst string) error {
	if !p.proved {
		return errNotVerified
	}
	return write(ctx, dst, p.ManifestBytes, p.Signature, func(take taker) error {
		return p.source.each(ctx, p.Manifest, take)
	})
}

// Discard removes a directory that Unpack or BuildDir made, or one that a
// process left behind that died meanwhile. It follows no links. A directory
// that is not there is no error.
func Discard(dst string) error {
	if err := os.RemoveAll(dst); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dst))
}

// write makes the directory dst of a package, or nothing.
func write(ctx context.Context, dst string, raw, signature []byte, each func(taker) error) (err error) {
	if err := os.Mkdir(dst, 0o700); err != nil {
		return access(err)
	}
	defer func() {
		if err == nil {
			return
		}
		if left := Discard(dst); left != nil {
			err = failure.Wrap(failure.KindOf(err), errors.Join(err, fmt.Errorf("what was unpacked could not be removed: %w", left)))
		}
	}()
	root, err := os.OpenRoot(dst)
	if err != nil {
		return err
	}
	defer root.Close()
	w := &writer{root: root, copier: newCopier(ctx)}
	if err := w.bytes(manifest.FileName, raw); err != nil {
		return err
	}
	if err := w.bytes(manifest.SignatureName, signature); err != nil {
		return err
	}
	if err := each(w.file); err != nil {
		return err
	}
	return w.finish()
}

// writer writes the files of a package beneath a handle.
type writer struct {
	root   *os.Root
	copier *copier
	dirs   []string // that were made, those above first
}

// bytes writes one of the first two files.
func (w *writer) bytes(name string, content []byte) error {
	return w.create(name, 0o644, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}

// file is a taker.
func (w *writer) file(name string, f manifest.File, content io.Reader) error {
	if err := w.mkdir(path.Dir(name)); err != nil {
		return err
	}
	return w.create(name, fs.FileMode(modeOf(f)), func(out *os.File) error {
		return w.copier.copy(out, name, f, content)
	})
}

// create makes a file that is not there yet. It has its mode only when it is
// complete, and whatever the umask is.
func (w *writer) create(name string, mode fs.FileMode, fill func(*os.File) error) error {
	f, err := w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// mkdir makes the directories of a file that are not there yet.
func (w *writer) mkdir(dir string) error {
	if dir == "." || slices.Contains(w.dirs, dir) {
		return nil
	}
	if err := w.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	if err := w.root.Mkdir(dir, 0o700); err != nil {
		return err
	}
	w.dirs = append(w.dirs, dir)
	return nil
}

// finish opens the directories to others, and makes all names durable.
func (w *writer) finish() error {
	for _, dir := range slices.Backward(append([]string{"."}, w.dirs...)) {
		d, err := w.root.Open(dir)
		if err != nil {
			return err
		}
		err = d.Chmod(0o755)
		if err == nil {
			err = d.Sync()
		}
		if closed := d.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return err
		}
	}
	return nil
}
