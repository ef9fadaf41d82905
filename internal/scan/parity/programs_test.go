package parity

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// patience is how long one process may take on a slow machine. Whatever takes
// longer hangs.
const patience = 4 * time.Minute

// program returns a program that make builds, or skips the test. Both take
// minutes to build the first time, which no test should do unasked.
func program(t testing.TB, path ...string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join(append([]string{"..", "..", ".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); err != nil {
		t.Skipf("NOT TESTED: %s is missing; build it with: make scan-worker trivy", filepath.Join(path...))
	}
	return p
}

func trivyProgram(t testing.TB) string  { return program(t, ".cache", "trivy") }
func workerProgram(t testing.TB) string { return program(t, "bin", "mobileops-scan") }

// outcome is how a process ended.
type outcome struct {
	status int // of the process; -1 when a signal ended it
	stdout []byte
	stderr string
	took   time.Duration
	hung   bool
}

// started runs a program in an empty directory with an empty environment, so that
// no configuration of the machine plays a part, and kills all of it at the limit.
func started(t testing.TB, limit time.Duration, change func(*exec.Cmd), stdin []byte, line ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=/usr/bin:/bin", "TMPDIR=" + t.TempDir(), "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if change != nil {
		change(cmd)
	}
	began := time.Now()
	err := cmd.Run()
	o := outcome{stdout: stdout.Bytes(), stderr: stderr.String(), took: time.Since(began), hung: ctx.Err() != nil}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !o.hung {
		t.Fatalf("%s: %v", line[0], err)
	}
	if cmd.ProcessState != nil {
		o.status = cmd.ProcessState.ExitCode()
	}
	return o
}

// runTrivy asks Trivy's own command, as somebody without internet would.
func runTrivy(t testing.TB, cache string, arguments ...string) []byte {
	t.Helper()
	line := append([]string{trivyProgram(t)}, arguments...)
	line = append(line, "--quiet", "--cache-dir", cache, "--offline-scan", "--skip-db-update", "--skip-java-db-update",
		"--skip-version-check", "--disable-telemetry")
	if arguments[0] != "sbom" {
		line = append(line, "--skip-check-update")
	}
	o := started(t, patience, nil, nil, line...)
	if o.hung || o.status != 0 {
		t.Fatalf("trivy ended with %d after %v: %q\n%s", o.status, o.took, line[1:], o.stderr)
	}
	return o.stdout
}

// answer is what a worker said.
type answer struct {
	outcome
	report   *protocol.Report
	failure  *protocol.Failure
	progress []protocol.Progress
}

// workerVersion is what the worker calls itself. It refuses a request of another
// version, and says its own when it does.
var workerVersion = sync.OnceValues(func() (string, error) {
	request, err := json.Marshal(protocol.Request{Schema: protocol.Schema, Version: "no version at all",
		Scan: &protocol.Scan{Kind: protocol.Filesystem, Target: "/nonexistent", Temp: "/nonexistent"}})
	if err != nil {
		return "", err
	}
	path, err := filepath.Abs("../../../bin/mobileops-scan")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(path)
	cmd.Stdin = bytes.NewReader(request)
	out, _ := cmd.Output() // it is refused
	var f protocol.Failure
	if err := json.Unmarshal(out, &f); err != nil {
		return "", errors.Join(errors.New("a request of another version was not refused"), err)
	}
	return f.Version, nil
})

// runWorker asks mobileops-scan as docs/formats/scan-protocol.md says, without
// what internal/scan/worker does around it.
func runWorker(t testing.TB, limit time.Duration, scan protocol.Scan, change func(*exec.Cmd)) answer {
	t.Helper()
	program := workerProgram(t)
	version, err := workerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if scan.Temp == "" {
		scan.Temp = t.TempDir()
	}
	request, err := json.Marshal(protocol.Request{Schema: protocol.Schema, Version: version, Scan: &scan})
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	done := make(chan error, 1)
	go func() {
		defer r.Close()
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			var p protocol.Progress
			if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
				done <- err
				io.Copy(io.Discard, r)
				return
			}
			a.progress = append(a.progress, p)
		}
		done <- lines.Err()
	}()
	a.outcome = started(t, limit, func(cmd *exec.Cmd) {
		cmd.ExtraFiles = []*os.File{w}
		if change != nil {
			change(cmd)
		}
	}, request, program)
	w.Close()
	if err := <-done; err != nil {
		t.Errorf("a line of progress: %v", err)
	}
	if a.hung {
		t.Fatalf("mobileops-scan still ran after %v: it hangs\n%s", limit, tail(a.stderr))
	}
	if a.status == 0 {
		a.report = new(protocol.Report)
		err = strict(a.stdout, a.report)
	} else if len(a.stdout) > 0 {
		a.failure = new(protocol.Failure)
		err = strict(a.stdout, a.failure)
	}
	if err != nil {
		t.Fatalf("mobileops-scan ended with %d, and what it said is no document of the protocol: %v\n%s", a.status, err, tail(a.stderr))
	}
	return a
}

// scanned is the report of a scan that has to go well.
func scanned(t testing.TB, scan protocol.Scan) *protocol.Report {
	t.Helper()
	a := runWorker(t, patience, scan, nil)
	if a.report == nil {
		t.Fatalf("mobileops-scan ended with %d: %+v\n%s", a.status, a.failure, tail(a.stderr))
	}
	return a.report
}

// strict decodes one document and nothing behind it.
func strict(from []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(from))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind the document")
	}
	return nil
}

// tail is the end of what a process said.
func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}
