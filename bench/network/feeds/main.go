// Command feeds measures how long it takes until a feed of addresses is blocked,
// from exec to the first packet that is dropped, by mobileops network block
// import, by nft -f with an equal set and by ipset restore; and what a packet
// that is not blocked costs while it is. It needs root, nft and ipset, and
// works in a network namespace of its own.
//
//	go run ./bench/network/feeds -mobileops bin/mobileops
//
// The commands take turns. The feed has single addresses alone, or with -nets
// so many networks in place of addresses; each with a time-out. In force is what
// the command was started for when sendto(2) to the last address of the feed is
// refused (EPERM); for ipset, which makes no rule, when it has ended.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

type bench struct {
	mobileops, dir      string
	rounds, count, nets int
	last                netip.Addr
}

func main() {
	log.SetFlags(0)
	var b bench
	flag.StringVar(&b.mobileops, "mobileops", "bin/mobileops", "the binary to measure")
	flag.IntVar(&b.rounds, "rounds", 11, "rounds")
	flag.IntVar(&b.count, "count", 100_000, "entries of the feed")
	flag.IntVar(&b.nets, "nets", 0, "how many of them are networks")
	flag.Parse()
	if err := b.run(); err != nil {
		log.Fatal("bench: ", err)
	}
}

// way is a way to get a feed blocked.
type way struct {
	name            string
	command         []string
	stdin           string
	after           []string // commands, each of words
	noRule          bool     // in force when it exits: the rule that looks at the set is not counted
	inForce, exited []time.Duration
}

func (b *bench) run() (err error) {
	if b.mobileops, err = filepath.Abs(b.mobileops); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "mobileops-bench-feeds-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	// The thread, and what it starts, is in a namespace of its own.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for _, c := range []string{"ip link set lo up", "ip link add d0 type veth peer name d1", "ip addr add 192.0.2.1/24 dev d0", "ip link set d0 up", "ip link set d1 up", "ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev d0", "ip route add default via 192.0.2.2"} {
		if err := b.do(c); err != nil {
			return err
		}
	}
	if err := b.write(); err != nil {
		return err
	}
	ways := []*way{
		{name: "mobileops network block import", command: []string{b.mobileops, "network", "block", "import", b.path("feed.txt"), "--ttl", "1d", "--quiet"}, after: []string{b.mobileops + " network block remove feed --quiet"}},
		{name: "nft -f", command: []string{"nft", "-f", b.path("set.nft")}, after: []string{"nft delete table inet t"}},
		{name: "ipset restore", command: []string{"ipset", "restore"}, stdin: b.path("set.ipset"), after: []string{"ipset destroy"}, noRule: true},
		{name: "ipset restore, with the hashsize that ipset save writes", command: []string{"ipset", "restore"}, stdin: b.path("saved.ipset"), after: []string{"ipset destroy"}, noRule: true},
	}
	for range b.rounds {
		for _, w := range ways {
			if err := b.once(w); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
	}
	fmt.Printf("%d entries, %d of them networks, medians of %d rounds\n\n", b.count, b.nets, b.rounds)
	fmt.Println("| command | exec to in force | of mobileops | exec to exit |\n|---|---|---|---|")
	for _, w := range ways {
		m := median(w.inForce)
		fmt.Printf("| %s | %.1f ms | %.2f | %.1f ms |\n", w.name, ms(m), ms(median(ways[0].inForce))/ms(m), ms(median(w.exited)))
	}
	return b.lookups(ways[0])
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(list []time.Duration) time.Duration {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) env() []string {
	return append(os.Environ(), "MOBILEOPS_STATE_DIR="+b.path("state"), "MOBILEOPS_LOG_DIR="+b.path("log"), "MOBILEOPS_RUN_DIR="+b.path("run"))
}

func (b *bench) do(command string) error {
	words := strings.Fields(command)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = b.env()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return nil
}

// write makes the feed, for each of the commands.
func (b *bench) write() error {
	r := rand.New(rand.NewPCG(5, 5))
	seen := map[uint32]bool{}
	var plain, set, ipset, saved bytes.Buffer
	kind := "hash:ip"
	if b.nets > 0 {
		kind = "hash:net"
	}
	fmt.Fprintf(&ipset, "create s %s timeout 86400 maxelem 1000000\n", kind)
	fmt.Fprintf(&saved, "create s %s timeout 86400 maxelem 1000000 hashsize 65536\n", kind)
	flags := "timeout"
	if b.nets > 0 {
		flags = "interval, timeout"
	}
	fmt.Fprintf(&set, "add table inet t\nadd set inet t s { type ipv4_addr; flags %s; }\nadd chain inet t out { type filter hook output priority 0; }\nadd rule inet t out ip daddr @s drop\nadd element inet t s {\n", flags)
	for n := 0; n < b.count; {
		v := r.Uint32()
		if v>>24 == 0 || v>>24 == 10 || v>>24 == 127 || v>>24 >= 169 || v>>8 == 0xc00002 || seen[v>>8] {
			continue
		}
		n++
		seen[v>>8] = true // no two in one /24: networks must not overlap for nft
		var quad [4]byte
		binary.BigEndian.PutUint32(quad[:], v)
		a := netip.AddrFrom4(quad)
		text := a.String()
		if n <= b.nets {
			text = netip.PrefixFrom(a, 24).Masked().String()
		}
		fmt.Fprintln(&plain, text)
		fmt.Fprintf(&set, "%s timeout 1d,\n", text)
		fmt.Fprintf(&ipset, "add s %s timeout 86400\n", text)
		fmt.Fprintf(&saved, "add s %s timeout 86400\n", text)
		b.last = a
	}
	fmt.Fprintln(&set, "}")
	return errors.Join(os.WriteFile(b.path("feed.txt"), plain.Bytes(), 0o600), os.WriteFile(b.path("set.nft"), set.Bytes(), 0o600), os.WriteFile(b.path("set.ipset"), ipset.Bytes(), 0o600), os.WriteFile(b.path("saved.ipset"), saved.Bytes(), 0o600))
}

// once runs a command and watches for the moment from which it drops.
func (b *bench) once(w *way) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet4{Port: 9, Addr: b.last.As4()}
	cmd := exec.Command(w.command[0], w.command[1:]...)
	cmd.Env = b.env()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if w.stdin != "" {
		f, err := os.Open(w.stdin)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.Stdin = f
	}
	if err := unix.Sendto(fd, []byte("x"), 0, to); err != nil {
		return fmt.Errorf("before: %w", err)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan time.Duration, 1)
	go func() {
		cmd.Wait()
		done <- time.Since(start)
	}()
	for !w.noRule {
		if err := unix.Sendto(fd, []byte("x"), 0, to); errors.Is(err, unix.EPERM) {
			w.inForce = append(w.inForce, time.Since(start))
			break
		}
		if time.Since(start) > time.Minute {
			return fmt.Errorf("nothing was dropped: %s", out.String())
		}
		// Two processors at most are there for both: this one must not take one.
		time.Sleep(300 * time.Microsecond)
	}
	w.exited = append(w.exited, <-done)
	if w.noRule {
		w.inForce = append(w.inForce, w.exited[len(w.exited)-1])
	}
	if !cmd.ProcessState.Success() {
		return fmt.Errorf("%v: %s", cmd.ProcessState, out.String())
	}
	for _, c := range w.after {
		if err := b.do(c); err != nil {
			return err
		}
	}
	// The kernel frees the sets after that.
	time.Sleep(200 * time.Millisecond)
	return nil
}

// lookups measures what a datagram that leaves costs, with and without the feed.
func (b *bench) lookups(w *way) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 2}}
	cost := func() time.Duration {
		var list []time.Duration
		for range 21 {
			const n = 20_000
			start := time.Now()
			for range n {
				unix.Sendto(fd, []byte("x"), 0, to)
			}
			list = append(list, time.Since(start)/n)
		}
		return slices.Min(list)
	}
	without := cost()
	if err := b.do(strings.Join(w.command, " ")); err != nil {
		return err
	}
	with := cost()
	fmt.Printf("\nA datagram that leaves takes %v without the feed and %v with it: %v more.\n", without, with, with-without)
	return nil
}
