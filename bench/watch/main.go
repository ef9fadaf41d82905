// Command watch measures mobileops integrity watch on a filesystem of its own
// and prints the section "Watching" of docs/benchmarks.md. It needs root, for
// loop mounts and fanotify, and tar, mkfs.ext4 and mount.
//
//	go run ./bench/watch -mobileops bin/mobileops -tar linux-6.1.tar
//
// Without -tar it makes an archive of 80,000 files in the sizes of a kernel's
// source. What it measures:
//
//	idle     processor time of a watch over a minute in which nothing happens
//	unpack   tar with and without a watch, in turn; medians; and whether every
//	         file was told
//	exec     starting a program: not watched, decided for the first time, and
//	         decided before
//
// Only the loop mount is ever marked.
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	var b bench
	flag.StringVar(&b.mobileops, "mobileops", "bin/mobileops", "the binary to measure")
	flag.StringVar(&b.dir, "dir", filepath.Join(os.TempDir(), "mobileops-bench-watch"), "where the filesystem is made; removed at the end")
	flag.StringVar(&b.tar, "tar", "", "the archive to unpack; made when not given")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds")
	flag.DurationVar(&b.idle, "idle", time.Minute, "how long to watch nothing")
	flag.Parse()
	if err := b.run(); err != nil {
		log.Fatal("bench: ", err)
	}
}

type bench struct {
	mobileops, dir, tar string
	mnt                 string
	rounds              int
	idle                time.Duration
}

func (b *bench) run() (err error) {
	if b.mobileops, err = filepath.Abs(b.mobileops); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.mnt = filepath.Join(b.dir, "mnt")
	if b.tar == "" {
		b.tar = filepath.Join(b.dir, "made.tar")
		if err := makeTar(b.tar); err != nil {
			return err
		}
	}
	if err := os.Mkdir(b.mnt, 0o755); err != nil {
		return err
	}
	img := filepath.Join(b.dir, "img")
	if err := sh("truncate -s 6G %[1]s && mkfs.ext4 -q -N 400000 -E lazy_itable_init=0 %[1]s && mount -o loop %[1]s %[2]s", img, b.mnt); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sh("umount %s", b.mnt)) }()
	if err := os.Mkdir(b.mnt+"/watched", 0o755); err != nil {
		return err
	}
	if err := b.copies(); err != nil {
		return err
	}
	if err := b.call("integrity", "baseline", b.mnt+"/watched", "--quiet"); err != nil {
		return err
	}
	for _, part := range []func() error{b.measureIdle, b.measureUnpack, b.measureExec} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func sh(format string, args ...any) error {
	out, err := exec.Command("sh", "-ec", fmt.Sprintf(format, args...)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (b *bench) command(args ...string) *exec.Cmd {
	cmd := exec.Command(b.mobileops, args...)
	cmd.Env = append(os.Environ(), "MOBILEOPS_STATE_DIR="+b.dir+"/state", "MOBILEOPS_LOG_DIR="+b.dir+"/log", "MOBILEOPS_RUN_DIR="+b.dir+"/run")
	cmd.Stderr = os.Stderr
	return cmd
}

func (b *bench) call(args ...string) error { return b.command(args...).Run() }

// watched is a watch that runs.
type watched struct {
	cmd   *exec.Cmd
	lines chan line
	all   []line
}

type line struct {
	Type, Path, Verdict, Action string
	Overflows                   int64
	Process                     *struct{ Exe string }
}

// start starts a watch and waits until it is ready.
func (b *bench) start(args ...string) (*watched, error) {
	w := &watched{cmd: b.command(append([]string{"integrity", "watch", "--output", "jsonl"}, args...)...), lines: make(chan line, 1<<20)}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(w.lines)
		s := bufio.NewScanner(out)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			var l line
			if json.Unmarshal(s.Bytes(), &l) == nil {
				w.lines <- l
			}
		}
	}()
	time.Sleep(2 * time.Second)
	return w, nil
}

// cpu is the processor time of a process so far.
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}

func (w *watched) stop() error {
	w.cmd.Process.Signal(syscall.SIGTERM)
	for l := range w.lines {
		w.all = append(w.all, l)
	}
	return w.cmd.Wait()
}

func (b *bench) measureIdle() error {
	w, err := b.start()
	if err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	// The counters of /proc have 10 ms; the scheduler's own are finer.
	before, err := sched(w.cmd.Process.Pid)
	if err != nil {
		return err
	}
	time.Sleep(b.idle)
	after, err := sched(w.cmd.Process.Pid)
	if err != nil {
		return err
	}
	used := after - before
	fmt.Printf("idle: %.1f ms of processor time in %v, %.3f %% of a core\n\n", float64(used.Microseconds())/1000, b.idle, 100*used.Seconds()/b.idle.Seconds())
	return w.stop()
}

// sched adds up the processor time of all threads.
func sched(pid int) (sum time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		n, _ := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		sum += time.Duration(n)
	}
	return sum, err
}

func (b *bench) measureUnpack() error {
	dest := b.mnt + "/watched/tree"
	unpack := func() (time.Duration, error) {
		if err := os.Mkdir(dest, 0o755); err != nil {
			return 0, err
		}
		begun := time.Now()
		err := sh("tar -xf %s -C %s", b.tar, dest)
		return time.Since(begun), err
	}
	clean := func() error { return sh("rm -rf %s; sync -f %s", dest, b.mnt) }
	if _, err := unpack(); err != nil { // not counted
		return err
	}
	made := 0
	err := filepath.WalkDir(dest, func(string, os.DirEntry, error) error { made++; return nil })
	if err := errors.Join(err, clean()); err != nil {
		return err
	}
	var plain, with []time.Duration
	fmt.Println("| round | tar s | with the watch s | made | told | missing | by tar | overflows | CPU of the watch s | settled after s | memory MiB |\n|---|---|---|---|---|---|---|---|---|---|---|")
	for round := range b.rounds {
		d, err := unpack()
		if err := errors.Join(err, clean()); err != nil {
			return err
		}
		plain = append(plain, d)
		w, err := b.start()
		if err != nil {
			return err
		}
		e, err := unpack()
		if err != nil {
			return err
		}
		with = append(with, e)
		settled, err := b.settle(w)
		if err != nil {
			return err
		}
		used, err := cpu(w.cmd.Process.Pid)
		if err != nil {
			return err
		}
		peak := memory(w.cmd.Process.Pid)
		if err := w.stop(); err != nil {
			return err
		}
		told, byTar := map[string]bool{}, 0
		overflows := int64(0)
		for _, l := range w.all {
			if l.Type == "file" && strings.HasPrefix(l.Path, dest) {
				if !told[l.Path] && l.Process != nil && strings.HasSuffix(l.Process.Exe, "tar") {
					byTar++
				}
				told[l.Path] = true
			}
			overflows += l.Overflows
		}
		missing := 0
		err = filepath.WalkDir(dest, func(p string, _ os.DirEntry, _ error) error {
			if !told[p] {
				missing++
			}
			return nil
		})
		fmt.Printf("| %d | %.2f | %.2f | %d | %d | %d | %d | %d | %.2f | %.1f | %d |\n", round+1, d.Seconds(), e.Seconds(), made, len(told), missing, byTar, overflows, used.Seconds(), settled.Seconds(), peak)
		if err := errors.Join(err, clean()); err != nil {
			return err
		}
		for _, name := range []string{"state", "log"} { // with 20,000 findings
			if err := os.RemoveAll(filepath.Join(b.dir, name)); err != nil {
				return err
			}
		}
		if err := b.call("integrity", "baseline", b.mnt+"/watched", "--quiet"); err != nil {
			return err
		}
	}
	p, q := median(plain), median(with)
	fmt.Printf("\nmedians: %.2f s without, %.2f s with: %.2f times\n\n", p.Seconds(), q.Seconds(), q.Seconds()/p.Seconds())
	return nil
}

// settle waits until no record has come for four seconds, and returns how long the
// last one took.
func (b *bench) settle(w *watched) (time.Duration, error) {
	begun, last := time.Now(), time.Now()
	for {
		select {
		case l, ok := <-w.lines:
			if !ok {
				return 0, errors.New("the watch has ended")
			}
			w.all = append(w.all, l)
			last = time.Now()
		case <-time.After(4 * time.Second):
			return last.Sub(begun), nil
		}
	}
}

// memory is the peak resident memory in MiB.
func memory(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) > 1 && f[0] == "VmHWM:" {
			n, _ := strconv.Atoi(f[1])
			return n >> 10
		}
	}
	return 0
}

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

const programs = 300

// copies puts programs into the watched tree, each with content of its own.
func (b *bench) copies() error {
	self, err := exec.LookPath("env")
	if err != nil {
		return err
	}
	text, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	for i := range programs {
		if err := os.WriteFile(fmt.Sprintf("%s/watched/p%d", b.mnt, i), append(text, fmt.Sprint(i)...), 0o755); err != nil {
			return err
		}
	}
	fmt.Printf("programs of %d KB\n", len(text)>>10)
	return nil
}

func (b *bench) measureExec() error {
	time.Sleep(3 * time.Second) // what just changed is not remembered
	run := func() ([]time.Duration, error) {
		var out []time.Duration
		for i := range programs {
			cmd := exec.Command(fmt.Sprintf("%s/watched/p%d", b.mnt, i), "-i")
			begun := time.Now()
			if err := cmd.Run(); err != nil {
				return nil, err
			}
			out = append(out, time.Since(begun))
		}
		return out, nil
	}
	var plain, cold, cached []time.Duration
	if _, err := run(); err != nil {
		return err
	}
	for range b.rounds {
		p, err := run()
		if err != nil {
			return err
		}
		w, err := b.start("--enforce", "--trial", "0s")
		if err != nil {
			return err
		}
		c, err := run()
		if err == nil {
			var d []time.Duration
			d, err = run()
			cached = append(cached, d...)
		}
		plain, cold = append(plain, p...), append(cold, c...)
		if err := errors.Join(err, w.stop()); err != nil {
			return err
		}
	}
	fmt.Printf("exec, medians of %d: %v without, %v decided for the first time, %v decided before\n", len(plain), median(plain), median(cold), median(cached))
	return nil
}

// makeTar makes an archive like that of a kernel's source: 80,000 files in 5,000
// directories, most of them small.
func makeTar(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := bufio.NewWriterSize(f, 1<<20)
	t := tar.NewWriter(buf)
	r := rand.New(rand.NewPCG(1, 2))
	now := time.Now().Add(-24 * time.Hour)
	junk := make([]byte, 1<<20)
	for i := range junk {
		junk[i] = byte(r.Uint32())
	}
	for d := range 5000 {
		dir := fmt.Sprintf("linux/part%d/dir%d", d%50, d)
		if err := t.WriteHeader(&tar.Header{Name: dir + "/", Mode: 0o755, Typeflag: tar.TypeDir, ModTime: now}); err != nil {
			return err
		}
		for i := range 16 {
			size := int64(1000 + r.ExpFloat64()*14000)
			size = min(size, 1<<19)
			if err := t.WriteHeader(&tar.Header{Name: fmt.Sprintf("%s/file%d.c", dir, i), Mode: 0o644, Size: size, ModTime: now}); err != nil {
				return err
			}
			if _, err := t.Write(junk[r.IntN(1<<19):][:size]); err != nil {
				return err
			}
		}
	}
	return errors.Join(t.Close(), buf.Flush())
}
