package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sample is what one run took.
type sample struct {
	wall, cpu time.Duration
	rss       int64 // KiB, the largest process; not less than the benchmark itself, from which it was made
}

// way is one way to do something. Only run is measured.
type way struct {
	who, kind, format string // kind and format of the package
	prepare           func() error
	line              []string
	// made is the tree that has to be version 2 afterwards; "": nothing is compared.
	made  string
	clean func() error
	runs  []sample
}

func (w *way) name() string { return strings.TrimSpace(w.who + " " + w.kind + " " + w.format) }

// median returns the middle of what f returns for the runs.
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

// command is a process that sees no installation but the benchmark's.
func (b *bench) command(line ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.ctx, line[0], line[1:]...)
	cmd.Dir = b.dir
	// Its own children end with it when all is broken off.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "LC_ALL=C",
		"MOBILEOPS_STATE_DIR="+b.at("state"), "MOBILEOPS_LOG_DIR="+b.at("log"), "MOBILEOPS_RUN_DIR="+b.at("run"),
		"MOBILEOPS_UPDATE_TARGET="+b.at("opt", "app"), "MOBILEOPS_UPDATE_STORE="+b.at("opt", "app.store"), "MOBILEOPS_UPDATE_KEYS="+b.at("keys"))
	return cmd
}

// measure runs a program and says what it took.
func (b *bench) measure(line ...string) (s sample, err error) {
	cmd := b.command(line...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err = cmd.Run()
	s.wall = time.Since(began)
	if err != nil {
		return s, fmt.Errorf("%s: %w: %s", strings.Join(line, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	s.rss = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	return s, nil
}

// do runs programs one after another.
func (b *bench) do(lines ...[]string) error {
	for _, l := range lines {
		if _, err := b.measure(l...); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) sh(script string) []string { return []string{"sh", "-ec", script} }

// round runs one way once.
func (b *bench) round(w *way, compare bool) error {
	if w.prepare != nil {
		if err := w.prepare(); err != nil {
			return err
		}
	}
	if err := b.flush(); err != nil {
		return err
	}
	s, err := b.measure(w.line...)
	if err != nil {
		return err
	}
	w.runs = append(w.runs, s)
	if compare && w.made != "" {
		if err := b.do([]string{"diff", "-rq", "--no-dereference", "--exclude=.mobileops", b.at(version2), w.made + "/."}); err != nil {
			return fmt.Errorf("what was made is not version 2: %w", err)
		}
	}
	if w.clean != nil {
		return w.clean()
	}
	return nil
}

// flush writes out what is not written yet, so that nobody waits for what
// another has left.
func (b *bench) flush() error {
	d, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}
