package watch

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// group is a descriptor that gives events, and can be closed while somebody
// waits for them. Waiting is done in poll(2) by the thread itself: a detour
// through the runtime's poller would take as long as many processes live.
type group struct {
	fd   int
	wake int       // an eventfd
	once sync.Once // to close fd
	over sync.Once // to close wake

	mu     sync.RWMutex // held for reading while fd is used
	closed bool
	last   bool // it is closed once nothing waits in it
}

func newGroup(fd int) (*group, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &group{fd: fd, wake: wake}, nil
}

// read waits for events and reads them. os.ErrClosed: the group was closed.
func (g *group) read(buf []byte) (int, error) {
	for {
		g.mu.RLock()
		if g.closed {
			g.mu.RUnlock()
			g.over.Do(func() { unix.Close(g.wake) })
			return 0, os.ErrClosed
		}
		n, err := unix.Read(g.fd, buf)
		last := g.last
		g.mu.RUnlock()
		if err == nil || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return n, err
		}
		if last && errors.Is(err, unix.EAGAIN) {
			g.close()
			continue
		}
		// The descriptors stay open until the reader has seen that it is over.
		fds := []unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLIN}, {Fd: int32(g.wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
	}
}

// use runs fn with the descriptor, unless the group is closed.
func (g *group) use(fn func(fd int) error) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return os.ErrClosed
	}
	return fn(g.fd)
}

// drain closes the group once what waits in it was read, or after so long.
func (g *group) drain(within time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.last {
		return
	}
	g.last = true
	time.AfterFunc(within, g.close)
	unix.Write(g.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// close closes the group and wakes whoever waits.
func (g *group) close() {
	g.once.Do(func() {
		g.mu.Lock()
		g.closed = true
		unix.Close(g.fd) // from here on the kernel waits for no answer
		unix.Write(g.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		g.mu.Unlock()
	})
}

// hurry asks the scheduler to run this thread before others: what is to be found
// out about a process must be read before that ends. It is done when allowed.
func hurry() { unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -15) }

// yield makes every thread of this process, and those that they start, give way
// to what is watched. Threads that hurry are not among them.
func yield() {
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range list {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			unix.Setpriority(unix.PRIO_PROCESS, tid, 10)
		}
	}
}
