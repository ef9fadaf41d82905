// Command forward measures how many events a second the bundled
// siem-integration-plugin forwards to receivers on the loopback device.
//
//	go run ./bench/plugin/forward
//
// The plugin runs as a process of its own, with a socketpair as mobileops gives
// it one, and this program is the host and the receiver, on the same
// processors. Each receiver is measured in two ways: "through" is from the
// first event that the host sends to the last one that the receiver has, with
// the queue in between; "queue" is from the first byte that the receiver gets
// to the last, when all events were in the queue before. The rate at which the
// plugin takes events into its queue, synced, is "intake". Events are findings
// of about 700 bytes of JSON; those of syslog are RFC 5424.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

type bench struct {
	program string
	dir     string
	events  int
	rounds  int
	procs   int
}

func main() {
	log.SetFlags(0)
	var b bench
	kinds := flag.String("receivers", "syslog-tcp,syslog-tls,bulk", "which receivers")
	flag.StringVar(&b.program, "plugin", "", "the plugin (it is built when this is empty)")
	flag.IntVar(&b.events, "events", 500_000, "events of a round")
	flag.IntVar(&b.rounds, "rounds", 3, "rounds of each, of which the median counts")
	flag.IntVar(&b.procs, "procs", 0, "processors that the plugin may use at once (GOMAXPROCS); 0: all")
	flag.Parse()
	if err := b.run(strings.Split(*kinds, ",")); err != nil {
		log.Fatal("bench: ", err)
	}
}

func (b *bench) run(kinds []string) (err error) {
	if b.dir, err = os.MkdirTemp("", "mobileops-bench-forward-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.program == "" {
		b.program = filepath.Join(b.dir, "mobileops-siem-integration-plugin")
		build := exec.Command("go", "build", "-o", b.program, "./plugins/siem-integration-plugin")
		build.Stdout, build.Stderr = os.Stdout, os.Stderr
		if err := build.Run(); err != nil {
			return err
		}
	}
	fmt.Printf("%d processors, %d events a round, median of %d\n", runtime.NumCPU(), b.events, b.rounds)
	fmt.Printf("%-12s %14s %14s %14s\n", "receiver", "through", "queue", "intake")
	for _, kind := range kinds {
		var through, queue, intake []float64
		for range b.rounds {
			t, err := b.round(kind, true)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			q, err := b.round(kind, false)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			through = append(through, t.delivered)
			queue = append(queue, q.delivered)
			intake = append(intake, q.taken)
		}
		fmt.Printf("%-12s %12.0f/s %12.0f/s %12.0f/s\n", kind, median(through), median(queue), median(intake))
	}
	return nil
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// rates are events a second.
type rates struct{ delivered, taken float64 }

// round is one run of the plugin. Without at once, the receiver starts when
// everything is in the queue.
func (b *bench) round(kind string, atOnce bool) (rates, error) {
	data, err := os.MkdirTemp(b.dir, "data-")
	if err != nil {
		return rates{}, err
	}
	defer os.RemoveAll(data)
	r, err := newReceiver(kind, data, b.events)
	if err != nil {
		return rates{}, err
	}
	defer r.close()
	if atOnce {
		if err := r.start(); err != nil {
			return rates{}, err
		}
	}
	h, err := startHost(b, data, r.config())
	if err != nil {
		return rates{}, err
	}
	defer h.kill()
	begun := time.Now()
	if err := h.feed(b.events); err != nil {
		return rates{}, err
	}
	took := time.Since(begun)
	if !atOnce {
		if err := r.start(); err != nil {
			return rates{}, err
		}
	}
	select {
	case <-r.done:
	case <-h.exited:
		return rates{}, fmt.Errorf("the plugin ended")
	case <-time.After(5 * time.Minute):
		return rates{}, fmt.Errorf("after 5 minutes %d of %d events are there", r.count.Load(), b.events)
	}
	if !atOnce {
		begun = time.Unix(0, r.first.Load())
	}
	return rates{float64(b.events) / r.last.Sub(begun).Seconds(), float64(b.events) / took.Seconds()}, nil
}
