//go:build unix

package blake3tree

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNoReadPastTheEnd hashes messages that end where the next page cannot be
// read, and such that begin where the page before cannot.
func TestNoReadPastTheEnd(t *testing.T) {
	page := os.Getpagesize()
	const size = 128 << 10
	mem, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	middle := mem[page : page+size]
	copy(middle, message(size))
	for _, fence := range [][]byte{mem[:page], mem[page+size:]} {
		if err := unix.Mprotect(fence, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	everyPath(t, func(t *testing.T) {
		for n := 0; n < 20*ChunkSize; n += 1 + n/256 {
			differs(t, middle[size-n:])
			differs(t, middle[:n])
		}
		differs(t, middle)
	})
}

// TestTruncatedWhileMapped takes the file away from under the kernels: that
// must be a panic which can be recovered, in any of them, and never a crash.
func TestTruncatedWhileMapped(t *testing.T) {
	// Up to half of each is on pages that stay.
	lengths := []int{900, 5000, 9000, 17_000, 33_000, 60_000, 1 << 20, 3 << 20}
	path := filepath.Join(t.TempDir(), "mapped")
	everyPath(t, func(t *testing.T) {
		for _, n := range lengths {
			for round := range 40 {
				if !hashTruncated(t, path, n, int64(n/2*(round%2)), 0) && n/2/4096 != n/4096 {
					t.Errorf("%d bytes, truncated before: no panic", n)
				}
			}
		}
		// While it runs: whatever comes out, no crash.
		panics := 0
		for range 300 {
			if hashTruncated(t, path, 4<<20, 1<<20, time.Duration(rand.IntN(1000))*time.Microsecond) {
				panics++
			}
		}
		t.Logf("truncated while being hashed: %d of 300 panicked and were recovered", panics)
	})
}

// hashTruncated hashes a mapped file of n bytes in another goroutine, and
// truncates it before or, with a delay, later. It tells whether that panicked.
func hashTruncated(t *testing.T, path string, n int, keep int64, delay time.Duration) (panicked bool) {
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(n)); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	truncate := func() {
		if err := f.Truncate(keep); err != nil {
			t.Error(err)
		}
	}
	if delay == 0 {
		truncate()
	}
	start, end := make(chan bool), make(chan bool)
	go func() {
		defer close(end)
		debug.SetPanicOnFault(true)
		defer func() {
			if p := recover(); p != nil {
				if _, ok := p.(runtime.Error); !ok {
					panic(p)
				}
				panicked = true
			}
		}()
		close(start)
		deep(rand.IntN(200), mem)
	}()
	<-start
	if delay > 0 {
		time.Sleep(delay)
		truncate()
	}
	<-end
	return panicked
}

// deep hashes n calls further down: the panic may find the stack nearly used
// up, and have to move it.
func deep(n int, buf []byte) [32]byte {
	if n == 0 {
		return Sum256(buf)
	}
	sum := deep(n-1, buf)
	runtime.KeepAlive(&sum)
	return sum
}
