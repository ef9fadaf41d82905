package netstate

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/mobileops/mobileops/internal/netlink"
	"golang.org/x/sys/unix"
)

func TestParseProcNet(t *testing.T) {
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0017 0100007F:0018 01 00000000:00000000 00:00000000 00000000     0        0 12346 1 0000000000000000 100 0 0 10 0
   2: 00000000000000000000000001000000:0019 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12347 1 0 100 0 0 10 0
`
	list, err := parseProcNet(text, "tcp", stateListen)
	if err != nil || len(list) != 2 || list[0].addr.String() != "127.0.0.1" || list[0].port != 22 || list[0].uid != 1000 || list[0].inode != 12345 ||
		list[1].addr.String() != "::1" || list[1].port != 25 {
		t.Errorf("%v %+v", err, list)
	}
}

// TestListsAgree: sock_diag and /proc/net tell the same. It runs in a network
// namespace, where nobody else starts and stops listening meanwhile.
func TestListsAgree(t *testing.T) {
	const inside = "NETSTATE_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		n := newNamespace(t)
		n.listen("", "tcp4", "127.0.0.1:22", "tcp4", "0.0.0.0:23")
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c := n.command(self, "-test.run=^TestListsAgree$")
		c.Env = append(os.Environ(), inside+"=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	g := &gathering{Collector: Collector{Proc: "/proc", Etc: "/etc"}}
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list, err := c.Dump(unix.SOCK_DIAG_BY_FAMILY, diagRequest(unix.AF_INET, unix.IPPROTO_TCP, stateListen))
	if err != nil {
		t.Fatal(err)
	}
	text, err := g.listed("tcp", unix.AF_INET, stateListen)
	if err != nil {
		t.Fatal(err)
	}
	told := func(s *socket) string { return fmt.Sprint(s.addr, s.port, s.inode) }
	var a, b []string
	for _, m := range list {
		s, err := parseDiag(m, "tcp")
		if err != nil {
			t.Fatal(err)
		}
		a = append(a, told(&s))
	}
	for _, s := range text {
		b = append(b, told(&s))
	}
	slices.Sort(a)
	slices.Sort(b)
	if len(a) != 2 || !slices.Equal(a, b) {
		t.Errorf("by sock_diag %q, by /proc/net %q", a, b)
	}
}

func TestScriptOf(t *testing.T) {
	for _, c := range []struct {
		exe  string
		argv []string
		want string
	}{
		{"/usr/sbin/sshd", []string{"sshd", "-D"}, "none"},
		{"/usr/bin/python3.11", []string{"python3", "-u", "/srv/app.py", "--token", "x"}, "/srv/app.py"},
		{"/usr/bin/python3", []string{"python3", "-m", "http.server"}, "-m http.server"},
		{"/usr/bin/java", []string{"java", "-Xmx1g", "-cp", "/a:/b", "org.Main"}, "org.Main"},
		{"/usr/bin/java", []string{"java", "-jar", "/srv/x.jar"}, "-jar /srv/x.jar"},
		{"/bin/bash", []string{"bash", "-c", "nc -l -p 1"}, "-c"},
		{"/usr/bin/perl", []string{"perl"}, "none"},
	} {
		if got := scriptOf(c.exe, c.argv); got != c.want {
			t.Errorf("%q: %q, want %q", c.argv, got, c.want)
		}
	}
}

func TestUnitOf(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/ssh.service\n":                                                "ssh.service",
		"12:cpu:/x\n1:name=systemd:/system.slice/cron.service\n0::/\n":                  "cron.service",
		"0::/user.slice/user-1000.slice/session-7.scope\n":                              "session",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/emacs.service\n":    "emacs.service",
		"0::/system.slice/docker-0123456789abcdef.scope\n":                              "container",
		"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-0123.scope/x.service/\n": "container",
		"": "none",
	} {
		if got := unitOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzProc(f *testing.F) {
	for _, name := range []string{"/proc/net/tcp", "/proc/net/udp6", "/proc/self/cgroup", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf"} {
		b, _ := os.ReadFile(name)
		f.Add(string(b))
	}
	f.Add("a\x00-m\x00b")
	f.Fuzz(func(t *testing.T, text string) {
		parseProcNet(text, "tcp", stateListen)
		unitOf(text)
		scriptOf(text, []string{text, text})
		parseResolvConf(text)
		parseNSSwitch(text)
		parseHosts(text)
		socketInode(text)
	})
}

func FuzzRoutes(f *testing.F) {
	head := func(b ...byte) []byte { return append(b, make([]byte, 60)...) }
	dst := netlink.Put(netlink.Put(nil, unix.RTA_DST, []byte{10, 0, 0, 0}), unix.RTA_MULTIPATH, binary.NativeEndian.AppendUint16(nil, 8))
	f.Add(head(unix.AF_INET, 8, 0, 0, 254, 3, 0, 1), dst)
	f.Add(head(unix.AF_INET6, 64), netlink.Put(nil, unix.RTA_VIA, []byte{1, 2, 3}))
	f.Fuzz(func(t *testing.T, h, b []byte) {
		attrs, err := netlink.Attributes(b)
		if err != nil || len(h) < unix.SizeofIfInfomsg {
			return
		}
		route(h, attrs, nil)
		rule(h, attrs)
		address(h, attrs)
		link(h, attrs, nil)
		nexthops(b, nil)
		parseDiag(append(h, b...), "tcp")
	})
}
