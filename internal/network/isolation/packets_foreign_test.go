package isolation_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// docker is how Docker publishes a port and accepts what is forwarded.
const docker = `*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -p tcp -m tcp --dport 8081 -j DNAT --to-destination HOST:7
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-I INPUT -j ACCEPT
-I OUTPUT -j ACCEPT
-I FORWARD -j ACCEPT
COMMIT
*raw
-I PREROUTING -j ACCEPT
-I OUTPUT -j ACCEPT
COMMIT
`

func TestOtherPeoplesRulesOpenNothing(t *testing.T) {
	t.Parallel()
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			s := stage(t)
			published := s.attacker.TCP(s.host, s.host.IPv4(), 7)
			load := func(flags string) {
				t.Helper()
				rules := strings.ReplaceAll(docker, "HOST", s.host.IPv4().String())
				s.host.Run("sh", "-c", "iptables-"+variant+"-restore "+flags+" <<'END'\n"+rules+"END\n").Is(t, 0)
				s.host.Run("sh", "-c", "iptables-"+variant+" -L -n").Is(t, 0)
			}
			load("")
			dnat := s.attacker.TCP(s.host, s.host.IPv4(), 8081) // its own server does not see what is translated
			friends, foes := s.friends(), append(s.foes(), published, dnat)
			lab.Open(t, friends...)
			lab.Open(t, foes...)
			s.isolate(t)
			lab.Blocked(t, foes...)
			load("--noflush") // first in every chain again
			lab.Blocked(t, foes...)
			load("")
			lab.Blocked(t, foes...)
			lab.Open(t, friends...)
			s.before = "" // by now these are other rules
			s.restore(t)
			lab.Open(t, foes...)
		})
	}
}

func TestAForeignFlush(t *testing.T) {
	t.Parallel()
	t.Run("with a guard", func(t *testing.T) {
		s := stage(t)
		friends, foes := s.friends(), s.foes()
		lab.Open(t, foes...)
		s.isolate(t)
		for range 3 {
			s.host.Run("nft", "flush", "ruleset").Is(t, 0)
			lab.Blocked(t, foes...)
		}
		lab.Open(t, friends...)
		s.restore(t)
		lab.Open(t, foes...)
	})
	t.Run("without one", func(t *testing.T) {
		s := stage(t)
		foes := s.foes()
		lab.Open(t, foes...)
		s.isolate(t, "--no-guard")
		if guard := guardOf(t, s.host); guard != 0 {
			t.Fatalf("there is a guard: %d", guard)
		}
		lab.Blocked(t, foes...)
		s.host.Run("nft", "flush", "ruleset").Is(t, 0)
		lab.Open(t, foes...)
		s.host.Mobileops("network", "reconcile").Is(t, 0)
		lab.Blocked(t, foes...)
		s.restore(t)
		lab.Open(t, foes...)
	})
}

func TestTheGuardIsKilled(t *testing.T) {
	t.Parallel()
	s := stage(t)
	friends, foes := s.friends(), s.foes()
	lab.Open(t, foes...)
	s.isolate(t)
	guard := guardOf(t, s.host)
	if guard == 0 {
		t.Fatal("there is no guard")
	}
	kill(t, guard)
	lab.Blocked(t, foes...)
	lab.Open(t, friends...)
	s.host.Mobileops("network", "reconcile").Is(t, 0)
	lab.Blocked(t, foes...)
	lab.Open(t, friends...)
	s.restore(t)
	lab.Open(t, foes...)
}

// TestAGuardThatHangs stops the guard: whoever wants the host back gets it.
func TestAGuardThatHangs(t *testing.T) {
	t.Parallel()
	s := stage(t)
	foes := s.foes()
	lab.Open(t, foes...)
	s.isolate(t, "--confirm", "20s")
	hang := func() {
		t.Helper()
		guard := guardOf(t, s.host)
		if err := syscall.Kill(guard, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	hang()
	s.host.Mobileops("network", "confirm").Is(t, 0)
	lab.Blocked(t, foes...)
	hang()
	s.restore(t)
	lab.Open(t, foes...)
}

func TestANewInterfaceWithoutAGuard(t *testing.T) {
	t.Parallel()
	s := stage(t)
	shelf, other := s.Host("shelf"), s.Switch()
	nic, there := s.host.AddNIC(other), other.Host("enemy").NIC(0)
	var foes []*lab.Probe
	for _, pair := range [][2]*lab.NIC{{nic, there}, {there, nic}} {
		from, to := pair[0].Host, pair[1]
		foes = append(foes, from.Ping(to.IPv4), from.Ping(to.IPv6), from.TCP(to.Host, to.IPv4, 7), from.UDP(to.Host, to.IPv6, 7))
	}
	lab.Open(t, foes...)
	s.host.IP("link set eth1 netns " + shelf.NetNS())
	s.isolate(t, "--no-guard")
	shelf.IP("link set eth1 netns " + s.host.NetNS())
	s.host.IP("link set eth1 up", "addr add "+nic.IPv4.String()+"/24 dev eth1", "addr add "+nic.IPv6.String()+"/64 dev eth1 nodad")
	lab.Blocked(t, foes...)
	s.restore(t)
	lab.Open(t, foes...)
}

// TestANewInterfaceIsSealed takes an interface away, and has it back when the
// host is isolated: by the same way as before, nothing goes.
func TestANewInterfaceIsSealed(t *testing.T) {
	t.Parallel()
	s := stage(t)
	shelf := s.Host("shelf")
	other := s.Switch()
	enemy := other.Host("enemy")
	nic := s.host.AddNIC(other)
	there := enemy.NIC(0)
	frames := func() *lab.Probe {
		return nic.Frames("raw", there, lab.Raw{Bypass: true}, func(token []byte) []byte {
			return lab.Ethernet(there.MAC, nic.MAC, 0x88b5, append(token, make([]byte, 46)...))
		})
	}()
	probes := []*lab.Probe{frames}
	for _, pair := range [][2]*lab.NIC{{nic, there}, {there, nic}} {
		from, to := pair[0].Host, pair[1]
		probes = append(probes, from.Ping(to.IPv4), from.Ping(to.IPv6), from.TCP(to.Host, to.IPv4, 7), from.UDP(to.Host, to.IPv6, 7))
	}
	lab.Open(t, probes...)
	s.host.IP("link set eth1 netns " + shelf.NetNS())
	s.isolate(t)
	plug := func() {
		t.Helper()
		shelf.IP("link set eth1 netns " + s.host.NetNS())
		s.host.IP("link set eth1 up", "addr add "+nic.IPv4.String()+"/24 dev eth1", "addr add "+nic.IPv6.String()+"/64 dev eth1 nodad")
	}
	plug()
	s.host.IP("link show eth1")
	// The frame with a type of its own is what only a seal stops.
	s.sealed(t, "eth1")
	lab.Blocked(t, probes...)
	// And once more, by another name.
	s.host.IP("link set eth1 down", "link set eth1 name uplink7", "link set uplink7 up")
	nic.Name = "uplink7"
	s.sealed(t, "uplink7")
	lab.Blocked(t, frames)
	s.host.IP("link set uplink7 down", "link set uplink7 name eth1", "link set eth1 up")
	nic.Name = "eth1"
	s.host.IP("addr replace " + nic.IPv6.String() + "/64 dev eth1 nodad") // lost when it was down
	s.sealed(t, "eth1")
	lab.Blocked(t, probes...)
	lab.Open(t, s.friends()...)
	s.restore(t)
	lab.Open(t, probes...)
}

// sealed waits until the guard has given an interface its chains: that no frame
// passes may also be because a busy machine has not brought the link up yet.
func (s *scene) sealed(t *testing.T, name string) {
	t.Helper()
	eventually(t, name+" is sealed", func() bool {
		var doc struct{ Isolation struct{ Sealed []string } }
		out := s.host.Mobileops("network", "status", "--output", "json").Stdout
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Fatalf("network status: %v: %s", err, out)
		}
		return slices.Contains(doc.Isolation.Sealed, name)
	})
}

func TestTheRulesetRoundTrips(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{
		{"--no-guard"}, {"--no-guard", "--confirm", "60s"}, {"--no-guard", "--keep-established", "--dns"},
		{"--no-guard", "--allow", "10.9.1.2/32:22/tcp", "--allow", "0.0.0.0/1", "--allow", "::/0", "--allow", "10.9.0.0/16:53/udp"},
	} {
		s := stage(t)
		foes := s.foes()
		kept := s.attacker.Stream(s.host, s.host.IPv4(), 9001)
		lab.Open(t, foes...)
		lab.Flowing(t, kept)
		s.isolate(t, flags...)
		is := ruleset(t, s.host)
		s.host.Run("sh", "-c", "nft list ruleset >ruleset && nft flush ruleset && nft -f ruleset").Is(t, 0)
		if again := ruleset(t, s.host); again != is {
			t.Errorf("isolate %s: listed and loaded again,\n%s\nis\n%s", flags, is, again)
		}
		if len(flags) < 4 {
			lab.Blocked(t, foes...)
		}
		s.restore(t)
		lab.Open(t, foes...)
	}
}

func TestUFWComesAndGoes(t *testing.T) {
	t.Parallel()
	s := stage(t)
	for _, tool := range []string{"ufw"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: whether ufw opens an isolated host: %s is not installed (apt-get install %s; make test does)", tool, tool)
		}
	}
	for _, dir := range []string{"/etc/ufw", "/etc/default"} {
		s.host.Private(dir)
	}
	s.host.Empty("/run")
	friends, foes := s.friends(), s.foes()
	ufw := func(args ...string) { t.Helper(); s.host.Run("ufw", args...).Is(t, 0) }
	for _, direction := range []string{"incoming", "outgoing", "routed"} {
		ufw("default", "allow", direction)
	}
	ufw("--force", "enable")
	lab.Open(t, friends...)
	lab.Open(t, foes...)
	s.isolate(t)
	lab.Blocked(t, foes...)
	ufw("reload")
	lab.Blocked(t, foes...)
	ufw("disable")
	lab.Blocked(t, foes...)
	ufw("--force", "enable")
	lab.Blocked(t, foes...)
	lab.Open(t, friends...)
	s.before = "" // ufw has made its rules anew
	s.restore(t)
	lab.Open(t, foes...)
	ufw("disable")
}

func TestFirewalldReloads(t *testing.T) {
	t.Parallel()
	s := stage(t)
	for _, tool := range []string{"firewalld", "firewall-cmd", "dbus-daemon"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: whether firewalld opens an isolated host: %s is not installed (apt-get install firewalld dbus; make test does)", tool)
		}
	}
	s.host.Private("/etc/firewalld")
	run := s.host.Empty("/run")
	if err := os.Mkdir(filepath.Join(run, "dbus"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(run), run} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	daemon := func(ready string, name string, args ...string) {
		t.Helper()
		cmd := s.host.Command(context.Background(), name, args...)
		log, err := os.Create(filepath.Join(s.host.Dir(), name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		eventually(t, name+" is ready", func() bool {
			select {
			case err := <-exited:
				out, _ := os.ReadFile(log.Name())
				t.Fatalf("%s: %v: %s", name, err, out)
			default:
			}
			return s.host.Run("sh", "-c", ready).Status == 0
		})
	}
	daemon("test -S /run/dbus/system_bus_socket", "dbus-daemon", "--system", "--nofork", "--nopidfile", "--nosyslog", "--address=unix:path=/run/dbus/system_bus_socket")
	daemon("firewall-cmd --state", "firewalld", "--nofork", "--nopid", "--log-file", filepath.Join(s.host.Dir(), "firewalld.txt"))
	cmd := func(args ...string) { t.Helper(); s.host.Run("firewall-cmd", args...).Is(t, 0) }
	cmd("--permanent", "--zone=trusted", "--add-interface=eth0")
	cmd("--reload")
	friends, foes := s.friends(), s.foes()
	lab.Open(t, friends...)
	lab.Open(t, foes...)
	s.isolate(t)
	lab.Blocked(t, foes...)
	cmd("--reload")
	lab.Blocked(t, foes...)
	cmd("--complete-reload")
	lab.Blocked(t, foes...)
	lab.Open(t, friends...)
	s.before = "" // firewalld has made its rules anew
	s.restore(t)
	lab.Open(t, foes...)
}
