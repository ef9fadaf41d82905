package source

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRandomRotation rotates in random ways, some of them by hand, and
// collects at random moments, with a sink that fails at others. Nothing is
// deleted before it was collected, and no line is lost or double.
func TestRandomRotation(t *testing.T) {
	seeds := 25
	if testing.Short() {
		seeds = 8
	}
	first := rand.Uint64() % 1e9
	for seed := first; seed < first+uint64(seeds); seed++ {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { randomRotation(t, seed) }) {
			return
		}
	}
}

func randomRotation(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	h := newHost(t, "app.log", "old")
	h.opts.Idle = time.Millisecond
	if err := os.Mkdir(h.path("old"), 0o755); err != nil {
		t.Fatal(err)
	}
	var story []string
	tell := func(format string, args ...any) { story = append(story, fmt.Sprintf(format, args...)) }
	n, stamp := 0, 0
	rotated := func() string {
		list, _ := filepath.Glob(h.path("app?*.*"))
		more, _ := filepath.Glob(h.path("old/*"))
		list = append(list, more...)
		var plain []string
		for _, f := range list {
			if ext := filepath.Ext(f); f != h.path("app.log") && ext != ".gz" && ext != ".xz" && ext != ".zst" && ext != ".bz2" {
				plain = append(plain, f)
			}
		}
		if len(plain) == 0 {
			return ""
		}
		return plain[rnd.IntN(len(plain))]
	}
	name := func() string {
		stamp++
		switch rnd.IntN(4) {
		case 0:
			return fmt.Sprintf("app.log.%d", 1000+stamp)
		case 1:
			return fmt.Sprintf("app.log-20261122-%06d", stamp)
		case 2:
			return fmt.Sprintf("old/app.log.%d", 1000+stamp)
		}
		return fmt.Sprintf("app-2026%04d.log", stamp+1000)
	}
	h.write("app.log", "")
	for range 60 {
		switch rnd.IntN(11) {
		case 0, 1, 2:
			k := 1 + rnd.IntN(1<<rnd.IntN(10))
			h.append("app.log", numbered(n, n+k))
			n += k
			tell("write %d", n)
		case 3, 4, 5:
			tell("collect")
			h.sink.fail = nil
			if rnd.IntN(3) == 0 {
				tell("with a failure")
				h.sink.fail = func() error {
					if rnd.IntN(2) == 0 {
						return ErrFull
					}
					return nil
				}
			}
			h.collector().Once(t.Context())
		case 6:
			if st, err := os.Stat(h.path("app.log")); err == nil && st.Size() > 0 {
				to := name()
				tell("rename to %s", to)
				h.rename("app.log", to)
				h.write("app.log", "")
			}
		case 7:
			if st, err := os.Stat(h.path("app.log")); err == nil && st.Size() > 0 {
				to := name()
				tell("copy to %s and truncate", to)
				h.copyTruncate("app.log", to)
			}
		case 8:
			if f := rotated(); f != "" {
				tool := []string{"gzip", "xz -0", "zstd --rm -q", "bzip2"}[rnd.IntN(4)]
				tell("%s %s", tool, f)
				run(t, tool+" "+f)
			}
		case 9:
			if f := rotated(); f != "" {
				to := h.path(name())
				tell("rename %s to %s", f, to)
				if err := os.Rename(f, to); err != nil {
					t.Fatal(err)
				}
			}
		case 10:
			if f := rotated(); f != "" {
				// As a backup that is restored: another inode.
				tell("rewrite %s", f)
				b, err := os.ReadFile(f)
				if err == nil {
					err = os.WriteFile(f+".new", b, 0o644)
				}
				if err == nil {
					err = os.Rename(f+".new", f)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	h.sink.fail = nil
	h.once()
	h.once()
	if msg := checkNumbers(h.sink.lines(), n); msg != "" {
		for _, s := range story {
			t.Log(s)
		}
		t.Fatal(msg)
	}
}
