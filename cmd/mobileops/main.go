// Command mobileops watches over, secures and updates the hosts of a mobile
// operations platform. See internal/cli for the commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"syscall"

	"github.com/mobileops/mobileops/internal/cli"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
)

//go:generate go run . docs man ../../docs/man
//go:generate go run . docs markdown ../../docs/reference
//go:generate go run . docs completions ../../completions
//go:generate go run . docs migration ../../docs/migrating-from-scripts.md

func main() {
	// Records stream through a check while little is kept: collecting garbage
	// less often saves a tenth of its processor time. The limit, which is a
	// soft one, keeps the process below 64 MiB all the same, with the files
	// that it maps.
	debug.SetGCPercent(300)
	debug.SetMemoryLimit(memoryLimit)
	relaxWhenFull()
	// Asking for signals starts a thread, and meanwhile the commands are made.
	ready := make(chan context.Context, 1)
	go func() { ready <- interruptible(context.Background()) }()
	os.Exit(cli.Main(func() context.Context { return <-ready }, os.Args, ui.System(os.Getenv), os.Getenv))
}

const memoryLimit = 36 << 20

// relaxWhenFull moves the memory limit with what is in use when that comes near
// to it, as it does with the files of a large update or a report of a hundred
// thousand changes: the collector would otherwise run all the time and free
// nothing. It looks after each collection.
func relaxWhenFull() {
	type sentinel struct{ _ [16]byte }
	var collected func(*sentinel)
	collected = func(*sentinel) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		if n := live[0].Value; n.Kind() == metrics.KindUint64 && n.Uint64() > memoryLimit/2 {
			debug.SetGCPercent(100)
			debug.SetMemoryLimit(max(memoryLimit, int64(n.Uint64())*8/5))
		}
		runtime.SetFinalizer(new(sentinel), collected)
	}
	runtime.SetFinalizer(new(sentinel), collected)
}

// interruptible returns a context that the first SIGINT, SIGTERM or SIGHUP
// cancels; the second ends the process at once. Signals that were ignored when
// the process began stay ignored, as nohup and a shell's background jobs want.
//
// SIGPIPE must not kill a command half way through its work, because its
// reader went away: the write fails with EPIPE instead.
func interruptible(parent context.Context) context.Context {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(failure.Interrupted.Status())
	}()
	return ctx
}
