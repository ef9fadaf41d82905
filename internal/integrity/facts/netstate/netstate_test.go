package netstate

import (
	"strings"
	"testing"
)

// TestListeners: real programs that listen, and what becomes of them.
func TestListeners(t *testing.T) {
	n := newNamespace(t)
	empty := n.collect()
	stop := n.listen(n.etc+"/server", "tcp4", "0.0.0.0:22", "tcp6", "[::1]:23", "udp4", "127.0.0.1:53", "udp4", "0.0.0.0:0")
	now := n.collect()
	expect(t, drift(empty, now),
		"added high listen/tcp/0.0.0.0:22", "added medium listen/tcp/[::1]:23", "added medium listen/udp/127.0.0.1:53",
		"added low dynamic/udp/"+strings.TrimPrefix(n.etc, "/")+"/server")
	f := now.Find("network:listen/tcp/0.0.0.0:22")
	if f == nil || f.Attributes["program"] != n.etc+"/server" || f.Attributes["user"] != "root" || f.Attributes["address"] != "any IPv4" {
		t.Errorf("%+v", f)
	}
	expect(t, drift(now, n.collect()))
	stop()
	// Restarted, it has another process id, other inodes, and another dynamic
	// UDP port, and that is no news. Nor is it that there is none.
	stop = n.listen(n.etc+"/server2", "tcp4", "0.0.0.0:22", "tcp6", "[::1]:23", "udp4", "127.0.0.1:53")
	expect(t, drift(now, n.collect()),
		"changed high listen/tcp/0.0.0.0:22 program "+n.etc+"/server>"+n.etc+"/server2",
		"changed high listen/tcp/[::1]:23 program "+n.etc+"/server>"+n.etc+"/server2",
		"changed high listen/udp/127.0.0.1:53 program "+n.etc+"/server>"+n.etc+"/server2")
	stop()
	expect(t, drift(empty, n.collect()))
}

// TestRestartOnAnotherDynamicPort is one change that nobody needs to look into.
func TestRestartOnAnotherDynamicPort(t *testing.T) {
	n := newNamespace(t)
	stop := n.listen("", "tcp4", "127.0.0.1:40001")
	old := n.collect()
	stop()
	n.listen("", "tcp4", "127.0.0.1:50001")
	expect(t, drift(old, n.collect()), "changed info listen/tcp/127.0.0.1:50001 port 40001>50001")
}

// TestRoutesRulesLinks: real changes with ip(8).
func TestRoutesRulesLinks(t *testing.T) {
	n := newNamespace(t)
	n.run("ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
	n.run("ip", "link", "set", "d1", "up")
	n.run("ip", "addr", "add", "10.1.0.1/24", "dev", "d0")
	n.run("ip", "addr", "add", "fd01::1/64", "dev", "d0", "nodad")
	n.run("ip", "link", "set", "d0", "up")
	n.run("ip", "route", "add", "default", "via", "10.1.0.2")
	n.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
	old := n.collect()
	expect(t, drift(old, n.collect()))
	for _, c := range []struct {
		do, undo string
		want     []string
	}{
		{"ip route replace default via 10.1.0.3", "ip route replace default via 10.1.0.2",
			[]string{"changed medium route/0.0.0.0/0 gateway 10.1.0.2>10.1.0.3"}},
		{"ip route add 192.168.7.0/24 via 10.1.0.9 metric 50", "ip route del 192.168.7.0/24",
			[]string{"added medium route/192.168.7.0/24,metric=50"}},
		{"ip route add blackhole 10.9.0.0/16 table 100", "ip route del blackhole 10.9.0.0/16 table 100",
			[]string{"added medium route/10.9.0.0/16,table=100"}},
		{"ip -6 route add fd02::/64 via fd01::2", "ip -6 route del fd02::/64", []string{"added medium route/fd02::/64"}},
		{"ip route add 10.8.0.0/16 nexthop via 10.1.0.4 nexthop via 10.1.0.5", "ip route del 10.8.0.0/16", []string{"added medium route/10.8.0.0/16"}},
		{"ip route add 10.7.0.0/16 via 10.1.0.4 proto bird", "ip route del 10.7.0.0/16", []string{"added medium route/learned/bird"}},
		{"ip rule add from 10.1.0.7 lookup 100 priority 5", "ip rule del priority 5", []string{"added high rule/inet/5"}},
		{"ip -6 rule add fwmark 7 lookup 100 priority 6", "ip -6 rule del priority 6", []string{"added high rule/inet6/6"}},
		{"ip addr add 10.1.0.77/24 dev d0", "ip addr del 10.1.0.77/24 dev d0",
			[]string{"changed low interface/d0 addresses 10.1.0.1/24, fd01::1/64>10.1.0.1/24, 10.1.0.77/24, fd01::1/64"}},
		{"ip link set d0 promisc on", "ip link set d0 promisc off", []string{"changed high interface/d0 promiscuous no>yes"}},
		{"ip link add wg9 type bridge", "ip link del wg9", []string{"added medium interface/wg9"}},
		{"sysctl -qw net.ipv4.conf.all.rp_filter=0", "sysctl -qw net.ipv4.conf.all.rp_filter=1",
			[]string{"changed medium sysctl/net.ipv4.conf.all.rp_filter value 1>0"}},
		{"ip neigh add 10.1.0.50 lladdr 02:00:00:00:00:01 dev d0", "ip neigh del 10.1.0.50 dev d0", nil},
		{"ip addr add 10.1.0.88/32 dev d0 valid_lft 1000 preferred_lft 1000", "ip addr del 10.1.0.88/32 dev d0",
			[]string{"changed low interface/d0 addresses 10.1.0.1/24, fd01::1/64>10.1.0.1/24, 10.1.0.88/32 (dynamic), fd01::1/64"}},
	} {
		n.run(strings.Fields(c.do)...)
		got := drift(old, n.collect())
		n.run(strings.Fields(c.undo)...)
		expect(t, got, c.want...)
		if t.Failed() {
			t.Logf("after %s", c.do)
		}
		expect(t, drift(old, n.collect()))
	}
}

func TestResolvers(t *testing.T) {
	n := newNamespace(t)
	n.put("resolv.conf", "# ours\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch example.org\n")
	n.put("nsswitch.conf", "passwd: files\nhosts: files dns\n")
	n.put("hosts", "127.0.0.1 localhost # here\n\n10.0.0.5 db db.example.org\n")
	old := n.collect()
	n.put("resolv.conf", "search example.org\n; theirs\nnameserver 10.0.0.1\nnameserver   10.0.0.2")
	n.put("hosts", "10.0.0.5\tdb db.example.org\n127.0.0.1 localhost\n")
	expect(t, drift(old, n.collect()))
	n.put("resolv.conf", "nameserver 10.0.0.2\nnameserver 10.0.0.1\nsearch example.org\n")
	n.put("nsswitch.conf", "hosts: files evil dns\n")
	n.put("hosts", "127.0.0.1 localhost\n10.0.0.5 db\n6.6.6.6 bank.example\n")
	expect(t, drift(old, n.collect()),
		"changed medium resolver/resolv.conf nameservers 10.0.0.1 10.0.0.2>10.0.0.2 10.0.0.1",
		"changed medium resolver/nsswitch.conf hosts files dns>files evil dns",
		"changed medium hosts/10.0.0.5 names db db.example.org>db", "added medium hosts/6.6.6.6")
}
