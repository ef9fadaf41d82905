// Command services measures the DHCP and DNS services of zones against dnsmasq.
//
//	go run ./bench/network/services >services.jsonl
//
// Each server runs in a network namespace of its own, with a bridge and one
// guest on it, and is asked by this program from there:
//
//	dhcp  a whole transaction (DISCOVER, OFFER, REQUEST, ACK) of one new client
//	      after the other, 16 at a time; leases are on the disk before the ACK
//	      with mobileops, and as dnsmasq does it with dnsmasq
//	dns   questions for one name that is in the cache, 16 at a time
//
// Neither asks for conflicts first (dnsmasq --no-ping), and mobileops has no
// limits per client: there is one station here that plays all of them. Answers
// are broadcast, so that dnsmasq need not fill the kernel's neighbour table. Noted
// are transactions or answers a second, and the processor time of the server
// for each. The rounds alternate. Nothing of the machine's network is changed. It
// needs root, ip(8) and dnsmasq.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netns"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	rounds := flag.Int("rounds", 5, "rounds")
	span := flag.Duration("for", 2*time.Second, "how long each measurement takes")
	child := flag.String("child", "", "what a copy of this program is to be: server DIRECTORY, or upstream")
	flag.Parse()
	if *child != "" {
		log.Fatal(beChild(*child, flag.Args()))
	}
	if err := run(*rounds, *span); err != nil {
		log.Fatal(err)
	}
}

// result is one line of the output.
type result struct {
	Server string  `json:"server"`
	What   string  `json:"what"`
	Round  int     `json:"round"`
	Rate   float64 `json:"per_second"`
	CPU    float64 `json:"cpu_us"` // of the server, for each
	Lost   int     `json:"lost"`
}

func run(rounds int, span time.Duration) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer netns.Set(home)
	var all []result
	for round := range rounds {
		for _, server := range []string{"mobileops", "dnsmasq"} {
			list, err := measure(server, round, span)
			if err != nil {
				return fmt.Errorf("%s: %w", server, err)
			}
			for _, r := range list {
				if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
					return err
				}
			}
			all = append(all, list...)
		}
	}
	for _, what := range []string{"dhcp", "dns"} {
		for _, server := range []string{"mobileops", "dnsmasq"} {
			var rates, cpu []float64
			lost := 0
			for _, r := range all {
				if r.Server == server && r.What == what {
					rates, cpu, lost = append(rates, r.Rate), append(cpu, r.CPU), lost+r.Lost
				}
			}
			slices.Sort(rates)
			slices.Sort(cpu)
			fmt.Fprintf(os.Stderr, "%-5s %-10s %9.0f/s  %6.1f µs of processor time each  %d lost\n", what, server, rates[len(rates)/2], cpu[len(cpu)/2], lost)
		}
	}
	return nil
}
