// Command pack measures how fast packages of updates are read and built.
//
//	go run ./bench/update/pack [-size MB] [-files N] [-dir DIR]
//
// It makes a tree of files that pack about as well as software does, packs it
// with GNU tar (gzip, zstd) and with Build, and reads each package with all
// content discarded, several times. The programs gzip and zstd unpack the same
// packages for comparison. It prints the best run of each: megabytes of
// content a second, processor time of the process, allocations for each entry
// and the largest heap. The peak of memory of a process that reads one package
// is told by: /usr/bin/time -v pack -read FILE.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/archive"
	"github.com/mobileops/mobileops/internal/update/pack"
)

func main() {
	size := flag.Int("size", 500, "megabytes of content")
	files := flag.Int("files", 20_000, "files")
	dir := flag.String("dir", "", "where to work, else a directory of its own that is removed")
	read := flag.String("read", "", "read this package once, and nothing else")
	runs := flag.Int("runs", 5, "runs of each")
	flag.Parse()
	if err := run(*size<<20, *files, *runs, *dir, *read); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(size, files, runs int, dir, read string) error {
	if read != "" {
		return measure(read, 1)
	}
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "pack"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	tree := filepath.Join(dir, "tree")
	if _, err := os.Stat(tree); errors.Is(err, os.ErrNotExist) {
		if err := plant(tree, size, files); err != nil {
			return err
		}
	}
	for name, command := range map[string]string{
		"gnu.tar.gz": "tar -czf %s -C %s .", "gnu.tar.zst": "tar --zstd -cf %s -C %s .",
	} {
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); err == nil {
			continue
		}
		if out, err := exec.Command("sh", "-c", fmt.Sprintf(command, p, tree)).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
	}
	for _, format := range []archive.Format{archive.Gzip, archive.Zstd} {
		p := filepath.Join(dir, "built."+string(format))
		f, err := os.Create(p)
		if err != nil {
			return err
		}
		start := time.Now()
		report, err := pack.Build(context.Background(), f, tree, nil, pack.BuildOptions{Format: format})
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Printf("built %-14s %6.0f MB/s, %d MB of %d MB\n", filepath.Base(p), rate(report.Bytes, time.Since(start)), report.PackedBytes>>20, report.Bytes>>20)
	}
	for _, name := range []string{"gnu.tar.gz", "built.tar.gz", "gnu.tar.zst", "built.tar.zst"} {
		p := filepath.Join(dir, name)
		if err := measure(p, runs); err != nil {
			return err
		}
		unpack := "gzip"
		if strings.HasSuffix(name, ".zst") {
			unpack = "zstd"
		}
		best := time.Duration(1 << 62)
		for range runs {
			start := time.Now()
			if err := exec.Command(unpack, "-tq", p).Run(); err != nil {
				return err
			}
			best = min(best, time.Since(start))
		}
		fmt.Printf("      %s -t: %.2f s\n", unpack, best.Seconds())
	}
	return nil
}

func rate(bytes int64, d time.Duration) float64 { return float64(bytes) / 1e6 / d.Seconds() }

// measure reads a package several times and prints the best.
func measure(p string, runs int) error {
	best, cpu := time.Duration(1<<62), time.Duration(0)
	var entries, content, allocs, heap int64
	for range runs {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		startCPU, start := processorTime(), time.Now()
		var err error
		if entries, content, err = readAll(p); err != nil {
			return err
		}
		if took := time.Since(start); took < best {
			best, cpu = took, processorTime()-startCPU
		}
		runtime.ReadMemStats(&after)
		allocs = int64(after.Mallocs - before.Mallocs)
		heap = int64(after.HeapSys) >> 20
	}
	fmt.Printf("read  %-14s %6.0f MB/s, %.2f s, %.2f s of processor time, %d entries, %.1f allocations each, %d MB of heap\n",
		filepath.Base(p), rate(content, best), best.Seconds(), cpu.Seconds(), entries, float64(allocs)/float64(entries), heap)
	return nil
}

func readAll(p string) (entries, content int64, err error) {
	f, err := os.Open(p)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	r, err := pack.NewReader(f, archive.DefaultLimits())
	if err != nil {
		return 0, 0, err
	}
	defer r.Close()
	for {
		e, err := r.Next()
		if err == io.EOF {
			return entries, content, nil
		}
		if err != nil {
			return 0, 0, err
		}
		entries++
		if e.Body != nil {
			n, err := io.Copy(io.Discard, e.Body)
			if err != nil {
				return 0, 0, err
			}
			content += n
		}
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// plant makes files of very different sizes, of words that come again and
// again and of bytes that look like programs.
func plant(root string, size, files int) error {
	rnd := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 5000)
	for i := range words {
		w := make([]byte, 2+rnd.IntN(10))
		for j := range w {
			w[j] = byte('a' + rnd.IntN(26))
		}
		words[i] = append(w, " \n,=("[rnd.IntN(5)])
	}
	each := size / files
	for i := range files {
		n := int(rnd.ExpFloat64() * rnd.ExpFloat64() * float64(each))
		b := make([]byte, 0, n+64)
		for len(b) < n {
			switch {
			case i%4 == 3 && rnd.IntN(3) == 0: // as in a program
				var x [24]byte
				for j := range x {
					x[j] = byte(rnd.IntN(256) & rnd.IntN(256))
				}
				b = append(b, x[:]...)
			default:
				b = append(b, words[int(rnd.Float64()*rnd.Float64()*float64(len(words)))]...)
			}
		}
		p := filepath.Join(root, fmt.Sprintf("lib/%03d/%02d/file-%d", i/200, i/20%10, i))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, b[:n], 0o644); err != nil {
			return err
		}
	}
	return nil
}
