package conformance

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// standIn returns options for a plugin that this test binary is.
func standIn(t *testing.T, kind, role string) Options {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Program: program, Args: []string{"as-plugin", kind}, Name: "stand-in", Dir: t.TempDir(), Role: role,
		Config: map[string]any{"address": "logs.example.org:514"}, Secrets: map[string]string{"token": "s3cret"},
		ReadyTimeout: 20 * time.Second, StopTimeout: 20 * time.Second,
	}
}

// patient has what a good plugin does awaited longer: the machine may be busy.
func patient(opts Options) Options {
	opts.ReadyTimeout, opts.StopTimeout, opts.Timeout = time.Minute, time.Minute, time.Minute
	return opts
}

// passes checks that a plugin passes every check, each of which applies but
// those that are named.
func passes(t *testing.T, opts Options, inapplicable ...string) {
	t.Helper()
	report := Run(t.Context(), patient(opts))
	for _, c := range report.Checks {
		want := Passed
		for _, name := range inapplicable {
			if c.Name == name {
				want = NotApplicable
			}
		}
		if c.Status != want {
			t.Errorf("%s is %s, not %s: %s", c.Name, c.Status, want, c.Reason)
		}
	}
	t.Logf("\n%s", report.String())
}

func TestGoodService(t *testing.T) {
	t.Parallel()
	passes(t, standIn(t, "good", pluginsdk.RoleService))
}

func TestGoodHook(t *testing.T) {
	t.Parallel()
	passes(t, standIn(t, "good-hook", pluginsdk.RoleHook), "refusals")
}

// What authors of plugins call.
func TestInATest(t *testing.T) {
	t.Parallel()
	Test(t, patient(standIn(t, "good-hook", pluginsdk.RoleHook)))
}

func TestGoodCommand(t *testing.T) {
	t.Parallel()
	passes(t, standIn(t, "good-command", pluginsdk.RoleCommand))
}

// Each bad plugin fails the one check that is about what it does wrong, and no
// other.
func TestBadPlugins(t *testing.T) {
	t.Parallel()
	kinds := []string{
		"hello", "ready", "ping", "events", "events-order", "unknown", "answers", "redelivery", "killed", "long-line",
		"back-pressure", "refusals", "refusals-loop", "denied-dial", "descriptors", "stop", "host-gone", "stdout", "lines",
		"hook", "hook-empty", "hook-unknown",
	}
	reports := make([]Report, len(kinds))
	opts := make([]Options, len(kinds))
	for i, kind := range kinds {
		role := pluginsdk.RoleService
		if strings.HasPrefix(kind, "hook") {
			role = pluginsdk.RoleHook
		}
		opts[i] = standIn(t, kind, role)
		switch kind { // a check that looks for so long must see it, on a busy machine too
		case "hello", "descriptors":
			opts[i].Timeout = time.Minute
		case "back-pressure", "refusals", "refusals-loop", "denied-dial":
			opts[i].observed = 20 * time.Second
		}
	}
	var wg sync.WaitGroup
	places := make(chan struct{}, 8) // most of the time they wait
	for i := range kinds {
		wg.Go(func() {
			places <- struct{}{}
			reports[i] = Run(t.Context(), opts[i])
			<-places
		})
	}
	wg.Wait()
	for i, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			want := strings.TrimSuffix(strings.TrimSuffix(kind, "-order"), "-loop")
			failed := reports[i].Failed()
			if len(failed) != 1 || failed[0].Name != want {
				t.Errorf("it should fail %s alone:\n%s", want, reports[i].String())
			}
			if len(failed) == 1 {
				t.Log(failed[0].Reason)
			}
		})
	}
}

// A program that is still open for writing, as it is for a moment in whatever
// another goroutine of a test just forks, is waited for.
func TestProgramThatIsBeingWritten(t *testing.T) {
	opts := standIn(t, "", pluginsdk.RoleHook)
	opts.Program, opts.Args = filepath.Join(t.TempDir(), "hook"), nil
	if err := os.WriteFile(opts.Program, []byte("#!/bin/sh\ncat >/dev/null\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(opts.Program, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, func() { f.Close() })
	passes(t, opts, "refusals")
}

func TestProgramsThatCannotBeStarted(t *testing.T) {
	for name, opts := range map[string]Options{
		"missing":        {Program: "/nonexistent/mobileops-x"},
		"a directory":    {Program: t.TempDir()},
		"not executable": {Program: "conformance_test.go"},
		"a strange role": {Program: "/bin/true", Role: "daemon"},
	} {
		report := Run(t.Context(), opts)
		if failed := report.Failed(); len(failed) != 1 || failed[0].Name != "program" {
			t.Errorf("%s:\n%s", name, report.String())
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	opts := standIn(t, "good", pluginsdk.RoleService)
	opts.Skip = []string{"hello"}
	report := Run(ctx, opts)
	for _, c := range report.Checks {
		if c.Status != NotApplicable {
			t.Errorf("%s is %s", c.Name, c.Status)
		}
	}
}

// What is shown of a report names what is wrong.
func TestReportString(t *testing.T) {
	r := Report{[]Check{{Name: "ping", About: "answers", Status: Failed, Reason: "no answer\nat all"}, {Name: "stop", Status: Passed}}}
	if s := r.String(); !strings.Contains(s, "no answer") || !strings.Contains(s, "passed") {
		t.Errorf("%q", s)
	}
}

// FuzzPluginLine reads what a plugin could write.
func FuzzPluginLine(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"method":"config.get","params":{}}`, `{"id":1,"result":{}}`, `{"id":1,"error":{"code":"unknown","message":""}}`,
		`{"method":"ready","params":{}}`, `{"id":0,"method":"x"}`, `{"id":1,"method":"x","params":[]}`, `null`, "{\"method\":\"\xff\"}", `{"id":1,"result":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		p := &process{r: &runner{}, turn: make(chan struct{}), pongs: map[uint64]pluginsdk.Code{}, asked: map[string]int{}, how: behaviour{disorder: true}}
		p.held = []func(){func() {}} // so that nothing is sent
		p.receive(line)
		if m, err := parse(line); err == nil && m.Method == "" && m.ID == nil {
			t.Fatalf("%q is neither a question nor an answer", line)
		}
	})
}
