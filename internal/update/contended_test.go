package update_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/update"
)

// TestTwoAtOnce: the second one is told who is at work, and changes nothing.
func TestTwoAtOnce(t *testing.T) {
	s := newSite(t)
	s.apply(s.pack(1, "", files{"a": "1"}))
	second, third := s.pack(2, "", files{"a": "2"}), s.pack(3, "", files{"a": "3"})
	tried := false
	_, err := s.engineStepping(func(step string) {
		if step != "made" {
			return
		}
		tried = true
		for name, fn := range map[string]func(e *update.Engine) error{
			"apply": func(e *update.Engine) error {
				return ignore(e.Apply(context.Background(), update.Request{Path: third}, nil))
			},
			"rollback": func(e *update.Engine) error { return ignore(e.Rollback(context.Background(), 0, nil)) },
			"activate": func(e *update.Engine) error { return ignore(e.Activate(context.Background(), 1, nil)) },
			"backup":   func(e *update.Engine) error { return ignore(e.Backup(context.Background(), "", new(update.Notice))) },
			"prune":    func(e *update.Engine) error { return ignore(e.Prune(context.Background(), 0, new(update.Notice))) },
		} {
			err := s.unchanged(name, func() error { return fn(s.engine()) })
			var held *state.HeldError
			if !errors.As(err, &held) || failure.KindOf(err) != failure.Busy || held.Holder.PID != os.Getpid() || !strings.Contains(err.Error(), "a test is under way") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}).Apply(context.Background(), update.Request{Path: second}, nil)
	if err != nil || !tried {
		t.Fatalf("tried %v, %v", tried, err)
	}
	s.is(files{"a": "2"})
	s.verified()
}

func ignore[T any](_ T, err error) error { return err }

// TestManyAtOnce lets many processes apply, go back and prune, while others read
// what is live: it is never a mixture.
func TestManyAtOnce(t *testing.T) {
	s := newSite(t)
	const config = "kind: full\nconfig: ['etc/**']\n"
	trees := map[string]files{}
	var packages []string
	for n := uint64(1); n <= 12; n++ {
		variant := fmt.Sprint("v", n)
		trees[variant] = large(variant, 24)
		packages = append(packages, s.pack(n, config, trees[variant]))
	}
	s.apply(packages[0])
	var over atomic.Bool
	var readers, writers sync.WaitGroup
	var reads, busy, done atomic.Int64
	for range 2 {
		readers.Go(func() {
			for !over.Load() {
				// One tree is opened, and read as it is, whatever is switched meanwhile.
				at, err := filepath.EvalSymlinks(s.target())
				if err != nil {
					t.Error(err)
					return
				}
				version, err := os.ReadFile(at + "/version")
				if errors.Is(err, os.ErrNotExist) { // pruned
					continue
				}
				for name, want := range trees[string(version)] {
					name, _, _ = strings.Cut(name, " ")
					if got, err := os.ReadFile(at + "/" + name); string(got) != want && !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s of %s has something else: %v", name, version, err)
						return
					}
				}
				reads.Add(1)
			}
		})
	}
	for w := range 6 {
		writers.Go(func() {
			for i := range 8 {
				op := "apply " + packages[(w*8+i)%len(packages)]
				switch (w + i) % 5 {
				case 3:
					op = "rollback"
				case 4:
					op = "prune"
				}
				cmd, out := s.process(op, "")
				var exit *exec.ExitError
				switch err := cmd.Run(); {
				case err == nil:
					done.Add(1)
				case !errors.As(err, &exit) || exit.ExitCode() != 3:
					t.Errorf("%s: %v: %s", op, err, out)
				case strings.Contains(out.String(), "is under way"), strings.Contains(out.String(), "holds the lock"):
					busy.Add(1)
				case !strings.Contains(out.String(), "downgrade") && !strings.Contains(out.String(), "nothing before"):
					t.Errorf("%s: %s", op, out)
				}
			}
		})
	}
	writers.Wait()
	over.Store(true)
	readers.Wait()
	got := s.tree()
	if !maps.Equal(got, trees[got["version"]]) {
		t.Errorf("in the end live is a mixture: %v", got)
	}
	s.verified()
	if done.Load() < 3 || busy.Load() == 0 || reads.Load() == 0 {
		t.Errorf("%d done, %d busy, %d reads", done.Load(), busy.Load(), reads.Load())
	}
	t.Logf("%d done, %d busy, %d reads", done.Load(), busy.Load(), reads.Load())
}
