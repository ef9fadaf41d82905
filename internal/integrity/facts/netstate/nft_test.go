package netstate

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// gateway is a ruleset with a bit of everything.
const gateway = `
table inet filter {
	counter seen { packets 0 bytes 0; }
	quota lots { over 1000 mbytes; }
	set admins { type ipv4_addr; flags interval; comment "who"; elements = { 10.0.0.0/24, 192.0.2.1 }; }
	set banned { type ipv4_addr; flags dynamic,timeout; timeout 1h; size 65535; }
	set leases { type ipv4_addr; flags timeout; elements = { 10.9.9.9 }; }
	map ports { type inet_service : verdict; elements = { 80 : accept, 443 : jump web }; }
	chain web { accept; }
	chain input {
		type filter hook input priority 0; policy drop;
		iif lo counter accept comment "local"
		ip saddr @admins tcp dport { 22, 2222 } counter accept
		tcp dport 8080 jump { ip saddr 10.0.0.1 counter accept; counter drop; }
		tcp dport vmap @ports
		ct state established,related accept
		ip saddr @banned drop
		meta l4proto icmp limit rate 5/second accept
		udp dport 53 counter name "seen" quota name "lots" accept
		tcp dport 9 quota over 10 mbytes drop
		tcp dport 7 add @banned { ip saddr } drop
	}
}
table ip nat {
	chain post { type nat hook postrouting priority 100; ip saddr 10.0.0.0/8 masquerade; }
}
`

func firewall(s *facts.Snapshot) string {
	var b strings.Builder
	for _, f := range s.Facts {
		if f.Kind == "firewall" {
			fmt.Fprintln(&b, f.Key, f.Attributes)
		}
	}
	return b.String()
}

// TestSameRulesetSameDigest: dumped twice, after packets were counted, after
// elements came and went by themselves, and loaded again with other handles.
func TestSameRulesetSameDigest(t *testing.T) {
	n := newNamespace(t)
	n.nft(gateway)
	old := n.collect()
	if text := firewall(old); strings.Count(text, "\n") != 11 || !strings.Contains(text, "inet/filter/input map[digest:") || !strings.Contains(text, "policy:drop rules:10]") {
		t.Fatalf("facts of the ruleset:\n%s", text)
	}
	same := func(why string) {
		t.Helper()
		if got := drift(old, n.collect()); len(got) > 0 {
			t.Errorf("%s: %q", why, got)
		}
	}
	same("dumped twice")

	n.listen("", "udp4", "127.0.0.1:53")
	stopped := n.collect()
	before := listing(n)
	for range 5 {
		n.run("bash", "-c", "echo x >/dev/udp/127.0.0.1/53; exec 3<>/dev/udp/127.0.0.1/9; echo x >&3")
	}
	if after := listing(n); after == before {
		t.Fatal("no counter moved: the test shows nothing")
	}
	if got := drift(stopped, n.collect()); len(got) > 0 {
		t.Errorf("after counters moved: %q", got)
	}
	old = stopped

	n.nft("add element inet filter banned { 203.0.113.9 }\nadd element inet filter leases { 203.0.113.10 timeout 30s }\n")
	same("elements that expire")
	n.nft("flush ruleset\n" + gateway)
	same("loaded again")
	n.nft("add rule inet filter input tcp dport { 1, 2 } drop")
	h := strings.Fields(strings.TrimSpace(lastLine(n, "tcp dport { 1, 2 }")))
	n.run("nft", "delete", "rule", "inet", "filter", "input", "handle", h[len(h)-1])
	same("a rule came and went")
}

func listing(n *namespace) string {
	out, err := n.command("nft", "-a", "list", "ruleset").Output()
	if err != nil {
		n.Fatal(err)
	}
	return string(out)
}

func lastLine(n *namespace, with string) string {
	for line := range strings.Lines(listing(n)) {
		if strings.Contains(line, with) {
			return line
		}
	}
	n.Fatalf("no line with %q", with)
	return ""
}

// TestEveryRuleChangeIsSeen: each small change of the ruleset is reported, and
// only where it is.
func TestEveryRuleChangeIsSeen(t *testing.T) {
	n := newNamespace(t)
	n.nft(gateway)
	old := n.collect()
	const input, set = "inet/filter/input", "inet/filter/@"
	for _, c := range []struct{ was, is, where string }{
		{"policy drop", "policy accept", input},
		{"hook input priority 0", "hook input priority 1", input},
		{"dport { 22, 2222 }", "dport { 22, 2223 }", input},
		{"dport { 22, 2222 }", "dport { 22, 2222, 23 }", input},
		{"ip saddr 10.0.0.1 counter", "ip saddr 10.0.0.2 counter", input},
		{"counter drop; }", "counter accept; }", input},
		{"iif lo counter accept", "iif lo accept", input},
		{`comment "local"`, `comment "other"`, input},
		{"rate 5/second", "rate 6/second", input},
		{"over 10 mbytes", "over 11 mbytes", input},
		{"ct state established,related accept", "ct state established accept", input},
		{"\t\tip saddr @banned drop\n", "", input},
		{"add @banned { ip saddr }", "update @banned { ip saddr }", input},
		{"10.0.0.0/24, 192.0.2.1", "10.0.0.0/23, 192.0.2.1", set + "admins"},
		{"10.0.0.0/24, 192.0.2.1", "10.0.0.0/24", set + "admins"},
		{`comment "who"`, `comment "whom"`, set + "admins"},
		{"80 : accept", "80 : drop", set + "ports"},
		{"timeout 1h", "timeout 2h", set + "banned"},
		{"elements = { 10.9.9.9 }", "elements = { 10.9.9.8 }", set + "leases"},
		{"chain web { accept; }", "chain web { counter; accept; }", "inet/filter/web"},
		{"over 1000 mbytes", "over 2000 mbytes", "inet/filter/object/2/lots"},
		{"masquerade", "masquerade random", "ip/nat/post"},
		{"table ip nat {", "table ip nat { flags dormant;", "ip/nat"},
	} {
		if !strings.Contains(gateway, c.was) {
			t.Fatalf("no %q in the ruleset", c.was)
		}
		n.nft("flush ruleset\n" + strings.Replace(gateway, c.was, c.is, 1))
		got := drift(old, n.collect())
		if len(got) != 1 || !strings.HasPrefix(got[0], "changed high firewall/"+c.where+" ") || !strings.Contains(got[0], "digest") {
			t.Errorf("%q for %q: %q, want a change of %s", c.is, c.was, got, c.where)
		}
	}
	// Two rules that trade places.
	n.nft("flush ruleset\n" + gateway)
	lines := strings.Split(gateway, "\n")
	for i, l := range lines {
		if strings.Contains(l, "ct state") {
			lines[i], lines[i+1] = lines[i+1], lines[i]
			break
		}
	}
	n.nft("flush ruleset\n" + strings.Join(lines, "\n"))
	if got := drift(old, n.collect()); len(got) != 1 {
		t.Errorf("order of rules: %q", got)
	}
	n.nft("flush ruleset")
	if got := drift(old, n.collect()); len(got) != 11 || !strings.HasPrefix(got[0], "removed high firewall/") {
		t.Errorf("ruleset flushed: %q", got)
	}
}

// TestManagedChains: what docker and fail2ban write all day is of low severity,
// and only that.
func TestManagedChains(t *testing.T) {
	n := newNamespace(t)
	rules := func(docker, f2b, input string) {
		n.nft("flush ruleset\ntable ip filter {\n chain DOCKER { " + docker + "\n }\n chain f2b-sshd { " + f2b + "\n }\n" +
			" chain input { type filter hook input priority 0; jump f2b-sshd\n " + input + "\n }\n}\n" +
			"table inet f2b-table { chain f2b-chain { type filter hook input priority -1; " + f2b + "\n }\n}\n")
	}
	rules("", "", "")
	old := n.collect()
	rules("tcp dport 80 accept", "ip saddr 10.0.0.1 drop", "")
	expect(t, drift(old, n.collect()), "changed low firewall/ip/filter/DOCKER digest rules 0>1", "changed low firewall/ip/filter/f2b-sshd digest rules 0>1",
		"changed low firewall/inet/f2b-table/f2b-chain digest rules 0>1")
	rules("", "", "tcp dport 23 accept")
	expect(t, drift(old, n.collect()), "changed high firewall/ip/filter/input digest rules 1>2")
}

// TestLegacyTables: the tables of iptables-legacy, which nft does not show.
func TestLegacyTables(t *testing.T) {
	n := newNamespace(t)
	if _, err := exec.LookPath("iptables-legacy"); err != nil {
		t.Skip("NOT RUN: iptables-legacy is not installed (see .ci/test-tools)")
	}
	if out, err := n.command("iptables-legacy", "-A", "INPUT", "-p", "icmp", "-m", "limit", "--limit", "5/second", "-j", "ACCEPT").CombinedOutput(); err != nil {
		t.Skipf("NOT RUN: this kernel has no iptables-legacy: %s", out)
	}
	n.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
	n.run("ip6tables-legacy", "-t", "filter", "-P", "FORWARD", "DROP")
	old := n.collect()
	if !strings.Contains(firewall(old), "iptables-legacy/filter map[digest:") || !strings.Contains(firewall(old), "ip6tables-legacy/filter map[digest:") {
		t.Fatalf("facts:\n%s", firewall(old))
	}
	n.run("bash", "-c", "(: </dev/tcp/127.0.0.1/22) 2>/dev/null; true")
	if out, _ := n.command("iptables-legacy-save", "-c").Output(); !strings.Contains(string(out), "[") || strings.Contains(string(out), "[0:0] -A INPUT -p tcp") {
		t.Fatalf("no counter moved: the test shows nothing\n%s", out)
	}
	expect(t, drift(old, n.collect()))
	n.run("ip6tables-legacy", "-P", "FORWARD", "ACCEPT")
	expect(t, drift(old, n.collect()), "changed high firewall/ip6tables-legacy/filter digest")
	n.run("ip6tables-legacy", "-P", "FORWARD", "DROP")
	expect(t, drift(old, n.collect()))
	n.run("iptables-legacy", "-R", "INPUT", "2", "-p", "tcp", "--dport", "23", "-j", "ACCEPT")
	expect(t, drift(old, n.collect()), "changed high firewall/iptables-legacy/filter digest")
}
