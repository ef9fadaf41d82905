package watch

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// patience is how long is waited for what is to happen, on the busiest machine.
const patience = 2 * time.Minute

// host is a filesystem of the test's own with a baseline of a part of it. The
// watch runs in this process, whose own changes it does not tell, so every
// change is made by a shell.
type host struct {
	t   *testing.T
	mnt string // a tmpfs
	dir string // watched: mnt/etc
	e   *integrity.Engine
}

// needRoot skips a test that needs fanotify and mounts.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: fanotify and mounting need root (sudo go test ./internal/integrity/watch)")
	}
}

func mountTmpfs(t *testing.T, at string) {
	t.Helper()
	if err := unix.Mount("none", at, "tmpfs", 0, "size=256m"); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
}

// newHost makes a host whose policy has more rules, as lines of YAML.
func newHost(t *testing.T, rules ...string) *host {
	t.Helper()
	needRoot(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, mnt: dir + "/mnt"}
	h.dir = h.mnt + "/etc"
	if err := os.Mkdir(h.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, h.mnt)
	h.sh(`mkdir -p etc/sub etc/skip other; echo one >etc/a; echo two >etc/b; echo three >etc/sub/c`)
	h.e = &integrity.Engine{Store: state.New(filepath.Join(dir, "state"), state.Options{}), Tool: "test"}
	h.take(rules...)
	return h
}

// take takes a baseline of what is there now.
func (h *host) take(rules ...string) {
	h.t.Helper()
	text := "version: 1\nname: test\npaths: [" + h.dir + "]\ncross_filesystems: true\nrules:\n  - \"!" + h.dir + "/skip\"\n" + strings.Join(rules, "\n")
	pol, err := policy.Parse("test", []byte(text))
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.e.Take(h.t.Context(), integrity.TakeOptions{Name: "default", Policy: pol}); err != nil {
		h.t.Fatal(err)
	}
}

// sh runs a script in the mount and returns the number of its process.
func (h *host) sh(script string) int {
	h.t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = h.mnt
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return cmd.Process.Pid
}

// held runs a program in the mount that says "done" and then stays until the test
// lets it go, by the end of its input: there is somebody to be found out about,
// however late. It returns the number of the process.
func (h *host) held(args ...string) (pid int, letGo func()) {
	h.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = h.mnt
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	letGo = sync.OnceFunc(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			h.t.Errorf("%q: %v", args, err)
		}
	})
	h.t.Cleanup(letGo)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "done\n" {
		h.t.Fatalf("%q said %q, %v", args, line, err)
	}
	return cmd.Process.Pid, letGo
}

// watching is a watch that runs.
type watching struct {
	h      *host
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	records []*Record
	warned  []string
	sum     *Summary
	err     error
}

// watch starts a watch and waits until it sees everything.
func (h *host) watch(change ...func(*Options)) *watching {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watching{h: h, cancel: cancel, done: make(chan struct{})}
	ready := make(chan struct{})
	// What changes before everything was compared is told of twice, as it should be.
	compared := make(chan struct{})
	o := Options{
		Name: "default", Quiet: 150 * time.Millisecond, Longest: time.Second,
		Report: func(r *Record) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.records = append(w.records, r)
			return nil
		},
		Warn: func(text string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.warned = append(w.warned, text)
		},
		Ready: func(Mode) { close(ready) },
		first: func() { close(compared) },
	}
	for _, c := range change {
		c(&o)
	}
	go func() {
		defer close(w.done)
		w.sum, w.err = Run(ctx, h.e, o)
	}()
	h.t.Cleanup(func() { w.end() })
	for _, begun := range []chan struct{}{ready, compared} {
		select {
		case <-begun:
		case <-w.done:
			h.t.Fatalf("the watch did not begin: %v", w.err)
		case <-time.After(patience):
			h.t.Fatal("the watch is not ready")
		}
	}
	return w
}

// end ends the watch and returns what it did.
func (w *watching) end() *Summary {
	w.h.t.Helper()
	w.cancel()
	select {
	case <-w.done:
	case <-time.After(patience):
		w.h.t.Fatal("the watch does not end")
	}
	return w.sum
}

func (w *watching) all() []*Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*Record(nil), w.records...)
}

// await waits for a record.
func (w *watching) await(what string, match func(*Record) bool) *Record {
	w.h.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		for _, r := range w.all() {
			if match(r) {
				return r
			}
		}
	}
	w.h.t.Fatalf("no record of %s; there are:\n%s", what, w.text())
	return nil
}

// file waits for a record about a file, named as below the watched directory.
func (w *watching) file(name string, v Verdict) *Record {
	w.h.t.Helper()
	path := w.h.dir + "/" + name
	return w.await(name+" "+string(v), func(r *Record) bool { return r.Kind == FileRecord && string(r.Path) == path && r.Verdict == v })
}

func (w *watching) text() string {
	var b strings.Builder
	for _, r := range w.all() {
		fmt.Fprintf(&b, "%s %q from %q action %s verdict %s counts %+v by %+v: %s (found %d)\n", r.Kind, r.Path, r.From, r.Action, r.Verdict, r.Counts, r.Process, r.Text, r.Found)
	}
	return b.String()
}

// findings returns the open findings as "rule subject" → finding.
func (h *host) findings() map[string]*finding.Record {
	h.t.Helper()
	out := map[string]*finding.Record{}
	err := h.e.Store.View(h.t.Context(), func(tx *state.Tx) error {
		list, err := finding.List(tx, finding.Filter{Tags: []string{"watch"}, States: []finding.State{finding.Open}}, time.Now())
		for _, r := range list {
			out[r.Rule+" "+strings.TrimPrefix(r.Subject, h.dir+"/")] = r
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// awaitFindings waits until exactly these are open, gaps and overflows aside.
func (h *host) awaitFindings(want ...string) map[string]*finding.Record {
	h.t.Helper()
	var got map[string]*finding.Record
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		got = h.findings()
		for k := range got {
			if strings.HasPrefix(k, "watch-gap") || strings.HasPrefix(k, "watch-overflow") {
				delete(got, k)
			}
		}
		same := len(got) == len(want)
		for _, k := range want {
			same = same && got[k] != nil
		}
		if same {
			return got
		}
	}
	keys := []string{}
	for k := range got {
		keys = append(keys, k)
	}
	h.t.Fatalf("open findings:\n%s\nwant\n%s", strings.Join(keys, "\n"), strings.Join(want, "\n"))
	return nil
}
