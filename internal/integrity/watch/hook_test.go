package watch

import (
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestHook(t *testing.T) {
	h := newHost(t)
	out := h.mnt + "/other/out"
	var mu sync.Mutex
	var failed []string
	hook := &Hook{
		Args:    []string{"/bin/sh", "-c", `read line; echo "$line $NAME" >>` + out + `; case $NAME in *bad*) echo oops >&2; exit 3;; *slow*) sleep 60;; esac`},
		Env:     func(r *Record) []string { return []string{"PATH=/usr/bin:/bin", "NAME=" + string(r.Path)} },
		Encode:  func(r *Record) ([]byte, error) { return []byte(string(r.Verdict) + "\n"), nil },
		Timeout: 10 * time.Second, // enough for those that end
		Failed: func(r *Record, reason string) {
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, reason)
		},
	}
	w := h.watch(func(o *Options) { o.Hook = hook })
	h.sh(`echo x >etc/bad; sleep 0.3; echo x >etc/slow; sleep 0.3; echo x >etc/good; sleep 0.1`)
	w.file("good", Added)
	// When the watch ends there is less time for those that wait.
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if said, _ := os.ReadFile(out); strings.Contains(string(said), "/good\n") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the last hook does not begin: %q", said)
		}
	}
	w.end()
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"added " + h.dir + "/bad\n", "added " + h.dir + "/slow\n", "added " + h.dir + "/good\n"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	// A busy machine may let the shell wait between making a file and closing it:
	// that is two records, and two hooks.
	failed = slices.Compact(failed)
	if len(failed) != 2 || !strings.Contains(failed[0], "exit status 3: oops") || !strings.Contains(failed[1], "killed after 10s") {
		t.Errorf("%q", failed)
	}
}
