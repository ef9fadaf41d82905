package update_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/mobileops/mobileops/internal/update/store"
)

// damage is something that a disk or a hand has done to a store of three
// generations, of which the third is current.
type damage struct {
	do func(s *site)
	// How verbs end: "ok" or the kind of the error. A verify that finds something
	// is untrustworthy.
	list, verify, rollback, rollbackTo1, prune, apply string
	says                                              string // is in every error
	repair                                            func(s *site)
	live                                              string // content afterwards; "": only after the next command
}

const (
	fine          = "ok"
	untrustworthy = "status 5"
)

// all says that every verb is refused.
func (d damage) all() damage {
	d.list, d.verify, d.rollback, d.rollbackTo1, d.prune, d.apply = untrustworthy, untrustworthy, untrustworthy, untrustworthy, untrustworthy, untrustworthy
	return d
}

func (s *site) at(path string) string { return s.dir + "/app.store/" + path }

// current replaces the link by which the installation is switched.
func (s *site) current(fn func(path string) error) {
	s.Helper()
	s.must(os.Remove(s.at("current")), fn(s.at("current")))
}

// goTo1 is what the message says when the current generation is damaged.
func goTo1(s *site) {
	s.Helper()
	if _, err := s.engine().Rollback(context.Background(), 1, nil); err != nil {
		s.Errorf("rollback --to 1: %v", err)
	}
}

func relink(s *site) {
	s.Helper()
	_ = os.Rename(s.at("current"), s.at("current.damaged"))
	s.must(os.Symlink("generations/2/tree", s.at("current")))
}

func again(*site) {}

func damages() map[string]damage {
	flip := func(path string) func(*site) {
		return func(s *site) {
			data, err := os.ReadFile(s.at(path))
			s.must(err)
			data[len(data)/2] ^= 1
			s.must(os.WriteFile(s.at(path), data, 0o644))
		}
	}
	cut := func(path string) func(*site) { return func(s *site) { s.must(os.Truncate(s.at(path), 100)) } }
	gone := func(path string) func(*site) {
		return func(s *site) {
			if _, err := os.Lstat(s.at(path)); err != nil {
				s.Fatal(err)
			}
			s.must(os.RemoveAll(s.at(path)))
		}
	}
	// The current generation cannot be made anything from, and is left by its number.
	left := damage{list: untrustworthy, verify: untrustworthy, rollback: untrustworthy, rollbackTo1: fine, prune: untrustworthy, apply: untrustworthy,
		says: "rollback --to 2", repair: goTo1, live: "1"}
	// Its manifest is needed to make another one from it, or to verify it.
	noManifest := damage{list: fine, verify: untrustworthy, rollback: fine, rollbackTo1: fine, prune: fine, apply: untrustworthy,
		says: "rollback --to 2", repair: func(s *site) {
			if _, err := s.engine().Rollback(context.Background(), 0, nil); err != nil {
				s.Errorf("rollback: %v", err)
			}
		}, live: "2"}
	// One that is not current can be let go.
	base := damage{list: untrustworthy, verify: untrustworthy, rollback: fine, rollbackTo1: fine, prune: fine, apply: fine, repair: again, live: "3"}
	link := damage{says: "ln -s generations/N/tree", repair: relink, live: "2"}
	target := damage{list: fine, verify: untrustworthy, rollback: untrustworthy, rollbackTo1: untrustworthy, prune: fine, apply: untrustworthy,
		says: "move away what is there and run the command again", repair: func(s *site) { s.must(os.Rename(s.target(), s.target()+".away")) }}
	with := func(d damage, do func(*site)) damage { d.do = do; return d }
	baseManifest := with(base, gone("generations/2/manifest"))
	baseManifest.list = fine
	return map[string]damage{
		"current is a file":           with(link, func(s *site) { s.current(func(p string) error { return os.WriteFile(p, nil, 0o644) }) }).all(),
		"current is a directory":      with(link, func(s *site) { s.current(func(p string) error { return os.Mkdir(p, 0o755) }) }).all(),
		"current is gone":             with(link, gone("current")).all(),
		"current leads to etc":        with(link, func(s *site) { s.current(func(p string) error { return os.Symlink("../../etc", p) }) }).all(),
		"current leads to 02":         with(link, func(s *site) { s.current(func(p string) error { return os.Symlink("generations/02/tree", p) }) }).all(),
		"current leads nowhere":       with(damage{list: untrustworthy, verify: untrustworthy, rollback: untrustworthy, rollbackTo1: fine, prune: untrustworthy, apply: untrustworthy, says: "rollback --to 3", repair: goTo1, live: "1"}, func(s *site) { s.current(func(p string) error { return os.Symlink("generations/9/tree", p) }) }),
		"the manifest is gone":        with(noManifest, gone("generations/3/manifest")),
		"the manifest is cut":         with(noManifest, cut("generations/3/manifest")),
		"a bit of the manifest":       with(noManifest, flip("generations/3/manifest")),
		"the manifest of the base":    baseManifest,
		"the description is gone":     with(left, gone("generations/3/generation.json")),
		"the description is cut":      with(left, cut("generations/3/generation.json")),
		"the base has no description": with(base, gone("generations/2/generation.json")),
		"the base's is cut":           with(base, cut("generations/2/generation.json")),
		"the current one is gone":     with(left, gone("generations/3")),
		"its tree is gone":            with(left, gone("generations/3/tree")),
		"the base is gone":            with(damage{list: fine, verify: fine, rollback: fine, rollbackTo1: fine, prune: fine, apply: fine, repair: again, live: "3"}, gone("generations/2")),
		"the target is a directory":   with(target, func(s *site) { s.must(os.Remove(s.target()), os.Mkdir(s.target(), 0o755)) }),
		"the target is another link":  with(target, func(s *site) { s.must(os.Remove(s.target()), os.Symlink("/etc", s.target())) }),
		"the target is gone": with(damage{list: fine, verify: untrustworthy, rollback: fine, rollbackTo1: fine, prune: fine, apply: fine, says: "ln -s app.store/current ",
			repair: func(s *site) { s.must(os.Symlink("app.store/current", s.target())) }, live: "3"}, func(s *site) { s.must(os.Remove(s.target())) }),
		"the format is newer": damage{do: func(s *site) {
			s.must(os.WriteFile(s.at("format"), []byte(`{"schema":"mobileops.update.store/v2"}`), 0o644))
		}, says: "newer mobileops", repair: format, live: "3"}.all(),
		"the format is gone": damage{do: gone("format"), says: "write it anew: echo", repair: format, live: "3"}.all(),
		"the blobs are gone": with(damage{list: fine, verify: "status 1", rollback: fine, rollbackTo1: fine, prune: fine, apply: fine, repair: again, live: "3"}, gone("blobs")),
		"tmp is gone":        with(damage{list: fine, verify: fine, rollback: fine, rollbackTo1: fine, prune: fine, apply: fine, repair: again, live: "3"}, gone("tmp")),
	}
}

func format(s *site) {
	s.Helper()
	s.must(os.WriteFile(s.at("format"), fmt.Appendf(nil, `{"schema":"mobileops.update.store/v1","target":"%s"}`+"\n", s.target()), 0o644))
}

// verbs are what is tried on a store, each on one of its own.
func (s *site) verbs(next string) map[string]func() error {
	ctx, e := context.Background(), s.engine()
	return map[string]func() error{
		"list": func() error {
			list, err := e.Store().List()
			for _, g := range list {
				if g.Damaged != "" {
					_, bad := e.Store().Generation(g.Number)
					return errors.Join(err, bad)
				}
			}
			return err
		},
		"verify": func() error {
			list, err := e.Store().List()
			if err != nil {
				return err
			}
			var numbers []int
			for _, g := range list {
				numbers = append(numbers, g.Number)
			}
			v, err := e.Verify(ctx, numbers, nil)
			if err != nil {
				return err
			}
			if v.Replaced != nil {
				return v.Replaced
			}
			if v.Kind() == 0 {
				return nil
			}
			return failure.Errorf(v.Kind(), "%v", v.Differences)
		},
		"rollback":        func() error { return ignore(e.Rollback(ctx, 0, nil)) },
		"rollback --to 1": func() error { return ignore(e.Rollback(ctx, 1, nil)) },
		"prune":           func() error { return ignore(e.Prune(ctx, 0, nil)) },
		"apply":           func() error { return ignore(e.Apply(ctx, update.Request{Path: next}, nil)) },
	}
}

// TestDamage: each verb says what is wrong with a store, never makes it worse, and
// after what it says to do everything works again.
func TestDamage(t *testing.T) {
	for name, d := range damages() {
		t.Run(name, func(t *testing.T) {
			for verb, want := range map[string]string{"list": d.list, "verify": d.verify, "rollback": d.rollback, "rollback --to 1": d.rollbackTo1, "prune": d.prune, "apply": d.apply} {
				s := newSite(t)
				for i := range uint64(3) {
					s.apply(s.pack(i+1, "", files{"a": fmt.Sprint(i + 1), "b": "same"}))
				}
				next := s.pack(4, "", files{"a": "4"})
				d.do(s)
				before := s.numbers()
				err := s.verbs(next)[verb]()
				kind := fine
				if err != nil {
					kind = fmt.Sprint("status ", int(failure.KindOf(err)))
					if !strings.Contains(err.Error(), d.says) {
						t.Errorf("%s does not say %q: %v", verb, d.says, err)
					}
				}
				if kind != want {
					t.Errorf("%s: %s, not %s: %v", verb, kind, want, err)
				}
				after := s.numbers()
				if err != nil && verb != "list" && verb != "verify" && !slices.Equal(before, after) {
					t.Errorf("%s failed, and of %v is left %v", verb, before, after)
				}
				if err == nil || verb != "apply" {
					continue
				}
				d.repair(s)
				if d.live != "" {
					s.is(files{"a": d.live, "b": "same"})
				}
				s.works(next)
			}
			s := newSite(t)
			for i := range uint64(3) {
				s.apply(s.pack(i+1, "", files{"a": fmt.Sprint(i + 1), "b": "same"}))
			}
			d.do(s)
			d.repair(s)
			s.works(s.pack(4, "", files{"a": "4"}))
		})
	}
}

func (s *site) numbers() []int {
	s.Helper()
	numbers, err := s.engine().Store().Numbers()
	s.must(err)
	return numbers
}

// works applies a package, goes back and forth, and prunes what is not whole.
func (s *site) works(next string) {
	s.Helper()
	ctx, e := context.Background(), s.engine()
	res := s.apply(next)
	s.is(files{"a": "4", "b": "same"})
	_, err := e.Rollback(ctx, 0, nil)
	s.must(err)
	_, err = e.Activate(ctx, res.Generation.Number, nil)
	s.must(err)
	list, err := e.Store().List()
	s.must(err)
	pruned, err := e.Prune(ctx, 0, nil)
	s.must(err)
	for _, g := range list {
		if g.Damaged != "" && !slices.Contains(pruned.Generations, g.Number) {
			s.Errorf("generation %d, which is damaged, stays after %+v", g.Number, pruned)
		}
	}
	if _, err := e.Store().Generation(res.Generation.Number); err != nil {
		s.Error(err)
	}
	list, err = e.Store().List()
	s.must(err)
	for _, g := range list {
		if err := e.Store().Entries(g.Number, func(*store.Entry) error { return nil }); !errors.Is(err, store.ErrDamaged) {
			s.must(err)
			if v, err := e.Verify(ctx, []int{g.Number}, nil); err != nil || v.Kind() != 0 {
				s.Errorf("verify of %d: %+v, %v", g.Number, v, err)
			}
		}
	}
	s.is(files{"a": "4", "b": "same"})
}

// TestDamagedAndPinned: prune leaves a generation that somebody pinned though it
// cannot be read, until it is let go.
func TestDamagedAndPinned(t *testing.T) {
	s := newSite(t)
	for i := range uint64(3) {
		s.apply(s.pack(i+1, "", files{"a": fmt.Sprint(i + 1)}))
	}
	ctx, e := context.Background(), s.engine()
	s.must(e.Pin(ctx, 1, &store.Pin{Reason: "evidence"}, nil), os.Remove(s.at("generations/1/generation.json")))
	if p, err := e.Prune(ctx, 0, nil); err != nil || len(p.Generations) > 0 {
		t.Fatalf("pruned %+v, %v", p, err)
	}
	if err := e.Pin(ctx, 1, &store.Pin{}, nil); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("pinned what cannot be read: %v", err)
	}
	s.must(e.Pin(ctx, 1, nil, nil))
	if p, err := e.Prune(ctx, 0, nil); err != nil || !slices.Equal(p.Generations, []int{1}) {
		t.Fatalf("pruned %+v, %v", p, err)
	}
}
