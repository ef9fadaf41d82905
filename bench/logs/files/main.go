// Command files measures the search in plain files against ripgrep: both run as
// processes of their own, by turns, over the same files, and must count the same
// lines.
//
//	go run ./bench/logs/files [-runs 9] PATH…
//
// It prints medians of wall time, processor time and memory. A first run of each
// brings the files into memory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/logs/grep"
	"github.com/mobileops/mobileops/internal/logs/match"
)

// task is one search, as ripgrep's arguments and ours.
type task struct {
	name, pattern string
	o             match.Options
	lines         bool // print the lines, with their numbers; otherwise count
}

// tasks fit the corpus of 1 GB that docs/benchmarks.md names; what is not in
// other files is counted as 0 by both.
var tasks = []task{
	{name: "not there", pattern: "PrivilegeEscalation"},
	{name: "rare literal", pattern: "req-50fc4d5a-1b11-1dac-4d74-0acd971dc720"},
	{name: "rare literal, lines", pattern: "req-50fc4d5a-1b11-1dac-4d74-0acd971dc720", lines: true},
	{name: "address", pattern: "57.238.173.72"},
	{name: "address, lines", pattern: "1.101.162.4", lines: true},
	{name: "common literal", pattern: "INFO"},
	{name: "common literal, lines", pattern: "authentication failure", lines: true},
	{name: "either case", pattern: "error", o: match.Options{Fold: true}},
	{name: "word", pattern: "root", o: match.Options{Word: true}},
	{name: "expression with a literal", pattern: `Failed password for (invalid user )?\w+ from`, o: match.Options{Regex: true}},
	{name: "alternatives", pattern: `error|fail|panic|denied`, o: match.Options{Regex: true}},
	{name: "expression 1", pattern: `[0-9]{3}\.[a-z]+\.[0-9]`, o: match.Options{Regex: true}},
	{name: "expression 2", pattern: `\d+:\d+:\d+ \w+ [a-z]+\[`, o: match.Options{Regex: true}},
	{name: "expression 3", pattern: `[a-z]{4}[0-9]{5}[a-z]`, o: match.Options{Regex: true}},
}

func main() {
	runs := flag.Int("runs", 9, "how often each search is run")
	one := flag.Int("search", -1, "run this search only, as the process that is measured")
	only := flag.String("only", "", "searches whose names contain this")
	flag.Parse()
	if *one >= 0 {
		if err := search(tasks[*one], flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := compare(*runs, *only, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench/logs/files:", err)
		os.Exit(1)
	}
}

// search does one search and writes what ripgrep writes.
func search(t task, paths []string) error {
	p, err := match.Compile(t.pattern, t.o)
	if err != nil {
		return err
	}
	o := grep.Options{Paths: paths, Pattern: p, Recursive: true, Count: !t.lines, Numbers: t.lines}
	out := make([]byte, 0, 64<<10)
	report, err := grep.Search(context.Background(), o, func(h *grep.Hit) error {
		out = append(append(out, h.Path...), ':')
		if t.lines {
			out = append(append(strconv.AppendInt(out, h.Number, 10), ':'), h.Line...)
		} else {
			out = strconv.AppendInt(out, h.Count, 10)
		}
		if out = append(out, '\n'); len(out) > 60<<10 {
			os.Stdout.Write(out)
			out = out[:0]
		}
		return nil
	})
	os.Stdout.Write(out)
	if len(report.Unread) > 0 {
		return errors.New("files were not read")
	}
	return err
}

// used is what a run took.
type used struct {
	wall, cpu time.Duration
	memory    int64 // KiB at most
	lines     string
}

func compare(runs int, only string, paths []string) error {
	if len(paths) == 0 {
		return errors.New("name the files to search")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Printf("%-28s %9s %9s %6s %9s %9s %8s\n", "", "ours", "ripgrep", "wall", "CPU", "rg CPU", "memory")
	for i, t := range tasks {
		if !strings.Contains(t.name, only) {
			continue
		}
		rg := []string{"--no-config", "--no-ignore", "--no-heading", "--color=never"}
		if t.lines {
			rg = append(rg, "-n")
		} else {
			rg = append(rg, "-c")
		}
		if !t.o.Regex {
			rg = append(rg, "-F")
		}
		if t.o.Fold {
			rg = append(rg, "-i")
		}
		if t.o.Word {
			rg = append(rg, "-w")
		}
		rg = append(append(rg, "-e", t.pattern), paths...)
		ours := append([]string{"-search", strconv.Itoa(i)}, paths...)
		var a, b []used
		for run := range runs + 1 {
			ua, err := measure(self, ours)
			if err != nil {
				return err
			}
			ub, err := measure("rg", rg)
			if err != nil {
				return err
			}
			if ua.lines != ub.lines {
				return fmt.Errorf("%s: %s here, %s with ripgrep", t.name, ua.lines, ub.lines)
			}
			if run > 0 {
				a, b = append(a, ua), append(b, ub)
			}
		}
		wall := func(u used) time.Duration { return u.wall }
		cpu := func(u used) time.Duration { return u.cpu }
		wa, wb := median(a, wall), median(b, wall)
		fmt.Printf("%-28s %7dms %7dms %5.2f× %7dms %7dms %5d MB  %s\n", t.name, wa.Milliseconds(), wb.Milliseconds(), float64(wa)/float64(wb),
			median(a, cpu).Milliseconds(), median(b, cpu).Milliseconds(), a[0].memory>>10, a[0].lines)
	}
	return nil
}

func median(u []used, of func(used) time.Duration) time.Duration {
	var d []time.Duration
	for _, x := range u {
		d = append(d, of(x))
	}
	slices.Sort(d)
	return d[len(d)/2]
}

// measure runs a program and sums up what it writes: the numbers at the ends of
// lines when it counts, otherwise how many lines.
func measure(name string, args []string) (used, error) {
	cmd := exec.Command(name, args...)
	r, w, err := os.Pipe()
	if err != nil {
		return used{}, err
	}
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return used{}, err
	}
	w.Close()
	var u used
	counts := slices.Contains(args, "-c") || args[0] == "-search" && !tasks[atoi(args[1])].lines
	if counts {
		var text []byte
		if text, err = io.ReadAll(r); err != nil {
			return used{}, err
		}
		n := 0
		for l := range strings.Lines(string(text)) {
			n += atoi(strings.TrimSpace(l[strings.LastIndexByte(l, ':')+1:]))
		}
		u.lines = fmt.Sprint(n, " lines")
	} else {
		n, err := io.Copy(io.Discard, r)
		if err != nil {
			return used{}, err
		}
		u.lines = fmt.Sprint(n, " bytes")
	}
	r.Close()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		return used{}, fmt.Errorf("%s: %w", name, err)
	}
	u.wall = time.Since(begin)
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	u.memory = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	return u, nil
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
