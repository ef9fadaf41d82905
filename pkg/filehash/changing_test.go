package filehash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// whileWriting runs fn while write is called over and over.
func whileWriting(t *testing.T, path string, write func(f *os.File, n int), fn func()) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	defer wg.Wait()
	defer stop()
	write(f, 0)
	wg.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			write(f, n)
		}
	})
	fn()
}

// TestUnstable: a file that changes all the time is never reported as good.
func TestUnstable(t *testing.T) {
	for _, size := range []int{1 << 20, SplitBytes + 5} {
		root := t.TempDir()
		put(t, root+"/f", pattern(size))
		put(t, root+"/still", []byte("still"))
		whileWriting(t, root+"/f", func(f *os.File, n int) { f.WriteAt([]byte{byte(n)}, int64(n%size)) }, func() {
			// On a busy machine the writer may not get to run while the file is read.
			for end := time.Now().Add(2 * time.Minute); ; {
				all, _ := walkTree(t, root, Options{Jobs: 2})
				if all["/still"].Content != Hashed {
					t.Error("a file beside it is not hashed")
				}
				e := all["/f"]
				if e.Content == Unstable {
					break
				}
				if time.Now().After(end) {
					t.Errorf("%d bytes: %+v", size, e)
					break
				}
			}
		})
	}
}

// TestChangeThatEnds: one change while a file is read makes it be read again.
func TestChangeThatEnds(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/f", pattern(4<<20))
	// One system call: between two, what is there can be read as it should be.
	time.AfterFunc(300*time.Millisecond, func() { os.Truncate(root+"/f", 9) })
	all, _ := walkTree(t, root, Options{IOLimit: 256 << 10}) // for 16 seconds, if nothing changed
	if e := all["/f"]; e.Content != Hashed || e.Sum != reference(pattern(4 << 20)[:9]) || e.Info.Size != 9 {
		t.Errorf("%+v", e)
	}
}

// TestTruncatedWhileRead: a file that shrinks and grows under several workers.
func TestTruncatedWhileRead(t *testing.T) {
	root := t.TempDir()
	const size = 3*SplitBytes + 77
	b := pattern(size)
	put(t, root+"/f", b)
	full := reference(b)
	noLeaks(t, func() {
		whileWriting(t, root+"/f", func(f *os.File, n int) {
			f.Truncate(int64(rand.N(size)))
			time.Sleep(time.Duration(rand.N(4000)) * time.Microsecond)
			f.WriteAt(b, 0)
			time.Sleep(time.Duration(rand.N(20000)) * time.Microsecond)
		}, func() {
			for i := range 25 {
				within(t, 2*time.Minute, func() {
					all, _ := walkTree(t, root, Options{Jobs: 1 + i%4})
					if e := all["/f"]; e.Content == Hashed && e.Info.Size == size && e.Sum != full {
						t.Errorf("walk %d: a digest of something in between: %+v", i, e)
					} else if e.Content != Hashed && e.Content != Unstable {
						t.Errorf("walk %d: %+v", i, e)
					}
				})
			}
		})
	})
}

// TestGrowing: a log that is written to is hashed as far as it goes.
func TestGrowing(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/log", nil)
	line := []byte("a line of the log\n")
	whileWriting(t, root+"/log", func(f *os.File, n int) {
		f.WriteAt(line, int64(n*len(line)))
		if n%64 == 0 {
			time.Sleep(time.Millisecond)
		}
	}, func() {
		for range 20 {
			all, _ := walkTree(t, root, Options{Select: wants(WantEntry | WantContent | WantGrowing)})
			e := all["/log"]
			if e.Content != Hashed {
				t.Fatalf("%+v", e)
			}
			now, err := os.ReadFile(root + "/log")
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(now)) < e.Info.Size || reference(now[:e.Info.Size]) != e.Sum {
				t.Fatalf("the digest is not that of the first %d bytes", e.Info.Size)
			}
		}
	})
}

type prefixOf int64

func (p prefixOf) Lookup(_, _ []byte, _ *Info) PriorAnswer { return PriorAnswer{Prefix: int64(p)} }

// TestPrefix: the digest of the beginning, at every boundary.
func TestPrefix(t *testing.T) {
	root := t.TempDir()
	for _, size := range []int{1, 1025, segmentBytes - 1, segmentBytes, segmentBytes + 1, 2 * segmentBytes, SplitBytes + 3} {
		b := pattern(size)
		put(t, root+"/log", b)
		for _, p := range []int{0, 1, 1024, segmentBytes - 1, segmentBytes, segmentBytes + 1, size - 1, size, size + 1} {
			all, _ := walkTree(t, root, Options{
				Select:   wants(WantEntry | WantContent | WantGrowing | WantPrior),
				NewPrior: func() Prior { return prefixOf(p) },
			})
			var want Sum
			if p > 0 && p <= size {
				want = reference(b[:p])
			}
			if e := all["/log"]; e.Prefix != want || e.Sum != reference(b) {
				t.Errorf("the first %d of %d bytes: %v, want %v", p, size, e.Prefix, want)
			}
		}
	}
}

// TestCancel: a walk ends soon after its context, says so, and leaves nothing.
func TestCancel(t *testing.T) {
	root := t.TempDir()
	for i := range 3000 {
		put(t, fmt.Sprintf("%s/d%d/f%d", root, i%40, i), pattern(i))
	}
	put(t, root+"/big", pattern(4*SplitBytes))
	noLeaks(t, func() {
		for i := range 150 {
			ctx, cancel := context.WithCancel(context.Background())
			timer := time.AfterFunc(time.Duration(rand.N(30000))*time.Microsecond, cancel)
			limit := int64(0)
			if i%10 == 0 {
				limit = 1000 // a worker sleeps when it happens
			}
			within(t, 2*time.Minute, func() {
				_, _, err := tryWalk(t, ctx, root, Options{Jobs: 1 + i%6, IOLimit: limit})
				if canceled := ctx.Err() != nil; canceled && !errors.Is(err, context.Canceled) && timer.Stop() || !canceled && err != nil {
					t.Errorf("cancelled %v, but the walk returned %v", canceled, err)
				}
			})
			timer.Stop()
			cancel()
		}
	})
}

// TestCancelIsNeverAWholeWalk: what workers leave out because they see the
// cancellation before the walk does must not look complete.
func TestCancelIsNeverAWholeWalk(t *testing.T) {
	root := t.TempDir()
	for i := range 200 {
		put(t, fmt.Sprintf("%s/f%d", root, i), nil)
	}
	for range 300 {
		ctx, cancel := context.WithCancel(context.Background())
		entries := 0
		err := Walk(ctx, root, Options{Jobs: 2, Select: cancelAt{cancel}}, func(b *Batch) error {
			entries += len(b.Entries)
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("%d of 200 entries, and the error is %v", entries, err)
		}
	}
}

// cancelAt cancels when it is asked for the last of the names.
type cancelAt struct{ cancel func() }

func (c cancelAt) Select(name []byte) (Want, any) {
	if string(name) == "f99" {
		c.cancel()
	}
	return WantEntry, nil
}
func (c cancelAt) Enter([]byte) Selector   { return c }
func (c cancelAt) Names() ([]string, bool) { return nil, false }

// TestErrorOfTheCallback ends the walk and comes back.
func TestErrorOfTheCallback(t *testing.T) {
	root := t.TempDir()
	for i := range 500 {
		put(t, fmt.Sprintf("%s/d%d/f", root, i), nil)
	}
	enough := errors.New("enough")
	noLeaks(t, func() {
		for i := range 50 {
			calls := 0
			err := Walk(t.Context(), root, Options{Jobs: 4}, func(*Batch) error {
				if calls++; calls > i {
					return enough
				}
				return nil
			})
			if err != enough || calls != i+1 {
				t.Errorf("%v after %d calls, want %d", err, calls, i+1)
			}
		}
	})
}

// TestNoWorkerAfterTheEnd: the watcher of the disk may want more workers just
// when the walk ends.
func TestNoWorkerAfterTheEnd(t *testing.T) {
	w := &walk{over: true}
	w.cond.L = &w.mu
	w.setLimit(8)
	w.wg.Wait()
	if w.running != 0 {
		t.Errorf("%d workers joined a walk that is over", w.running)
	}
}

func TestIOLimit(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/a", pattern(3<<20))
	put(t, root+"/b", pattern(SplitBytes))
	start := time.Now()
	walkTree(t, root, Options{Jobs: 4})
	free := time.Since(start)
	start = time.Now()
	walkTree(t, root, Options{IOLimit: 16 << 20, Jobs: 4})
	if took := time.Since(start); took < 600*time.Millisecond || took > 10*time.Second+5*free {
		t.Errorf("11 MiB at 16 MiB/s took %v, without a limit %v", took, free)
	}
}

// TestMappedWritesAreBeyondTimes documents what unchanged times do not prove:
// a page that stays dirty in a shared mapping is written without a trace.
func TestMappedWritesAreBeyondTimes(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "filehash-test-")
	if err != nil {
		t.Skipf("NOT RUN: no tmpfs: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	put(t, dir+"/f", make([]byte, 4096))
	f, err := os.OpenFile(dir+"/f", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	m[0] = 1
	before, _ := walkTree(t, dir, Options{})
	time.Sleep(50 * time.Millisecond)
	m[0] = 2
	after, _ := walkTree(t, dir, Options{})
	a, b := before["/f"], after["/f"]
	if a.Sum == b.Sum {
		t.Fatal("the content is the same")
	}
	if a.Info != b.Info {
		t.Log("this kernel notes writes to mapped pages of tmpfs")
	}
}
