package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/update/pack"
	"github.com/mobileops/mobileops/internal/update/store"
	"golang.org/x/sys/unix"
)

// Request is a package that somebody wants applied.
type Request struct {
	Path      string // of the package; its signature lies beside it
	Signature string // path of the signature, when it lies elsewhere
	// Listed is what a repository says of it, which then vouches for it instead of
	// a signature.
	Listed         *Listed
	StageOnly      bool
	AllowDowngrade bool
	Change         string // id of the change that allows it; "": none
	// Retain is how many generations are left afterwards, see store.Removable; 0
	// leaves all.
	Retain int
}

// Result is what became of a request.
type Result struct {
	Generation *store.Generation
	From       int           // the generation that was current before
	Adopted    bool          // it was a directory until now, and is a generation of the store
	Live       bool          // it is current now
	Undone     string        // why the host went back; "": it did not
	Took       time.Duration // until it was live, without health check and hooks
	Change     string
	Pruned     store.Pruned
}

// Apply proves a package, makes a generation of it, and makes that current. When
// a hook or the health check fails, or ctx ends before it has passed, the
// generation before is current again and the error says so.
func (e *Engine) Apply(ctx context.Context, r Request, n *Notice) (*Result, error) {
	began := time.Now()
	if n == nil {
		n = new(Notice)
	}
	f, p, downgrade, err := e.examine(ctx, &r)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := e.session(ctx, n, false)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	if err := e.settle(ctx, s, n); err != nil {
		return nil, err
	}
	from, err := s.Current()
	if err != nil {
		return nil, err
	}
	g, err := e.lay(ctx, s.Stage, f, p, &r, downgrade, n)
	if err != nil {
		return nil, trust.About(r.Path, err)
	}
	res := &Result{Generation: g, From: from, Change: g.Change, Took: time.Since(began)}
	if from == 0 && g.Base > 0 {
		res.From, res.Adopted = g.Base, true
		if err := e.note(ctx, Event{Kind: EventAdopt, To: g.Base}); err != nil {
			return nil, errors.Join(err, e.discard(ctx, s, g, EventApply))
		}
	}
	if r.StageOnly {
		if err := e.note(ctx, Event{Kind: EventStage, From: res.From, To: g.Number, Change: g.Change, Package: g.Origin}); err != nil {
			return nil, errors.Join(err, e.discard(ctx, s, g, EventApply))
		}
		return res, nil
	}
	if err := e.enter(ctx, s, g, EventApply, res, n); err != nil {
		if _, gone := s.Generation(g.Number); errors.Is(gone, store.ErrMissing) { // nothing became of it
			return nil, err
		}
		return res, err
	}
	if r.Retain > 0 {
		res.Pruned, err = e.removeBeyond(ctx, s, r.Retain, "update.keep")
		n.problem(err)
	}
	return res, nil
}

// examine opens a package, and refuses it by what is said of it before any of it
// is read. Who calls closes it.
func (e *Engine) examine(ctx context.Context, r *Request) (f *os.File, p proof, downgrade bool, err error) {
	f, err = os.OpenFile(r.Path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would be waited for
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, false, failure.Hint(failure.Wrap(failure.Failed, err), "name the file of a package, with its signature beside it, or a package of the repository: mobileops update check")
	} else if err != nil {
		return nil, nil, false, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if st, err := f.Stat(); err != nil {
		return nil, nil, false, err
	} else if !st.Mode().IsRegular() {
		return nil, nil, false, failure.Errorf(failure.Usage, "%s is not a file", r.Path)
	}
	if p, err = e.proof(r); err != nil {
		return nil, nil, false, err
	}
	seen, err := e.latestSeen(ctx)
	if err != nil {
		return nil, nil, false, err
	}
	if downgrade, err = e.admit(ctx, p.Release(), seen, r); err != nil {
		return nil, nil, false, trust.About(r.Path, err)
	}
	return f, p, downgrade, nil
}

// proof returns what vouches for the package.
func (e *Engine) proof(r *Request) (proof, error) {
	if r.Listed != nil {
		return newListed(*r.Listed), nil
	}
	read := func() ([]byte, error) { return trust.ReadSignature(r.Path) }
	if r.Signature != "" {
		read = func() ([]byte, error) { return readBounded(r.Signature, 1<<20) }
	}
	data, err := read()
	if err != nil {
		return nil, err
	}
	keys, err := e.o.Keys()
	if err != nil {
		return nil, err
	}
	v, err := keys.Verifier(data)
	if err != nil {
		return nil, trust.About(r.Path, err)
	}
	return signed{v}, nil
}

func readBounded(path string, most int64) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > most || !st.Mode().IsRegular() {
		return nil, failure.Errorf(failure.Usage, "%s is no signature", path)
	}
	return os.ReadFile(path)
}

// latestSeen returns the latest moment that is known to have been here, so that
// a clock that was set back makes no old release current again.
func (e *Engine) latestSeen(ctx context.Context) (seen time.Time, err error) {
	err = e.o.State.View(ctx, func(tx *state.Tx) error {
		seen, err = e.seenIn(tx)
		return err
	})
	return seen, err
}

// admit refuses releases by what they say of themselves.
func (e *Engine) admit(ctx context.Context, rel trust.Release, seen time.Time, r *Request) (downgrade bool, err error) {
	if err := rel.Current(e.now(), seen); err != nil {
		return false, err
	}
	if e.o.Channel != "" && rel.Channel != e.o.Channel {
		return false, failure.Hint(fmt.Errorf("%w: it is of channel %s, and this host follows %s", ErrChannel, rel.Channel, e.o.Channel), "to follow it, set update.channel")
	}
	if e.o.Self && rel.Name != SelfName {
		return false, fmt.Errorf("%w: it is %s, and not %s", ErrName, rel.Name, SelfName)
	}
	if !e.o.Self && rel.Name == SelfName {
		return false, failure.Hint(fmt.Errorf("%w: it is mobileops itself", ErrName), "use: mobileops update self PKG")
	}
	if e.o.RequireChange && r.Change == "" {
		return false, failure.Hint(ErrNoChange, "update.require_change is set; ask for one: mobileops change request --package "+r.Path+", then mobileops update apply --change ID")
	}
	_, err = e.newest(ctx, rel.Name, rel.Channel, rel.Sequence)
	if errors.Is(err, ErrDowngrade) {
		switch {
		case r.AllowDowngrade && r.Change != "":
			return true, nil
		case r.AllowDowngrade:
			err = failure.Hint(err, "--allow-downgrade needs an approved change: mobileops change request --kind downgrade --package "+r.Path+", then --change ID")
		default:
			err = failure.Hint(err, "to go back to what was here use mobileops rollback; an older package needs --allow-downgrade --change ID")
		}
	}
	return false, err
}

// lay makes of the package what make makes of a request.
func (e *Engine) lay(ctx context.Context, make func(context.Context, store.Request) (*store.Generation, error), f *os.File, p proof, r *Request, downgrade bool, n *Notice) (*store.Generation, error) {
	rel := p.Release()
	in := newBeside(f, p)
	pkg, err := pack.NewReader(in, archive.DefaultLimits())
	if err != nil {
		in.wait()
		return nil, err
	}
	closed := false
	finish := func() error {
		if closed {
			return nil
		}
		closed = true
		err := pkg.Close()
		in.wait()
		return err
	}
	defer finish()
	n.phase("unpacking %s", described(rel))
	return make(ctx, store.Request{
		Package: pkg, By: e.o.By, Change: r.Change, Now: e.now(), Unpacked: n.Read,
		Prove: func() (store.Origin, error) {
			if err := finish(); err != nil {
				return store.Origin{}, err
			}
			return e.prove(ctx, p, pkg.Manifest(), r, downgrade)
		},
	})
}

// prove decides about a package of which every byte was read.
func (e *Engine) prove(ctx context.Context, p proof, m *pack.Manifest, r *Request, downgrade bool) (o store.Origin, err error) {
	if err := p.Verify(); err != nil {
		return o, err
	}
	rel := p.Release()
	if m.Name != "" && m.Name != rel.Name || m.Version != "" && m.Version != rel.Version {
		return o, pack.RefuseManifest(fmt.Errorf("it says %s %s, and the signature %s", m.Name, m.Version, described(rel)))
	}
	if e.o.Self && m.Health == nil { // it has to run at the very least
		m.Health = &pack.Health{Command: []string{"bin/mobileops", "version"}, Deadline: 20 * time.Second}
	}
	from := r.Path
	if r.Listed != nil {
		from = r.Listed.Source
	}
	o = store.Origin{Name: rel.Name, Version: rel.Version, Sequence: rel.Sequence, Channel: rel.Channel, Expires: rel.Expires, Digest: p.Digest(), Key: p.by(), From: from}
	// Somebody may have applied a newer one since admit.
	if _, err := e.newest(ctx, rel.Name, rel.Channel, rel.Sequence); err != nil && !(downgrade && errors.Is(err, ErrDowngrade)) {
		return o, err
	}
	if r.Change != "" {
		err := e.o.State.View(ctx, func(tx *state.Tx) error { return e.authorize(tx, r.Change, o, downgrade) })
		if err != nil {
			return o, err
		}
	}
	return o, nil
}

func (e *Engine) authorize(tx *state.Tx, id string, o store.Origin, downgrade bool) error {
	return change.Authorize(tx, id, change.Wanted{Digest: o.Digest, Name: o.Name, Version: o.Version, Downgrade: downgrade, Host: e.o.Host}, e.now())
}
