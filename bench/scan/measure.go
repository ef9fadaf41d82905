package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// sample is what one run took.
type sample struct {
	wall, cpu time.Duration
	rss       int64 // bytes, the peak of what was resident
	own       int64 // bytes, the peak of what was the process's own
	found     int
}

// contender is one way to look at a target.
type contender struct {
	name    string
	line    []string
	request *protocol.Scan // of the worker
	before  func() error   // not measured
	runs    []sample
}

func (b *bench) trivyOf(kind, target, cache string, scanners ...string) *contender {
	line := []string{b.trivy, kind, target, "--scanners", strings.Join(scanners, ","), "--format", "json", "--quiet", "--cache-dir", cache,
		"--offline-scan", "--skip-db-update", "--skip-java-db-update", "--skip-check-update", "--skip-version-check", "--disable-telemetry", "--list-all-pkgs=false"}
	if slices.Contains(scanners, "license") {
		line = append(line, "--license-full")
	}
	return &contender{name: "trivy", line: line}
}

func (b *bench) oursOf(name string, scan protocol.Scan) *contender {
	return &contender{name: name, line: []string{b.worker}, request: &scan}
}

// askVersion asks the worker what it is: it refuses requests of others, and says so.
func (b *bench) askVersion() (string, error) {
	cmd := exec.CommandContext(b.ctx, b.worker)
	cmd.Stdin = strings.NewReader(`{"schema":"` + protocol.Schema + `","version":"nobody's","scan":{"kind":"fs","target":"/","temp":"/"}}`)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	var f protocol.Failure
	if err := json.Unmarshal(out, &f); err != nil {
		return "", fmt.Errorf("%s doesn't say of which version it is: %w", b.worker, err)
	}
	return f.Version, nil
}

// run runs a contender once. count looks at what it found.
func (b *bench) run1(c *contender, count bool) (s sample, err error) {
	if c.before != nil {
		if err := c.before(); err != nil {
			return s, err
		}
	}
	dir, err := os.MkdirTemp(b.dir, "run-")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		return s, err
	}
	defer out.Close()
	cmd := exec.CommandContext(b.ctx, c.line[0], c.line[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "TMPDIR=" + dir, "PATH=/usr/bin:/bin"}
	cmd.Stdout = out
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if c.request != nil {
		scan := *c.request
		scan.Temp = filepath.Join(dir, "temp")
		if err := os.Mkdir(scan.Temp, 0o700); err != nil {
			return s, err
		}
		request, err := json.Marshal(protocol.Request{Schema: protocol.Schema, Version: b.version, Scan: &scan})
		if err != nil {
			return s, err
		}
		nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return s, err
		}
		defer nowhere.Close()
		cmd.Stdin, cmd.ExtraFiles = bytes.NewReader(request), []*os.File{nowhere}
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return s, err
	}
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { s.own = peakOwn(cmd.Process.Pid, stop) })
	err = cmd.Wait()
	s.wall = time.Since(began)
	close(stop)
	watch.Wait()
	if err != nil {
		return s, fmt.Errorf("%s: %w: %s", c.name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	s.rss = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	if count {
		text, err := os.ReadFile(out.Name())
		if err != nil {
			return s, err
		}
		s.found = countFindings(text)
	}
	return s, nil
}

// countFindings counts what is found in a report of either.
func countFindings(report []byte) int {
	n := 0
	for _, key := range []string{`"RuleID":`, `"rule":`, `"VulnerabilityID":`, `"installed":`, `"Confidence":`, `"confidence":`} {
		n += bytes.Count(report, []byte(key))
	}
	return n
}

// peakOwn watches how much a process has of its own.
func peakOwn(pid int, stop <-chan struct{}) (peak int64) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	for {
		select {
		case <-stop:
			return peak
		case <-time.After(2 * time.Millisecond):
		}
		status, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
				kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				if err == nil {
					peak = max(peak, kib<<10)
				}
			}
		}
	}
}

// rounds runs all contenders in turn. The first round isn't counted.
func (b *bench) compare(contenders ...*contender) error {
	for round := range b.rounds + 1 {
		for _, c := range contenders {
			s, err := b.run1(c, round == 0)
			if err != nil {
				return err
			}
			if round == 0 {
				fmt.Fprintf(os.Stderr, "%s finds %d\n", c.name, s.found)
				continue
			}
			c.runs = append(c.runs, s)
		}
	}
	return nil
}

// median is the middle of what f returns for the runs.
func median[T int64 | time.Duration](runs []sample, f func(sample) T) T {
	var list []T
	for _, r := range runs {
		list = append(list, f(r))
	}
	slices.Sort(list)
	return list[len(list)/2]
}

func wall(s sample) time.Duration { return s.wall }
func cpu(s sample) time.Duration  { return s.cpu }
func rss(s sample) int64          { return s.rss }
func own(s sample) int64          { return s.own }
