// Command search measures searches in the store beside ripgrep over the same
// lines, and the store beside zstd.
//
//	go run ./bench/logs/search [-mobileops bin/mobileops] [-runs 11] CORPUS
//
// CORPUS is a directory of plain logs. They are collected into a store in a
// temporary directory; its size is compared with that of zstd -3 of the same
// text, and the processor time of collecting is told. Then each search runs by
// turns with ripgrep's; both must find as many lines. Medians are printed.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// question is a search for both programs.
type question struct {
	name string
	ours []string // arguments of mobileops logs search
	rg   []string // arguments of rg, without the paths
	most float64  // of ripgrep's wall time
}

func main() {
	bin := flag.String("mobileops", "bin/mobileops", "the program that is measured")
	runs := flag.Int("runs", 11, "runs of each program")
	keep := flag.String("state", "", "keep the store in this directory, and use what is there")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := measure(*bin, *keep, flag.Arg(0), *runs); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func measure(bin, keep, corpus string, runs int) error {
	files, err := filepath.Glob(filepath.Join(corpus, "*.log"))
	if err != nil || len(files) == 0 {
		return errors.Join(err, errors.New("no *.log in "+corpus))
	}
	for i := range files {
		if files[i], err = filepath.Abs(files[i]); err != nil {
			return err
		}
	}
	dir := keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "bench-logs-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	for _, v := range []string{"STATE", "LOG", "RUN"} {
		os.Setenv("MOBILEOPS_"+v+"_DIR", filepath.Join(dir, strings.ToLower(v)))
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	raw := int64(0)
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			return err
		}
		raw += st.Size()
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); errors.Is(err, fs.ErrNotExist) {
		cmd := exec.Command(bin, append([]string{"logs", "collect", "--quiet"}, files...)...)
		cmd.Stderr = os.Stderr
		began := time.Now()
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("collect: %w", err)
		}
		cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		rss := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
		fmt.Printf("collect: %.0f MB in %.1f s, %.0f MB/s of processor time, %d MB of memory\n", float64(raw)/1e6, time.Since(began).Seconds(), float64(raw)/1e6/cpu.Seconds(), rss>>10)
		if err := exec.Command(bin, "logs", "rotate", "--quiet").Run(); err != nil {
			return fmt.Errorf("rotate: %w", err)
		}
	}
	stored := int64(0)
	filepath.WalkDir(filepath.Join(dir, "state", "logs"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if st, err := d.Info(); err == nil {
				stored += st.Size()
			}
		}
		return nil
	})
	packed, err := zstdSize(files)
	if err != nil {
		return err
	}
	fmt.Printf("size: %.1f MB stored, %.1f MB by zstd -3: %.3f (at most 0.7); %.1f times smaller than raw\n", float64(stored)/1e6, float64(packed)/1e6, float64(stored)/float64(packed), float64(raw)/float64(stored))

	questions, err := questionsOf(files)
	if err != nil {
		return err
	}
	fmt.Printf("%-42s %9s %11s %11s %7s %7s %11s %8s\n", "", "lines", "mobileops", "ripgrep", "ratio", "target", "processor", "memory")
	for _, q := range questions {
		if err := ask(bin, files, q, runs); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
	}
	return firstLine(bin, runs)
}

// questionsOf makes the questions, with values that occur in the corpus: the
// least frequent of some that are drawn.
func questionsOf(files []string) ([]question, error) {
	rare := func(pattern string) (string, error) {
		re := regexp.MustCompile(pattern)
		rng := rand.New(rand.NewPCG(1, 2))
		best, least := "", 1<<62
		for _, f := range files {
			data, err := os.Open(f)
			if err != nil {
				return "", err
			}
			st, _ := data.Stat()
			for range 10 {
				buf := make([]byte, 64<<10)
				n, _ := data.ReadAt(buf, rng.Int64N(max(1, st.Size()-int64(len(buf)))))
				value := re.Find(buf[:n])
				if value == nil {
					continue
				}
				lines, err := count(exec.Command("rg", append([]string{"-F", "-c", "--no-filename", "-e", string(value)}, files...)...))
				if err != nil {
					data.Close()
					return "", err
				}
				if lines > 0 && lines < least {
					best, least = string(value), lines
				}
			}
			data.Close()
		}
		return best, nil
	}
	address, err := rare(`\b[1-9][0-9]{1,2}\.[0-9]{2,3}\.[0-9]{1,3}\.[0-9]{2,3}\b`)
	if err != nil {
		return nil, err
	}
	uuid, err := rare(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	if err != nil {
		return nil, err
	}
	hash, err := rare(`\b[0-9a-f]{32}\b`)
	if err != nil {
		return nil, err
	}
	list := []question{
		{"rare string", []string{"-c", "mobileopsNEEDLE9f3ac1"}, []string{"-F", "-c", "mobileopsNEEDLE9f3ac1"}, 0.15},
		{"part of a rare string", []string{"-c", "NEEDLE9f3"}, []string{"-F", "-c", "NEEDLE9f3"}, 0.15},
	}
	for _, v := range [][2]string{{"address", address}, {"UUID", uuid}, {"hash", hash}} {
		if v[1] != "" {
			list = append(list, question{v[0] + " " + v[1], []string{"-c", v[1]}, []string{"-F", "-c", v[1]}, 0.25})
		}
	}
	return append(list,
		question{"common term", []string{"-c", "Failed password"}, []string{"-F", "-c", "Failed password"}, 1},
		question{"common term in each log", []string{"-c", "root"}, []string{"-F", "-c", "root"}, 1},
		question{"most common term", []string{"-c", "INFO"}, []string{"-F", "-c", "INFO"}, 1},
		question{"expression without literal", []string{"-c", "-e", `[0-9]{3}\.[a-z]+\.[0-9]`}, []string{"-c", `[0-9]{3}\.[a-z]+\.[0-9]`}, 2},
		question{"expression, many matches", []string{"-c", "-e", `\d+:\d+:\d+ \w+ [a-z]+\[`}, []string{"-c", `\d+:\d+:\d+ \w+ [a-z]+\[`}, 2},
		question{"expression, few matches", []string{"-c", "-e", `[a-z]{4}[0-9]{5}[a-z]`}, []string{"-c", `[a-z]{4}[0-9]{5}[a-z]`}, 2},
		question{"one hour of thirty days", []string{"-c", "--since", "2026-03-10T13:00:00Z", "--until", "2026-03-10T14:00:00Z", "Failed"}, []string{"-c", `^Mar 10 13:.*Failed|^\[Tue Mar 10 13:.*Failed|^260310 13.*Failed|^2026-03-10 13:.*Failed|^\S+ 2026-03-10 13:.*Failed`}, 0.1},
	), nil
}

// count adds up the numbers that a program prints, one a line.
func count(cmd *exec.Cmd) (int, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		return 0, err
	}
	sum := 0
	for line := range strings.FieldsSeq(string(out)) {
		n, err := strconv.Atoi(line)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

type result struct {
	wall, cpu []time.Duration
	lines     int
	memory    int64 // KiB
}

func (r *result) run(cmd *exec.Cmd) (err error) {
	began := time.Now()
	if r.lines, err = count(cmd); err != nil {
		return err
	}
	r.wall = append(r.wall, time.Since(began))
	r.cpu = append(r.cpu, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	r.memory = max(r.memory, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	return nil
}

func median(list []time.Duration) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

func ask(bin string, files []string, q question, runs int) error {
	var ours, theirs result
	for i := range runs + 1 {
		if i == 1 { // the first run of each brings everything into memory
			ours, theirs = result{}, result{}
		}
		if err := ours.run(exec.Command(bin, append([]string{"logs", "search"}, q.ours...)...)); err != nil {
			return err
		}
		if err := theirs.run(exec.Command("rg", append(append([]string{"--no-filename"}, q.rg...), files...)...)); err != nil {
			return err
		}
	}
	note := ""
	if ours.lines != theirs.lines {
		note = fmt.Sprintf("  ripgrep counts %d", theirs.lines)
	}
	a, b := median(ours.wall), median(theirs.wall)
	fmt.Printf("%-42.42s %9d %8.1f ms %8.1f ms %7.2f %7.2f %4.0f/%-4.0f ms %5d MB%s\n", q.name, ours.lines, ms(a), ms(b), float64(a)/float64(b), q.most, ms(median(ours.cpu)), ms(median(theirs.cpu)), ours.memory>>10, note)
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// firstLine measures how long it takes until the first line of a rare search
// can be read.
func firstLine(bin string, runs int) error {
	var list []time.Duration
	for range runs {
		cmd := exec.Command(bin, "logs", "search", "mobileopsNEEDLE9f3ac1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		began := time.Now()
		if err := cmd.Start(); err != nil {
			return err
		}
		if _, err := bufio.NewReader(out).ReadBytes('\n'); err != nil {
			return err
		}
		list = append(list, time.Since(began))
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			return err
		}
	}
	fmt.Printf("first line of a rare search: %.1f ms (at most 100)\n", ms(median(list)))
	return nil
}

// zstdSize is the size of the files' text as zstd -3 packs it.
func zstdSize(files []string) (int64, error) {
	cmd := exec.Command("sh", "-c", `cat "$@" | zstd -3 -q -c | wc -c`, "sh")
	cmd.Args = append(cmd.Args, files...)
	out, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(bytes.TrimSpace(out)), 10, 64)
}
