package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/host"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

// hookGrace is what a hook that took too long has between SIGTERM and SIGKILL.
const hookGrace = 500 * time.Millisecond

// saidGrace is how long the end of what a hook wrote is waited for when the hook
// has ended: nobody who is left holds the pipe, but for what no sandbox could end.
const saidGrace = 10 * time.Second

// keptOutput is how much of what a hook writes is kept, from its end.
const keptOutput = 4 << 10

// HookError is a hook that did not do its work.
type HookError struct {
	Plugin   string
	On       string // what it was a hook of
	Status   int    // exit status, 0 when it took too long
	TimedOut time.Duration
	Last     string // the end of what it wrote; not escaped
	Err      error  // why it could not be started; nil: it was
}

// Error implements error.
func (e *HookError) Error() string {
	what := fmt.Sprintf("plugin %s, hook on %s: ", e.Plugin, e.On)
	switch {
	case e.Err != nil:
		return what + e.Err.Error()
	case e.TimedOut > 0:
		what += fmt.Sprintf("was ended after %s", e.TimedOut)
	default:
		what += fmt.Sprintf("exit status %d", e.Status)
	}
	if e.Last != "" {
		what += fmt.Sprintf(": %q", e.Last)
	}
	return what
}

// Unwrap returns why it could not be started.
func (e *HookError) Unwrap() error { return e.Err }

// runHook runs a hook with input on its standard input, and waits for it no
// longer than the hook may take.
func (e *Engine) runHook(ctx context.Context, name string, h *manifest.Hook, input []byte) error {
	fail := func(err error) error { return &HookError{Plugin: name, On: h.On, Err: err} }
	in, feed, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer feed.Close()
	said, out, err := os.Pipe()
	if err != nil {
		in.Close()
		return fail(err)
	}
	defer said.Close()
	run, err := e.Start(ctx, name, Call{Role: host.RoleHook, Args: h.Args, Stdin: in, Stdout: out, Stderr: out, Group: true})
	in.Close()
	out.Close()
	if err != nil {
		return fail(err)
	}
	var late atomic.Bool
	limit := time.AfterFunc(h.Timeout, func() { late.Store(true); run.End(hookGrace) })
	defer limit.Stop()
	stop := context.AfterFunc(ctx, func() { run.End(hookGrace) })
	defer stop()
	go func() {
		feed.Write(input) // who does not read it has decided without it
		feed.Close()
	}()
	last := make(chan string, 1)
	go func() { last <- tail(said) }()
	status, err := run.Wait()
	said.SetReadDeadline(time.Now().Add(saidGrace))
	text := <-last
	switch {
	case err != nil:
		return fail(err)
	case ctx.Err() != nil:
		return ctx.Err()
	case late.Load():
		return &HookError{Plugin: name, On: h.On, TimedOut: h.Timeout, Last: text}
	case status != 0:
		return &HookError{Plugin: name, On: h.On, Status: status, Last: text}
	}
	return nil
}

// tail reads everything, and returns the end of it.
func tail(r io.Reader) string {
	var kept []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		kept = append(kept, buf[:n]...)
		kept = kept[max(0, len(kept)-keptOutput):]
		if err != nil {
			return string(bytes.TrimSpace(kept))
		}
	}
}

// commandEvent is what hooks before and after commands read.
type commandEvent struct {
	Command string   `json:"command"` // "update apply"
	Args    []string `json:"args"`    // secrets redacted
	Status  *int     `json:"status,omitempty"`
}

// commandHooks runs the hooks of one kind on a command.
func (e *Engine) commandHooks(ctx context.Context, on, command string, args []string, status *int) (errs []error) {
	x, err := ReadIndex(e.opts.Dir)
	if err != nil {
		return []error{err}
	}
	input, err := json.Marshal(commandEvent{command, append([]string{}, args...), status})
	if err != nil {
		return []error{err}
	}
	for _, p := range x.Plugins {
		if !slices.ContainsFunc(p.Hooks, func(h manifest.Hook) bool { return h.On == on && slices.Contains(h.Commands, command) }) {
			continue
		}
		// The index may be older than what is installed; the manifest decides.
		m, r, err := e.Manifest(ctx, p.Name)
		if isNone(err) || err == nil && !r.Enabled {
			continue
		}
		if err != nil {
			errs = append(errs, &HookError{Plugin: p.Name, On: on, Err: err})
			continue
		}
		for i := range m.Hooks {
			h := &m.Hooks[i]
			if h.On != on || !slices.Contains(h.Commands, command) {
				continue
			}
			err := e.runHook(ctx, p.Name, h, append(input, '\n'))
			var failed *HookError
			if err != nil && h.Refuse && errors.As(err, &failed) && failed.Err == nil && failed.TimedOut == 0 {
				reason := failed.Last
				if reason == "" {
					reason = fmt.Sprintf("exit status %d", failed.Status)
				}
				return append(errs, failure.Hint(failure.Errorf(failure.NotAllowed, "%w by plugin %s: %s", ErrRefused, p.Name, lastLine(reason)), "to do without it: mobileops plugin disable "+p.Name))
			}
			if err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errs
}

// ErrRefused says that a hook keeps a command from running.
var ErrRefused = failure.New(failure.NotAllowed, "refused")

func lastLine(s string) string {
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// Before runs the hooks before a command. An error that is ErrRefused keeps it
// from running; the others are told, and it goes on: a plugin that hangs or is
// broken must not keep an administrator from working.
func (e *Engine) Before(ctx context.Context, command string, args []string) []error {
	return e.commandHooks(ctx, manifest.OnBefore, command, args, nil)
}

// After runs the hooks after a command, with its exit status.
func (e *Engine) After(ctx context.Context, command string, args []string, status int) []error {
	return e.commandHooks(ctx, manifest.OnAfter, command, args, &status)
}

// HasHooks says whether there is anything for Before or After to do: one small
// file is read, or none.
func HasHooks(dir, command string) bool {
	x, err := ReadIndex(dir)
	if err != nil {
		return true // Before says what is wrong
	}
	for _, p := range x.Plugins {
		for _, h := range p.Hooks {
			if slices.Contains(h.Commands, command) {
				return true
			}
		}
	}
	return false
}

// pump delivers findings or audit records to a hook until ctx is done.
func (e *Engine) pump(ctx context.Context, name string, n int, h *manifest.Hook, warn func(error)) error {
	return host.Pump(ctx, host.PumpOptions{
		Store: e.opts.State, Name: fmt.Sprintf("%s/%s-%d", name, h.On, n), Types: []string{h.On}, OnError: warn,
		Filter: func(ev *host.Event) bool {
			return h.On != manifest.OnFinding || ev.Finding == nil ||
				ev.Finding.Severity >= h.MinSeverity && (len(h.Sources) == 0 || slices.Contains(h.Sources, ev.Finding.Source))
		},
		Deliver: func(ctx context.Context, events []host.Event) error {
			var lines bytes.Buffer
			enc := json.NewEncoder(&lines)
			for _, ev := range events {
				if err := enc.Encode(ev); err != nil {
					return err
				}
			}
			return e.runHook(ctx, name, h, lines.Bytes())
		},
	})
}

// schedule runs a hook at its interval until ctx is done. The first time is one
// interval from now, so that a supervisor that is restarted does not run
// everything at once.
func (e *Engine) schedule(ctx context.Context, name string, h *manifest.Hook, warn func(error)) {
	tick := time.NewTicker(h.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			input, _ := json.Marshal(struct {
				Type string    `json:"type"`
				Time time.Time `json:"time"`
			}{manifest.OnSchedule, now.UTC()})
			if err := e.runHook(ctx, name, h, append(input, '\n')); err != nil && ctx.Err() == nil {
				warn(err)
			}
		}
	}
}
