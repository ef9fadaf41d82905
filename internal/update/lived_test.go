package update_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/mobileops/mobileops/internal/update/store"
)

// person is somebody who logged in under an account of their own.
func person(uid int64) change.Identity {
	return change.Identity{Actor: audit.Actor{UID: int(uid), LoginUID: uid}}
}

// changes runs fn in a transaction of the state that the engine has.
func (s *site) changes(fn func(tx *state.Tx) error) {
	s.Helper()
	if err := state.New(s.dir+"/state", state.Options{}).Update(context.Background(), fn); err != nil {
		s.Fatal(err)
	}
}

// approved asks for a change about a package, and has it approved unless it is
// an emergency.
func (s *site) approved(path string, emergency bool) (id string) {
	s.Helper()
	f, err := os.Open(path)
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	digest, err := change.Digest(context.Background(), f)
	if err != nil {
		s.Fatal(err)
	}
	s.changes(func(tx *state.Tx) error {
		c, err := change.Request(tx, change.Change{Kind: change.Update, Digest: digest, Risk: change.Medium, Reason: "a test", Until: s.now.Add(time.Hour), Emergency: emergency, Requester: person(1001), Required: 1}, nil, s.now)
		if err != nil {
			return err
		}
		id = c.ID
		if !emergency {
			_, err = change.Approve(tx, id, change.Consent{By: person(1002)}, nil, s.now)
		}
		return err
	})
	return id
}

func (s *site) reject(id string) {
	s.Helper()
	s.changes(func(tx *state.Tx) error {
		_, err := change.Reject(tx, id, person(1002), "no", nil, s.now)
		return err
	})
}

// What failed its trial was never accepted: a change that was refused since, an
// older package or a way back do not bring it into force.
func TestFailedTrialIsNoAcceptance(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	first := s.pack(1, "", files{"a": "1"})
	s.apply(first)
	s.opts = func(o *update.Options) { o.RequireChange = true }
	s.touch("sick")
	path := s.hooked(2, "2")
	id := s.approved(path, false)
	if _, err := s.engine().Apply(ctx, update.Request{Path: path, Change: id}, nil); !errors.Is(err, update.ErrUnhealthy) {
		t.Fatal(err)
	}
	if err := os.Remove(s.dir + "/sick"); err != nil {
		t.Fatal(err)
	}
	s.reject(id)
	if _, err := s.engine().Activate(ctx, 2, nil); !errors.Is(err, change.ErrRefused) {
		t.Errorf("activated although its change was rejected: %v", err)
	}
	if _, err := s.engine().Rollback(ctx, 2, nil); err == nil {
		t.Error("went back to what never stayed")
	}
	s.is(files{"a": "1"})

	s.opts = nil
	s.apply(s.pack(3, "", files{"a": "3"}))
	if err := os.RemoveAll(s.dir + "/app.store/generations/1"); err != nil {
		t.Fatal(err)
	}
	if r, err := s.engine().Rollback(ctx, 0, nil); err == nil {
		t.Errorf("went back to %d, which never stayed", r.Generation.Number)
	}

	// Nor is it a way around the downgrade that nobody approved.
	id = s.approved(path, false)
	if r, err := s.engine().Apply(ctx, update.Request{Path: path, AllowDowngrade: true, Change: id}, nil); err == nil {
		t.Fatalf("a change of kind update permitted a downgrade: %+v", r)
	}
	if _, err := s.engine().Activate(ctx, 2, nil); err == nil {
		t.Error("an older one that was never accepted became current")
	}
}

// The first package on an adopted tree fails: its sequence is not accepted.
func TestFailedFirstIsNoAcceptance(t *testing.T) {
	s := newSite(t)
	if err := errors.Join(os.Mkdir(s.target(), 0o755), os.WriteFile(s.target()+"/a", []byte("0"), 0o644)); err != nil {
		t.Fatal(err)
	}
	s.touch("sick")
	if _, err := s.engine().Apply(context.Background(), update.Request{Path: s.hooked(5, "5")}, nil); !errors.Is(err, update.ErrUnhealthy) {
		t.Fatal(err)
	}
	s.apply(s.pack(4, "", files{"a": "4"}))
	s.is(files{"a": "4"})
}

// Going back to an emergency change that was refused since is told.
func TestRollbackToWhatWasRefused(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	s.apply(s.pack(1, "", files{"a": "1"}))
	path := s.pack(2, "", files{"a": "2"})
	id := s.approved(path, true)
	if _, err := s.engine().Apply(ctx, update.Request{Path: path, Change: id}, nil); err != nil {
		t.Fatal(err)
	}
	rule := func() (rule string) {
		s.changes(func(tx *state.Tx) error {
			c, err := change.Get(tx, id)
			if err == nil {
				rule = c.Rule(s.now)
			}
			return err
		})
		return rule
	}
	if _, err := s.engine().Rollback(ctx, 0, nil); err != nil {
		t.Fatal(err)
	}
	s.reject(id)
	if got := rule(); got != "" {
		t.Errorf("rolled back and rejected: %q", got)
	}
	if _, err := s.engine().Rollback(ctx, 2, nil); err != nil {
		t.Fatal(err)
	}
	if got := rule(); got != change.RuleRejected {
		t.Errorf("in force again: %q", got)
	}
	if _, err := s.engine().Rollback(ctx, 1, nil); err != nil {
		t.Fatal(err)
	}
	if got := rule(); got != "" {
		t.Errorf("rolled back again: %q", got)
	}
}

// An old state.db that was restored opens no way back, and takes none.
func TestOldStateRestored(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	first, second := s.pack(1, "", files{"a": "1"}), s.pack(2, "", files{"a": "2"})
	s.apply(first)
	st := state.New(s.dir+"/state", state.Options{})
	if err := st.Backup(ctx, s.dir+"/old", false); err != nil {
		t.Fatal(err)
	}
	s.apply(second)
	s.apply(s.pack(3, "", files{"a": "3"}))
	if _, err := s.engine().Rollback(ctx, 1, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Restore(ctx, s.dir+"/old"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.engine().Apply(ctx, update.Request{Path: second}, nil); !errors.Is(err, update.ErrDowngrade) {
		t.Errorf("2 after 3: %v", err)
	}
	if _, err := s.engine().Rollback(ctx, 3, nil); err != nil {
		t.Error(err)
	}
}

// Whatever Rollback goes to is not pruned, also where that is not what the
// current generation was made from.
func TestPruneLeavesWhatRollbackGoesTo(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	for n := uint64(1); n <= 4; n++ {
		s.apply(s.pack(n, "", files{"a": string(rune('0' + n))}))
	}
	if _, err := s.engine().Activate(ctx, 1, nil); err != nil {
		t.Fatal(err)
	}
	back, err := s.engine().Before(ctx)
	if err != nil || back != 4 {
		t.Fatalf("%d, %v", back, err)
	}
	p, err := s.engine().Prune(ctx, 0, nil)
	if err != nil || !slices.Equal(p.Generations, []int{2, 3}) {
		t.Errorf("%+v, %v", p, err)
	}
	if r, err := s.engine().Rollback(ctx, 0, nil); err != nil || r.Generation.Number != 4 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := s.engine().Before(ctx); err != nil && !errors.Is(err, store.ErrMissing) {
		t.Error(err)
	}
}

// A long history says the same as a short one.
func TestRollbackByALongHistory(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	for n := uint64(1); n <= 3; n++ {
		s.apply(s.pack(n, "", files{"a": string(rune('0' + n))}))
	}
	if _, err := s.engine().Activate(ctx, 1, nil); err != nil { // 1 2 3 1
		t.Fatal(err)
	}
	for range 150 { // 300 events, and none of them tells where 1 was come from
		if _, err := s.engine().Activate(ctx, 2, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.engine().Rollback(ctx, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{3, 2, 1} {
		if r, err := s.engine().Rollback(ctx, 0, nil); err != nil || r.Generation.Number != want {
			t.Fatalf("%+v, %v; want %d", r, err, want)
		}
	}
}

// What expired once stays so, though something was written down under a clock that
// was set back: for what is applied, and for what lies staged.
func TestTheLatestMomentStays(t *testing.T) {
	for name, forget := range map[string]bool{"as it is now": false, "a state.db of before": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			ctx := context.Background()
			began := s.now
			rel := func(sequence uint64) trust.Release {
				return trust.Release{Name: "platform", Version: "2", Sequence: sequence, Channel: "stable", Expires: began.Add(time.Hour)}
			}
			s.apply(s.pack(1, "", files{"a": "1"}))
			staged, err := s.engine().Apply(ctx, update.Request{Path: s.packAs(rel(2), "", files{"a": "2"}), StageOnly: true}, nil)
			s.must(err)
			for _, at := range []time.Duration{2 * time.Hour, -48 * time.Hour} {
				s.now = began.Add(at)
				_, err := s.engine().Backup(ctx, "a clock", new(update.Notice))
				s.must(err)
			}
			if forget {
				s.changes(func(tx *state.Tx) error {
					b := tx.Bucket([]byte("update"))
					if b.Get([]byte("seen")) == nil {
						t.Error("nothing to forget")
					}
					return b.Delete([]byte("seen"))
				})
			}
			if _, err := s.engine().Apply(ctx, update.Request{Path: s.packAs(rel(3), "", files{"a": "3"})}, nil); trust.CodeOf(err) != trust.CodeExpired {
				t.Errorf("apply: %v", err)
			}
			if _, err := s.engine().Activate(ctx, staged.Generation.Number, nil); trust.CodeOf(err) != trust.CodeExpired {
				t.Errorf("activate: %v", err)
			}
			s.is(files{"a": "1"})
			s.apply(s.packAs(trust.Release{Name: "platform", Version: "4", Sequence: 4, Channel: "stable", Expires: began.AddDate(0, 1, 0)}, "", files{"a": "4"}))
		})
	}
}

// What was staged by a key that was removed since, or limited, is not activated;
// what was accepted already can be gone back to.
func TestStagedByAKeyThatWent(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	s.apply(s.pack(1, "", files{"a": "1"}))
	s.apply(s.pack(2, "", files{"a": "2"}))
	staged, err := s.engine().Apply(ctx, update.Request{Path: s.pack(3, "", files{"a": "3"}), StageOnly: true}, nil)
	s.must(err)
	key := s.keys.List()[0]
	refused := func(why string) {
		t.Helper()
		_, err := s.engine().Activate(ctx, staged.Generation.Number, nil)
		if failure.KindOf(err) != failure.Untrustworthy || !strings.Contains(err.Error(), why) {
			t.Errorf("%v", err)
		}
		s.is(files{"a": "2"})
	}
	_, err = s.keys.Remove(key.ID())
	s.must(err)
	refused("signed by the key " + key.ID() + ", which is not trusted here any more")
	for _, scope := range []trust.Scope{{Names: []string{"other"}}, {Channels: []string{"other"}}} {
		_, err = s.keys.Add(key.PublicKey, scope)
		s.must(err)
		refused("trusted only for others")
		_, err = s.keys.Remove(key.ID())
		s.must(err)
	}
	_, err = s.engine().Rollback(ctx, 0, nil)
	s.must(err)
	_, err = s.engine().Activate(ctx, 2, nil)
	s.must(err)
	_, err = s.keys.Add(key.PublicKey, trust.Scope{Names: []string{"platform"}, Channels: []string{"stable"}})
	s.must(err)
	_, err = s.engine().Activate(ctx, staged.Generation.Number, nil)
	s.must(err)
	s.is(files{"a": "3"})
}

// A change that is in no state.db any more keeps nobody from going on.
func TestActivateWithoutItsChange(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	s.apply(s.pack(1, "", files{"a": "1"}))
	path := s.pack(2, "", files{"a": "2"})
	_, err := s.engine().Apply(ctx, update.Request{Path: path, Change: s.approved(path, false)}, nil)
	s.must(err)
	_, err = s.engine().Rollback(ctx, 0, nil)
	s.must(err, os.RemoveAll(s.dir+"/state"))
	s.now = s.now.Add(time.Minute)
	if r, err := s.engine().Activate(ctx, 2, nil); err != nil || !r.Live {
		t.Errorf("%+v, %v", r, err)
	}
	if ev := s.last(); ev.Kind != update.EventActivate || ev.To != 2 {
		t.Errorf("%+v", ev)
	}
}

// Activating an older generation is going back, for the change of the one that is
// left.
func TestActivateAnOlderOne(t *testing.T) {
	s := newSite(t)
	ctx := context.Background()
	s.apply(s.pack(1, "", files{"a": "1"}))
	path := s.pack(2, "", files{"a": "2"})
	id := s.approved(path, false)
	outcome := func() (o change.Outcome) {
		s.changes(func(tx *state.Tx) error {
			c, err := change.Get(tx, id)
			if err == nil && len(c.Uses) > 0 {
				o = c.Uses[len(c.Uses)-1].Outcome
			}
			return err
		})
		return o
	}
	_, err := s.engine().Apply(ctx, update.Request{Path: path, Change: id}, nil)
	s.must(err)
	if got := outcome(); got != change.Live {
		t.Errorf("applied: %q", got)
	}
	s.apply(s.pack(3, "", files{"a": "3"})) // made from it, so it is still in force
	if got := outcome(); got != change.Live {
		t.Errorf("overtaken: %q", got)
	}
	_, err = s.engine().Rollback(ctx, 0, nil)
	s.must(err)
	_, err = s.engine().Activate(ctx, 1, nil)
	s.must(err)
	if got := outcome(); got != change.RolledBack {
		t.Errorf("left: %q", got)
	}
	_, err = s.engine().Activate(ctx, 2, nil)
	s.must(err)
	if got := outcome(); got != change.Live {
		t.Errorf("forward again: %q", got)
	}
}
