// Package health finds out whether what an update put in place works, and runs
// the commands that belong to an update.
//
// A Check names up to three things that all have to be well: a command that
// exits with 0, an address that answers 200 to 299 over HTTP, and a unit of
// systemd that is active and stays so. Wait asks for all of them, again and
// again, until one attempt passes or the deadline is over. RunHook runs one
// command once: the hooks of a package, and the command of a check.
//
// Invariants:
//   - What cannot be looked at is never a pass. Where systemd does not run, a
//     check of a unit is an error of kind failure.NotReady.
//   - Nothing here waits for longer than it says: every attempt has a time-out,
//     within the deadline of all of them, and a command gets Grace to end in.
//   - A command runs in a session of its own, without a terminal, with nothing
//     on its standard input, with an environment that holds what is documented
//     at Variables alone, with umask 022, and without open descriptors of ours.
//   - When a command ends, or takes too long, its process group is ended with
//     it. Only what made a session of its own (setsid(2)) lives on: a service
//     is started by the service manager, not by a hook.
//   - Commands of a package are found beneath a directory handle, and never
//     through a link that leads out of it.
//
// Sources: setsid(2), kill(2), waitid(2), close_range(2), systemctl(1),
// org.freedesktop.systemd1(5), sd_booted(3), RFC 9110.
package health

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// What holds where a Check says nothing.
const (
	DefaultDeadline = 60 * time.Second
	DefaultInterval = 2 * time.Second
	DefaultTimeout  = 10 * time.Second
	DefaultSettle   = 5 * time.Second
)

// Check says what has to be well. At least one of Command, HTTP and Unit is
// given; when several are, all have to pass in the same attempt.
type Check struct {
	Command []string // program and arguments, as in Hook; passes by exiting with 0
	HTTP    string   // http://…, https://… or unix:/path/of/socket:/path; passes by a status of 200 to 299
	Unit    string   // unit of systemd; passes by being active for Settle, without a restart

	Deadline time.Duration // for everything; 0: DefaultDeadline
	Interval time.Duration // from the end of an attempt to the next; 0: DefaultInterval
	Timeout  time.Duration // for each part of an attempt; 0: DefaultTimeout
	Settle   time.Duration // how long the unit is watched; 0: DefaultSettle, or half of a short deadline
}

// Env is where a check runs.
type Env struct {
	Tree       *os.Root            // the tree that a relative command is found in; nil: there is none
	Variables  Variables           // what the command is told
	Credential *syscall.Credential // whom the command runs as; nil: who we are
	Started    func(pid int)       // as in Hook, at each attempt

	booted string // what is there while systemd runs, for tests; "": /run/systemd/system
}

// Attempt is one try of all parts of a check.
type Attempt struct {
	Number  int           // counted from 1
	Failure string        // what is not well; "" when the attempt passed. May hold output of commands and servers: escape it
	Elapsed time.Duration // since the first attempt began
}

// Verdict is what a check came to.
type Verdict struct {
	Passed   bool
	Attempts int
	Failure  string // of the last attempt that failed by itself, or else by the deadline; "" when none did. Escape it
	Elapsed  time.Duration
}

// Validate returns an error of kind failure.Usage that says what is wrong with
// the check, if anything is.
func (c Check) Validate() error {
	if len(c.Command) == 0 && c.HTTP == "" && c.Unit == "" {
		return failure.New(failure.Usage, "a health check needs a command, an address (http) or a unit")
	}
	if len(c.Command) > 0 && c.Command[0] == "" {
		return failure.New(failure.Usage, "the command of a health check is empty")
	}
	if c.HTTP != "" {
		if _, err := parseAddress(c.HTTP); err != nil {
			return failure.Wrap(failure.Usage, err)
		}
	}
	if c.Unit != "" && !validUnit(c.Unit) {
		return failure.Errorf(failure.Usage, "%q is not the name of a unit", c.Unit)
	}
	for _, d := range []struct {
		name string
		time time.Duration
	}{{"deadline", c.Deadline}, {"interval", c.Interval}, {"timeout", c.Timeout}, {"settle", c.Settle}} {
		if d.time < 0 {
			return failure.Errorf(failure.Usage, "the %s of a health check is negative", d.name)
		}
	}
	if d := c.withDefaults(); c.Unit != "" && d.Settle >= d.Deadline {
		return failure.Errorf(failure.Usage, "a unit that has to stay active for %v is not well before the deadline of %v", d.Settle, d.Deadline)
	}
	return nil
}

func (c Check) withDefaults() Check {
	for _, d := range []struct {
		field    *time.Duration
		fallback time.Duration
	}{{&c.Deadline, DefaultDeadline}, {&c.Interval, DefaultInterval}, {&c.Timeout, DefaultTimeout}} {
		if *d.field == 0 {
			*d.field = d.fallback
		}
	}
	if c.Settle == 0 {
		c.Settle = min(DefaultSettle, c.Deadline/2)
	}
	return c
}

// Wait tries until everything is well or the deadline is over; report, if not
// nil, is told of each attempt. A verdict without an error is the answer,
// whether passed or not. Errors are of kind failure.Usage for a check that
// makes no sense, failure.NotReady where it cannot be answered, and
// failure.Interrupted when ctx is cancelled; the verdict then tells how far
// it came, and has not passed.
func Wait(ctx context.Context, c Check, env Env, report func(Attempt)) (Verdict, error) {
	var v Verdict
	if err := c.Validate(); err != nil {
		return v, err
	}
	c = c.withDefaults()
	parts, err := c.parts(env)
	if err != nil {
		return v, err
	}
	began := time.Now()
	within, cancel := context.WithDeadline(ctx, began.Add(c.Deadline))
	defer cancel()
	for {
		why := attempt(within, parts, c.Timeout)
		v.Attempts++
		v.Elapsed = time.Since(began)
		if ctx.Err() != nil {
			return v, fmt.Errorf("the health check was given up: %w", ctx.Err())
		}
		// That the deadline cut an attempt short tells less than what an
		// earlier one ran into.
		if why != "" && (within.Err() == nil || v.Failure == "") {
			v.Failure = why
		}
		if report != nil {
			report(Attempt{Number: v.Attempts, Failure: why, Elapsed: v.Elapsed})
		}
		if why == "" {
			v.Passed = true
			return v, nil
		}
		// An attempt after the deadline could not pass any more.
		if v.Elapsed+c.Interval >= c.Deadline {
			return v, nil
		}
		select {
		case <-ctx.Done():
			v.Elapsed = time.Since(began)
			return v, fmt.Errorf("the health check was given up: %w", ctx.Err())
		case <-time.After(c.Interval):
		}
	}
}

// part asks one thing, and returns why it is not well.
type part func(ctx context.Context) error

// parts returns what an attempt consists of, in order of how quickly each tells.
func (c Check) parts(env Env) ([]part, error) {
	var parts []part
	if c.Unit != "" {
		u, err := newUnitProbe(c.Unit, c.Settle, env.booted)
		if err != nil {
			return nil, err
		}
		// Before the others, so that its time runs while they still fail.
		parts = append(parts, u.ask)
	}
	if c.HTTP != "" {
		a, err := parseAddress(c.HTTP)
		if err != nil {
			return nil, failure.Wrap(failure.Usage, err)
		}
		parts = append(parts, a.ask)
	}
	if len(c.Command) > 0 {
		h := Hook{Command: c.Command, Beneath: env.Tree, Timeout: c.Timeout, Env: env.Variables.Environ(), Credential: env.Credential, Started: env.Started}
		parts = append(parts, func(ctx context.Context) error {
			_, err := RunHook(ctx, h)
			return err
		})
	}
	return parts, nil
}

// attempt asks each part, up to the first that is not well.
func attempt(ctx context.Context, parts []part, timeout time.Duration) string {
	for _, ask := range parts {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		err := ask(ctx)
		if err == nil && ctx.Err() != nil {
			err = errors.New("the answer came too late")
		}
		cancel()
		if err != nil {
			return err.Error()
		}
	}
	return ""
}
