package integrity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/packages"
	"github.com/zeebo/blake3"
)

// maxOwnersFile bounds the table of packages that is read.
const maxOwnersFile = 256 << 20

// ownersFile is the path of the table that says which package owned which path
// when a baseline was taken.
func (e *Engine) ownersFile(c Entry) string { return e.path(c.ID + ".owners") }

// saveOwners writes the table for a new baseline that begins at the given
// paths, where packages have something there, and notes its digest in c.
func (e *Engine) saveOwners(ctx context.Context, c *Entry, tree string, starts []string) error {
	set, err := packages.Open(tree)
	if err != nil {
		return err
	}
	defer set.Close()
	if len(set.Managers()) == 0 {
		return nil
	}
	if some, err := ownsSome(ctx, set, starts); err != nil || !some {
		return err
	}
	o, err := set.Owners(ctx)
	if err != nil {
		return err
	}
	return e.writeOwners(c, o)
}

// ownsSome tells whether packages have anything at the start paths of a policy
// or below them. dpkg lists every directory above a file; of other managers
// nobody knows before having gone through everything.
func ownsSome(ctx context.Context, set *packages.Set, starts []string) (bool, error) {
	if !slices.Equal(set.Managers(), []packages.Manager{packages.Dpkg}) || slices.Contains(starts, "/") {
		return true, nil
	}
	paths := make([][]byte, len(starts))
	for i, p := range starts {
		paths[i] = []byte(p)
	}
	files, err := set.Lookup(ctx, paths)
	return slices.ContainsFunc(files, func(f []packages.File) bool { return len(f) > 0 }), err
}

func (e *Engine) writeOwners(c *Entry, o *packages.Owners) error {
	b := o.Encode()
	c.Owners = blake3.Sum256(b)
	return failure.Wrap(failure.Failed, durable.WriteFile(e.ownersFile(*c), b, 0o600))
}

// loadOwners reads the table of a baseline; nil when it has none.
func (e *Engine) loadOwners(c Entry) (*packages.Owners, error) {
	if c.Owners == (baseline.Hash{}) {
		return nil, nil
	}
	b, err := readAtMost(e.ownersFile(c), maxOwnersFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Errorf(failure.Untrustworthy, "the table of packages of baseline %s@%s is gone", c.Name, c.ID)
	}
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	if blake3.Sum256(b) != c.Owners {
		return nil, failure.Errorf(failure.Untrustworthy, "the table of packages of baseline %s@%s is not what was catalogued", c.Name, c.ID)
	}
	o, err := packages.DecodeOwners(b)
	if err != nil {
		return nil, fmt.Errorf("the table of packages of baseline %s@%s: %w", c.Name, c.ID, err)
	}
	return o, nil
}

// carryOwners gives a new baseline the table of the former one, in which those
// packages are as they are now all of whose changes are settled: accepted now or
// before. Others stay as they were, so that what is left of their changes is
// still known as theirs; so do those that have yet another version by now, of
// which nothing was reported.
func (e *Engine) carryOwners(ctx context.Context, old Entry, c *Entry, tree string, reported, settled []Change) error {
	c.Owners = baseline.Hash{}
	then, err := e.loadOwners(old)
	if err != nil || then == nil {
		return err
	}
	taken, done := map[string]bool{}, map[string]bool{} // by Change.updateSubject, by path
	versions := map[string]bool{}                       // by Package.String
	for i := range settled {
		taken[settled[i].updateSubject()] = true
		done[string(settled[i].Path)] = true
		versions[settled[i].Package] = true
	}
	for i := range reported {
		if ch := &reported[i]; !done[string(ch.Path)] {
			delete(taken, ch.updateSubject())
		}
	}
	delete(taken, "")
	if len(taken) == 0 {
		return e.writeOwners(c, then)
	}
	set, err := packages.Open(tree)
	if err != nil {
		return err
	}
	defer set.Close()
	list, err := set.Packages(ctx)
	if err != nil {
		return err
	}
	subject := func(p packages.Package) string { return (&Change{Package: p.String()}).updateSubject() }
	for _, p := range list {
		if !versions[p.String()] {
			delete(taken, subject(p))
		}
	}
	now, err := set.OwnersSince(ctx, then, func(p packages.Package) bool { return taken[subject(p)] })
	if err != nil {
		return err
	}
	return e.writeOwners(c, now)
}

// packageName returns the name of the package of a change, empty for none.
func packageName(c *Change) string {
	name, _, _ := strings.Cut(c.Package, " ")
	return name
}
