package state

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	bolt "go.etcd.io/bbolt"
)

// A backup is a bbolt file with its seal and a trailer (the length of the seal
// in bytes as little-endian uint64, and trailerMagic) after the last page,
// where bbolt does not look. So one file carries its own proof.

// Backup writes a consistent copy of state.db to path, mode 0600. It refuses
// with an error that is fs.ErrExist when path exists, unless overwrite is set.
// On an error path is as it was. Readers go on meanwhile; writers wait.
func (s *Store) Backup(ctx context.Context, path string, overwrite bool) error {
	if _, err := os.Lstat(s.Path()); errors.Is(err, fs.ErrNotExist) {
		return failure.Errorf(failure.NotReady, "there is no %s yet, so there is nothing to back up", s.Path())
	}
	l, err := s.acquire(ctx, false)
	if err != nil {
		return err
	}
	defer l.release()
	return s.open(ctx, false, func(o *opened) error { return o.backup(ctx, path, overwrite) })
}

// backup copies the opened database. It reads all of it, so it proves it too.
func (o *opened) backup(ctx context.Context, path string, overwrite bool) error {
	if err := o.seal.verify(ctx, o.file, o.header, true); err != nil {
		return err
	}
	_ = durable.Clean(path) // of a backup that was killed; its room may be what is missing now
	f, err := durable.Create(path, 0o600)
	if err != nil {
		return access(err)
	}
	defer f.Abort()
	err = o.db.View(func(tx *Tx) error {
		_, err := tx.WriteTo(durable.Writer(ctx, f))
		return err
	})
	if err == nil {
		err = appendSeal(f.File)
	}
	if err != nil {
		return access(fmt.Errorf("write backup: %w", err))
	}
	if overwrite {
		return access(f.Commit())
	}
	err = f.CommitNew()
	if errors.Is(err, fs.ErrExist) {
		return failure.Hint(fmt.Errorf("%s: %w", path, fs.ErrExist), "choose another name, or replace it with --force")
	}
	return access(err)
}

func appendSeal(f *os.File) error {
	h, err := readHeader(f)
	if err != nil {
		return err
	}
	s, err := sealOf(f, h, nil)
	if err != nil {
		return err
	}
	s.id = identity{}
	b := s.encode()
	b = binary.LittleEndian.AppendUint64(b, uint64(len(b)))
	b = append(b, trailerMagic...)
	_, err = f.WriteAt(b, h.Size)
	return err
}

// splitBackup returns the seal at the end of a backup and where the database
// ends. A plain bbolt file, such as a copied state.db, has no seal. A trailer
// that does not fit is damage.
func splitBackup(f *os.File) (*seal, int64, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	size := st.Size()
	var t [trailerSize]byte
	if size < trailerSize {
		return nil, size, nil
	}
	if _, err := f.ReadAt(t[:], size-trailerSize); err != nil {
		return nil, 0, err
	}
	if string(t[8:]) != trailerMagic {
		return nil, size, nil
	}
	n := binary.LittleEndian.Uint64(t[:])
	if n > uint64(size-trailerSize) || n > sealHeaderSize+4*sealMaxPages+4 {
		return nil, 0, fmt.Errorf("%w: its checksums are cut off", ErrCorrupt)
	}
	b := make([]byte, n)
	end := size - trailerSize - int64(n)
	if _, err := f.ReadAt(b, end); err != nil {
		return nil, 0, err
	}
	s := decodeSeal(b)
	if s == nil {
		return nil, 0, fmt.Errorf("%w: its checksums are damaged", ErrCorrupt)
	}
	return s, end, nil
}

// Restore puts the backup at path in the place of state.db, also when that is
// damaged, after it has copied and thoroughly checked the backup. It returns
// where it kept the replaced file, "" if there was none. On an error state.db
// is as it was.
func (s *Store) Restore(ctx context.Context, path string) (kept string, err error) {
	if err := durable.MkdirAll(s.dir, 0o700); err != nil {
		return "", access(err)
	}
	l, err := s.acquire(ctx, true)
	if err != nil {
		return "", err
	}
	defer l.release()
	if err := durable.Clean(s.Path()); err != nil {
		return "", access(err)
	}
	// What is checked is the copy that will be used, not what the name path
	// may stand for a moment later.
	tmp, sum, err := s.copyBackup(ctx, path)
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp)
	var r Report
	if err := s.checkFile(ctx, tmp, "", sum, &r); err != nil {
		var v *verdict
		if errors.As(err, &v) {
			err = &verdict{err: v.err, path: path, hint: "nothing was changed; this backup cannot be used"}
		}
		return "", err
	}
	if _, err := os.Lstat(s.Path()); err == nil {
		kept = s.Path() + ".before-restore-" + stamp()
		// A link and not a rename: at every moment there is a state.db.
		if err := os.Link(s.Path(), kept); err != nil {
			return "", access(fmt.Errorf("keep the present state.db: %w", err))
		}
	}
	if err := s.replace(func() error { return durable.Publish(tmp, s.Path()) }); err != nil {
		return "", err
	}
	return kept, nil
}

// copyBackup copies the database in a backup to a temporary name. The lease,
// not a lock on it, keeps it from being cleaned away.
func (s *Store) copyBackup(ctx context.Context, path string) (tmp string, sum *seal, err error) {
	src, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return "", nil, access(err)
	}
	defer src.Close()
	sum, size, err := splitBackup(src)
	if err != nil {
		return "", nil, &verdict{err: err, path: path, hint: "nothing was changed; this backup cannot be used"}
	}
	tmp = durable.Temp(s.Path())
	dst, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", nil, access(err)
	}
	_, err = io.Copy(durable.Writer(ctx, dst), io.NewSectionReader(src, 0, size))
	if err == nil {
		err = dst.Chmod(0o600) // whatever the umask
	}
	if closed := dst.Close(); err == nil {
		err = closed
	}
	if err != nil {
		os.Remove(tmp)
		return "", nil, access(fmt.Errorf("copy %s: %w", path, err))
	}
	return tmp, sum, nil
}

// unseal removes the seal, because state.db is about to be another file.
func (s *Store) unseal() error {
	if err := os.Remove(s.sumPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return access(err)
	}
	return durable.SyncDir(s.dir)
}

// replace makes another file state.db by commit, and seals it. The old seal
// goes first: without one the file is checked, with a wrong one it is refused.
func (s *Store) replace(commit func() error) error {
	old, err := os.ReadFile(s.sumPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return access(err)
	}
	if err := s.unseal(); err != nil {
		return err
	}
	if err := commit(); err != nil {
		if len(old) > 0 {
			err = errors.Join(err, os.WriteFile(s.sumPath(), old, 0o600))
		}
		return access(err)
	}
	f, err := openRegular(s.Path(), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	h, err := readHeader(f)
	if err != nil {
		return err
	}
	seal, err := sealOf(f, h, nil)
	if err != nil {
		return err
	}
	writeSeal(s.sumPath(), seal)
	return nil
}

// Compact rewrites state.db without its free pages, and returns its size in
// bytes before and after. Everybody else waits meanwhile. On an error state.db
// is as it was.
func (s *Store) Compact(ctx context.Context) (before, after int64, err error) {
	if _, err := os.Lstat(s.Path()); errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	l, err := s.acquire(ctx, true)
	if err != nil {
		return 0, 0, err
	}
	defer l.release()
	if err := durable.Clean(s.Path()); err != nil {
		return 0, 0, access(err)
	}
	tmp := durable.Temp(s.Path())
	defer os.Remove(tmp)
	err = s.open(ctx, false, func(o *opened) error {
		before = o.header.Size
		if err := o.seal.verify(ctx, o.file, o.header, true); err != nil {
			return err
		}
		return compactTo(tmp, o.db)
	})
	if err != nil {
		return 0, 0, err
	}
	var r Report
	if err := s.checkFile(ctx, tmp, "", nil, &r); err != nil {
		return 0, 0, fmt.Errorf("the compacted copy of %s was not used: %w", filepath.Base(s.Path()), err)
	}
	if err := s.replace(func() error { return durable.Publish(tmp, s.Path()) }); err != nil {
		return 0, 0, err
	}
	return before, r.SizeBytes, nil
}

func compactTo(path string, src *bolt.DB) error {
	dst, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true}) // fsynced once, when it is published
	if err != nil {
		return access(err)
	}
	err = bolt.Compact(dst, src, 1<<20)
	if err == nil {
		err = os.Chmod(path, 0o600) // whatever the umask
	}
	if closed := dst.Close(); err == nil {
		err = closed
	}
	return access(err)
}
