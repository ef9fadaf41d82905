package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// page returns docs/plugins.md.
func page(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../../docs/plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// example returns the block of code that follows "<!-- example: NAME -->".
func example(t *testing.T, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page(t), "<!-- example: "+name+" -->\n```")
	_, rest, _ = strings.Cut(rest, "\n")
	code, _, ends := strings.Cut(rest, "\n```\n")
	if !ok || !ends {
		t.Fatalf("docs/plugins.md has no example %q", name)
	}
	return code + "\n"
}

// Every line of JSON in the page is one that its reader would take, and means
// the same when it is written again: no field is misspelt.
func TestExamplesInTheDocumentation(t *testing.T) {
	seen := map[string]bool{}
	lines, block := 0, ""
	for n, line := range strings.Split(page(t), "\n") {
		if fence, ok := strings.CutPrefix(strings.TrimSpace(line), "```"); ok {
			if block == "" && fence != "" {
				block = fence
			} else if block = ""; fence != "" {
				t.Fatalf("line %d: a block begins within a block", n+1)
			}
			continue
		}
		if block != "json" {
			continue
		}
		lines++
		if err := checkExample([]byte(line), seen); err != nil {
			t.Errorf("docs/plugins.md:%d: %v", n+1, err)
		}
	}
	if lines < 25 {
		t.Errorf("only %d lines of JSON were found", lines)
	}
	for _, method := range []string{
		"hello", "ping", "ready", "health", "config.get", "secret.get", "findings.list", "findings.report", "events.subscribe", "events",
		"events.ack", "dial", "error", "gap", pluginsdk.TypeFinding, pluginsdk.TypeAudit, "before", "after",
	} {
		if !seen[method] {
			t.Errorf("the page has no example of %s", method)
		}
	}
	for _, code := range []pluginsdk.Code{
		pluginsdk.CodeDenied, pluginsdk.CodeInvalid, pluginsdk.CodeUnknown, pluginsdk.CodeNotFound, pluginsdk.CodeBusy, pluginsdk.CodeFailed, pluginsdk.CodeTooLarge,
	} {
		if !strings.Contains(page(t), "| `"+string(code)+"` |") {
			t.Errorf("the page does not say what %s means", code)
		}
	}
}

// checkExample checks one line, and notes what it is an example of.
func checkExample(line []byte, seen map[string]bool) error {
	var kind struct{ Type, Command string }
	if err := json.Unmarshal(line, &kind); err != nil {
		return err
	}
	switch {
	case kind.Type != "":
		return same(line, new(pluginsdk.Event))
	case kind.Command != "":
		var h pluginsdk.HookCommand
		err := same(line, &h)
		seen[map[bool]string{true: "before", false: "after"}[h.Status == nil]] = true
		return err
	}
	m, err := parse(line)
	if err != nil {
		return err
	}
	if err := same(line, new(message)); err != nil {
		return err
	}
	seen[m.Method] = true
	var into any
	switch m.Method {
	case "":
		if m.Error != nil {
			seen["error"] = true
			return nil
		}
		var r struct {
			Findings []json.RawMessage
			New      *int
		}
		json.Unmarshal(m.Result, &r)
		for _, f := range r.Findings {
			if err := same(f, new(pluginsdk.Finding)); err != nil {
				return err
			}
		}
		if r.New != nil {
			return same(m.Result, new(pluginsdk.Summary))
		}
		return nil
	case "hello":
		into = new(pluginsdk.Hello)
	case "health":
		into = new(pluginsdk.Health)
	case "events":
		into = new(pluginsdk.Batch)
		var b pluginsdk.Batch
		if err := json.Unmarshal(m.Params, &b); err != nil {
			return err
		}
		for _, e := range b.Events {
			seen[e.Type] = true
		}
	case "events.subscribe":
		into = new(subscription)
	case "findings.report":
		var r struct {
			Findings []json.RawMessage
		}
		if err := json.Unmarshal(m.Params, &r); err != nil {
			return err
		}
		for _, f := range r.Findings {
			if err := same(f, new(pluginsdk.Finding)); err != nil {
				return err
			}
		}
		return known(m.Params, "scope", "part", "complete", "findings")
	case "findings.list":
		return known(m.Params, "source", "state", "min_severity", "limit", "after")
	case "dial":
		return known(m.Params, "network", "address", "timeout_ms")
	case "secret.get":
		return known(m.Params, "name")
	case "events.ack":
		return known(m.Params, "cursor")
	case "ping", "ready", "config.get":
		return known(m.Params)
	default:
		return fmt.Errorf("there is no method %q", m.Method)
	}
	return same(m.Params, into)
}

// known checks that an object has no keys but those.
func known(raw []byte, keys ...string) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return err
	}
	for key := range fields {
		if !slices.Contains(keys, key) {
			return fmt.Errorf("there is no field %q", key)
		}
	}
	return nil
}

// same reads JSON into a value, and compares what that is written as.
func same(raw []byte, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return err
	}
	again, err := json.Marshal(into)
	if err != nil {
		return err
	}
	var want, got any
	if err := errors.Join(json.Unmarshal(raw, &want), json.Unmarshal(again, &got)); err != nil {
		return err
	}
	if m, ok := got.(map[string]any); ok { // what has no value need not be written
		if w, ok := want.(map[string]any); ok {
			for key, value := range m {
				if _, there := w[key]; !there && (value == "" || value == false || value == nil) {
					delete(m, key)
				}
			}
		}
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%T is written as %s", into, again)
	}
	return nil
}

// The table of checks is that of the program.
func TestChecksInTheDocumentation(t *testing.T) {
	text := page(t)
	for _, list := range [][]check{serviceChecks(), hookChecks(), commandChecks()} {
		for _, c := range list {
			if !strings.Contains(text, "`"+c.name+"`") || !strings.Contains(text, c.about) {
				t.Errorf("the page does not have the check %q: %s", c.name, c.about)
			}
		}
	}
}

func TestManifestsInTheDocumentation(t *testing.T) {
	for _, name := range []string{"announcer", "archive"} {
		m, err := manifest.Parse([]byte(example(t, "plugin.yaml of mobileops-"+name)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if m.Name != name || m.Service == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// The shell plugin of the page is a good plugin, under the shells that there are.
func TestShellPluginInTheDocumentation(t *testing.T) {
	t.Parallel()
	script := example(t, "mobileops-archive")
	for _, shell := range []string{"/bin/dash", "/bin/bash"} {
		t.Run(filepath.Base(shell), func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat(shell); err != nil {
				t.Skipf("%s is not installed (apt-get install %s)", shell, filepath.Base(shell))
			}
			program := filepath.Join(t.TempDir(), "mobileops-archive")
			if err := os.WriteFile(program, []byte("#!"+shell+strings.TrimPrefix(script, "#!/bin/sh")), 0o755); err != nil {
				t.Fatal(err)
			}
			opts := standIn(t, "", pluginsdk.RoleService)
			opts.Program, opts.Args, opts.Name, opts.Dir = program, nil, "archive", t.TempDir()
			passes(t, opts, "denied-dial", "descriptors")
		})
	}
}

// receiver is an HTTP server for announcements.
type receiver struct {
	mu  sync.Mutex
	ids map[string]int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var e pluginsdk.Event
	if err := json.NewDecoder(req.Body).Decode(&e); err != nil || req.Header.Get("Authorization") != "Bearer s3cret" || req.Header.Get("Idempotency-Key") != e.ID {
		http.Error(w, "this is no announcement", http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids[e.ID]++
}

// The Go plugin of the page builds, is a good plugin, and does what it says.
func TestGoPluginInTheDocumentation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(example(t, "main.go of mobileops-announcer")), 0o644); err != nil {
		t.Fatal(err)
	}
	// In the module, so that it is built against this very package.
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, "testdata", "announcer", "main.go"): source}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "mobileops-announcer")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./testdata/announcer")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r := &receiver{ids: map[string]int{}}
	server := httptest.NewServer(r)
	defer server.Close()
	opts := standIn(t, "", pluginsdk.RoleService)
	opts.Program, opts.Args, opts.Name = program, []string{"serve"}, "announcer"
	opts.Config = map[string]any{"url": "http://logs.example.org/hook", "at_least": "high"}
	opts.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if network != "tcp" || address != "logs.example.org:80" {
			return nil, fmt.Errorf("%s %s is not where it should connect to", network, address)
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", server.Listener.Addr().String())
	}
	passes(t, opts, "descriptors") // its connection stays open
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids["f-1000"] < 2 {
		t.Errorf("the first event, which was delivered again and again, came %d times", r.ids["f-1000"])
	}
}
