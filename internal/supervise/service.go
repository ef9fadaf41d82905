package supervise

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// What a Service has where it says nothing.
const (
	DefaultReadyTimeout = 30 * time.Second
	DefaultStopTimeout  = 10 * time.Second
	DefaultBackoffStart = 500 * time.Millisecond
	DefaultBackoffMax   = time.Minute
	DefaultBackoffReset = time.Minute
	DefaultLimitCount   = 10
	DefaultLimitWindow  = 10 * time.Minute
)

const maxName = 64 // bytes in the name of a service

// Restart says when a service that ended by itself is started again.
type Restart string

// The policies. Failure is every end that nobody asked for, except exit status
// 0: a signal counts, whichever it was and whoever sent it.
const (
	Never     Restart = "never"
	OnFailure Restart = "on-failure"
	Always    Restart = "always"
)

// Backoff is how long a service waits before it is started again: Start at
// first, twice as long each time, Max at most. Each wait is a little longer by
// chance, so that services that failed together do not come back together.
type Backoff struct {
	Start time.Duration // 0: DefaultBackoffStart
	Max   time.Duration // 0: DefaultBackoffMax
	Reset time.Duration // ready for this long: the next wait is Start again; 0: DefaultBackoffReset
}

// Limit is how many restarts within a window are tried before the service is
// left as failed.
type Limit struct {
	Count  int           // 0: DefaultLimitCount; negative: no limit
	Window time.Duration // 0: DefaultLimitWindow
}

// Service is a long-running process, and how it is kept running. The functions
// are called from goroutines of the supervisor; one that panics fails this
// service, and no other.
type Service struct {
	// Name is the key of the service, and names its log: letters, digits,
	// '-', '_' and '.', at most 64, the first a letter or digit.
	Name string

	// After are services that this one is started after, when they are being
	// started too, and stopped before. It says nothing about whether they are
	// needed: one that failed is not waited for.
	After []string

	// Start starts the process. The context ends when the service is to stop
	// while Start still works; it must not end the process.
	Start func(ctx context.Context, setup Setup) (Process, error)

	// Ready returns when the service does its work, and an error when it never
	// will. Without it a service is ready as soon as it was started.
	Ready        func(ctx context.Context, p Process) error
	ReadyTimeout time.Duration // for Start and Ready together; 0: DefaultReadyTimeout

	// StopTimeout is what the process and its descendants have between SIGTERM
	// and SIGKILL, to finish what they have begun; 0: DefaultStopTimeout.
	StopTimeout time.Duration

	Restart Restart // "": OnFailure
	Backoff Backoff
	Limit   Limit

	// Check is asked every CheckInterval while the service is ready, and has as
	// long to answer. An error, or no answer, ends the process as a failure.
	Check         func(ctx context.Context, p Process) error
	CheckInterval time.Duration // 0: never
}

// Setup is what a service is started with. The files are closed by the
// supervisor when Start has returned, so a process has to have its own copy by
// then, as every started process does.
type Setup struct {
	Stdout *os.File // end of a pipe; each line goes to the log
	Stderr *os.File // the same, under its own name

	// Mark is a variable ("NAME=VALUE") for the environment of the process. By
	// it descendants that made sessions of their own are found again, also
	// when the supervisor was killed; a process without it is watched less
	// well, and works as well.
	Mark string
}

// Process is a running process of a service.
type Process interface {
	// PID is the number of the main process.
	PID() int
	// Wait waits until the main process has ended, and says how. It is called
	// once.
	Wait() (Exit, error)
	// Signal sends a signal to the main process and its whole group. It is an
	// error of no interest when they are gone.
	Signal(sig syscall.Signal) error
}

// A Releaser is a Process that keeps its main process unreaped until Release,
// which is the last call: until then its number, and so that of its group,
// cannot become somebody else's. Processes without it are reaped by Wait.
type Releaser interface{ Release() error }

// A Confined process has a cgroup (version 2) of its own, by the path of its
// directory, which is what knows all of its descendants. "": none.
type Confined interface{ Cgroup() string }

// Exit is how a process ended.
type Exit struct {
	Code   int            `json:"code"`             // exit status; -1 when a signal ended it
	Signal syscall.Signal `json:"signal,omitempty"` // that ended it
}

// Clean reports whether the process ended as one that is done.
func (e Exit) Clean() bool { return e.Code == 0 && e.Signal == 0 }

func (e Exit) String() string {
	if e.Signal != 0 {
		return fmt.Sprintf("ended by signal %d (%v)", int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// withDefaults returns the service as it will be run, or what is wrong with it.
func (s Service) withDefaults() (Service, error) {
	if err := checkName(s.Name); err != nil {
		return s, err
	}
	if s.Start == nil {
		return s, failure.Errorf(failure.Usage, "service %s: nothing starts it", s.Name)
	}
	switch s.Restart {
	case "":
		s.Restart = OnFailure
	case Never, OnFailure, Always:
	default:
		return s, failure.Errorf(failure.Usage, "service %s: restart is %q (it is one of never, on-failure, always)", s.Name, s.Restart)
	}
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{
		{&s.ReadyTimeout, DefaultReadyTimeout}, {&s.StopTimeout, DefaultStopTimeout},
		{&s.Backoff.Start, DefaultBackoffStart}, {&s.Backoff.Max, DefaultBackoffMax}, {&s.Backoff.Reset, DefaultBackoffReset},
		{&s.Limit.Window, DefaultLimitWindow},
	} {
		if *d.value <= 0 {
			*d.value = d.or
		}
	}
	s.Backoff.Max = max(s.Backoff.Max, s.Backoff.Start)
	if s.Limit.Count == 0 {
		s.Limit.Count = DefaultLimitCount
	}
	return s, nil
}

// checkName refuses names that are no file names, or that other names could be
// taken for.
func checkName(name string) error {
	good := name != "" && len(name) <= maxName && !strings.ContainsFunc(name, func(r rune) bool { return !plain(r) && r != '-' && r != '_' && r != '.' }) && plain(rune(name[0]))
	if !good {
		return failure.Errorf(failure.Usage, "%q is no name of a service: letters, digits, '-', '_' and '.', at most %d, the first a letter or digit", name, maxName)
	}
	return nil
}

func plain(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}
