package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/mobileops/mobileops/internal/durable"
	"golang.org/x/sys/unix"
)

// Pruned says what Prune removed.
type Pruned struct {
	Generations []int `json:"generations"`
	Blobs       int   `json:"blobs"`
	Bytes       int64 `json:"bytes"` // of blobs that were removed
}

// Removable returns the generations that Prune would remove: all but the
// current one, the one that it was made from, those that are pinned or to be
// spared, and the latest keep of the others. While the current one is damaged it
// names none: all others are what can be gone to.
func (s *Store) Removable(keep int, spare ...int) ([]*Generation, error) {
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	var gone []*Generation
	back := 0
	for _, g := range list {
		if g.Current && g.Damaged != "" {
			_, err := s.Generation(g.Number)
			return nil, err
		}
		if g.Current {
			if b, err := s.Previous(g); err == nil {
				back = b.Number
			}
		}
	}
	kept := 0
	for _, g := range slices.Backward(list) {
		switch {
		case g.Current, g.Pinned != nil, g.Number == back, slices.Contains(spare, g.Number):
		case kept < keep && g.Damaged == "":
			kept++
		default:
			gone = append(gone, g)
		}
	}
	slices.Reverse(gone)
	return gone, nil
}

// Previous returns the generation that a rollback from g goes to: the one it was
// made from, or the latest before it that is still there and was live once, and
// is none of those that are to be passed over.
func (s *Store) Previous(g *Generation, over ...int) (*Generation, error) {
	numbers, err := s.Numbers()
	if err != nil {
		return nil, err
	}
	try := []int{}
	if g.Base > 0 {
		try = append(try, g.Base)
	}
	for _, n := range slices.Backward(numbers) {
		if n < g.Number {
			try = append(try, n)
		}
	}
	for _, n := range try {
		p, err := s.Generation(n)
		if err == nil && !p.Staged && !slices.Contains(over, n) {
			return p, nil
		}
		if err != nil && !errors.Is(err, ErrMissing) && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
	}
	return nil, ErrMissing
}

// Remove removes generations, and the content that no other one has. The
// current one is never removed.
func (t *Session) Remove(ctx context.Context, numbers []int) (p Pruned, err error) {
	p.Generations = []int{}
	current, err := t.Current()
	if err != nil {
		return p, err
	}
	remove := func() error { return t.remove(ctx, numbers, current, &p) }
	if current == 0 || len(numbers) == 0 {
		err = remove()
	} else {
		err = t.renew(current, remove)
	}
	return p, err
}

func (t *Session) remove(ctx context.Context, numbers []int, current int, p *Pruned) error {
	for _, n := range numbers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n == current {
			continue
		}
		// What is half removed must not look complete.
		dir := t.generation(n) + partialSuffix
		if err := os.Rename(t.generation(n), dir); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return explain(err)
		}
		if err := durable.SyncDir(t.path(nameGenerations)); err != nil {
			return explain(err)
		}
		t.step("unnamed")
		if err := os.RemoveAll(dir); err != nil {
			return explain(err)
		}
		p.Generations = append(p.Generations, n)
		t.step("removed")
	}
	var err error
	p.Blobs, p.Bytes, err = t.sweepBlobs(ctx)
	t.step("swept")
	return explain(err)
}

// sweepBlobs removes blobs that are in no tree: they have no other name.
func (t *Session) sweepBlobs(ctx context.Context) (n int, size int64, err error) {
	err = t.eachBlob(ctx, func(dir int, name, _ string, st *unix.Stat_t) error {
		if st.Nlink != 1 {
			return nil
		}
		if err := unix.Unlinkat(dir, name, 0); err != nil {
			return &fs.PathError{Op: "remove", Path: name, Err: err}
		}
		n++
		size += st.Blocks * 512
		return nil
	})
	return n, size, err
}

// eachBlob calls fn with every blob: the descriptor of its directory, its name in
// there, and its key.
func (s *Store) eachBlob(ctx context.Context, fn func(dir int, name, key string, st *unix.Stat_t) error) error {
	dirs, err := os.ReadDir(s.path(nameBlobs))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir, err := os.Open(s.path(nameBlobs, d.Name()))
		if err != nil {
			return err
		}
		names, err := dir.Readdirnames(-1)
		for _, name := range names {
			var st unix.Stat_t
			if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return errors.Join(&fs.PathError{Op: "stat", Path: name, Err: err}, dir.Close())
			}
			if err := fn(int(dir.Fd()), name, d.Name()+name, &st); err != nil {
				return errors.Join(err, dir.Close())
			}
		}
		if err := errors.Join(err, dir.Close()); err != nil {
			return err
		}
	}
	return nil
}
