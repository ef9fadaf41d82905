// Command collect measures how fast sources are read and cut into records,
// without a store: the records are counted and dropped.
//
//	go run ./bench/logs/collect FILE…
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/mobileops/mobileops/internal/logs/source"
	"golang.org/x/sys/unix"
)

// dropping is a sink that keeps nothing.
type dropping struct{ records, bytes int64 }

func (d *dropping) Cursors(context.Context) (map[string][]byte, error) { return nil, nil }

func (d *dropping) Append(_ context.Context, batches []source.Batch) error {
	for _, b := range batches {
		d.records += int64(len(b.Records))
		for _, r := range b.Records {
			d.bytes += int64(len(r.Raw)) + 1
		}
	}
	return nil
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: collect FILE…")
		os.Exit(2)
	}
	if out := os.Getenv("CPUPROFILE"); out != "" {
		f, err := os.Create(out)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	for _, name := range os.Args[1:] {
		if err := measure(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func measure(name string) error {
	abs, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	d := &dropping{}
	c, err := source.New([]source.Spec{{Name: "bench", Kind: source.Files, Include: []string{abs}}}, nil, d, source.Options{Idle: time.Millisecond})
	if err != nil {
		return err
	}
	before, began := cpu(), time.Now()
	report, err := c.Once(context.Background())
	wall, used := time.Since(began), cpu()-before
	if err != nil {
		return err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	format := ""
	for _, s := range report.Sources {
		format = s.Format
	}
	fmt.Printf("%-30s %-12s %9d records %7.0f MB %6.0f MB/s of a core %6.0f MB/s on the clock, memory %d MB\n",
		filepath.Base(name), format, d.records, float64(d.bytes)/1e6,
		float64(d.bytes)/1e6/used.Seconds(), float64(d.bytes)/1e6/wall.Seconds(), m.Sys>>20)
	return nil
}

// cpu is the processor time that the program has used.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
