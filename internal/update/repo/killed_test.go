package repo

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// A host is killed while it refreshes and downloads. What is left is either
// good for looking or fetched again, what was accepted stays so, and a package
// has its name only when it is whole.
func TestAHostIsKilled(t *testing.T) {
	if dir := os.Getenv("REPO_TEST_HOST"); dir != "" {
		updateForEver(t, dir)
		return
	}
	w, content := big(t)
	w.source = w.dir
	old := copyDir(t, w.dir)
	w.add("2.1", 10, []byte("newer"))
	w.publish()
	w.refreshed() // from here on the old publication is refused
	pin := w.pin()
	dst := filepath.Join(w.state, "package")
	r := rand.New(rand.NewPCG(3, 4))
	whole := 0
	for n := range 30 {
		w.add(fmt.Sprint("3.", n), uint64(100+n), []byte{byte(n)})
		w.publish()
		if n%3 == 0 {
			if err := os.RemoveAll(filepath.Join(w.state, "update", "metadata")); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(w.ctx, os.Args[0], "-test.run=^TestAHostIsKilled$")
		cmd.Env = append(os.Environ(), "REPO_TEST_HOST="+w.dir, "REPO_TEST_STATE="+w.state)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewReader(out)
		lines := 1 // it has begun
		if n%5 == 4 {
			lines = 2 // and a download has come to its end
		}
		for range lines {
			if _, err := said.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Duration(r.IntN(200_000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for _, name := range []string{dst, dst + ".done"} {
			got, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			if !bytes.Equal(got, content) {
				t.Fatalf("after %d kills a wrong package has its name", n+1)
			}
			whole++
		}
		if _, err := w.host().Available(w.ctx); err != nil && CodeOf(err) != CodeNever {
			t.Fatalf("after %d kills, looking: %v", n+1, err)
		}
		_, err = w.hostWith(Options{Source: old, Root: pin}).Refresh(w.ctx)
		refused(t, err, CodeRollback, failure.Untrustworthy)
		if list := w.available(w.refreshed()); len(list) != 4+n+1 {
			t.Fatalf("after %d kills: %d packages", n+1, len(list))
		}
	}
	if whole == 0 {
		t.Error("no download came to its end")
	}
}

// updateForEver is the process that is killed.
func updateForEver(t *testing.T, source string) {
	dir := os.Getenv("REPO_TEST_STATE")
	pin, err := os.ReadFile(OpenPublisher(source, nil).RootPath())
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	fmt.Println("begun")
	for {
		c, err := Open(Options{Source: source, Root: pin, Dir: filepath.Join(dir, "update"), State: state.New(dir, state.Options{}), Now: func() time.Time { return clock }})
		if err == nil {
			_, err = c.Refresh(t.Context())
		}
		if err == nil {
			err = c.Download(t.Context(), Target{Path: "platform-2.0.tar.zst"}, filepath.Join(dir, "package"), nil)
		}
		if err == nil {
			err = os.Rename(filepath.Join(dir, "package"), filepath.Join(dir, "package.done"))
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("again")
	}
}
