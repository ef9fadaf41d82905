package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
	"github.com/mobileops/mobileops/internal/network/segment/dhcp"
	"github.com/mobileops/mobileops/internal/network/segment/dns"
	"github.com/vishvananda/netns"
)

const (
	router  = "mobileops-bench-router"
	guest   = "mobileops-bench-guest"
	gateway = "10.64.0.1"
)

// ip runs ip(8).
func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// measure runs a server in new namespaces, and asks it.
func measure(server string, round int, span time.Duration) (list []result, err error) {
	router, guest := fmt.Sprintf("%s-%d", router, os.Getpid()), fmt.Sprintf("%s-%d", guest, os.Getpid())
	defer func() { err = errors.Join(err, ip("netns del "+router), ip("netns del "+guest)) }()
	for _, line := range []string{
		"netns add " + router, "netns add " + guest,
		"-n " + router + " link set lo up",
		"-n " + router + " link add br0 type bridge", "-n " + router + " link set br0 up", "-n " + router + " addr add " + gateway + "/16 dev br0",
		"-n " + router + " link add port type veth peer name eth0 netns " + guest,
		"-n " + router + " link set port master br0 up",
		"-n " + guest + " link set eth0 up", "-n " + guest + " addr add 10.64.0.2/16 dev eth0",
	} {
		if err := ip(line); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "mobileops-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	start := func(args ...string) (*exec.Cmd, error) {
		cmd := exec.Command("ip", append([]string{"netns", "exec", router}, args...)...)
		if args[0] == self { // dnsmasq tells what it does
			cmd.Stderr = os.Stderr
		}
		return cmd, cmd.Start()
	}
	up, err := start(self, "-child", "upstream")
	if err != nil {
		return nil, err
	}
	defer func() { up.Process.Kill(); up.Wait() }()
	args := []string{self, "-child", "server", dir}
	if server == "dnsmasq" {
		args = []string{"dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--server=127.0.0.1#5300", "--interface=br0", "--bind-interfaces",
			"--dhcp-range=10.64.1.0,10.64.255.250,1h", "--dhcp-lease-max=70000", "--no-ping", "--dhcp-leasefile=" + filepath.Join(dir, "leases"), "--log-facility=/dev/null",
			"--quiet-dhcp", "--cache-size=10000", "--pid-file=", "--user=root", "--max-cache-ttl=3600"}
	}
	cmd, err := start(args...)
	if err != nil {
		return nil, err
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	if err := enter(guest); err != nil {
		return nil, err
	}
	if err := waitForAnswer(); err != nil {
		return nil, err
	}
	for what, load := range map[string]func(time.Duration) (int, int, error){"dhcp": loadDHCP, "dns": loadDNS} {
		before, began := cpuTime(cmd.Process.Pid), time.Now()
		n, lost, err := load(span)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		used := cpuTime(cmd.Process.Pid) - before
		list = append(list, result{server, what, round, float64(n) / time.Since(began).Seconds(), used.Seconds() * 1e6 / float64(max(n, 1)), lost})
	}
	return list, nil
}

// enter moves this thread into a namespace.
func enter(name string) error {
	h, err := netns.GetFromName(name)
	if err != nil {
		return err
	}
	defer h.Close()
	return netns.Set(h)
}

// cpuTime is the processor time of a process: fields 14 and 15 of proc_pid_stat(5).
func cpuTime(pid int) time.Duration {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// beChild is a server of mobileops, or the upstream server of both.
func beChild(what string, args []string) error {
	if what == "upstream" {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:5300")
		if err != nil {
			return err
		}
		s := &mdns.Server{PacketConn: pc, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
			r := new(mdns.Msg).SetReply(q)
			rr, _ := mdns.NewRR("www.example.org. 3600 IN A 198.51.100.7")
			rr.Header().Name = q.Question[0].Name
			r.Answer = []mdns.RR{rr}
			w.WriteMsg(r)
		})}
		return s.ActivateAndServe()
	}
	if len(args) != 1 {
		return errors.New("server DIRECTORY")
	}
	d, err := dhcp.New(dhcp.Config{
		Interface: "br0", Gateway: netip.MustParsePrefix(gateway + "/16"), File: filepath.Join(args[0], "leases"),
		Pool:    dhcp.Range{First: netip.MustParseAddr("10.64.1.0"), Last: netip.MustParseAddr("10.64.255.250")},
		Options: dhcp.Options{Router: true, DNS: []netip.Addr{netip.MustParseAddr(gateway)}},
		Limits:  dhcp.Limits{Probe: -1, Rate: -1, PerPort: -1, PerMAC: -1},
	}, nil)
	if err != nil {
		return err
	}
	n, err := dns.New(dns.Config{
		Interface: "br0", Listen: []netip.Addr{netip.MustParseAddr(gateway)}, Clients: []netip.Prefix{netip.MustParsePrefix("10.64.0.0/16")}, Domain: "bench.example",
		Upstream: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5300")}, Limits: dns.Limits{Rate: -1},
	})
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- d.Run(context.Background(), nil) }()
	go func() { ended <- n.Run(context.Background(), nil) }()
	return <-ended
}
