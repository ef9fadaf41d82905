package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
)

// ErrStale says that a staged generation was made from another one than the
// current: it lacks what that has brought.
var ErrStale = failure.New(failure.No, "it was not made from the current generation")

// Activate makes generation n current, by one rename(2). It is durable when
// Activate returns. Configuration of a generation that was never current is
// merged again when it was edited since.
func (t *Session) Activate(ctx context.Context, n int, now time.Time) (*Generation, error) {
	g, err := t.Generation(n)
	if err != nil {
		return nil, err
	}
	current, err := t.Current()
	if err != nil {
		return nil, err
	}
	if current > 0 {
		if err := t.Linked(); err != nil {
			return nil, err
		}
	}
	if st, err := os.Lstat(t.Tree(n)); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("generation %d: %w: its tree is gone", n, ErrDamaged)
	}
	if g.Staged && g.Kind == Updated {
		if g.Base != current {
			return nil, failure.Hint(fmt.Errorf("generation %d: %w: its base is %d, and %d is current", n, ErrStale, g.Base, current), "apply the package again")
		}
		if current > 0 && !t.upToDate(n) {
			changed, err := t.catchUp(ctx, g, now)
			if err == nil && changed {
				err = t.syncFilesystem()
			}
			if err != nil {
				return nil, explain(err)
			}
		}
	}
	if err := t.prepareData(g, current); err != nil {
		return nil, explain(err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(t.generation(n), nameSetID)); err == nil {
		if err := os.Chmod(t.generation(n), 0o755); err != nil { // or nobody could use what is live
			return nil, explain(err)
		}
	}
	t.step("switch")
	if err := t.point(n); err != nil {
		return nil, explain(errors.Join(err, t.guardSetID(current)))
	}
	t.step("switched")
	g.Current, g.Staged = true, false
	// From here on it is live. What follows is put right by recover as well.
	_ = os.Remove(filepath.Join(t.generation(n), nameStaged))
	return g, explain(errors.Join(t.guardSetID(n), t.placeLink()))
}

// point makes current lead to generation n.
func (t *Session) point(n int) error {
	tmp := t.path(nameTmp, nameCurrent)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(nameGenerations+"/"+strconv.Itoa(n)+"/"+nameTree, tmp); err != nil {
		return err
	}
	t.step("linked")
	if err := os.Rename(tmp, t.path(nameCurrent)); err != nil {
		return err
	}
	t.step("renamed")
	return durable.SyncDir(t.dir)
}

// placeLink makes the installation a link to current where nothing is.
func (t *Session) placeLink() error {
	if _, err := os.Lstat(t.target); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(t.target), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(t.linkText(), t.target); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(t.target))
}

// recover puts right what a process that died, or a power cut, left unfinished.
func (t *Session) recover(ctx context.Context) error {
	// What somebody removed and comes again by itself stands in nobody's way. Trees
	// need no blob: content of which there is none is written once more.
	if err := t.makeDirs(); err != nil {
		return err
	}
	if err := t.recoverData(); err != nil {
		return err
	}
	if err := t.recoverAdoption(); err != nil {
		return err
	}
	names, err := os.ReadDir(t.path(nameTmp))
	if err != nil {
		return err
	}
	for _, e := range names {
		if err := os.RemoveAll(t.path(nameTmp, e.Name())); err != nil {
			return err
		}
	}
	if names, err = os.ReadDir(t.path(nameGenerations)); err != nil {
		return err
	}
	partial := false
	for _, e := range names {
		if !strings.HasSuffix(e.Name(), partialSuffix) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// What cannot be removed, as an immutable file, is in nobody's way.
		if err := os.RemoveAll(t.path(nameGenerations, e.Name())); err != nil {
			t.Stuck = append(t.Stuck, fmt.Errorf("generation %s, which is no longer wanted, cannot be removed: %w", strings.TrimSuffix(e.Name(), partialSuffix), explain(err)))
			continue
		}
		t.Swept = append(t.Swept, "generation "+strings.TrimSuffix(e.Name(), partialSuffix)+", which was never finished or no longer wanted")
		partial = true
	}
	if partial {
		if _, _, err := t.sweepBlobs(ctx); err != nil {
			return err
		}
	}
	current, err := t.Current()
	if err != nil || current == 0 {
		return err
	}
	if err := os.Remove(filepath.Join(t.generation(current), nameStaged)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(t.guardSetID(current), t.placeLink())
}

// recoverAdoption undoes an adoption that did not come to the exchange: the
// directory is where it was, and the link lies where its tree would be.
func (t *Session) recoverAdoption() error {
	numbers, err := t.Numbers()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		to, err := os.Readlink(t.Tree(n))
		if err != nil || !t.resolves(to) {
			continue
		}
		if err := t.unadopt(n); err != nil {
			return err
		}
		t.Swept = append(t.Swept, fmt.Sprintf("the adoption of %s", t.target))
	}
	return nil
}
