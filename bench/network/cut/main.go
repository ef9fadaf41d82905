// Command cut measures how long it takes to list and destroy many sockets, to
// make the kernel forget many connections, and to take a snapshot of them, in a
// network namespace of its own.
//
//	go run ./bench/network/cut -n 9500
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/network/conntrack"
	"github.com/mobileops/mobileops/internal/network/monitor"
	"github.com/mobileops/mobileops/internal/network/sockets"
	"golang.org/x/sys/unix"
)

func main() {
	n := flag.Int("n", 9_500, "how many connections, each with a socket at either end")
	flag.Parse()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		log.Fatalf("a network namespace: %v (run it as root)", err)
	}
	run("", "ip", "link", "set", "lo", "up")
	run("table inet t { chain in { type filter hook input priority 0; ct state established counter; }; }", "nft", "-f", "-")
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Max < uint64(*n)*2+100 {
		log.Fatalf("%d files may be open, and %d connections need more: %v", limit.Max, *n, err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	var held []net.Conn
	for range *n {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			log.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		held = append(held, c, s)
	}
	measure("list sockets", func() (int, error) { list, err := sockets.List(); return len(list), err })
	measure("find their owners", func() (int, error) { return len(sockets.Owners()), nil })
	measure("list connections", func() (int, error) { list, err := conntrack.List(); return len(list), err })
	sampler := monitor.New(monitor.Options{Parts: monitor.AllParts})
	for range 2 { // the second one works out rates
		measure("snapshot", func() (int, error) {
			snap, err := sampler.Take(context.Background())
			if err != nil {
				return 0, err
			}
			return len(snap.Flows), nil
		})
	}
	measure("delete connections", func() (int, error) { return conntrack.Delete(func(*conntrack.Connection) bool { return true }) })
	// One end of each, so that every destruction is that of a living connection.
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	measure("destroy sockets", func() (int, error) {
		return sockets.Destroy(func(s *sockets.Socket) bool { return s.Remote.Port() == port })
	})
	runtime.KeepAlive(held)
}

func run(stdin, name string, args ...string) {
	c := exec.Command(name, args...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		log.Fatalf("%s: %v: %s", name, err, out)
	}
}

func measure(what string, f func() (int, error)) {
	started := time.Now()
	n, err := f()
	fmt.Printf("%-20s %7d in %v\n", what, n, time.Since(started).Round(10*time.Microsecond))
	if err != nil {
		log.Fatal(err)
	}
}
