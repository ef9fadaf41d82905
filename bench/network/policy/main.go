// Command policy measures how long it takes to make rules of a document with
// many workloads and flows, to load them, and to answer questions.
//
//	go run ./bench/network/policy [-workloads 1000] [-flows 1000] [-apps 100]
//
// It works in a network namespace of its own and needs root.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/network/segment/policy"
	"golang.org/x/sys/unix"
)

func main() {
	workloads := flag.Int("workloads", 1000, "how many workloads, in zones of 250")
	flows := flag.Int("flows", 1000, "how many flows, from label to label")
	apps := flag.Int("apps", 100, "how many values the label app has")
	nft := flag.Bool("nft", false, "load the same by nft -f, too")
	flag.Parse()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		log.Fatal(err)
	}
	text := document(*workloads, *flows, *apps)
	var doc *segment.Document
	var l *segment.Layout
	var p *policy.Policy
	var err error
	step := func(name string, f func() error) {
		start := time.Now()
		if err := f(); err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		fmt.Printf("%-28s %8.1f ms\n", name, float64(time.Since(start).Microseconds())/1000)
	}
	step("read the document", func() error { doc, err = segment.Parse("bench.yaml", []byte(text)); return err })
	step("arrange", func() error { l, err = segment.Arrange([]*segment.Document{doc}, segment.Given{}); return err })
	step("compile", func() error { p, err = policy.Compile(l); return err })
	ctx, fw := context.Background(), policy.Firewall{}
	step("apply: compile and load", func() error { return fw.Apply(ctx, l) })
	step("apply again", func() error { return fw.Apply(ctx, l) })
	step("plan: nothing changes", func() error { _, err := fw.Plan(ctx, l); return err })
	_, traffic, _ := policy.ParseTarget("x:443")
	step("1,000 questions", func() error {
		for i := range 1000 {
			if _, err := p.Ask(fmt.Sprintf("w%d", i%*workloads), fmt.Sprintf("w%d", (i*7+1)%*workloads), traffic); err != nil {
				return err
			}
		}
		return nil
	})
	if *nft {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(p.Text())
		step("nft -f of the same", func() error {
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %.300s", err, out)
			}
			return nil
		})
	}
}

func document(workloads, flows, apps int) string {
	const zoneSize = 250
	var b strings.Builder
	b.WriteString("version: 1\nzones:\n")
	for z := 0; z*zoneSize < workloads; z++ {
		fmt.Fprintf(&b, "  z%d: {subnets: [10.%d.0.0/16, \"fd00:%d::/64\"], nat: true, egress: internet}\n", z, 100+z, z)
	}
	b.WriteString("workloads:\n")
	for i := range workloads {
		fmt.Fprintf(&b, "  w%d: {zone: z%d, namespace: n%d, labels: {app: a%d, tier: t%d}}\n", i, i/zoneSize, i, i%apps, i%7)
	}
	b.WriteString("flows:\n")
	for i := range flows {
		fmt.Fprintf(&b, "  - {from: app=a%d, to: \"app=a%d,tier=t%d\", port: [%d/tcp, %d/udp]}\n", i%apps, (i*13+5)%apps, i%7, 1000+i, 1000+i)
	}
	return b.String()
}
