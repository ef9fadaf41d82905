package update_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/update"
)

const hookScript = "#!/bin/sh\necho \"$MOBILEOPS_UPDATE_PHASE $MOBILEOPS_UPDATE_FROM $MOBILEOPS_UPDATE_TO\" >>\"%s/hooks.log\"\ntest ! -e \"%s/fail-$MOBILEOPS_UPDATE_PHASE\"\n"

// hooked is a package with hooks and a health check that fail when a file says so.
// Only a check that will fail is given up soon: a busy machine may take its time to
// run one.
func (s *site) hooked(sequence uint64, content string) string {
	script, deadline := strings.ReplaceAll(hookScript, "%s", s.dir), "2m"
	if s.there("sick")() {
		deadline = "2s"
	}
	return s.pack(sequence, "hooks: {before: {command: [.mobileops/hooks/h]}, after: {command: [.mobileops/hooks/h]}}\nhealth: {command: [check], deadline: "+deadline+"}\n",
		files{".mobileops/hooks/h 755": script, "a": content, "check 755": "#!/bin/sh\necho health >>\"" + s.dir + "/hooks.log\"\ntest ! -e \"" + s.dir + "/sick\"\n"})
}

// log returns what hooks and checks have written, and forgets it.
func (s *site) log() string {
	data, _ := os.ReadFile(s.dir + "/hooks.log")
	_ = os.Remove(s.dir + "/hooks.log")
	return string(data)
}

func (s *site) touch(name string) {
	s.Helper()
	if err := os.WriteFile(s.dir+"/"+name, nil, 0o644); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { os.Remove(s.dir + "/" + name) })
}

func TestTrialPasses(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(1, "", files{"a": "1"}))
	s.apply(s.hooked(2, "2"))
	if got := s.log(); got != "before 1 2\nafter 1 2\nhealth\n" {
		t.Errorf("hooks: %q", got)
	}
	if p, err := s.engine().Pending(); p != nil || err != nil {
		t.Errorf("still on trial: %v, %v", p, err)
	}
	if _, err := s.engine().Rollback(context.Background(), 0, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.log(); got != "rollback 2 1\n" {
		t.Errorf("hooks of the rollback: %q", got)
	}
}

func TestTrialFails(t *testing.T) {
	for _, fail := range []string{"fail-before", "fail-after", "sick"} {
		t.Run(fail, func(t *testing.T) {
			s := newSite(t)
			s.apply(s.pack(1, "", files{"a": "1"}))
			s.touch(fail)
			r, err := s.engine().Apply(context.Background(), update.Request{Path: s.hooked(2, "2")}, nil)
			want := map[string]error{"fail-before": update.ErrHook, "fail-after": update.ErrHook, "sick": update.ErrUnhealthy}[fail]
			if !errors.Is(err, want) {
				t.Fatalf("%v", err)
			}
			s.is(files{"a": "1"})
			if undone := r.Undone != ""; undone != (fail != "fail-before") || r.Live {
				t.Errorf("%+v", r)
			}
			if p, err := s.engine().Pending(); p != nil || err != nil {
				t.Errorf("still on trial: %v, %v", p, err)
			}
			// It never was accepted, so what comes before it still can be.
			list, err := s.engine().Accepted(context.Background())
			if err != nil || len(list) != 1 || list[0].Sequence != 1 {
				t.Errorf("accepted %+v, %v", list, err)
			}
			s.verified()
		})
	}
}

// TestBrokenOffTrial: a process that is killed on trial leaves the decision to
// who comes next.
func TestBrokenOffTrial(t *testing.T) {
	for name, sick := range map[string]bool{"it works": false, "it does not": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.apply(s.pack(1, "", files{"a": "1"}))
			s.log()
			p := s.hooked(2, "2")
			if cmd, out := s.process("apply "+p, "switched"); cmd.Run() == nil {
				t.Fatalf("it was not killed: %s", out)
			}
			if pending, err := s.engine().Pending(); err != nil || pending == nil || pending.From != 1 || pending.To != 2 {
				t.Fatalf("%+v, %v", pending, err)
			}
			if sick {
				s.touch("sick")
				s.now = s.now.Add(time.Hour) // no time is left, and it has a second chance
			}
			// An interruption does not keep the host where it cannot stay.
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			pending, res, err := s.engine().Resolve(ctx, &update.Notice{Phase: func(words string) {
				if strings.HasPrefix(words, "going back") {
					cancel()
				}
			}})
			if err != nil || pending == nil || (res.Undone != "") != sick {
				t.Fatalf("%+v, %+v, %v", pending, res, err)
			}
			if sick {
				s.is(files{"a": "1"})
			} else if got := s.tree()["a"]; got != "2" {
				t.Errorf("a is %q", got)
			}
			if !strings.Contains(s.log(), "health\n") {
				t.Error("nobody looked at its health")
			}
			if pending, _, err := s.engine().Resolve(context.Background(), new(update.Notice)); pending != nil || err != nil {
				t.Errorf("again: %v, %v", pending, err)
			}
			s.verified()
		})
	}
}

func TestInterruptedTrial(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(1, "", files{"a": "1"}))
	path := s.hooked(2, "2")
	s.touch("sick")
	ctx, cancel := context.WithCancel(context.Background())
	n := &update.Notice{Phase: func(words string) {
		if strings.HasPrefix(words, "health") {
			time.AfterFunc(100*time.Millisecond, cancel)
		}
	}}
	if r, err := s.engine().Apply(ctx, update.Request{Path: path}, n); !errors.Is(err, context.Canceled) || r.Undone == "" {
		t.Errorf("%+v, %v", r, err)
	}
	s.is(files{"a": "1"})
	s.verified()
}

// TestRollbackEndsTheTrial: nobody waits for a check at three in the morning.
func TestRollbackEndsTheTrial(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(1, "", files{"a": "1"}))
	if cmd, out := s.process("apply "+s.hooked(2, "2"), "switched"); cmd.Run() == nil {
		t.Fatalf("it was not killed: %s", out)
	}
	if _, err := s.engine().Rollback(context.Background(), 0, nil); err != nil {
		t.Fatal(err)
	}
	s.is(files{"a": "1"})
	s.verified()
}
