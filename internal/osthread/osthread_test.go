package osthread

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain leaves the first thread to whoever wants it, so that tests get it.
func TestMain(m *testing.M) {
	result := make(chan int)
	go func() { result <- m.Run() }()
	os.Exit(<-result)
}

// TestRun changes the directory of threads, which only a thread that is gone
// may leave changed.
func TestRun(t *testing.T) {
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			err := Run(func() error {
				if unix.Gettid() == unix.Getpid() {
					t.Error("on the first thread")
				}
				return errors.Join(unix.Unshare(unix.CLONE_FS), unix.Chdir("/proc"))
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for range 200 {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			buf := make([]byte, unix.PathMax)
			n, err := unix.Getcwd(buf)
			if err != nil || string(buf[:n-1]) != before {
				t.Errorf("a thread is in %s, %v", buf[:n], err)
			}
		})
	}
	all.Wait()
	if now, err := os.Readlink("/proc/self/cwd"); err != nil || now != before {
		t.Errorf("the process is in %s, %v", now, err)
	}
}

func TestAborted(t *testing.T) {
	if err := Run(func() error { runtime.Goexit(); return nil }); !errors.Is(err, ErrAborted) {
		t.Error(err)
	}
	if err := Run(func() error { return os.ErrClosed }); err != os.ErrClosed {
		t.Error(err)
	}
}
