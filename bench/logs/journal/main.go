// Command journal measures how much processor time it takes to read journal
// files, against journalctl on the same files: a rare word, a common one, and
// everything in the export format. Runs of both are interleaved; the medians
// are printed.
//
//	go run ./bench/logs/journal [-entries 250000] [-runs 7] [-dir DIR]
//
// Without -dir it makes a journal with systemd-journal-remote, in a temporary
// directory.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/logs/journal"
	"github.com/mobileops/mobileops/internal/logs/match"
)

const remote = "/lib/systemd/systemd-journal-remote"

func main() {
	entries := flag.Int("entries", 250_000, "entries of the journal that is made")
	runs := flag.Int("runs", 7, "runs of each program")
	dir := flag.String("dir", "", "directory of journals; empty: make one")
	role := flag.String("role", "", "used by the program itself")
	word := flag.String("word", "", "used by the program itself")
	flag.Parse()
	var err error
	if *role != "" {
		err = run(*role, *dir, *word)
	} else {
		err = measure(*dir, *entries, *runs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "journal:", err)
		os.Exit(1)
	}
}

// run does what is measured.
func run(role, dir, word string) error {
	set, err := journal.Open(journal.Options{Report: func(err error) { fmt.Fprintln(os.Stderr, err) }}, dir)
	if err != nil {
		return err
	}
	defer set.Close()
	w := bufio.NewWriterSize(os.Stdout, 1<<20)
	defer w.Flush()
	var buf []byte
	if role == "export" {
		for {
			e, err := set.Next()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if buf, err = e.AppendExport(buf[:0], journal.ExportClassic); err != nil {
				return err
			}
			w.Write(buf)
		}
	}
	o := journal.SearchOptions{Need: match.Need{Exact: true, Clauses: []match.Clause{{{Text: []byte(word)}}}}}
	return set.Search(context.Background(), o, func(e *journal.Entry) error {
		m, _ := e.Get("MESSAGE")
		w.Write(append(m, '\n'))
		return nil
	})
}

// generate writes entries in the export format. One of ten thousand has the
// word NEEDLE.
func generate(w io.Writer, n int) {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"session", "opened", "closed", "for", "user", "root", "authentication", "failure", "connection", "from", "port", "ssh2", "invalid", "disconnect", "password", "check", "unknown", "kernel", "device", "memory"}
	programs := []string{"sshd", "su", "kernel", "cron", "ftpd", "dockerd", "nginx", "postgres", "systemd", "NetworkManager"}
	now := uint64(1_780_000_000_000_000)
	for i := range n {
		now += r.Uint64N(3_000_000)
		p, pid := programs[r.IntN(len(programs))], 300+r.IntN(4000)
		fmt.Fprintf(w, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=0a1b2c3d4e5f60718293a4b5c6d7e8f9\n", now, now-1_779_999_000_000_000)
		fmt.Fprintf(w, "_MACHINE_ID=aaaabbbbccccddddeeeeffff00001111\n_HOSTNAME=combo\n_TRANSPORT=syslog\nPRIORITY=%d\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER=%s\nSYSLOG_PID=%d\n_PID=%d\n_UID=%d\n_GID=0\n_COMM=%s\n_EXE=/usr/sbin/%s\n_SYSTEMD_UNIT=%s.service\nMESSAGE=",
			r.IntN(8), p, pid, pid, r.IntN(3)*1000, p, p, p)
		for range 4 + r.IntN(10) {
			fmt.Fprintf(w, "%s ", words[r.IntN(len(words))])
		}
		if i%10_000 == 5_000 {
			fmt.Fprint(w, "NEEDLE ")
		}
		fmt.Fprintf(w, "%d.%d.%d.%d\n\n", r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256))
	}
}

// fill makes a journal of n entries in a directory.
func fill(dir string, n int) error {
	cmd := exec.Command(remote, "-o", filepath.Join(dir, "a.journal"), "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	w := bufio.NewWriterSize(in, 1<<20)
	generate(w, n)
	w.Flush()
	in.Close()
	return cmd.Wait()
}

// contest is a task for both.
type contest struct {
	name         string
	ours, theirs []string
}

func measure(dir string, entries, runs int) error {
	if dir == "" {
		temp, err := os.MkdirTemp("", "journal-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		if err := fill(temp, entries); err != nil {
			return fmt.Errorf("systemd-journal-remote: %w", err)
		}
		dir = temp
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	grep := func(word string) []string {
		return []string{"journalctl", "-q", "--directory", dir, "-o", "cat", "--case-sensitive=true", "-g", word}
	}
	contests := []contest{
		{"rare word", []string{self, "-role", "search", "-dir", dir, "-word", "NEEDLE"}, grep("NEEDLE")},
		{"no match", []string{self, "-role", "search", "-dir", dir, "-word", "no such word"}, grep("no such word")},
		{"common word", []string{self, "-role", "search", "-dir", dir, "-word", "password"}, grep("password")},
		{"export", []string{self, "-role", "export", "-dir", dir}, []string{"journalctl", "-q", "--directory", dir, "-o", "export"}},
	}
	fmt.Printf("%-12s %12s %12s %8s %12s %12s\n", "", "cpu", "journalctl", "ratio", "wall", "journalctl")
	for _, c := range contests {
		var cpu, wall [2][]time.Duration
		var size [2]int64
		for i := range runs + 1 {
			for k, args := range [][]string{c.ours, c.theirs} {
				used, took, n, err := timed(args)
				if err != nil {
					return err
				}
				if size[k] = n; i > 0 { // the first run warms up
					cpu[k], wall[k] = append(cpu[k], used), append(wall[k], took)
				}
			}
		}
		a, b := median(cpu[0]), median(cpu[1])
		fmt.Printf("%-12s %12v %12v %8.3f %12v %12v\n", c.name, a, b, float64(a)/float64(b), median(wall[0]), median(wall[1]))
		if size[0] != size[1] {
			fmt.Printf("%-12s the outputs differ: %d bytes and %d\n", "", size[0], size[1])
		}
	}
	return nil
}

// timed runs a program and returns its processor time, its time, and how many
// bytes it printed.
func timed(args []string) (cpu, wall time.Duration, size int64, err error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, 0, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, 0, err
	}
	if size, err = io.Copy(io.Discard, out); err != nil {
		return 0, 0, 0, err
	}
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() == 1 { // journalctl -g found nothing
		err = nil
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), time.Since(start), size, err
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2].Round(100 * time.Microsecond)
}
