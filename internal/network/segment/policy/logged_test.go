package policy

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
)

const traced = `
table inet trial {
	chain in { type filter hook prerouting priority -400; meta nftrace set 1; }
	chain out { type filter hook output priority -400; meta nftrace set 1; }
}
table bridge trial {
	chain in { type filter hook prerouting priority -500; meta nftrace set 1; }
}`

// What is denied is logged under the names of both zones, and a flow with "log"
// under its line, in both families and within a zone as between zones. The kernel
// writes a log for the first namespace of the machine alone, which no test may
// change, so the packets' way through the rules is looked at: a rule with "log" that
// lets the packet go on has logged it.
func TestDeniedPacketsAreLogged(t *testing.T) {
	t.Parallel()
	needs(t, "nft")
	l := arrange(t, office+"  - {from: app=web, to: zone=test, port: 8080/tcp, log: true}\n")
	s := build(t, l)
	s.apply(l)
	s.nft(traced)
	web, db, job := s.machines["web"], s.machines["db"], s.machines["job"]
	// Who may not talk to a neighbour does not even hear its address: web knows it.
	for _, a := range []netip.Addr{db.IPv4(), db.IPv6()} {
		web.IP(fmt.Sprintf("neigh add %s lladdr %s dev eth0 nud permanent", a, db.NIC(0).MAC))
	}
	probes := []struct {
		prefix   string
		from, to *lab.Host
		passes   bool
	}{
		{"deny dev>dev", web, db, false},
		{"deny dev>test", db, job, false},
		{"deny test>dev", job, web, false},
		{"deny dev>outside", web, s.outside, false},
		{"deny outside>dev", s.outside, web, false},
		{"deny host>dev", s.host, web, false},
		{fmt.Sprintf("allow line %d", l.Flows[0].Line), web, job, true},
	}
	logged := tracing(t, s.host)
	// The program that listens is not ready at once, and a rule logs five packets a
	// second: a packet is sent until one was seen.
	seen := map[string]bool{}
	deadline := time.Now().Add(2 * time.Minute)
	for _, p := range probes {
		for _, to := range []netip.Addr{p.to.IPv4(), p.to.IPv6()} {
			for want := "mobileops " + p.prefix + " to " + to.String(); !seen[want]; {
				if time.Now().After(deadline) {
					t.Fatalf("%s: was not logged; what was: %v", want, seen)
				}
				if passes := p.from.TCP(p.to, to, 8080).Passes(); passes != p.passes {
					t.Fatalf("%s: to %s passes: %t", p.prefix, to, passes)
				}
				for wait := time.After(time.Second); !seen[want]; {
					select {
					case line, ok := <-logged:
						if !ok {
							t.Fatal("nft monitor has ended")
						}
						seen[line] = true
						continue
					case <-wait:
					}
					break
				}
			}
		}
	}
}

// tracing returns what rules of a host log: "PREFIX to ADDRESS".
func tracing(t *testing.T, host *lab.Host) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	monitor := host.Command(ctx, "nft", "monitor", "trace")
	out, err := monitor.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	logged := make(chan string, 1000)
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		defer close(logged)
		packet := regexp.MustCompile(`^trace id (\S+) .* packet: .* ip6? daddr (\S+)`)
		rule := regexp.MustCompile(`^trace id (\S+) .* rule .*log prefix "([^"]*?) *" \(verdict continue\)$`)
		to := map[string]string{}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := packet.FindStringSubmatch(lines.Text()); m != nil {
				to[m[1]] = m[2]
			} else if m := rule.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case logged <- m[2] + " to " + to[m[1]]:
				case <-ctx.Done():
				}
			}
		}
		monitor.Wait()
	}()
	return logged
}
