// Command format measures how fast the records of files are found and
// understood: for each file, its format, the rates of cutting it into records
// and of finding all their fields, by processor time of one core, and how many
// records had no time of their own or fitted no pattern.
//
//	go run ./bench/logs/format FILE...
package main

import (
	"fmt"
	"os"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/format"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "format:", err)
		os.Exit(1)
	}
}

func run(paths []string) error {
	set, err := format.Builtin()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "file\tformat\tMB\trecords\tcut MB/s\tfill MB/s\twithout a time\twithout a fit\taddresses")
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f := set.Detect(path, data[:min(len(data), 64<<10)])
		records, cut := cutAll(f, data)
		untimed, unfit, addrs := 0, 0, 0
		start := processorTime()
		var e event.Event
		for i := range records {
			e.Record = records[i]
			f.Fill(&e)
			addrs += len(e.Addrs)
			if e.Clock == event.ClockPrevious || e.Clock == event.ClockFile {
				untimed++
			}
			if len(e.Message) == len(e.Raw) && e.Fields == nil {
				unfit++
			}
		}
		fill := processorTime() - start
		mb := float64(len(data)) / 1e6
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%d\t%.0f\t%.0f\t%d\t%d\t%d\n", path, f.Name(), mb, len(records), mb/cut.Seconds(), mb/fill.Seconds(), untimed, unfit, addrs)
	}
	return w.Flush()
}

// cutAll cuts data into records as a collector does, a megabyte at a time.
func cutAll(f *format.Format, data []byte) (records []event.Record, took time.Duration) {
	records = make([]event.Record, 0, len(data)/80)
	start := processorTime()
	r := f.NewReader(format.ReaderOptions{ModTime: time.Now()})
	for from, to := 0, 0; ; {
		var n int
		records, n = r.Next(records, data[from:to], to == len(data))
		from += n
		if to == len(data) {
			return records, processorTime() - start
		}
		to = min(len(data), to+1<<20)
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
