package isolation_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// TestWhoIsolatesBySSHStaysConnected has an admin log in with ssh, isolate
// the host without a word about who may talk to it, go on in the same
// session, and log in again.
func TestWhoIsolatesBySSHStaysConnected(t *testing.T) {
	for _, tool := range []string{"/usr/sbin/sshd", "ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: whether a session of ssh survives isolation: %s is not installed (apt-get install openssh-server openssh-client; make test does)", tool)
		}
	}
	t.Parallel()
	for _, tc := range []struct {
		name, become string
		address      func(*lab.Host) netip.Addr
	}{
		{"with what sshd says of the session, by IPv6", "env", (*lab.Host).IPv6},
		{"after sudo, which keeps nothing, by IPv4", "env -u SSH_CONNECTION -u SSH_CLIENT setsid -w", (*lab.Host).IPv4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := stage(t)
			sshd(t, s.host)
			to := tc.address(s.host)
			// Who is cut off waits for ever.
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			login := func(from *lab.Host, command string) *exec.Cmd {
				return from.Command(ctx, "ssh", "-F", "none", "-i", filepath.Join(s.host.Dir(), "user"), "-p", fmt.Sprint(sshPort),
					"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60",
					"root@"+to.String(), command)
			}
			enter := func(from *lab.Host) error {
				out, err := login(from, "echo welcome").CombinedOutput()
				if err == nil && string(out) != "welcome\n" {
					err = fmt.Errorf("%q", out)
				}
				return err
			}
			for _, h := range []*lab.Host{s.mgmt, s.attacker} {
				if err := enter(h); err != nil {
					t.Fatalf("ssh from %s: %v", h.Name, err)
				}
			}
			// The port of ssh, and everything else.
			foes := append(s.foes(), reaches(s.attacker, netip.AddrPortFrom(to, sshPort)))
			other := []*lab.Probe{s.mgmt.TCP(s.host, to, 9000), s.host.TCP(s.mgmt, tc.address(s.mgmt), 7), s.mgmt.Ping(to)}
			lab.Open(t, foes...)
			lab.Open(t, other...)
			s.before = ruleset(t, s.host)

			session := login(s.mgmt, "exec sh")
			in, err := session.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := session.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			session.Stderr = os.Stderr
			if err := session.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(out)
			types := func(line string) string {
				t.Helper()
				if _, err := io.WriteString(in, line+"; echo status $?\n"); err != nil {
					t.Fatal(err)
				}
				var said strings.Builder
				for {
					got, err := lines.ReadString('\n')
					if err != nil {
						t.Fatalf("%s: the session ends: %v after %q", line, err, said.String())
					}
					said.WriteString(got)
					if strings.HasPrefix(got, "status ") {
						return said.String()
					}
				}
			}
			if said := types(fmt.Sprintf("%s %s network isolate --reason incident >/dev/null", tc.become, lab.Binary(t))); said != "status 0\n" {
				t.Fatalf("isolate says %q", said)
			}
			if said := types("echo still here"); said != "still here\nstatus 0\n" {
				t.Errorf("the session says %q", said)
			}
			lab.Blocked(t, append(foes, other...)...)
			if said := types("seq 20000 | tail -n 1"); said != "20000\nstatus 0\n" {
				t.Errorf("the session says %q", said)
			}
			if err := enter(s.mgmt); err != nil {
				t.Errorf("another login: %v", err)
			}
			in.Close()
			if err := session.Wait(); err != nil {
				t.Errorf("the session ends with %v", err)
			}
			s.restore(t)
			lab.Open(t, foes...)
		})
	}
}

const sshPort = 2222

// sshd starts a server for root, by the key "user" in the directory of the
// host, whose sessions have the environment of the host's commands.
func sshd(t *testing.T, h *lab.Host) {
	t.Helper()
	dir := h.Dir()
	for _, key := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	if err := os.Mkdir(filepath.Join(h.Empty("/run"), "sshd"), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("Port %d\nHostKey %s/host\nAuthorizedKeysFile %s/user.pub\nUsePAM no\nStrictModes no\nPidFile none\nPermitRootLogin prohibit-password\n", sshPort, dir, dir)
	conf += "SetEnv" // all on one line: sshd reads the first alone
	for _, v := range h.Command(t.Context(), "true").Env {
		if strings.HasPrefix(v, "MOBILEOPS_") {
			conf += " " + v
		}
	}
	conf += "\n"
	if err := os.WriteFile(filepath.Join(dir, "sshd_config"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "sshd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := h.Command(context.Background(), "/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	there := reaches(h, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), sshPort))
	eventually(t, "sshd listens", func() bool {
		select {
		case err := <-ended:
			out, _ := os.ReadFile(log.Name())
			t.Fatalf("sshd: %v: %s", err, out)
		default:
		}
		return there.Passes()
	})
}

// reaches is a probe that is answered with the greeting of a server.
func reaches(from *lab.Host, to netip.AddrPort) *lab.Probe {
	return &lab.Probe{Name: fmt.Sprintf("%s is greeted by %s", from.Name, to), Try: func(ctx context.Context) error {
		conn, err := from.Dial(ctx, "tcp", to.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		end, _ := ctx.Deadline()
		conn.SetDeadline(end)
		_, err = conn.Read(make([]byte, 4))
		return err
	}}
}

// TestASessionOfAnotherNetworkIsNone isolates the network of a container from
// within: the connection by which its host is administered is not one of it.
func TestASessionOfAnotherNetworkIsNone(t *testing.T) {
	t.Parallel()
	s := stage(t)
	// The process of the test, from which mobileops descends, is the server
	// here, in a network where the attacker has the same address.
	l := lab.New(t)
	lan := l.Switch()
	server := lan.Host("server")
	lan.Host("nobody")
	client := lan.Host("client")
	listener := server.Listen("tcp", fmt.Sprintf(":%d", sshPort)) // whose connections stay, however long nothing is said
	go func() {
		if conn, err := listener.Accept(); err == nil {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}
	}()
	s.host.Serve(sshPort)
	conn, err := client.Dial(t.Context(), "tcp", netip.AddrPortFrom(server.IPv4(), sshPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if client.IPv4() != s.attacker.IPv4() {
		t.Fatalf("%s and %s", client.IPv4(), s.attacker.IPv4())
	}
	conn.SetDeadline(time.Now().Add(5 * time.Minute))
	talks := func() {
		t.Helper()
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatalf("the session: %v", err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatalf("the session: %v", err)
		}
	}
	talks()
	foes := append(s.foes(), s.attacker.TCP(s.host, s.host.IPv4(), sshPort))
	lab.Open(t, foes...)
	s.isolate(t)
	lab.Blocked(t, foes...)
	talks()
	s.restore(t)
}
