package app

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// EndSignals returns where the signal that ends a command can be read, which
// goes on until it is stopped: what it was decides about the status. stop must
// be called in the end.
func EndSignals() (signals <-chan os.Signal, stop func()) {
	ch := make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(ch, s)
		}
	}
	return ch, func() { signal.Stop(ch) }
}

// EndedBy is the outcome of a command that was ended from outside. A service
// manager ends it with SIGTERM, a terminal that goes away with SIGHUP, and both
// are as they should be; a person who interrupts a command expects 130.
func EndedBy(signals <-chan os.Signal) error {
	select {
	case s := <-signals:
		if s != os.Interrupt {
			return nil
		}
	case <-time.After(100 * time.Millisecond):
	}
	return failure.Silent(failure.Interrupted)
}
