// Command isolate measures how long it takes until a host is cut off: from the
// start of a program to the first packet that the kernel refuses.
//
//	go run ./bench/network/isolate -mobileops bin/mobileops >isolate.jsonl
//
// A host and its peer are network namespaces of their own, joined by a pair of
// veth interfaces. The host sends a datagram by IPv4 and one by IPv6 every
// 0.1 ms while the program runs. Noted are
//
//	force    when the first was refused in the family that was cut off last
//	arrived  when the last datagram arrived at the peer
//	exit     when the program, or the last of several, had ended
//	cpu      processor time of the program and what it waited for
//
// all but the last from just before the program was started. Datagrams that
// arrive although an earlier one was refused in both families are leaks, and
// are counted.
//
// Each round runs every way once, in turn. What is written to standard output
// is one line of JSON for each run; the table on standard error has medians.
//
// Programs see files of their own in place of /run, /etc/ufw, /etc/default/ufw,
// /etc/firewalld and /var/log. Nothing of the machine's is changed. It needs root.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	var b bench
	var only string
	flag.StringVar(&b.mobileops, "mobileops", "bin/mobileops", "the binary to measure")
	flag.StringVar(&b.ruleset, "ruleset", "", "the ruleset for nft; what mobileops network isolate --dry-run prints when not given")
	flag.IntVar(&b.rounds, "rounds", 21, "rounds")
	flag.StringVar(&only, "only", "", "only these ways, separated by commas")
	flag.Parse()
	if only != "" {
		b.only = strings.Split(only, ",")
	}
	if err := b.run(); err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	mobileops, ruleset string
	rounds             int
	only               []string

	dir     string
	pairs   []*pair
	tests   []*way
	daemons []*exec.Cmd
}

// way is one way to cut a host off.
type way struct {
	name string
	pair *pair // its own, so that no way is in another's way
	// programs are run one after another; prepare makes them, anew for each round.
	prepare func() ([]program, error)
	// undo lets everything through again.
	undo func() error
	runs []run
}

// program is a program, its arguments, and what it reads.
type program struct {
	line  []string
	stdin string   // a file; "": nothing
	env   []string // beside PATH
}

// run is what was measured in one round. Times are in milliseconds.
type run struct {
	Way     string  `json:"way"`
	Round   int     `json:"round"`
	Force   float64 `json:"force_ms"`
	Force4  float64 `json:"force_ipv4_ms"`
	Force6  float64 `json:"force_ipv6_ms"`
	Arrived float64 `json:"arrived_ms"`
	Exit    float64 `json:"exit_ms"`
	CPU     float64 `json:"cpu_ms"`
	Leaks   int     `json:"leaks"`
}

func (b *bench) run() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("namespaces need root")
	}
	if b.mobileops, err = filepath.Abs(b.mobileops); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "mobileops-bench-isolate-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	defer b.close()
	if err := b.ways(); err != nil {
		return err
	}
	lines := json.NewEncoder(os.Stdout)
	for round := range b.rounds {
		for _, w := range b.tests {
			r, err := b.measure(w)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			r.Way, r.Round = w.name, round
			w.runs = append(w.runs, r)
			if err := lines.Encode(r); err != nil {
				return err
			}
		}
	}
	b.print()
	return nil
}

// forceTime bounds how long a program may take to cut the host off.
const forceTime = 30 * time.Second

func (b *bench) measure(w *way) (r run, err error) {
	programs, err := w.prepare()
	if err != nil {
		return r, err
	}
	stream, err := w.pair.send()
	if err != nil {
		return r, err
	}
	began := time.Now()
	for _, p := range programs {
		cpu, err := w.pair.run(p)
		r.CPU += cpu.Seconds() * 1e3
		if err != nil {
			stream.stop()
			return r, err
		}
	}
	exit := time.Since(began)
	for !stream.refused() && time.Since(began) < forceTime {
		time.Sleep(100 * time.Microsecond)
	}
	time.Sleep(5 * time.Millisecond) // what leaks gets its chance
	stream.stop()
	time.Sleep(2 * readTime) // what has arrived is read
	if !stream.refused() {
		return r, fmt.Errorf("the host is not cut off after %v", forceTime)
	}
	ms := func(t time.Time) float64 { return t.Sub(began).Seconds() * 1e3 }
	r.Force4, r.Force6, r.Exit = ms(*stream.first[0].Load()), ms(*stream.first[1].Load()), exit.Seconds()*1e3
	r.Force = max(r.Force4, r.Force6)
	last, leaks := w.pair.arrivals(began.Add(time.Duration(r.Force * 1e6)))
	r.Arrived, r.Leaks = ms(last), leaks
	return r, w.undo()
}

func (b *bench) print() {
	column := func(w *way, get func(run) float64) (median, least, most float64) {
		var list []float64
		for _, r := range w.runs {
			list = append(list, get(r))
		}
		slices.Sort(list)
		return list[len(list)/2], list[0], list[len(list)-1]
	}
	force := func(r run) float64 { return r.Force }
	ours := 0.0
	fmt.Fprintf(os.Stderr, "%-18s %28s %9s %9s %9s %9s %6s\n", "", "force: median (min…max) ms", "ratio", "arrived", "exit", "cpu", "leaks")
	for i, w := range b.tests {
		m, least, most := column(w, force)
		if i == 0 {
			ours = m
		}
		arrived, _, _ := column(w, func(r run) float64 { return r.Arrived })
		exit, _, _ := column(w, func(r run) float64 { return r.Exit })
		cpu, _, _ := column(w, func(r run) float64 { return r.CPU })
		leaks := 0
		for _, r := range w.runs {
			leaks += r.Leaks
		}
		fmt.Fprintf(os.Stderr, "%-18s %10.2f %17s %9.3f %9.2f %9.2f %9.2f %6d\n", w.name, m, fmt.Sprintf("(%.2f…%.2f)", least, most), ours/m, arrived, exit, cpu, leaks)
	}
	fmt.Fprintf(os.Stderr, "%d rounds. Ratio: %s by this way.\n", b.rounds, b.tests[0].name)
}
