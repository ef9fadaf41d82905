package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/supervise"
)

// supervise runs a supervisor until the test ends, and returns a client of it
// and what it warned of.
func (w *world) supervise() (*supervise.Client, func() string) {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	var mu sync.Mutex
	var warned strings.Builder
	opts := SuperviseOptions{
		RunDir: filepath.Join(w.dir, "run"), LogDir: filepath.Join(w.dir, "log"), Socket: filepath.Join(w.dir, "sock", "s"), Ready: func() { close(ready) },
		Warn: func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(&warned, format+"\n", args...)
		},
	}
	if err := os.MkdirAll(filepath.Dir(opts.Socket), 0o700); err != nil {
		w.Fatal(err)
	}
	go func() { done <- w.Supervise(ctx, opts) }()
	w.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		w.Fatal("the supervisor did not begin:", err)
	case <-time.After(60 * time.Second):
		w.Fatal("the supervisor did not begin")
	}
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		client, err := supervise.Dial(w.Context(), opts.Socket)
		if err == nil {
			return client, func() string { mu.Lock(); defer mu.Unlock(); return warned.String() }
		}
		if time.Now().After(end) {
			w.Fatal(err)
		}
	}
}

// until waits until f says that it is so.
func (w *world) until(what string, f func() bool) {
	w.Helper()
	for end := time.Now().Add(60 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("not within a minute: %s", what)
		}
	}
}

const service = `trap 'echo drained >drained; exit 0' TERM
echo '{"method":"ready"}' >&3
echo '{"method":"health","params":{"status":"degraded","message":"version '$MOBILEOPS_PLUGIN_VERSION'","metrics":{"n":7}}}' >&3
echo begun
while :; do read line <&3 || exit 0; done`

func TestService(t *testing.T) {
	w := newWorld(t)
	client, _ := w.supervise()
	w.install(w.pack("serves", "1.0.0", 1, "service: {args: [serve], watchdog: 0s}\n", service))
	if _, err := client.Start(t.Context(), "serves", true); !errors.Is(err, supervise.ErrUnknown) && failure.KindOf(err) != failure.Usage {
		t.Errorf("started before the supervisor looked: %v", err)
	}
	if err := client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, err := client.Start(t.Context(), "serves", true)
	if err != nil || first.State != supervise.Ready || first.PID == 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	health := func(version string) func() bool {
		return func() bool {
			s, err := client.Status(t.Context(), "serves")
			return err == nil && s.Health != nil && s.Health.Message == "version "+version && s.Health.Metrics["n"] == 7
		}
	}
	w.until("it says how it is", health("1.0.0"))

	// A new version runs from the next start on.
	w.install(w.pack("serves", "2.0.0", 2, "service: {args: [serve], watchdog: 0s}\n", service))
	if err := client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := client.Status(t.Context(), "serves"); err != nil || s.PID != first.PID {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := client.Restart(t.Context(), "serves", true); err != nil {
		t.Fatal(err)
	}
	w.until("it is the new one", health("2.0.0"))
	if data, err := os.ReadFile(filepath.Join(w.DataDir("serves"), "drained")); err != nil || string(data) != "drained\n" {
		t.Errorf("it was not asked to end: %q, %v", data, err)
	}

	// What was changed meanwhile is not started again.
	r, err := w.Get(t.Context(), "serves")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(w.packageDir("serves", &r.Release), "mobileops-serves")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho owned\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Restart(t.Context(), "serves", true); err == nil || !strings.Contains(err.Error(), "digest") && !strings.Contains(err.Error(), "signed") {
		t.Errorf("%v", err)
	}
	for line, err := range supervise.TailLog(t.Context(), filepath.Join(w.dir, "log", "serves.log"), 100, false) {
		if err != nil || strings.Contains(string(line.Text), "owned") {
			t.Errorf("%s, %v", line.Text, err)
		}
	}
	if _, err := w.Uninstall(t.Context(), "serves", true); err != nil {
		t.Fatal(err)
	}
	if err := client.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, err := client.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestEventHooks reports findings, and lets a hook see those that it is about,
// also when it fails at first.
func TestEventHooks(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("sees", "1.0.0", 1, `permissions: {findings: [read], exec: [/bin/cat]}
hooks: [{on: finding, min_severity: high, args: [seen]}]
`, `test -e failed || { echo x >failed; exit 1; }
cat >>events`))
	_, warned := w.supervise()
	report := func(rule string, severity finding.Severity) {
		t.Helper()
		err := w.opts.State.Update(t.Context(), func(tx *state.Tx) error {
			_, err := finding.Report(tx, "test", rule, []finding.Finding{{Source: "test", Rule: rule, Severity: severity, Title: "T", Subject: "S", Observed: time.Now()}}, time.Now())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// The cursor of a hook that is new begins when the supervisor has seen it.
	events := filepath.Join(w.DataDir("sees"), "events")
	n := 0
	w.until("the first event came", func() bool {
		n++
		report(fmt.Sprintf("first-%d", n), finding.High)
		time.Sleep(200 * time.Millisecond)
		_, err := os.Stat(events)
		return err == nil
	})
	report("quiet", finding.Low)
	report("loud", finding.Critical)
	var seen []string
	w.until("the last one came", func() bool {
		data, _ := os.ReadFile(events)
		return strings.Contains(string(data), `"loud"`) && strings.HasSuffix(string(data), "\n")
	})
	data, err := os.ReadFile(events)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var e struct {
			Type, Change string
			Finding      struct{ Rule string }
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Type != "finding" || e.Change != "opened" {
			t.Errorf("%q, %v", line, err)
		}
		seen = append(seen, e.Finding.Rule)
	}
	for _, rule := range seen {
		if rule == "quiet" {
			t.Error("it saw what is below its severity")
		}
	}
	if !strings.Contains(warned(), "exit status 1") {
		t.Errorf("nobody was told that it failed at first: %q", warned())
	}
}

// TestHooksOnRecordsAndTheClock: a hook on audit records sees those that are
// written, and one on a schedule runs again and again.
func TestHooksOnRecordsAndTheClock(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("ticks", "1.0.0", 1, `permissions: {audit: [read], exec: [/bin/cat]}
hooks: [{on: audit}, {on: schedule, every: 1m}]
`, `cat >>events`))
	_, warned := w.supervise()
	// A minute is the least that a manifest may ask for.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.schedule(ctx, "ticks", &manifest.Hook{On: manifest.OnSchedule, Every: 50 * time.Millisecond, Timeout: time.Minute}, func(err error) { t.Error(err) })
	}()
	defer func() { cancel(); <-ended }()
	records := audit.New(w.opts.State, audit.Options{Host: "test"})
	w.until("both came", func() bool {
		// The cursor of a hook that is new begins when the supervisor has seen it.
		if _, err := records.Append(t.Context(), audit.Act{Time: time.Now(), Command: "integrity check"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		data, _ := os.ReadFile(filepath.Join(w.DataDir("ticks"), "events"))
		times := map[string]int{}
		for line := range strings.Lines(string(data)) {
			var e struct {
				Type  string
				Audit struct{ Command string }
			}
			if json.Unmarshal([]byte(line), &e) == nil && (e.Type == manifest.OnSchedule || e.Audit.Command == "integrity check") {
				times[e.Type]++
			}
		}
		return times[manifest.OnSchedule] > 1 && times[manifest.OnAudit] > 0
	})
	if s := warned(); s != "" {
		t.Error(s)
	}
}

func TestCommandHooks(t *testing.T) {
	w := newWorld(t)
	if HasHooks(w.opts.Dir, "update apply") {
		t.Error("nothing is installed")
	}
	w.install(w.pack("guards", "1.0.0", 1, `permissions: {exec: [/bin/cat]}
hooks:
  - {on: before, commands: ["update apply"], args: [before], refuse: true, timeout: 10s}
  - {on: after, commands: ["update apply", "integrity check"], args: [after], timeout: 10s}
`, `read event
echo "$1 $event" >>seen
case $event in *forbidden*) echo "not on a Friday"; exit 1;; *slow*) while :; do :; done;; esac`))
	w.install(w.pack("slow", "1.0.0", 1, `hooks: [{on: before, commands: ["integrity check"], timeout: 1s, refuse: true}]
`, `while :; do :; done`))
	if !HasHooks(w.opts.Dir, "update apply") || HasHooks(w.opts.Dir, "update list") {
		t.Error("what there is, is not what is asked for")
	}
	if errs := w.Before(t.Context(), "update apply", []string{"--quiet"}); len(errs) > 0 {
		t.Error(errs)
	}
	errs := w.Before(t.Context(), "update apply", []string{"forbidden"})
	if len(errs) != 1 || !errors.Is(errs[0], ErrRefused) || failure.KindOf(errs[0]) != failure.NotAllowed || !strings.Contains(errs[0].Error(), "plugin guards: not on a Friday") {
		t.Errorf("%v", errs)
	}
	if errs := w.After(t.Context(), "update apply", nil, 3); len(errs) > 0 {
		t.Error(errs)
	}
	began := time.Now()
	errs = w.Before(t.Context(), "integrity check", nil)
	if len(errs) != 1 || errors.Is(errs[0], ErrRefused) || !strings.Contains(errs[0].Error(), "ended after 1s") || time.Since(began) > 2*time.Minute {
		t.Errorf("a hook that hangs: %v after %s", errs, time.Since(began))
	}
	seen := readFile(t, filepath.Join(w.DataDir("guards"), "seen"))
	for _, want := range []string{
		`before {"command":"update apply","args":["--quiet"]}`,
		`before {"command":"update apply","args":["forbidden"]}`,
		`after {"command":"update apply","args":[],"status":3}`,
	} {
		if !strings.Contains(seen, want+"\n") {
			t.Errorf("%q lacks %q", seen, want)
		}
	}
}
