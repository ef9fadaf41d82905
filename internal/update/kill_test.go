package update_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/update"
)

// TestMain is also the process that tests kill.
func TestMain(m *testing.M) {
	if op := os.Getenv("UPDATE_TEST_OP"); op != "" {
		if err := child(op); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child does one thing to a site, and kills itself at the step that it is told:
// NAME, or NAME:N for the N-th time.
func child(op string) error {
	s := &site{dir: os.Getenv("UPDATE_TEST_DIR"), now: time.Now().UTC()}
	at, count, _ := strings.Cut(os.Getenv("UPDATE_TEST_KILL"), ":")
	nth, _ := strconv.Atoi(count)
	e := s.engineStepping(func(name string) {
		fmt.Println(name)
		if name == at {
			if nth--; nth <= 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
	})
	verb, arg, _ := strings.Cut(op, " ")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch verb {
	case "apply":
		_, err = e.Apply(ctx, update.Request{Path: arg}, nil)
	case "rollback":
		_, err = e.Rollback(ctx, 0, nil)
	case "prune":
		_, err = e.Prune(ctx, 1, new(update.Notice))
	case "hold":
		if _, err = e.Store().Existing(ctx, "a test"); err == nil {
			<-ctx.Done()
		}
	case "reconcile":
		_, _, err = e.Resolve(ctx, new(update.Notice))
	default:
		err = errors.New("no such operation")
	}
	return err
}

// process starts a child.
func (s *site) process(op, kill string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "UPDATE_TEST_OP="+op, "UPDATE_TEST_DIR="+s.dir, "UPDATE_TEST_KILL="+kill)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

// large is a tree with n files, of which every third differs between variants.
func large(variant string, n int) files {
	tree := files{"version": variant}
	for i := range n {
		content := strings.Repeat(fmt.Sprintf("line %d\n", i), 1+i%50)
		if i%3 == 0 {
			content += variant
		}
		mode := ""
		if i%7 == 0 {
			mode = " 755"
		}
		tree[fmt.Sprintf("d%d/e%d/f%d%s", i%5, i%3, i, mode)] = content
	}
	tree["etc/conf"] = "port = 80\n\nlevel = " + variant + "\n"
	return tree
}

// TestKilled kills apply, rollback and prune with SIGKILL, at every step by which
// something becomes lasting and at random moments, 300 times. Whatever the
// moment, what is live is wholly the old or wholly the new, and the next command
// goes on from there.
func TestKilled(t *testing.T) {
	kills, want := 0, 300
	if testing.Short() {
		want = 60
	}
	s := newSite(t)
	const config = "kind: full\nconfig: ['etc/**']\n"
	for name, content := range map[string]string{"version": "old", "local": "mine"} { // adopted at the first update
		if err := errors.Join(os.MkdirAll(s.target(), 0o755), os.WriteFile(s.target()+"/"+name, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	trees := map[string]files{"old": s.tree()}
	var sequence uint64
	next := func() string { // of two that take turns: content comes back
		sequence++
		variant := []string{"x", "y"}[sequence%2]
		tree := large(variant, 60)
		p := s.pack(sequence, config, tree)
		trees[variant] = tree
		return p
	}
	check := func(what string, allowed ...files) files {
		t.Helper()
		got := s.tree()
		for _, a := range allowed {
			if maps.Equal(got, a) {
				return a
			}
		}
		t.Fatalf("%s: live is neither the old nor the new: %d files, version %q", what, len(got), got["version"])
		return nil
	}
	// one does op with a kill, and says whether there was one.
	one := func(op, kill string, after time.Duration, allowed ...files) (killed bool) {
		t.Helper()
		cmd, out := s.process(op, kill)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if kill == "" {
			time.Sleep(after)
			_ = cmd.Process.Kill()
		}
		err := cmd.Wait()
		ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		what := fmt.Sprintf("%s killed at %q after %s", op, kill, after)
		check(what, allowed...)
		if ws.Signaled() && ws.Signal() == syscall.SIGKILL {
			kills++
			return true
		}
		if err != nil && !strings.Contains(out.String(), "nothing before") {
			t.Fatalf("%s: %v\n%s", what, err, out)
		}
		return false
	}
	heal := func() {
		t.Helper()
		if cmd, out := s.process("prune", ""); cmd.Run() != nil {
			t.Fatalf("the next command: %s", out)
		}
		s.verified()
	}
	steps := map[string]int{}
	for _, step := range []string{"unpacked", "proved", "made", "adopting", "linked", "renamed", "exchange", "adopted", "synced", "named", "staged", "switch", "linked:2", "renamed:2", "switched"} {
		fresh := newSite(t) // adoption comes once
		fresh.signer = s.signer
		if err := errors.Join(os.RemoveAll(fresh.dir+"/keys"), os.CopyFS(fresh.dir+"/keys", os.DirFS(s.dir+"/keys")), os.MkdirAll(fresh.target(), 0o755), os.WriteFile(fresh.target()+"/version", []byte("old"), 0o644)); err != nil {
			t.Fatal(err)
		}
		old := fresh.tree()
		p := fresh.pack(1, config, large("x", 20))
		cmd, out := fresh.process("apply "+p, step)
		_ = cmd.Run()
		if ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() {
			t.Fatalf("adoption never came to %s:\n%s", step, out)
		}
		kills++
		steps[step]++
		if got := fresh.tree(); !maps.Equal(got, old) && !maps.Equal(got, large("x", 20)) {
			t.Fatalf("adoption killed at %s: live is %v", step, got)
		}
		if cmd, out := fresh.process("apply "+p, ""); cmd.Run() != nil {
			t.Fatalf("adoption killed at %s, and the next apply: %s", step, out)
		}
		if got := fresh.tree(); !maps.Equal(got, large("x", 20)) {
			t.Fatalf("adoption killed at %s, and the next apply: %v", step, got)
		}
		fresh.verified()
	}
	s.apply(next())
	s.apply(next())
	for round := 0; kills < want; round++ {
		was := s.tree()
		var op, kill string
		allowed := []files{was}
		points := []string{"unpacked", "proved", "made", "synced", "named", "staged", "switch", "linked", "renamed", "switched"}
		switch round % 4 {
		case 0, 2:
			op = "apply " + next()
			allowed = append(allowed, large([]string{"x", "y"}[sequence%2], 60))
		case 1:
			op, points = "rollback", []string{"switch", "linked", "renamed", "switched"}
			allowed = append(allowed, trees["x"], trees["y"], trees["old"])
		case 3:
			op, points = "prune", []string{"unnamed", "removed", "swept"}
		}
		if round%3 != 2 {
			kill = points[round/4%len(points)]
			steps[strings.Fields(op)[0]+" "+kill]++
		}
		killed := one(op, kill, time.Duration(rand.IntN(60))*time.Millisecond, allowed...)
		if killed && round%5 == 0 && strings.HasPrefix(op, "apply") { // again, at once
			if cmd, out := s.process(op, ""); cmd.Run() != nil {
				t.Fatalf("%s after a kill: %s", op, out)
			}
			check("the next "+op, allowed[1])
		}
		if round%10 == 9 {
			heal()
		}
	}
	heal()
	t.Logf("%d kills; at steps: %v", kills, steps)
}
