package plugin

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/state"
)

// sweep removes what no record names: releases, what a process that died was
// unpacking, and data that was to go. The lock is held.
func (e *Engine) sweep(ctx context.Context) error {
	var list []*Record
	var doomed []string
	err := e.opts.State.View(ctx, func(tx *state.Tx) (err error) {
		if list, err = all(tx); err == nil {
			doomed, err = condemned(tx)
		}
		return err
	})
	if err != nil {
		return err
	}
	top := filepath.Join(e.opts.Dir, "installed")
	entries, err := os.ReadDir(top)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if !entry.IsDir() {
			continue // nothing that we made
		}
		i := slices.IndexFunc(list, func(r *Record) bool { return r.Name == entry.Name() })
		if i >= 0 {
			errs = append(errs, e.sweepReleases(entry.Name(), list[i]))
		} else {
			errs = append(errs, e.sweepReleases(entry.Name(), nil))
		}
	}
	errs = append(errs, e.sweepData(list))
	for _, name := range doomed {
		errs = append(errs, e.discardData(ctx, name))
	}
	return errors.Join(errs...)
}

// sweepReleases removes the releases of a plugin that its record does not name;
// without a record all, and their directory.
func (e *Engine) sweepReleases(name string, r *Record) error {
	var keep []string
	if r != nil {
		keep = append(keep, e.packageDir(name, &r.Release))
		if r.Previous != nil {
			keep = append(keep, e.packageDir(name, r.Previous))
		}
	}
	// Nothing is removed where somebody else could lead us elsewhere.
	if err := checkPlace(e.installedDir(name)); err != nil {
		return err
	}
	entries, err := os.ReadDir(e.installedDir(name))
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		// Where no plugin is installed, somebody may have directories of their
		// own: plugin.dir can be any.
		if path := filepath.Join(e.installedDir(name), entry.Name()); !slices.Contains(keep, path) && (r != nil || isRelease(entry.Name())) {
			errs = append(errs, pack.Discard(path))
		}
	}
	if r == nil {
		if err := os.Remove(e.installedDir(name)); err != nil && !errors.Is(err, fs.ErrExist) { // ENOTEMPTY
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// partialPrefix begins the name of what is being unpacked.
const partialPrefix = ".partial-"

// isRelease tells whether a directory is called as one of a release is.
func isRelease(name string) bool {
	i := strings.LastIndexByte(name, '-')
	return i > 0 && i+1 < len(name) && strings.Trim(name[i+1:], "0123456789") == ""
}

// sweepData removes directories of data in which nothing is, and whose plugin is
// not installed: one that died had made it for a plugin that never was.
func (e *Engine) sweepData(list []*Record) error {
	top := filepath.Join(e.opts.Dir, "data")
	entries, err := os.ReadDir(top)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = checkPlace(top)
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() && !slices.ContainsFunc(list, func(r *Record) bool { return r.Name == entry.Name() }) {
			_ = unix.Rmdir(filepath.Join(top, entry.Name(), "tmp"))
			_ = unix.Rmdir(filepath.Join(top, entry.Name())) // fails when there is something in it
		}
	}
	return nil
}

// discardData removes the data of a plugin, and gives its account back. As long
// as there is some nobody else gets that.
func (e *Engine) discardData(ctx context.Context, name string) error {
	if err := removeTree(ctx, e.DataDir(name)); err != nil {
		return err
	}
	return e.opts.State.Update(ctx, func(tx *state.Tx) error {
		m, err := recall(tx, name)
		if err != nil || !m.Discard {
			return err
		}
		return memorize(tx, name, memory{Sequence: m.Sequence})
	})
}
