package integrity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/history"
)

// Export copies the baseline that ref stands for to path, after verifying it.
// An existing file is replaced only when overwrite is set.
func (e *Engine) Export(ctx context.Context, ref, path string, overwrite bool) (Entry, error) {
	c, err := e.Find(ctx, ref)
	if err != nil {
		return Entry{}, err
	}
	r, err := e.Open(c)
	if err != nil {
		return Entry{}, err
	}
	r.Close()
	commit := (*durable.File).CommitNew
	if overwrite {
		commit = (*durable.File).Commit
	}
	err = copyFile(ctx, e.file(c), path, commit)
	if errors.Is(err, fs.ErrExist) {
		return Entry{}, failure.Hint(failure.Errorf(failure.Usage, "%s exists already", path), "--force replaces it")
	}
	return c, err
}

// Import copies a baseline file into the state directory and makes it the
// current one of the given name, or of the name it was taken under.
func (e *Engine) Import(ctx context.Context, path, name string) (Entry, error) {
	r, err := baseline.Open(path, baseline.Hash{})
	if err != nil {
		return Entry{}, err
	}
	c := Entry{Header: r.Header, Root: r.Root, Imported: true}
	// Every block is decoded, so that damage shows now and not at 3 a.m.
	err = r.All(func(*baseline.Record) error { return ctx.Err() })
	r.Close()
	if err != nil {
		return Entry{}, fmt.Errorf("%s: %w", path, err)
	}
	if name != "" {
		c.Name = name
	}
	if err := CheckName(c.Name); err != nil {
		return Entry{}, err
	}
	if !validID(c.ID) {
		return Entry{}, fmt.Errorf("%s: %w: its id is malformed", path, baseline.ErrDamaged)
	}
	lock, err := e.lock(ctx, c.Name, "integrity baseline import")
	if err != nil {
		return Entry{}, err
	}
	defer lock.Release()
	if list, err := e.List(ctx); err != nil {
		return Entry{}, err
	} else {
		for _, o := range list {
			if o.ID == c.ID {
				return Entry{}, failure.Errorf(failure.Busy, "this baseline is in the catalogue already, as %s@%s", o.Name, o.ID)
			}
		}
	}
	// After state.db was lost, baselines are imported from where they are. Such
	// a file may be the only one: it is not copied, and whatever goes wrong
	// must not remove it, so it is not announced either.
	inPlace := sameFile(path, e.file(c))
	undo := func() {
		if !inPlace {
			e.drop(c)
		}
	}
	if !inPlace {
		if err := e.announce(ctx, c); err != nil {
			return Entry{}, err
		}
		if err := copyFile(ctx, path, e.file(c), (*durable.File).Commit); err != nil {
			return Entry{}, err
		}
	}
	// The copy is what will be trusted, so the copy is what is verified.
	if r, err = baseline.Open(e.file(c), c.Root); err != nil {
		undo()
		return Entry{}, err
	}
	r.Close()
	if st, err := os.Stat(e.file(c)); err == nil {
		c.FileBytes = st.Size()
	}
	if err := e.catalogue(ctx, &c, Act{Kind: history.Import}); err != nil {
		undo()
		return Entry{}, err
	}
	return c, nil
}

// sameFile tells whether two paths lead to one file.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// validID tells whether an id is one that newID could have made: it becomes
// part of a path.
func validID(id string) bool {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(id) == 16
}

func copyFile(ctx context.Context, from, to string, commit func(*durable.File) error) error {
	src, err := os.Open(from)
	if err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	defer src.Close()
	dst, err := durable.Create(to, 0o600)
	if err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	defer dst.Abort()
	if _, err := io.Copy(durable.Writer(ctx, dst), src); err != nil {
		return failure.Wrap(failure.KindOf(err), fmt.Errorf("copy to %s: %w", to, err))
	}
	return failure.Wrap(failure.Failed, commit(dst))
}
