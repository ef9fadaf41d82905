//go:build goexperiment.jsonv2

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vulndb/vulndbtest"
)

const (
	asWorker = "MOBILEOPS_SCAN_TEST_WORKER" // run main instead of the tests
	atMost   = 4 * time.Minute
)

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		os.Args = append(os.Args[:1], strings.Fields(os.Getenv(asWorker+"_ARGS"))...)
		main()
		return
	}
	os.Exit(m.Run())
}

type outcome struct {
	status         int
	report         protocol.Report
	failure        protocol.Failure
	stdout, stderr string
	progress       []protocol.Progress
	took           time.Duration
}

func command(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append([]string{asWorker + "=1", "PATH=" + os.Getenv("PATH")}, env...)
	return cmd
}

// work runs the worker with a request and returns what came of it.
func work(t *testing.T, cmd *exec.Cmd, request string) outcome {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var out outcome
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(r); s.Scan(); {
			var p protocol.Progress
			if err := json.Unmarshal(s.Bytes(), &p); err != nil {
				t.Errorf("progress %q: %v", s.Text(), err)
			}
			out.progress = append(out.progress, p)
		}
	}()
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = strings.NewReader(request), &stdout, &stderr, []*os.File{w}
	begin := time.Now()
	err = cmd.Run()
	out.took = time.Since(begin)
	w.Close()
	<-done
	r.Close()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	out.status, out.stdout, out.stderr = cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
	if out.status == 0 {
		err = json.Unmarshal(stdout.Bytes(), &out.report)
	} else if stdout.Len() > 0 {
		err = json.Unmarshal(stdout.Bytes(), &out.failure)
	} else {
		err = nil
	}
	if err != nil {
		t.Fatalf("%v: %q\n%s", err, out.stdout, out.stderr)
	}
	return out
}

func ask(t *testing.T, s *protocol.Scan) string {
	t.Helper()
	if s.Temp == "" {
		s.Temp = t.TempDir()
	}
	b, err := json.Marshal(protocol.Request{Schema: protocol.Schema, Version: buildinfo.Get().Version, Scan: s})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func put(t *testing.T, dir, name, body string) {
	t.Helper()
	at := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

const lock = `{"name":"app","version":"1.0.0","lockfileVersion":3,"packages":{"":{"dependencies":{"lodash":"4.17.20"}},"node_modules/lodash":{"version":"4.17.20"}}}`

func project(t *testing.T) *protocol.Scan {
	t.Helper()
	dir, db := t.TempDir(), filepath.Join(t.TempDir(), "db")
	put(t, dir, "package-lock.json", lock)
	put(t, dir, "pom.xml", `<project><modelVersion>4.0.0</modelVersion><groupId>org.example</groupId><artifactId>a</artifactId><version>1</version><parent><groupId>org.example</groupId><artifactId>p</artifactId><version>1</version></parent></project>`)
	put(t, dir, "Dockerfile", "FROM debian:latest\n")
	put(t, dir, "main.tf", "module \"m\" {\n  source = \"git::https://git.example.org/m.git\"\n}\nmodule \"r\" {\n  source = \"example/vpc/aws\"\n  version = \"1.0.0\"\n}\n"+
		"module \"h\" {\n  source = \"https://example.org/m.zip\"\n}\nmodule \"p\" {\n  source = \"registry.example.org/a/b/c\"\n}\n")
	vulndbtest.Write(t, db, vulndbtest.Sample()...)
	return &protocol.Scan{Kind: protocol.Filesystem, Target: dir, Database: db, Scanners: protocol.Scanners()}
}

func TestARequestIsAnsweredWithoutANetwork(t *testing.T) {
	cmd := command(t)
	if os.Geteuid() != 0 {
		t.Log("without root the network cannot be taken away; the request is answered with it")
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	out := work(t, cmd, ask(t, project(t)))
	if out.status != 0 {
		t.Fatalf("status %d: %s %s", out.status, out.stdout, out.stderr)
	}
	found := 0
	for _, r := range out.report.Results {
		found += len(r.Vulnerabilities)
	}
	if found != 1 || out.report.Version != buildinfo.Get().Version || out.report.Engine != "trivy 0.72.0" {
		t.Errorf("report %s", out.stdout)
	}
	if len(out.progress) == 0 || out.progress[len(out.progress)-1].Files != out.report.Stats.Files {
		t.Errorf("progress %+v", out.progress)
	}
	if strings.Contains(out.stderr, "dial") || len(out.stderr) > 0 {
		t.Errorf("last words %q", out.stderr)
	}
}

// TestNothingIsAskedOfTheNetwork traces the worker: a namespace without a network
// would hide an attempt that fails quickly.
func TestNothingIsAskedOfTheNetwork(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is missing (package strace), so sockets cannot be watched")
	}
	log := filepath.Join(t.TempDir(), "log")
	cmd := command(t)
	cmd.Args = append([]string{strace, "-f", "-o", log, "-e", "trace=connect"}, cmd.Path)
	cmd.Path = strace
	out := work(t, cmd, ask(t, project(t)))
	b, err := os.ReadFile(log)
	if out.status != 0 || err != nil {
		t.Skipf("strace cannot trace here: %s %v", out.stderr, err)
	}
	for line := range strings.Lines(string(b)) {
		// Sockets that are connected to nothing are how the runtime learns whether there is IPv6.
		if strings.Contains(line, "connect(") && strings.Contains(line, "AF_INET") {
			t.Errorf("%s", line)
		}
	}
}

func TestOthersAreRefused(t *testing.T) {
	for request, want := range map[string]struct {
		kind failure.Kind
		says string
	}{
		`{"schema":"mobileops.scan.worker/v1","version":"0.0.1","new":1,"scan":{}}`: {failure.NotReady, "of version 0.0.1"},
		`{"schema":"mobileops.scan.worker/v9","version":"9.0"}`:                     {failure.NotReady, "mobileops.scan.worker/v9"},
		"": {failure.Usage, "request"}, "{": {failure.Usage, "request"},
		`{"schema":"mobileops.scan.worker/v1","version":"devel"}`:                                  {failure.Usage, "neither"},
		`{"schema":"mobileops.scan.worker/v1","version":"devel","scan":{"kind":"fs","unknown":1}}`: {failure.Usage, "unknown"},
		strings.Repeat(" ", maxRequest+1):                                                          {failure.Usage, "more than"},
	} {
		if strings.Contains(request, "devel") {
			request = strings.Replace(request, "devel", buildinfo.Get().Version, 1)
		}
		out := work(t, command(t), request)
		if out.status != want.kind.Status() || out.failure.Status != out.status || !strings.Contains(out.failure.Message, want.says) || out.failure.Version != buildinfo.Get().Version {
			t.Errorf("%.80q: status %d, %+v", request, out.status, out.failure)
		}
	}
	out := work(t, command(t, asWorker+"_ARGS=scan fs"), "")
	if out.status != failure.Usage.Status() || !strings.Contains(out.stderr, "started by mobileops") {
		t.Errorf("%d %q", out.status, out.stderr)
	}
}

func TestItSaysWhichItIs(t *testing.T) {
	cmd := command(t, asWorker+"_ARGS=--version")
	b, err := cmd.Output()
	if want := "mobileops-scan " + buildinfo.Get().Version + "\ntrivy 0.72.0\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v; want %q", b, err, want)
	}
}

func TestItEndsWithinASecondOfBeingAsked(t *testing.T) {
	dir := t.TempDir()
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		// A terabyte of zeros takes long, and has to be read, since it begins as text does.
		f, err := os.Create(filepath.Join(dir, "large.txt"))
		if err == nil {
			_, err = f.WriteString("text text text text\n")
		}
		if err == nil {
			err = f.Truncate(1 << 40)
		}
		if err != nil {
			t.Skipf("a large sparse file cannot be made here: %v", err)
		}
		for i := range 400 {
			put(t, dir, "text"+string(rune('a'+i%26))+strings.Repeat("x", i/26)+".txt", strings.Repeat("password = something\n", 50_000))
		}
		f.Close()
		cmd := command(t)
		cmd.Stdin = strings.NewReader(ask(t, &protocol.Scan{Kind: protocol.Filesystem, Target: dir, Scanners: []protocol.Scanner{protocol.Secrets}}))
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var stdout bytes.Buffer
		cmd.Stdout, cmd.ExtraFiles = &stdout, []*os.File{w}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		lines := bufio.NewScanner(r)
		for lines.Scan() { // it is at work
			var p protocol.Progress
			if json.Unmarshal(lines.Bytes(), &p) == nil && p.Files > 0 {
				break
			}
		}
		begin := time.Now()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, r); r.Close() }()
		timer := time.AfterFunc(atMost, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if got := cmd.ProcessState.ExitCode(); got != failure.Interrupted.Status() {
			t.Errorf("%v: status %d: %s", sig, got, stdout.String())
		}
		// On an idle machine it is less than a second; this one may have other things to do.
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("%v: it took %v", sig, took)
		}
	}
}

func TestWhatItMayNotReadIsAProblem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give up its rights")
	}
	s := project(t)
	put(t, s.Target, "shut/x.env", "0123456789 0123456789")
	put(t, s.Target, "y.env", "0123456789 0123456789")
	for _, n := range []string{"shut", "y.env"} {
		if err := os.Chmod(filepath.Join(s.Target, n), 0); err != nil {
			t.Fatal(err)
		}
	}
	s.Scanners = []protocol.Scanner{protocol.Secrets}
	s.Temp = t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The program and all directories above must be within reach of nobody.
	for _, path := range []string{self, s.Target, s.Temp} {
		for d := path; d != "/" && d != "/tmp"; d = filepath.Dir(d) {
			if info, err := os.Stat(d); err == nil && strings.HasPrefix(d, os.TempDir()) {
				_ = os.Chmod(d, info.Mode().Perm()|0o055)
			}
		}
	}
	if err := os.Chmod(s.Temp, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := command(t)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out := work(t, cmd, ask(t, s))
	told := map[string]bool{}
	for _, p := range out.report.Problems {
		if p.Kind == protocol.Unreadable {
			told[p.Path] = true
		}
	}
	if out.status != 0 || !told["shut"] || !told["y.env"] {
		t.Errorf("status %d: %s%s", out.status, out.stdout, out.stderr)
	}
}

func TestProgressThatNobodyReadsHoldsNothingUp(t *testing.T) {
	cmd := command(t)
	cmd.Stdin = strings.NewReader(ask(t, project(t)))
	var stdout bytes.Buffer
	cmd.Stdout = &stdout // descriptor 3 is closed
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %s", err, stdout.String())
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close() // and here nobody is at the other end
	cmd = command(t)
	cmd.Stdin, cmd.ExtraFiles = strings.NewReader(ask(t, project(t))), []*os.File{w}
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	w.Close()
}

func TestAPanicIsAFailureThatNamesTheTarget(t *testing.T) {
	// This one runs in the process of the test, whose PATH others need.
	t.Setenv("PATH", os.Getenv("PATH"))
	t.Setenv("TMPDIR", os.Getenv("TMPDIR"))
	var stderr bytes.Buffer
	s := project(t)
	analyzer.RegisterPostAnalyzer("panics", func(analyzer.AnalyzerOptions) (analyzer.PostAnalyzer, error) { panic("hostile") })
	var stdout bytes.Buffer
	status := serve(t.Context(), strings.NewReader(ask(t, s)), &stdout, &stderr)
	var f protocol.Failure
	if err := json.Unmarshal(stdout.Bytes(), &f); err != nil || status != failure.Failed.Status() {
		t.Fatalf("status %d, %v: %s", status, err, stdout.String())
	}
	if !strings.Contains(f.Message, s.Target) || !strings.Contains(f.Message, "hostile") || !strings.Contains(stderr.String(), "goroutine") {
		t.Errorf("%+v\n%s", f, stderr.String())
	}
}
