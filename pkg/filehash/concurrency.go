package filehash

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// coldWorkers is how many readers keep a cold solid-state disk busy: 32 read
// 2.5 times faster than two.
const coldWorkers = 32

// concurrency chooses how many workers run. Content in the page cache is
// limited by the processor: one worker a core. Content on a solid-state disk
// is limited by latency: 32 workers. On a rotating disk more workers only make
// the head travel. Whether content is cached shows only while reading: the
// kernel counts the blocks that this process makes it read (ru_inblock in
// getrusage(2)).
type concurrency struct {
	start int
	deep  int // workers while reading from the disk
	quit  chan struct{}
	wg    sync.WaitGroup
}

func newConcurrency(dev uint64, jobs int) *concurrency {
	c := &concurrency{start: cores(), quit: make(chan struct{})}
	if jobs > 0 {
		c.start, c.deep = jobs, jobs
		return c
	}
	c.deep = c.start
	if !rotates(dev) {
		c.deep = max(c.start, coldWorkers)
	}
	return c
}

// watch adapts the number of workers until stop.
func (c *concurrency) watch(w *walk) {
	if c.deep == c.start {
		return
	}
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		last, quiet, deep := blocksRead(), 0, false
		for {
			select {
			case <-c.quit:
				return
			case <-tick.C:
			}
			now := blocksRead()
			cold := now-last >= 16 // 8 KiB in 20 ms: more than a stray page
			last = now
			if cold {
				quiet = 0
			} else {
				quiet++
			}
			switch {
			case cold && !deep:
				deep = true
				w.setLimit(c.deep)
			case deep && quiet >= 10:
				deep = false
				w.setLimit(c.start)
			}
		}
	}()
}

func (c *concurrency) stop() {
	close(c.quit)
	c.wg.Wait()
}

// blocksRead returns the 512-byte blocks this process has had read from disks.
func blocksRead() int64 {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return int64(r.Inblock)
}

// rotates tells whether a device is a rotating disk, from
// /sys/dev/block/*/queue/rotational. Virtual disks claim to rotate by default,
// which says nothing about what is behind them, so these count as
// solid-state, as do filesystems without a device of their own.
func rotates(dev uint64) bool {
	sys := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev))
	path, err := filepath.EvalSymlinks(sys)
	if err != nil || strings.Contains(path, "/virtio") || strings.Contains(path, "/vbd-") {
		return false
	}
	flag, err := os.ReadFile(filepath.Join(path, "queue/rotational"))
	if err != nil { // a partition: the queue belongs to the disk above
		flag, err = os.ReadFile(filepath.Join(filepath.Dir(path), "queue/rotational"))
	}
	return err == nil && bytes.HasPrefix(flag, []byte("1"))
}

// rateLimit keeps all workers together to a number of bytes a second.
type rateLimit struct {
	mu    sync.Mutex
	bytes float64 // a second
	free  time.Time
}

func newRateLimit(bytesPerSecond int64) *rateLimit {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &rateLimit{bytes: float64(bytesPerSecond)}
}

// wait is called after n bytes were read, and returns once their time is over.
func (r *rateLimit) wait(ctx context.Context, n int) error {
	if r == nil || n == 0 {
		return nil
	}
	r.mu.Lock()
	now := time.Now()
	if r.free.Before(now) {
		r.free = now
	}
	r.free = r.free.Add(time.Duration(float64(n) / r.bytes * float64(time.Second)))
	d := r.free.Sub(now)
	r.mu.Unlock()
	return sleep(ctx, d)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// SetIdlePriority gives this whole process the lowest claim on processor and
// disk, for hours in which others matter more: nice 19 and the idle I/O class
// (ioprio_set(2)). Both belong to threads, and a thread inherits them from the
// one that starts it, so it goes over all threads until it finds no new one.
func SetIdlePriority() error {
	done := map[int]bool{}
	for {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("set idle priority: %w", err)
		}
		found := false
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || done[tid] {
				continue
			}
			done[tid], found = true, true
			if err := idleThread(tid); err != nil {
				return fmt.Errorf("set idle priority: %w", err)
			}
		}
		if !found {
			return nil
		}
	}
}

// idleThread lowers the claims of one thread, unless it is gone.
func idleThread(tid int) error {
	const (
		ioprioWhoProcess = 1
		ioprioIdle       = 3 << 13
	)
	if err := unix.Setpriority(unix.PRIO_PROCESS, tid, 19); err != nil && err != unix.ESRCH {
		return fmt.Errorf("setpriority: %w", err)
	}
	if _, _, e := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), ioprioIdle); e != 0 && e != unix.ESRCH {
		return fmt.Errorf("ioprio_set: %w", e)
	}
	return nil
}
