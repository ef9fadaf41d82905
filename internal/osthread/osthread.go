// Package osthread runs what changes the thread it runs on: its namespaces,
// its umask, its privileges.
package osthread

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrAborted is the answer when f ended its goroutine and gave none.
var ErrAborted = errors.New("the function ended its goroutine")

// Run runs f on a thread that ends with it, whatever f did to it, and waits.
// What f starts (processes, sockets) keeps what the thread was then.
//
// That is never the first thread of the process: it cannot end, and what is
// below /proc/PID and /proc/self for everybody is what the first thread sees.
func Run(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := ErrAborted
		defer func() { done <- err }()
		if unix.Gettid() != unix.Getpid() {
			err = f() // the thread stays locked, and ends with this function
			return
		}
		defer runtime.UnlockOSThread()
		err = Run(f) // while this one is taken
	}()
	return <-done
}
