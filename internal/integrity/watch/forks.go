package watch

import (
	"bytes"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// forks counts the processes and threads that were ever started, as /proc/stat
// does. Until as many were started as there are numbers, the kernel gives no
// number away a second time: so it tells whether a number can stand for another
// process than it did.
type forks struct {
	mu      sync.Mutex
	n       uint64
	at      time.Time
	numbers uint64 // that are given away in turn
	buf     []byte
}

const (
	forksAge    = 250 * time.Millisecond // how old a count may be where older is safe
	forksMargin = 4000                   // numbers that are kept free, in use, or given away while it is counted
)

func newForks() *forks {
	f := &forks{buf: make([]byte, 256<<10), numbers: 32768}
	if n, err := strconv.ParseUint(string(bytes.TrimSpace(f.file("/proc/sys/kernel/pid_max"))), 10, 64); err == nil {
		f.numbers = n
	}
	return f
}

func (f *forks) file(path string) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, f.buf)
	if err != nil {
		return nil
	}
	return f.buf[:n]
}

// count returns the number of starts, as it was at most so long ago.
func (f *forks) count(age time.Duration) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.at) <= age {
		return f.n
	}
	b := f.file("/proc/stat")
	if _, rest, ok := bytes.Cut(b, []byte("\nprocesses ")); ok {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		if n, err := strconv.ParseUint(string(line), 10, 64); err == nil {
			f.n, f.at = n, now
			return n
		}
	}
	return f.n + f.numbers // unknown: every number may have been given away
}

// unused tells whether a number that was seen in use when the count was n cannot
// have been given away again.
func (f *forks) unused(n uint64) bool {
	return f.count(5*time.Millisecond)-n+forksMargin < f.numbers
}
