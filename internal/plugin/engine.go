// Package plugin is the engine behind the noun plugin: it knows what is
// installed, of which version, who vouched for it and what it may do, and starts
// it with that and nothing else.
//
// What is on the disk, beneath Options.Dir (mode 0711, so that programs of other
// accounts get to where theirs are, and see nothing else on the way):
//
//	installed/NAME/VERSION-SEQUENCE/  a package as it was signed, owned by root
//	data/NAME/                        what the plugin keeps (0700, of its account)
//	index.json                        what commands and hooks there are: see Index
//
// Bucket "plugin" of state.db is the only truth about what is installed: a
// directory is unpacked under another name, renamed, and then one transaction
// makes it what runs. Whatever no record names is swept by the next change.
//
// Invariants: nothing is started whose signature, manifest and files were not
// proved at that start, by a key that is trusted at that time; what a record says
// was accepted is what the plugin gets, and a manifest that asks for more is not
// started; the highest sequence of a name is remembered though it was removed.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// Options say where everything is.
type Options struct {
	State     *state.Store
	Dir       string   // plugins and what they keep
	ConfigDir string   // NAME.yaml of each plugin
	KeysDir   string   // keys that are trusted, see package trust
	RunDir    string   // sockets of mobileops; "": none
	Product   string   // version of mobileops
	HostID    string   // of this host, for plugins that tell it others
	Reserved  []string // names that no plugin may have
	Bundled   []string // names that only plugins which come with mobileops may have
	// LinkLocal lets names in permissions lead to link-local addresses.
	LinkLocal bool
	Now       func() time.Time // nil: time.Now

	// from is the first account that is given out; 0: firstAccount. The kernel
	// counts the processes of an account, whichever Dir they are of: tests that
	// run at the same time use up each other's.
	from uint32
}

// Engine installs and starts plugins.
type Engine struct {
	opts Options
}

// New makes an engine. It opens nothing.
func New(opts Options) *Engine {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Engine{opts}
}

// ErrNone is returned for a plugin that is not installed.
var ErrNone = failure.New(failure.No, "no such plugin is installed")

// none says so, with what to do.
func none(name string) error {
	return failure.Hint(fmt.Errorf("%w: %q", ErrNone, name), "see what is: mobileops plugin list")
}

// lock takes the lock of every change to what is installed.
func (e *Engine) lock(doing string) (*state.Lock, error) {
	return e.opts.State.Lock("plugin", doing)
}

func (e *Engine) installedDir(name string) string {
	return filepath.Join(e.opts.Dir, "installed", name)
}

// packageDir is where a release of a plugin is.
func (e *Engine) packageDir(name string, r *Release) string {
	return filepath.Join(e.installedDir(name), fmt.Sprintf("%s-%d", r.Version, r.Sequence))
}

// DataDir is what a plugin may write to.
func (e *Engine) DataDir(name string) string { return filepath.Join(e.opts.Dir, "data", name) }

// ConfigFile is where the configuration of a plugin is, which need not exist.
func (e *Engine) ConfigFile(name string) string {
	return filepath.Join(e.opts.ConfigDir, name+".yaml")
}

// Get returns the record of a plugin. One that is not installed is ErrNone.
func (e *Engine) Get(ctx context.Context, name string) (r *Record, err error) {
	err = e.opts.State.View(ctx, func(tx *state.Tx) error {
		r, err = get(tx, name)
		return err
	})
	return r, err
}

// List returns the records of all plugins, by name.
func (e *Engine) List(ctx context.Context) (list []*Record, err error) {
	err = e.opts.State.View(ctx, func(tx *state.Tx) error {
		list, err = all(tx)
		return err
	})
	return list, err
}

// change changes the record of an installed plugin, and the index after it.
func (e *Engine) change(ctx context.Context, name, doing string, f func(tx *state.Tx, r *Record) error) (*Record, error) {
	lock, err := e.lock(doing)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	var r *Record
	err = e.opts.State.Update(ctx, func(tx *state.Tx) (err error) {
		if r, err = get(tx, name); err == nil {
			if err = f(tx, r); err == nil {
				err = put(tx, r)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, errors.Join(e.writeIndex(ctx), e.sweep(ctx))
}

// Enable lets the commands, hooks and service of a plugin be used, or not. A
// plugin that is as asked for is an error of kind failure.Busy.
func (e *Engine) Enable(ctx context.Context, name string, on bool) (*Record, error) {
	return e.change(ctx, name, "plugin enable "+name, func(_ *state.Tx, r *Record) error {
		if r.Enabled == on {
			return failure.Errorf(failure.Busy, "%s is %s already", name, map[bool]string{true: "enabled", false: "disabled"}[on])
		}
		r.Enabled = on
		return nil
	})
}

// SetStart notes whether the service of a plugin is to run whenever the
// supervisor does. It is no error when that is noted already.
func (e *Engine) SetStart(ctx context.Context, name string, on bool) (*Record, error) {
	r, err := e.Get(ctx, name)
	if err != nil || r.Start == on {
		return r, err
	}
	return e.change(ctx, name, "plugin start "+name, func(_ *state.Tx, r *Record) error { r.Start = on; return nil })
}

// errStale is returned when what was planned is not what is there any more.
var errStale = failure.New(failure.Busy, "another plugin command changed it meanwhile; try again")

func isNone(err error) bool { return errors.Is(err, ErrNone) }
