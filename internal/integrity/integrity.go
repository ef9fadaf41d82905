// Package integrity takes baselines of file trees and says what has changed
// since.
//
// Take walks what a policy covers (package policy), hashes it (pkg/filehash)
// and writes a baseline (package baseline), which is then catalogued in
// state.db with its Merkle root. Compare walks the same paths again, in the
// same order, and joins the two ordered streams: no tree is ever held in
// memory, only what differs is.
//
// Comparing comes in two depths. A verify reads every byte again. A check does
// not read a file whose inode, size and times are as they were when it was
// last read, which finds all changes but those that leave no trace in them:
// writes to the block device beneath the filesystem; writes through a shared
// mapping to a page that has been dirty since before the last reading, as the
// kernel notes only the first (mmap(2)); and what root does after setting the
// clock back to a file's ctime. Otherwise the kernel moves ctime with every
// write, and no call sets it. Verify, --max-age and --rehash-sample find these.
//
// Invariants: a baseline that was taken never changes; one that became the
// current one was durable before; an interrupted or failed run leaves
// catalogue and files as they were. Nothing that could not be read counts as
// unchanged.
package integrity

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// Source is the name under which the engine reports findings.
const Source = "integrity"

// Engine takes and compares baselines that are kept in a state directory.
type Engine struct {
	Store *state.Store
	Tool  string // written into baselines: "mobileops 1.0.0"
	Keep  int    // baselines of one name that are kept; 0: 3
	By    By     // who acts, and why: it goes into the history
	Keys  Keys   // who signs the history
	// Anchors are where the end of the history is kept after every act, and
	// compared with by every comparison.
	Anchors []anchor.Place
	// Collectors ask the host for what it is beside its files.
	Collectors Collectors
}

// Scan says how a tree is read.
type Scan struct {
	Tree     string // the directory that stands for "/"; empty: "/"
	Jobs     int    // workers; 0: chosen by storage
	IOLimit  int64  // bytes a second; 0: unlimited
	Idle     bool   // idle priority for processor and disk, for the whole process
	Counters *filehash.Counters
}

func (s *Scan) options() (filehash.Options, error) {
	if s.Idle {
		if err := filehash.SetIdlePriority(); err != nil {
			return filehash.Options{}, err
		}
	}
	return filehash.Options{Jobs: s.Jobs, IOLimit: s.IOLimit, Counters: s.Counters}, nil
}

func (s *Scan) tree() string {
	if s.Tree == "" {
		return "/"
	}
	return s.Tree
}

// makeDir makes the directory of the baselines when there is none.
func (e *Engine) makeDir() error {
	err := os.MkdirAll(e.path(""), 0o700)
	if errors.Is(err, fs.ErrPermission) {
		return failure.Hint(failure.Wrap(failure.NotAllowed, err), "run it as root, or choose another --state-dir")
	}
	return failure.Wrap(failure.Failed, err)
}

func (e *Engine) path(file string) string {
	return filepath.Join(e.Store.Dir(), "integrity", file)
}

// lock takes the lock of the baselines of one name. A second operation on them
// fails with a *state.HeldError. What a killed one left behind is removed.
func (e *Engine) lock(ctx context.Context, name, doing string) (*state.Lock, error) {
	if err := e.makeDir(); err != nil {
		return nil, err
	}
	l, err := e.Store.Lock("integrity-"+name, doing)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(e.sweep(ctx, name), e.sweepReports(ctx, name)); err != nil {
		l.Release()
		return nil, err
	}
	return l, nil
}

// coverage makes a walk follow a policy.
type coverage struct {
	state *policy.State
	extra filehash.Want // wanted of everything with content or extended attributes
	root  *policy.Rule  // of "/" itself, in the coverage of "/"
}

const xattrAttrs = policy.Xattrs | policy.ACL | policy.Caps | policy.SELinux

func (c *coverage) Select(name []byte) (filehash.Want, any) {
	r := c.state.Rule(name)
	if r == nil {
		return 0, nil
	}
	want := filehash.WantEntry
	if r.Attrs&policy.Content != 0 {
		want |= filehash.WantContent | c.extra
		if r.Growing {
			want |= filehash.WantGrowing | filehash.WantPrior
		}
	}
	if r.Attrs&xattrAttrs != 0 {
		want |= filehash.WantXattrs | c.extra
	}
	return want, r
}

// nothing is the coverage of a baseline without files.
type nothing struct{}

func (nothing) Select([]byte) (filehash.Want, any) { return 0, nil }
func (nothing) Enter([]byte) filehash.Selector     { return nil }
func (nothing) Names() ([]string, bool)            { return nil, true }

func (c *coverage) SelectRoot() (filehash.Want, any) {
	if c.root == nil {
		return 0, nil
	}
	want := filehash.WantEntry
	if c.root.Attrs&xattrAttrs != 0 {
		want |= filehash.WantXattrs
	}
	return want, c.root
}

func (c *coverage) Enter(name []byte) filehash.Selector {
	s := c.state.Enter(name)
	switch {
	case s.Prune():
		return nil
	case s == c.state:
		return c
	}
	return &coverage{state: s, extra: c.extra}
}

func (c *coverage) Names() ([]string, bool) { return c.state.OnlyNames() }

// host returns the names under which this machine is known.
func host() (name, machineID string) {
	name, _ = os.Hostname()
	id, _ := os.ReadFile("/etc/machine-id")
	if len(id) >= 32 {
		machineID = string(id[:32])
	}
	return name, machineID
}

// seconds cuts a time to what is shown and stored.
func seconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
