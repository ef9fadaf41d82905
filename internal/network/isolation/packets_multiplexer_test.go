package isolation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/network/lab"
)

// TestWhoTypesInAMultiplexerStaysConnected has somebody begin a session of tmux
// and leave. An admin attaches to it from elsewhere and isolates the host there:
// the admin is who stays connected.
func TestWhoTypesInAMultiplexerStaysConnected(t *testing.T) {
	for _, tool := range []string{"/usr/sbin/sshd", "ssh", "ssh-keygen", "tmux"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: whether a session in a terminal multiplexer survives isolation: %s is not installed", tool)
		}
	}
	t.Parallel()
	for name, become := range map[string]string{
		"with what sshd said of who began": "env",
		"after sudo, which keeps nothing":  "env -u SSH_CONNECTION -u SSH_CLIENT -u TMUX",
	} {
		t.Run(name, func(t *testing.T) {
			s := stage(t)
			sshd(t, s.host)
			to := netip.AddrPortFrom(s.host.IPv4(), sshPort)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			tmux := "TERM=xterm tmux -f /dev/null -S " + filepath.Join(s.host.Dir(), "tmux")
			login := func(from *lab.Host, command string) *exec.Cmd {
				return from.Command(ctx, "ssh", "-tt", "-F", "none", "-i", filepath.Join(s.host.Dir(), "user"), "-p", fmt.Sprint(sshPort),
					"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "root@"+to.Addr().String(), command)
			}
			if out, err := login(s.attacker, tmux+" new-session -d -s old sh").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			attached := login(s.mgmt, tmux+" attach -t old")
			in, err := attached.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := attached.Start(); err != nil {
				t.Fatal(err)
			}
			defer attached.Wait()
			defer in.Close()
			done := filepath.Join(s.host.Dir(), "done")
			fmt.Fprintf(in, "echo > %s.ready\n", done)
			eventually(t, "the terminal is there", func() bool { _, err := os.Stat(done + ".ready"); return err == nil })
			friend, foe := reaches(s.mgmt, to), reaches(s.attacker, to)
			lab.Open(t, friend, foe)
			fmt.Fprintf(in, "%s %s network isolate --output json > %s.json; echo $? > %s.part; mv %s.part %s\n", become, lab.Binary(t), done, done, done, done)
			eventually(t, "the host is isolated", func() bool { _, err := os.Stat(done); return err == nil })
			if status, _ := os.ReadFile(done); string(status) != "0\n" {
				t.Fatalf("isolate ends with %q", status)
			}
			lab.Open(t, friend)
			lab.Blocked(t, foe)
			var report struct{ Session struct{ Peer, From string } }
			said, err := os.ReadFile(done + ".json")
			if err == nil {
				err = json.Unmarshal(said, &report)
			}
			if err != nil || report.Session.Peer != s.mgmt.IPv4().String() || !strings.HasPrefix(report.Session.From, "sshd") {
				t.Errorf("%v: %s", err, said)
			}
			// What is typed from there still arrives.
			fmt.Fprintf(in, "%s kill-server; echo > %s.after\n", tmux, done)
			eventually(t, "the session hears what is typed", func() bool {
				return attached.ProcessState != nil || s.host.Run("sh", "-c", tmux+" has-session").Status != 0
			})
			s.host.Mobileops("network", "restore").Is(t, 0)
		})
	}
}
