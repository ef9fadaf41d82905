// Command start measures what mobileops costs before it does anything: from
// fork to the end of a process that prints one line, or what a press of Tab
// asks for. Several binaries are compared when several are named; the first is
// what the others are held against.
//
//	go run ./bench/network/start bin/mobileops
//	go run ./bench/network/start -rounds 400 before/mobileops bin/mobileops
//
// Each round runs everything once, in turn, so that what else the machine does
// falls on all alike. true(1) and a Go program that does nothing are the floor.
// What is written to standard output is one line of JSON for each; the table is
// on standard error.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	rounds := flag.Int("rounds", 300, "rounds")
	flag.Parse()
	binaries := flag.Args()
	if len(binaries) == 0 {
		binaries = []string{"bin/mobileops"}
	}
	dir, err := os.MkdirTemp("", "mobileops-bench-start-")
	if err != nil {
		log.Fatal(err)
	}
	err = measure(dir, binaries, *rounds)
	os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

// call is a program and its arguments, and what its runs took.
type call struct {
	line   []string
	wall   []time.Duration
	cpu    []time.Duration
	faults []int64
}

func measure(dir string, binaries []string, rounds int) error {
	nothing, err := doNothing(dir)
	if err != nil {
		return err
	}
	calls := []*call{{line: []string{"true"}}, {line: []string{nothing}}}
	for _, args := range [][]string{
		{"version"},
		{"__complete", "integrity", ""},
		{"__complete", ""},
		{"network", "--help"},
	} {
		for _, b := range binaries {
			path, err := filepath.Abs(b)
			if err != nil {
				return err
			}
			calls = append(calls, &call{line: append([]string{path}, args...)})
		}
	}
	const warmUp = 5
	for round := range rounds + warmUp {
		for _, c := range calls {
			if err := c.run(dir, round >= warmUp); err != nil {
				return err
			}
		}
	}
	return report(calls)
}

// doNothing builds a Go program that does nothing.
func doNothing(dir string) (string, error) {
	source, binary := filepath.Join(dir, "nothing.go"), filepath.Join(dir, "nothing")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", binary, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
}

func (c *call) run(dir string, counts bool) error {
	cmd := exec.Command(c.line[0], c.line[1:]...)
	cmd.Env = append(os.Environ(), "MOBILEOPS_STATE_DIR="+dir+"/state", "MOBILEOPS_LOG_DIR="+dir+"/log", "MOBILEOPS_RUN_DIR="+dir+"/run")
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%q: %w", c.line, err)
	}
	if took := time.Since(began); counts {
		usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		c.wall = append(c.wall, took)
		c.cpu = append(c.cpu, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		c.faults = append(c.faults, usage.Minflt+usage.Majflt)
	}
	return nil
}

func report(calls []*call) error {
	lines := json.NewEncoder(os.Stdout)
	fmt.Fprintf(os.Stderr, "%-60s %8s %8s %8s %8s %8s\n", "", "median", "min", "p90", "cpu", "faults")
	for _, c := range calls {
		slices.Sort(c.wall)
		slices.Sort(c.cpu)
		slices.Sort(c.faults)
		ms := func(list []time.Duration, percent int) float64 {
			return list[min(len(list)*percent/100, len(list)-1)].Seconds() * 1e3
		}
		r := struct {
			Line   []string `json:"line"`
			Rounds int      `json:"rounds"`
			Median float64  `json:"median_ms"`
			Min    float64  `json:"min_ms"`
			P90    float64  `json:"p90_ms"`
			CPU    float64  `json:"cpu_ms"`
			Faults int64    `json:"page_faults"`
		}{c.line, len(c.wall), ms(c.wall, 50), ms(c.wall, 0), ms(c.wall, 90), ms(c.cpu, 50), c.faults[len(c.faults)/2]}
		if err := lines.Encode(r); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%-60s %8.2f %8.2f %8.2f %8.2f %8d\n", strings.Join(c.line, " "), r.Median, r.Min, r.P90, r.CPU, r.Faults)
	}
	return nil
}
